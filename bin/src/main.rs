//! The executable: parse, dispatch, exit code. Wiring only; no rule about Bitcoin lives
//! in this crate.
//!
//! Exit codes: 0 when all went well, 1 when running failed, 2 when what was typed or
//! configured makes no sense. An error is one line on standard error.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod archive;
mod cli;
mod commands;
mod config;
mod control;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod cpu;
mod data_dir;
mod export;
mod health;
mod listen;
mod run;
mod snapshot;
mod systemd;
mod tasks;
mod telemetry;
mod trust;

use std::{
    env,
    io::{Write, stderr, stdout},
    num::NonZeroUsize,
    process::ExitCode,
    thread,
};

use anyhow::Context;
use clap::Parser;

use crate::{
    cli::{Cli, Command},
    config::{Config, ConfigError},
    telemetry::Traces,
};

const EXIT_RUNTIME: u8 = 1;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) if err.use_stderr() => {
            report(&format!("{} (see pulse-node --help)", usage_reason(&err)));
            return ExitCode::from(EXIT_USAGE);
        }
        // Help and version.
        Err(err) => {
            return match err.print() {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::from(EXIT_RUNTIME),
            };
        }
    };
    match execute(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            report(&format!("{err:#}"));
            let is_usage = err.downcast_ref::<ConfigError>().is_some();
            ExitCode::from(if is_usage { EXIT_USAGE } else { EXIT_RUNTIME })
        }
    }
}

fn execute(cli: &Cli) -> anyhow::Result<()> {
    // Needs no configuration, and none that is broken should stand in its way.
    if let Some(Command::Simulate(args)) = &cli.command {
        return commands::simulate(args, stdout().lock());
    }
    let loaded = config::load(&cli.flags, env::vars_os())?;
    let config = loaded.config;
    let Some(command) = &cli.command else {
        return run_node(config, &loaded.warnings);
    };
    for warning in &loaded.warnings {
        warn(warning);
    }
    match command {
        Command::Config => commands::config(&config, stdout().lock()),
        Command::Id => commands::id(&config, stdout().lock()),
        Command::Digest => run::digest(&config, stdout().lock()),
        Command::Verify(args) => run::offline::verify::run(&config, args, stdout().lock()),
        Command::Reindex(args) => run::offline::reindex::run(&config, args, stdout().lock()),
        Command::Snapshot(command) => commands::snapshot(&config, command, stdout().lock()),
        Command::Archive(args) => archive::run(&config, args, stdout().lock()),
        Command::Export { file } => export::export(&config, file, stdout().lock()),
        Command::Import { file } => export::import(&config, file, stdout().lock()),
        Command::Health { ready } => health::ask(&config.data_dir, *ready, stdout().lock()),
        Command::Simulate(args) => commands::simulate(args, stdout().lock()),
    }
}

fn run_node(config: Config, warnings: &[String]) -> anyhow::Result<()> {
    // Short queries run on these threads, all but one of them (api/src/blocking.rs): with one
    // more than there are processors, these can all be at work.
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(processors + 1)
        .thread_name("pulse-async")
        .build()
        .context("starting the runtime")?;
    let traces = Traces::open(&config.trace, runtime.handle())?;
    telemetry::init_logs(&config.log, traces.as_ref())?;
    for warning in warnings {
        tracing::warn!(warning, "configuration");
    }
    let result = runtime.block_on(run::run(config));
    if let Some(traces) = traces {
        traces.close();
    }
    // What has not ended by now has been given its time.
    runtime.shutdown_background();
    result
}

/// What was typed wrong, without the usage that clap shows after an empty line.
fn usage_reason(err: &clap::Error) -> String {
    let text = err.to_string();
    let reason = text.split("\n\n").next().unwrap_or_default();
    one_line(reason.strip_prefix("error: ").unwrap_or(reason))
}

/// The one line that an error is.
fn report(reason: &str) {
    tell(&format!("pulse-node: error: {}", one_line(reason)));
}

/// Commands have no log.
fn warn(warning: &str) {
    tell(&format!("pulse-node: warning: {}", one_line(warning)));
}

/// A line for standard error. Where that takes none, on a full disk or when the reader has gone,
/// the exit status says enough.
fn tell(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

fn one_line(text: &str) -> String {
    text.split('\n')
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;

        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_is_one_line_that_says_what_is_wrong() {
        for (words, part) in [
            (["pulse-node", "--nonsense"], "--nonsense"),
            (["pulse-node", "simulate"], "--blocks <N>"),
            (["pulse-node", "nonsense"], "nonsense"),
        ] {
            let reason = usage_reason(&Cli::try_parse_from(words).unwrap_err());
            assert!(reason.contains(part) && !reason.contains('\n'), "{reason}");
        }
    }
}
