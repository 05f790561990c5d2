//! Computes anew, in the background, what a sibling's snapshot gave on trust
//! (docs/decisions/0015).
//!
//! ```text
//! replay/base/    the unspent outputs of the snapshot, as they came
//! replay/kernel/  a second kernel, from genesis
//!
//! blocks of the node, from genesis to the snapshot's tip -> second kernel -> undo data of each
//!   compared -> its unspent outputs compared with the base -> index compared with the blocks
//!   -> validated: replay/ is removed;  or refuted: the node stops answering
//! ```
//!
//! # Correctness
//! The blocks are those whose headers have the work; nothing else of the snapshot goes into
//! the second kernel. Equal unspent outputs at the snapshot's tip make everything that the
//! node's kernel has validated since as good as after a sync. Equal undo data of each block
//! makes the blocks on the disk say what was spent, and with that every row of the index can
//! be computed and compared, which [`Index::verify`] does.
//!
//! It goes on after a stop where the second kernel is. If that does not open after a kill, it
//! begins again; nothing but `replay/` is ever removed.
//!
//! # Limits
//! A second kernel: 450 MiB of memory, the disk of its unspent outputs twice, and of its
//! block files the last [`KEPT_FILES`] to [`FILES_LIMIT`], older ones being emptied while it is closed.
//! It waits while there are less than [`SPARE_BYTES`] for the node itself, and runs at the lowest
//! priority.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use pulse_indexer::{Index, ProofError, VerifyOptions};
use pulse_node::{
    chain::{BlockVerdict, Chain, ChainConfig, CoinsDigest, coins_digest},
    headers::HeaderStore,
};
use pulse_primitives::{Height, bitcoin::BlockHash, network::ChainParams, status::TrustReport};
use pulse_snapshot::available_bytes;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::blocking;
use crate::trust::{Record, Trust};

const FOLDER: &str = "replay";
/// Blocks between two words on how far it is.
const TELL_INTERVAL: Height = 1000;
/// Pairs of block files of the second kernel above which old ones are emptied: 4 GiB and
/// their undo data.
const FILES_LIMIT: usize = 32;
/// The newest that are kept then. A kernel that opens looks at its last six blocks.
const KEPT_FILES: usize = 2;
/// Free space that it leaves to the node: 5 GiB, more than it takes itself until it looks again.
const SPARE_BYTES: u64 = 5 << 30;
/// Until it is tried again after it failed for reasons of its own.
const RETRY: Duration = Duration::from_secs(600);

/// What a replay works on.
pub struct Replay {
    /// The data directory.
    pub root: PathBuf,
    /// The node's chain.
    pub chain: Chain,
    /// Headers of all chains.
    pub headers: Arc<HeaderStore>,
    /// The index, if there is one.
    pub index: Option<Index>,
    /// The network.
    pub params: ChainParams,
    /// What is to be proven.
    pub record: Record,
    /// Who asks for the state of it.
    pub report: watch::Sender<TrustReport>,
    /// Set when the node has proven its state.
    pub vouches: Arc<AtomicBool>,
}

/// What came of a replay.
enum Verdict {
    Same(CoinsDigest),
    Differs(String),
    Stopped,
}

/// Keeps the unspent outputs of a snapshot in the data directory `root` as they are in
/// `chainstate`, which nobody has open. Table files get second names: no one writes them again.
///
/// # Errors
/// What the operating system says.
pub fn keep_base(root: &Path, chainstate: &Path) -> anyhow::Result<()> {
    let base = base(root);
    remove(&base)?;
    fs::create_dir_all(&base).with_context(|| base.display().to_string())?;
    for entry in fs::read_dir(chainstate).with_context(|| chainstate.display().to_string())? {
        let from = entry?.path();
        let to = base.join(from.file_name().unwrap_or_default());
        let is_table = from.extension().is_some_and(|extension| extension == "ldb");
        // Without links, as on some file systems, it is a copy.
        if !is_table || fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).with_context(|| to.display().to_string())?;
        }
        fs::File::open(&to)?.sync_all()?;
    }
    fs::File::open(&base)?.sync_all()?;
    Ok(())
}

/// What to tell of a state that is taken on trust, or that is not.
pub fn report(record: Option<&Record>) -> TrustReport {
    record.map_or(TrustReport::OWN, |record| TrustReport {
        trust: record.trust.into(),
        replayed: Some((0, record.tip.height)),
    })
}

