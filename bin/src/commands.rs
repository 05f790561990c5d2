//! Commands that do something instead of running the node.

use std::{
    io::{IsTerminal, Write},
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use pulse_meta::MetaStore;
use pulse_simulator::{ChainSummary, SimulateFileOptions, write_chain};
use pulse_snapshot::Progress;

use crate::{
    cli::{SimulateArgs, SnapshotCommand},
    config::Config,
    control,
    data_dir::DataDir,
    snapshot::{self, Summary},
};

/// How often the progress of a long command is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// `pulse-node config`: the configuration in force.
pub fn config(config: &Config, mut out: impl Write) -> anyhow::Result<()> {
    out.write_all(config.to_toml()?.as_bytes())?;
    Ok(())
}

/// `pulse-node id`: the peer id. Asks the plain file first, so that it works beside a
/// running node; makes the identity when there is none.
pub fn id(config: &Config, mut out: impl Write) -> anyhow::Result<()> {
    let peer_id = match MetaStore::read_peer_id(&config.data_dir)? {
        Some(peer_id) => peer_id,
        None => {
            let seed = config.simulate.map(|simulate| simulate.seed);
            let dir = DataDir::open(&config.data_dir, &config.chain, seed)?;
            MetaStore::open(dir.root())?.0.peer_id()
        }
    };
    writeln!(out, "{peer_id}")?;
    Ok(())
}

/// `pulse-node snapshot`: made by the running node if there is one, else here.
pub fn snapshot(
    config: &Config,
    command: &SnapshotCommand,
    mut out: impl Write,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let summary = match command {
        SnapshotCommand::Create { dir } => {
            let mut shown = started;
            let asked = control::ask_for_snapshot(&config.data_dir, dir, |step, done, total| {
                if shown.elapsed() >= PROGRESS_INTERVAL {
                    shown = Instant::now();
                    show(step, done, total);
                }
            })?;
            match asked {
                Some(summary) => summary,
                None => watched(|progress| snapshot::create_offline(config, dir, progress))?,
            }
        }
        SnapshotCommand::Restore { dir } => {
            watched(|progress| snapshot::restore(config, dir, progress))?
        }
        SnapshotCommand::Verify { dir } => watched(|progress| snapshot::verify(dir, progress))?,
    };
    let seconds = started.elapsed().as_secs_f64();
    writeln!(out, "{summary}, {seconds:.1} s").context("standard output")?;
    Ok(())
}

/// Works, and shows now and then how far it has come.
fn watched(
    work: impl FnOnce(&Arc<Progress>) -> anyhow::Result<Summary>,
) -> anyhow::Result<Summary> {
    let progress = Arc::new(Progress::default());
    let shown = &progress;
    let (done, wait) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while wait.recv_timeout(PROGRESS_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let (step, done, total) = shown.now();
                show(step, done, total);
            }
        });
        let result = work(&progress);
        drop(done);
        result
    })
}

fn show(step: &str, done: u64, total: u64) {
    // Only for a person or a log that looks; it may fail.
    let _ = match total {
        0 => writeln!(std::io::stderr(), "{step}"),
        total => writeln!(
            std::io::stderr(),
            "{step}: {} of {} MiB",
            done >> 20,
            total >> 20
        ),
    };
}

/// `pulse-node simulate`: a generated chain in a file.
pub fn simulate(args: &SimulateArgs, mut out: impl Write) -> anyhow::Result<()> {
    let options = SimulateFileOptions {
        blocks: args.blocks,
        txs_per_block: args.txs_per_block,
        seed: args.seed,
        uneven: args.uneven,
        out: args.out.clone(),
    };
    let started = Instant::now();
    let shows_progress = std::io::stderr().is_terminal();
    let mut shown = started;
    let summary = write_chain(&options, |summary: &ChainSummary| {
        if shows_progress && shown.elapsed() >= PROGRESS_INTERVAL {
            shown = Instant::now();
            // Only for a person who looks; it may fail.
            let _ = writeln!(
                std::io::stderr(),
                "block {} of {}, {} transactions",
                summary.height,
                args.blocks,
                summary.txs
            );
        }
    })?;
    writeln!(
        out,
        "{}: {} blocks, {} transactions, {} inputs, {} outputs, {} bytes, tip {}, {:.1} s",
        args.out.display(),
        u64::from(summary.height) + 1,
        summary.txs,
        summary.inputs,
        summary.outputs,
        summary.bytes,
        summary.tip,
        started.elapsed().as_secs_f64()
    )
    .context("standard output")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use pulse_simulator::{Generator, GeneratorConfig};

    use super::*;
    use crate::config::RawConfig;

    #[test]
    fn the_wallet_in_the_readme_is_one_of_the_default_simulation() {
        let seed = RawConfig::default().node.simulate_seed;
        let generator = Generator::new(GeneratorConfig::regtest(seed));
        let readme = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"));
        let key = readme
            .split('"')
            .find(|text| text.starts_with("tprv"))
            .unwrap();
        for template in ["wpkh({KEY}/84'/1'/0'/0/*)", "wpkh({KEY}/84'/1'/0'/1/*)"] {
            assert!(readme.contains(template));
            let descriptor = template.replace("{KEY}", key);
            assert!(
                generator.hd_wallets().iter().any(|wallet| {
                    [&wallet.external_descriptor, &wallet.internal_descriptor]
                        .contains(&&descriptor)
                }),
                "{descriptor}"
            );
        }
    }

    #[test]
    fn equal_arguments_make_equal_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for name in ["one", "two"] {
            let args = SimulateArgs {
                blocks: 5,
                txs_per_block: 2,
                seed: 3,
                uneven: true,
                out: dir.path().join(name),
            };
            let mut out = Vec::new();
            simulate(&args, &mut out).unwrap();
            assert!(String::from_utf8(out).unwrap().contains(": 6 blocks, "));
            files.push(std::fs::read(&args.out).unwrap());
        }
        assert_eq!(files[0], files[1]);
    }
}
