//! `pulse-node archive`: Parquet files for analytics. Written by the node that runs in the data
//! directory, which goes on answering; without one by the command itself.

use std::{
    fmt,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::Context;
use pulse_archive::Options;
use pulse_primitives::{Height, bitcoin::Network, network::network_by_name, ports::BlockSource};
use pulse_snapshot::Progress as Watched;
use serde::{Deserialize, Serialize};

use crate::{
    cli::ArchiveArgs,
    config::Config,
    control,
    run::offline::{Progress, open_chain, open_dir, stop_flag},
    snapshot::Source,
    trust,
};

/// What was archived, in numbers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Archived {
    dir: PathBuf,
    written: u32,
    kept: u32,
    next: Height,
    rows: u64,
    bytes: u64,
}

impl fmt::Display for Archived {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            written,
            kept,
            next,
            rows,
            bytes,
            ..
        } = self;
        let dir = self.dir.display();
        write!(
            out,
            "{dir}: {written} ranges written, {kept} kept, {rows} rows, {bytes} bytes, next height {next}"
        )
    }
}

/// Archives what is not archived yet.
///
/// # Errors
/// Why it could not be done; what is there already is whole.
pub fn run(config: &Config, args: &ArchiveArgs, mut out: impl Write) -> anyhow::Result<()> {
    let args = ArchiveArgs {
        dir: std::path::absolute(&args.dir)?,
        ..args.clone()
    };
    let mut progress = Progress::new();
    let asked = control::ask_for_archive(&config.data_dir, &args, |_, done, total| {
        progress.tell(|| text(done, total));
    })?;
    let archived = match asked {
        Some(archived) => archived,
        None => offline(config, &args)?,
    };
    writeln!(out, "{archived}").context("standard output")
}

fn offline(config: &Config, args: &ArchiveArgs) -> anyhow::Result<Archived> {
    let stop = stop_flag().context("installing signal handlers")?;
    let data_dir = open_dir(config)?;
    trust::refuse_foreign(data_dir.root())?;
    allowed(data_dir.root(), &args.dir)?;
    let chain = open_chain(config, &data_dir)?;
    let mut progress = Progress::new();
    let mut tell = |height: Height, last: Height| {
        progress.tell(|| text(height.into(), last.into()));
    };
    let archived = write(&chain, config.chain.network, args, &stop, &mut tell);
    chain.close();
    archived
}

/// Archives the chain of a running node. Blocks the caller.
///
/// # Errors
/// As [`run`].
pub fn beside_node(
    source: &Source,
    args: &ArchiveArgs,
    progress: &Arc<Watched>,
) -> anyhow::Result<Archived> {
    trust::refuse_foreign(&source.root)?;
    allowed(&source.root, &args.dir)?;
    let network = network_by_name(&source.origin.network).context("the network has no name")?;
    let mut total = 0;
    let mut tell = |height: Height, last: Height| {
        if total != last {
            total = last;
            progress.begin("archiving block", last.into());
        }
        progress.set(height.into());
    };
    let stop = progress.cancelled();
    write(&source.chain, network, args, stop, &mut tell)
}

fn write(
    source: &dyn BlockSource,
    network: Network,
    args: &ArchiveArgs,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(Height, Height),
) -> anyhow::Result<Archived> {
    let options = Options {
        dir: &args.dir,
        network,
        from: args.from,
        to: args.to,
        blocks_per_file: args.blocks_per_file,
    };
    let summary = pulse_archive::write(source, &options, stop, tell)?;
    let summary = summary.context("stopped; the same command goes on")?;
    Ok(Archived {
        dir: args.dir.clone(),
        written: summary.written,
        kept: summary.kept,
        next: summary.next,
        rows: summary.rows,
        bytes: summary.bytes,
    })
}

/// An archive within the data directory would be taken for a part of it.
fn allowed(root: &Path, dir: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        !dir.starts_with(root),
        "{} is in the data directory",
        dir.display()
    );
    Ok(())
}

fn text(height: u64, last: u64) -> String {
    format!("archiving block {height} of {last}")
}