fn base(root: &Path) -> PathBuf {
    root.join(FOLDER).join("base")
}

fn remove(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(err).with_context(|| dir.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Works until there is a verdict or until `stop`.
///
/// # Errors
/// When the state is refuted: the node must not go on with it. Everything else is logged and
/// tried again.
pub async fn run(mut replay: Replay, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        let (back, worked) = on_own_thread(replay, &stop).await?;
        replay = back;
        let wait = match worked {
            Ok(Verdict::Stopped) => return Ok(()),
            Ok(Verdict::Same(coins)) => {
                replay.validated(&coins).await?;
                stop.cancelled().await;
                return Ok(());
            }
            Ok(Verdict::Differs(reason)) => return Err(replay.refuted(reason)),
            Err(err) => {
                error!(
                    err = format!("{err:#}"),
                    "the state that a sibling gave could not be computed anew; it stays on trust"
                );
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(wait) => {}
        }
    }
}

/// Replays on a thread of its own, since its priority stays with a thread.
async fn on_own_thread(
    replay: Replay,
    stop: &CancellationToken,
) -> anyhow::Result<(Replay, anyhow::Result<Verdict>)> {
    let stopping = Arc::new(AtomicBool::new(false));
    let (done, wait) = oneshot::channel();
    let thread = thread::Builder::new().name("replay".to_owned()).spawn({
        let (stopping, handle) = (Arc::clone(&stopping), Handle::current());
        move || {
            // Of this thread alone; those of the second kernel inherit it.
            if let Err(err) = rustix::process::setpriority_process(None, 19) {
                warn!(%err, "the replay runs at the priority of everything else");
            }
            let verdict = replay.verdict(&stopping, &handle);
            // Whoever waited has gone when everything ends.
            let _ = done.send((replay, verdict));
        }
    })?;
    let mut wait = wait;
    let ended = tokio::select! {
        ended = &mut wait => ended,
        () = stop.cancelled() => {
            stopping.store(true, Ordering::Relaxed);
            wait.await
        }
    };
    let ended = ended.map_err(|_| anyhow!("the thread of the replay panicked"))?;
    // It has said its last.
    let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    Ok(ended)
}

impl Replay {
    fn verdict(&self, stop: &AtomicBool, handle: &Handle) -> anyhow::Result<Verdict> {
        let base = base(&self.root);
        if !base.join("CURRENT").is_file() {
            bail!(
                "{} is gone, with which the unspent outputs are compared. Hint: keep the node as it is, or begin anew in another --data-dir",
                base.display()
            );
        }
        let tip = self.record.tip;
        let path = self.path_to(tip.hash, tip.height)?;
        self.check_space()?;
        let second = self.open_second()?;
        let replayed = self.replay_blocks(&second, &path, stop, handle);
        second.close();
        if let Some(verdict) = replayed? {
            return Ok(verdict);
        }
        info!(
            height = tip.height,
            "blocks computed anew; comparing unspent outputs"
        );
        let computed = self.folder().join("kernel/chainstate");
        let (Some(given), Some(computed)) =
            (coins_digest(&base, stop)?, coins_digest(&computed, stop)?)
        else {
            return Ok(Verdict::Stopped);
        };
        if computed.block != tip.hash {
            bail!(
                "the second kernel stands at {} instead of {}",
                computed.block,
                tip.hash
            );
        }
        if given != computed {
            return Ok(Verdict::Differs(format!(
                "its unspent outputs at block {} are {given} as of {}; the blocks make {computed}",
                tip.height, given.block
            )));
        }
        info!(coins = %computed, "unspent outputs are the same; comparing the index");
        self.compare_index(stop, computed)
    }

    /// Hashes from genesis to a block, which need not be of the active chain any more.
    fn path_to(&self, tip: BlockHash, height: Height) -> anyhow::Result<Vec<BlockHash>> {
        let mut path = vec![tip];
        let mut hash = tip;
        for _ in 0..height {
            let header = self.headers.header(&hash);
            hash = header
                .with_context(|| format!("the header of {hash} is not there"))?
                .prev_blockhash;
            path.push(hash);
        }
        path.reverse();
        Ok(path)
    }

    /// The second kernel, where an earlier run has left it.
    fn open_second(&self) -> anyhow::Result<Chain> {
        let config = ChainConfig {
            dir: self.folder().join("kernel"),
            params: self.params.clone(),
            script_threads: super::script_threads(),
            is_second: true,
        };
        let open = || Chain::open(&config, Arc::clone(&self.headers));
        open().or_else(|err| {
            warn!(%err, "the second kernel does not open; it begins again");
            remove(&config.dir)?;
            Ok(open()?)
        })
    }

    /// Feeds the blocks to the second kernel. `None` when all are connected there and have
    /// the undo data that the node has.
    fn replay_blocks(
        &self,
        second: &Chain,
        path: &[BlockHash],
        stop: &AtomicBool,
        handle: &Handle,
    ) -> anyhow::Result<Option<Verdict>> {
        let target = self.record.tip.height;
        let from = second.active_height();
        info!(
            height = from,
            target, "computing anew what a sibling's snapshot gave"
        );
        // A stop can have come between the last block and the comparison of its undo data.
        for (height, hash) in (0..).zip(path).skip(from.max(1) as usize) {
            if stop.load(Ordering::Relaxed) {
                return Ok(Some(Verdict::Stopped));
            }
            if height > from
                && let Some(reason) = self.connect(second, hash, handle)?
            {
                return Ok(Some(Verdict::Differs(format!(
                    "its block {hash} at {height} {reason}"
                ))));
            }
            if self.chain.undo_bytes(hash, height)? != second.undo_bytes(hash, height)? {
                return Ok(Some(Verdict::Differs(format!(
                    "its undo data of block {hash} at {height} is not what the block spends"
                ))));
            }
            if height.is_multiple_of(TELL_INTERVAL) || height == target {
                self.tell(height);
                self.empty_old_files(second)?;
                self.check_space()?;
            }
        }
        Ok(None)
    }

    /// Gives the second kernel its next block. Why it did not become its tip, or `None`.
    fn connect(
        &self,
        second: &Chain,
        hash: &BlockHash,
        handle: &Handle,
    ) -> anyhow::Result<Option<String>> {
        let block = self.chain.block_bytes(hash)?;
        if let BlockVerdict::Invalid(invalid) = handle.block_on(second.submit_block(block))? {
            return Ok(Some(format!("is invalid: {}", invalid.reason)));
        }
        let is_tip = second.active_tip().hash == *hash;
        Ok((!is_tip).then(|| "cannot be connected".to_owned()))
    }

    /// There is room for the next blocks, so that the node itself never lacks it.
    fn check_space(&self) -> anyhow::Result<()> {
        let available = available_bytes(&self.root)?;
        if available < SPARE_BYTES {
            bail!(
                "{} bytes are free in {}, and {SPARE_BYTES} are left to the node. Hint: make room; it goes on by itself",
                available,
                self.root.display()
            );
        }
        Ok(())
    }

    fn tell(&self, height: Height) {
        let target = self.record.tip.height;
        self.report
            .send_modify(|report| report.replayed = Some((height, target)));
    }

    /// Empties block files that the second kernel needs no more: it has flushed, and never
    /// goes behind that.
    fn empty_old_files(&self, second: &Chain) -> anyhow::Result<()> {
        let blocks = self.folder().join("kernel/blocks");
        if filled_files(&blocks)?.len() <= FILES_LIMIT {
            return Ok(());
        }
        second.while_closed(move |_| empty_all_but(&blocks, KEPT_FILES))?
    }

    /// Every row of the index against the blocks, whose undo data has been proven.
    fn compare_index(&self, stop: &AtomicBool, coins: CoinsDigest) -> anyhow::Result<Verdict> {
        let Some(index) = &self.index else {
            return Ok(Verdict::Same(coins));
        };
        let options = VerifyOptions::default();
        loop {
            match index.verify(&self.chain, &options, stop, &mut |_| {}) {
                Ok(None) => return Ok(Verdict::Stopped),
                Ok(Some(report)) if report.is_clean() => return Ok(Verdict::Same(coins)),
                Ok(Some(report)) => {
                    let first = report.listed.first().map(ToString::to_string);
                    return Ok(Verdict::Differs(format!(
                        "{} rows of its index are not what the blocks make, as {}",
                        report.differences,
                        first.unwrap_or_default()
                    )));
                }
                // A reorganisation came between.
                Err(ProofError::ChainMoved | ProofError::OtherChain { .. })
                    if !stop.load(Ordering::Relaxed) =>
                {
                    thread::sleep(Duration::from_secs(1));
                }
                Err(err) => return Err(err.into()),
            }
        }
    }

    async fn validated(&self, coins: &CoinsDigest) -> anyhow::Result<()> {
        let record = Record {
            trust: Trust::Validated,
            coins: Some(coins.to_string()),
            ..self.record.clone()
        };
        let (root, folder) = (self.root.clone(), self.folder());
        blocking(move || {
            record.write(&root)?;
            remove(&folder)
        })
        .await?;
        self.report.send_replace(TrustReport::OWN);
        self.vouches.store(true, Ordering::Release);
        info!(%coins, "the state that a sibling gave is what the blocks make");
        Ok(())
    }

    /// Writes it down, so that no later start takes the state for good.
    fn refuted(&self, reason: String) -> anyhow::Error {
        let vouchers: Vec<_> = (self.record.vouchers.iter())
            .map(|voucher| voucher.peer_id.as_str())
            .collect();
        error!(
            reason,
            ?vouchers,
            "THE STATE THAT SIBLINGS GAVE IS FALSE: answers that rest on it may be wrong, and there will be no more. Hint: docs/fleet.md, A false snapshot"
        );
        let record = Record {
            trust: Trust::Refuted,
            reason: Some(reason.clone()),
            ..self.record.clone()
        };
        self.report.send_modify(|report| {
            report.trust = pulse_primitives::status::Trust::Refuted;
        });
        match record.write(&self.root) {
            Ok(()) => anyhow!("the snapshot of a sibling is refuted: {reason}"),
            Err(err) => err.context("the snapshot of a sibling is refuted"),
        }
    }

    fn folder(&self) -> PathBuf {
        self.root.join(FOLDER)
    }
}

/// Block files that hold anything, by number.
fn filled_files(blocks: &Path) -> anyhow::Result<Vec<u32>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(blocks).with_context(|| blocks.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("blk")?.strip_suffix(".dat")?.parse().ok());
        if let Some(number) = number
            && entry.metadata()?.len() > 0
        {
            files.push(number);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Empties all pairs of block and undo files but the newest. The kernel wants every file that
/// it knows to be there, and reads old ones only to give their blocks to others.
fn empty_all_but(blocks: &Path, kept: usize) -> anyhow::Result<()> {
    let mut files = filled_files(blocks)?;
    files.truncate(files.len().saturating_sub(kept));
    for number in files {
        for kind in ["rev", "blk"] {
            let path = blocks.join(format!("{kind}{number:05}.dat"));
            let emptied = fs::OpenOptions::new().write(true).open(&path);
            emptied
                .and_then(|file| file.set_len(0))
                .with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_block_files_are_emptied_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for number in 0..5 {
            for kind in ["blk", "rev"] {
                fs::write(path(&format!("{kind}{number:05}.dat")), b"bytes").unwrap();
            }
        }
        fs::write(path("xor.dat"), b"bytes").unwrap();
        empty_all_but(dir.path(), 2).unwrap();
        assert_eq!(filled_files(dir.path()).unwrap(), [3, 4]);
        let len = |name: &str| fs::metadata(path(name)).unwrap().len();
        assert_eq!(
            (len("rev00002.dat"), len("rev00003.dat"), len("xor.dat")),
            (0, 5, 5)
        );
        empty_all_but(dir.path(), 2).unwrap();
        assert_eq!(filled_files(dir.path()).unwrap(), [3, 4]);
    }

    #[test]
    fn the_base_is_kept_when_the_original_goes_its_way() {
        let dir = tempfile::tempdir().unwrap();
        let chainstate = dir.path().join("chainstate");
        fs::create_dir(&chainstate).unwrap();
        for name in ["000005.ldb", "CURRENT"] {
            fs::write(chainstate.join(name), b"as it came").unwrap();
        }
        keep_base(dir.path(), &chainstate).unwrap();
        fs::write(chainstate.join("CURRENT"), b"new").unwrap();
        fs::remove_file(chainstate.join("000005.ldb")).unwrap();
        for name in ["000005.ldb", "CURRENT"] {
            assert_eq!(
                fs::read(base(dir.path()).join(name)).unwrap(),
                b"as it came"
            );
        }
    }
}
