//! `pulse-node verify`: checks the index against the blocks on disk.
//!
//! Says what differs, a line each, and Bitcoin Core's numbers of the unspent outputs. A node
//! that runs in the data directory does it itself, over one state of its index, while it
//! follows the chain and answers; without one the command opens the stores.
//!
//! # Limits
//! One thread, which reads all blocks and the whole index. A reorganisation meanwhile that
//! takes the block away at which the check began ends it without a result.

use std::{
    fmt::Write as _,
    io::Write,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::Context;
use pulse_indexer::{CoreStats, Index, VerifyOptions, VerifyReport, VerifyStep};
use pulse_node::chain::Chain;
use pulse_snapshot::Progress as Watched;
use serde::{Deserialize, Serialize};

use super::{Progress, open_chain, open_dir, stop_flag};
use crate::{cli::VerifyArgs, config::Config, control, snapshot::Source};

/// Directory of temporary files, in the data directory.
const TEMPORARY: &str = "verify.tmp";

/// What a check found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Checked {
    /// The report, for people.
    pub text: String,
    /// What is wrong in one sentence, if anything is.
    pub wrong: Option<String>,
}

/// Checks the index, or has the node do it that runs in the data directory.
///
/// # Errors
/// When anything differs, when the check could not be made, or when it was stopped.
pub fn run(config: &Config, args: &VerifyArgs, mut out: impl Write) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    let asked = control::ask_for_check(&config.data_dir, args, |step, done, total| {
        progress.tell(|| match total {
            0 => format!("{step} {done}"),
            total => format!("{step} {done} of {total}"),
        });
    })?;
    let checked = match asked {
        Some(checked) => checked,
        None => offline(config, args)?,
    };
    out.write_all(checked.text.as_bytes())?;
    match checked.wrong {
        Some(wrong) => anyhow::bail!("{wrong}"),
        None => Ok(()),
    }
}

/// Checks the index of a data directory that no node runs in.
fn offline(config: &Config, args: &VerifyArgs) -> anyhow::Result<Checked> {
    let stop = stop_flag().context("installing signal handlers")?;
    let data_dir = open_dir(config)?;
    anyhow::ensure!(
        data_dir.index().exists(),
        "there is no index in {}",
        data_dir.root().display()
    );
    let chain = open_chain(config, &data_dir)?;
    let mut progress = Progress::new();
    let checked = Index::open(&data_dir.index(), &config.index, &config.chain)
        .map_err(anyhow::Error::from)
        .and_then(|index| {
            let mut tell = |step| progress.tell(|| text(step));
            check(&index, &chain, data_dir.root(), args, &stop, &mut tell)
        });
    chain.close();
    checked
}

/// Checks the index of a running node, on its own stores. Blocks the caller.
///
/// # Errors
/// When the check could not be made, or when it was stopped.
pub fn beside_node(
    source: &Source,
    args: &VerifyArgs,
    progress: &Arc<Watched>,
) -> anyhow::Result<Checked> {
    let index = source.index.as_ref().context("this node keeps no index")?;
    let mut last = "";
    let mut tell = |step| {
        let (text, done, total): (&'static str, u64, u64) = match step {
            VerifyStep::Block(height, tip) => ("checking block", height.into(), tip.into()),
            VerifyStep::Rows(_, rows) => ("reading rows", rows, 0),
            VerifyStep::Again(height, tip) => ("naming differences", height.into(), tip.into()),
        };
        if text != last {
            last = text;
            progress.begin(text, total);
        }
        progress.set(done);
    };
    let stop = progress.cancelled();
    check(index, &source.chain, &source.root, args, stop, &mut tell)
}

fn check(
    index: &Index,
    chain: &Chain,
    root: &Path,
    args: &VerifyArgs,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(VerifyStep),
) -> anyhow::Result<Checked> {
    let temporary = root.join(TEMPORARY);
    let options = VerifyOptions {
        from: args.from,
        with_core_stats: true,
        sorted_in: args.hash_serialized.then_some(temporary.as_path()),
    };
    let report = index.verify(chain, &options, stop, tell)?;
    let report = report.context("stopped before everything was checked")?;
    let mut text = String::new();
    print(&report, &mut text)?;
    let more = if report.more {
        ", and there are more"
    } else {
        ""
    };
    let wrong = (!report.is_clean()).then(|| {
        format!(
            "the index differs from the blocks: {} differences found{more}. Hint: stop the node if one runs; `pulse-node reindex` builds the index anew from the blocks",
            report.differences
        )
    });
    Ok(Checked { text, wrong })
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

fn print(report: &VerifyReport, out: &mut String) -> std::fmt::Result {
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
fn print_core(core: &CoreStats, out: &mut String) -> std::fmt::Result {
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
