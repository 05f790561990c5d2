//! Runs targets for a while, or one of them with one input.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;
use pulse_fuzz::{
    TARGETS, Target,
    run::{Failure, Options, execute, fuzz},
};

/// Throws mutated messages at every parser of bytes that come from peers and clients.
#[derive(Debug, Parser)]
struct Cli {
    /// For how long, in seconds, shared by the targets.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Only this target; may be given several times. All by default.
    #[arg(long = "target", value_name = "TARGET")]
    targets: Vec<String>,
    /// What the mutations follow from. Random by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Folder with a folder of inputs for each target.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))]
    corpus: PathBuf,
    /// Where to save an input that does what it should not.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/crashes"))]
    crashes: PathBuf,
    /// Only this input; needs one target.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let targets = chosen(&cli.targets)?;
    if let Some(file) = &cli.replay {
        let [target] = targets.as_slice() else {
            bail!("--replay needs one --target");
        };
        let input = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        return Ok(match execute(target, &input) {
            Ok(_) => {
                println!("{}: nothing wrong", target.name);
                ExitCode::SUCCESS
            }
            Err(what) => {
                println!("{}: {what}", target.name);
                ExitCode::FAILURE
            }
        });
    }
    let count = u32::try_from(targets.len()).context("too many targets")?;
    let options = Options {
        seed: cli.seed.unwrap_or_else(rand::random),
        time: Duration::from_secs(cli.seconds) / count,
        corpus: cli.corpus,
        crashes: cli.crashes,
    };
    // First, so that it is known even if the process is killed.
    println!("seed {}", options.seed);
    for target in targets {
        match fuzz(&target, &options) {
            Ok(report) => println!(
                "{:<14} {:>9} inputs, {:>5} outcomes",
                target.name, report.executions, report.outcomes
            ),
            Err(Failure::Input { path, what }) => {
                println!("{} {what}", target.name);
                println!(
                    "replay: cargo run --release --manifest-path fuzz/Cargo.toml -- --target {} --replay {}",
                    target.name,
                    path.display()
                );
                return Ok(ExitCode::FAILURE);
            }
            Err(Failure::Io(err)) => return Err(err).context("files of inputs"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn chosen(names: &[String]) -> Result<Vec<Target>> {
    if names.is_empty() {
        return Ok(TARGETS.to_vec());
    }
    names
        .iter()
        .map(|name| {
            let known = TARGETS.iter().find(|target| target.name == name);
            known.copied().with_context(|| {
                let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
                format!("no target {name:?}; there are {}", names.join(", "))
            })
        })
        .collect()
}
