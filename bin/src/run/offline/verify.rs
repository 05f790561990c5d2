//! `pulse-node verify`: checks the index against the blocks on disk.
//!
//! Prints what differs, a line each, and Bitcoin Core's numbers of the unspent outputs.

use std::io::Write;

use anyhow::Context;
use pulse_indexer::{CoreStats, Index, VerifyOptions, VerifyReport, VerifyStep};

use super::{Progress, open_chain, open_dir, stop_flag};
use crate::{cli::VerifyArgs, config::Config};

/// Directory of temporary files, in the data directory.
const TEMPORARY: &str = "verify.tmp";

/// Checks the index. The node must not be running.
///
/// # Errors
/// When anything differs, when the check could not be made, or when it was stopped.
pub fn run(config: &Config, args: &VerifyArgs, mut out: impl Write) -> anyhow::Result<()> {
    let stop = stop_flag().context("installing signal handlers")?;
    let data_dir = open_dir(config)?;
    anyhow::ensure!(
        data_dir.index().exists(),
        "there is no index in {}",
        data_dir.root().display()
    );
    let chain = open_chain(config, &data_dir)?;
    let temporary = data_dir.root().join(TEMPORARY);
    let options = VerifyOptions {
        from: args.from,
        with_core_stats: true,
        sorted_in: args.hash_serialized.then_some(temporary.as_path()),
    };
    let mut progress = Progress::new();
    let report = Index::open(&data_dir.index(), &config.index, &config.chain)
        .map_err(anyhow::Error::from)
        .and_then(|index| {
            let mut tell = |step| progress.tell(|| text(step));
            Ok(index.verify(&chain, &options, &stop, &mut tell)?)
        });
    chain.close();
    let report = report?.context("stopped before everything was checked")?;
    print(&report, &mut out)?;
    anyhow::ensure!(
        report.is_clean(),
        "the index differs from the blocks: {} differences found{}. Hint: `pulse-node reindex` builds it anew from the blocks",
        report.differences,
        if report.more {
            ", and there are more"
        } else {
            ""
        }
    );
    Ok(())
}

fn text(step: VerifyStep) -> String {
    match step {
        VerifyStep::Block(height, tip) => format!("checked the rows of block {height} of {tip}"),
        VerifyStep::Rows(family, rows) => format!("read {rows} rows of {family}"),
        VerifyStep::Again(height, tip) => {
            format!("there are differences; naming them: block {height} of {tip}")
        }
    }
}

fn print(report: &VerifyReport, out: &mut impl Write) -> anyhow::Result<()> {
    for difference in &report.listed {
        writeln!(out, "differs: {difference}")?;
    }
    let unlisted = report.differences - report.listed.len() as u64;
    if unlisted > 0 {
        writeln!(out, "differs: {unlisted} more")?;
    }
    let VerifyReport { from, tip, .. } = report;
    writeln!(out, "blocks {from} to {} {}", tip.height, tip.hash)?;
    writeln!(out, "rows {}", report.rows)?;
    writeln!(out, "differences {}", report.differences)?;
    if report.stale_positions > 0 {
        let count = report.stale_positions;
        writeln!(out, "positions that the node will renew {count}")?;
    }
    if let Some(utxos) = &report.utxos {
        writeln!(out, "utxo rows {utxos}")?;
    }
    match &report.core {
        Some(core) => print_core(core, out)?,
        None => writeln!(
            out,
            "Bitcoin Core's numbers are computed with --from 0 only"
        )?,
    }
    Ok(())
}

/// The names are those of `gettxoutsetinfo`.
fn print_core(core: &CoreStats, out: &mut impl Write) -> anyhow::Result<()> {
    let (coins, sats) = (core.total_sats / 100_000_000, core.total_sats % 100_000_000);
    writeln!(out, "txouts {}", core.txouts)?;
    writeln!(out, "bogosize {}", core.bogosize)?;
    writeln!(out, "total_amount {coins}.{sats:08}")?;
    writeln!(out, "muhash {}", core.muhash)?;
    if let Some(hash) = &core.hash_serialized {
        writeln!(out, "hash_serialized_3 {hash}")?;
    }
    Ok(())
}
