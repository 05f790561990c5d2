//! The validated chain: the only user of the kernel.
//!
//! ```text
//! submit_headers, submit_block -> kernel thread -> callbacks -> ActiveChain -> tip watch, fresh watch
//!                                      |
//!                                 blk/rev files -> BlockSource (load, locate, read)
//! ```
//!
//! # Correctness
//! The kernel alone decides what is valid. It runs on one thread of its own; its
//! callbacks only collect, and tell of a new tip and of a block that is about to be it.
//! Blocks and undo data are read from its files without it, and every read is proven; it is
//! asked only whose undo data is whose, among blocks with the same parent.

mod active;
mod blockfiles;
mod callbacks;
mod coins;
mod engine;
mod judge;
mod log;
mod settled;
mod source;
mod undo;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use bitcoinkernel::Context;
use parking_lot::{Mutex, RwLock};
use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, block::Header},
    network::ChainParams,
    ports::BlockSourceError,
    tip::ChainTip,
};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::headers::{HeaderStore, MAX_HEADERS};
use active::ActiveChain;
use blockfiles::BlockFiles;
pub use coins::{CoinsDigest, CoinsError, coins_digest};
use engine::{Command, Engine};
pub use judge::KernelJudge;

/// Requests that may wait for the kernel's thread. Blocks are up to 4 MB each, so
/// this bounds the queue at 16 MB.
const QUEUE: usize = 4;

/// What the kernel said of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockVerdict {
    /// Stored, and valid as far as it could be judged: a block whose parents are
    /// missing is only judged once it connects (see [`ChainEvent::BlockInvalid`]).
    Accepted,
    /// The kernel had it already.
    Duplicate,
    /// The block breaks a rule. The peer that sent it is to be dropped.
    Invalid(InvalidBlock),
}

impl BlockVerdict {
    /// The verdict in one word, for metrics and traces.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Invalid(invalid) if invalid.mutated => "mutated",
            Self::Invalid(_) => "invalid",
        }
    }
}

/// Why a block is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidBlock {
    /// Hash of the header that came with it.
    pub hash: BlockHash,
    /// `true` when the header is right but the body does not belong to it (bad merkle
    /// root or witness commitment): another peer may have the real block.
    pub mutated: bool,
    /// The kernel's result class, for logs.
    pub reason: String,
}

/// A block behind the tip whose header, merkle root and witness commitment the kernel has found
/// right, and whose scripts and amounts it is about to check: as much as BIP 152 asks of a block before it
/// is sent to peers that want new ones at once. Told at the tip only, not during the initial sync,
/// and once for each height, so that invalid blocks are not passed on for nothing.
#[derive(Debug, Clone)]
pub struct FreshBlock {
    /// What the tip will be.
    pub tip: ChainTip,
    /// As it goes over the wire, with witnesses.
    pub bytes: Arc<[u8]>,
    /// The kernel has found it invalid since.
    pub is_refused: bool,
}

/// What the kernel said of a run of headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadersVerdict {
    /// All are in the kernel's block tree now.
    Accepted,
    /// The header at `index` of the run breaks a rule; those before it were accepted.
    Invalid {
        /// Position in the run.
        index: usize,
        /// The kernel's result class, for logs.
        reason: String,
        /// `true` if it is only too far in the future (more than two hours) and may become valid.
        too_new: bool,
    },
}

/// Something the chain tells without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainEvent {
    /// A block that had been accepted turned out invalid when it was to be connected.
    BlockInvalid(InvalidBlock),
    /// The kernel cannot go on (disk full, damaged database). The node must stop.
    Fatal(String),
}

/// Why the chain gave no verdict. Never the peer's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The kernel's thread has ended (shutdown or fatal error).
    #[error("the validation engine has stopped")]
    Stopped,
    /// The kernel failed without a verdict, for example because the disk is full.
    #[error("the validation engine failed: {0}")]
    Failed(String),
}

/// Where the kernel lives and how much of the machine it may use.
#[derive(Debug, Clone)]
pub struct ChainConfig {
    /// The kernel's directory; it is created if missing.
    pub dir: PathBuf,
    /// The network.
    pub params: ChainParams,
    /// Threads that check scripts beside the kernel's own. 0 to 15.
    pub script_threads: u8,
    /// Whether the node has another kernel, whose tip is the one that metrics tell of.
    pub is_second: bool,
}

/// Hashes of blocks whose bodies this process saw stored beside the active chain.
type StoredBlocks = HashSet<BlockHash>;

/// Handle to the kernel's thread. Cheap to clone.
#[derive(Clone)]
pub struct Chain {
    inner: Arc<Inner>,
}

struct Inner {
    commands: mpsc::Sender<Command>,
    view: View,
    headers: Arc<HeaderStore>,
    stored: Arc<RwLock<StoredBlocks>>,
    events: Mutex<Option<mpsc::UnboundedReceiver<ChainEvent>>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

/// What of the kernel can be used from any thread.
struct View {
    context: Arc<Context>,
    active: Arc<ActiveChain>,
    files: Arc<BlockFiles>,
    /// Set when the kernel is not to be opened again.
    closing: Arc<AtomicBool>,
}

impl Chain {
    /// Opens the kernel and starts its thread. Blocks the caller while the kernel
    /// loads, which can take minutes after a kill.
    ///
    /// Headers that the store has and the kernel lacks (it is older after a kill) are
    /// fed to the kernel; headers of the active chain that the store lacks (its file
    /// was lost) are taken from the kernel.
    ///
    /// # Panics
    /// When called from inside an async runtime's thread.
    ///
    /// # Errors
    /// [`ChainError::Failed`] with what to do, when the kernel's databases do not open.
    pub fn open(config: &ChainConfig, headers: Arc<HeaderStore>) -> Result<Self, ChainError> {
        let (commands, receiver) = mpsc::channel(QUEUE);
        let (event_sender, events) = mpsc::unbounded_channel();
        let (opened_sender, opened) = oneshot::channel();
        let stored: Arc<RwLock<StoredBlocks>> = Arc::default();
        let thread = thread::Builder::new()
            .name("kernel".to_owned())
            .spawn({
                let (config, headers) = (config.clone(), Arc::clone(&headers));
                let stored = Arc::clone(&stored);
                move || {
                    // The logger belongs to this thread and outlives the kernel.
                    let _logger = log::connect();
                    match Engine::open(&config, event_sender, stored)
                        .and_then(|opened| align_headers(opened, &headers))
                    {
                        Ok((engine, view)) => {
                            let _ = opened_sender.send(Ok(view));
                            engine.run(receiver);
                        }
                        Err(err) => {
                            let _ = opened_sender.send(Err(err));
                        }
                    }
                }
            })
            .map_err(|err| ChainError::Failed(format!("starting the kernel's thread: {err}")))?;
        let view = opened
            .blocking_recv()
            .map_err(|_| ChainError::Failed("the kernel's thread panicked".to_owned()))??;
        let tip = view.active.current_tip();
        info!(height = tip.height, hash = %tip.hash, "chain opened");
        Ok(Self {
            inner: Arc::new(Inner {
                commands,
                view,
                headers,
                stored,
                events: Mutex::new(Some(events)),
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// Feeds headers, oldest first; the first one's parent must be known.
    ///
    /// # Errors
    /// [`ChainError`] when there is no verdict.
    pub async fn submit_headers(&self, headers: Vec<Header>) -> Result<HeadersVerdict, ChainError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Headers(headers, reply), answer).await
    }

    /// Feeds a serialised block; returns when the kernel is done with it (and with
    /// every block that it could connect because of it). Blocks may come in any order
    /// once their headers are known.
    ///
    /// # Errors
    /// [`ChainError`] when there is no verdict.
    pub async fn submit_block(&self, block: Vec<u8>) -> Result<BlockVerdict, ChainError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Block(block, reply), answer).await
    }

    async fn ask<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<Result<T, ChainError>>,
    ) -> Result<T, ChainError> {
        let stopped = |_| ChainError::Stopped;
        self.inner
            .commands
            .send(command)
            .await
            .map_err(|_| ChainError::Stopped)?;
        answer.await.map_err(stopped)?
    }

    /// Tip of the active chain.
    #[must_use]
    pub fn active_tip(&self) -> ChainTip {
        self.inner.view.active.current_tip()
    }

    /// Watch of the last block that was to become the tip.
    #[must_use]
    pub fn fresh(&self) -> watch::Receiver<Option<FreshBlock>> {
        self.inner.view.active.fresh()
    }

    /// Height of the active chain's tip.
    #[must_use]
    pub fn active_height(&self) -> Height {
        self.active_tip().height
    }

    /// Whether the kernel is known to hold the body of this block: it is in the active
    /// chain, or this process saw it stored. Bodies stored ahead of their parents by
    /// an earlier process are not remembered; feeding them again is a duplicate.
    #[must_use]
    pub fn has_block(&self, hash: &BlockHash) -> bool {
        self.inner.stored.read().contains(hash) || self.is_active(hash)
    }

    /// Whether this block is in the active chain.
    #[must_use]
    pub fn is_active(&self, hash: &BlockHash) -> bool {
        self.inner
            .headers
            .height_of(hash)
            .is_some_and(|height| self.inner.view.active.contains(hash, height))
    }

    /// Whether a reorganisation took this block, which is valid, out of the active chain
    /// while this process ran. Only the newest thousand are remembered.
    #[must_use]
    pub fn was_active(&self, hash: &BlockHash) -> bool {
        self.inner.view.active.was_in(hash)
    }

    /// Reads a block as it was received, with its witnesses. Its header is proven to
    /// hash to `hash`; undo data is not looked at, so that this is one read as a rule.
    ///
    /// # Errors
    /// [`BlockSourceError::NotStored`] when no file holds it, [`BlockSourceError::Io`].
    pub fn block_bytes(&self, hash: &BlockHash) -> Result<Vec<u8>, BlockSourceError> {
        self.inner.view.files.read_whole(hash)
    }

    /// Undo data of a stored block as it lies in its file, proven by its checksum. Equal
    /// undo data says that the block spent equal outputs.
    ///
    /// # Errors
    /// [`BlockSourceError`] when it is not there or damaged.
    pub fn undo_bytes(
        &self,
        hash: &BlockHash,
        height: Height,
    ) -> Result<Vec<u8>, BlockSourceError> {
        self.undo_of(hash, height)
    }

    /// Unasked news. Can be taken once.
    #[must_use]
    pub fn take_events(&self) -> Option<mpsc::UnboundedReceiver<ChainEvent>> {
        self.inner.events.lock().take()
    }

    /// Closes the kernel, which flushes it, calls `work` with its tip, and opens it again.
    /// Until then nothing writes to its folder. Requests wait meanwhile; block files are
    /// read as ever. Blocks the caller until `work` is done; must not be called from async
    /// code, and `work` must not ask the kernel.
    ///
    /// # Errors
    /// [`ChainError::Stopped`], [`ChainError::Failed`] when the kernel could not flush; the
    /// work was not done then. The latter also when it panicked.
    pub fn while_closed<T: Send + 'static>(
        &self,
        work: impl FnOnce(ChainTip) -> T + Send + 'static,
    ) -> Result<T, ChainError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::WhileClosed(Box::new(move |closed| {
            // A caller that no longer waits has its reasons.
            let _ = reply.send(closed.map(work));
        }));
        let sent = self.inner.commands.blocking_send(command);
        sent.map_err(|_| ChainError::Stopped)?;
        match answer.blocking_recv() {
            Ok(done) => done,
            Err(_) if self.inner.view.closing.load(Ordering::Relaxed) => Err(ChainError::Stopped),
            Err(_) => Err(ChainError::Failed(
                "work beside the closed kernel was not done".to_owned(),
            )),
        }
    }

    /// Numbers of the pairs of block and undo files that the kernel will never write again,
    /// whatever happens, once it has flushed. Reads the head of every block.
    #[must_use]
    pub fn settled_files(&self) -> Vec<u32> {
        self.inner.view.files.settled(|hash| self.is_active(hash))
    }

    /// Interrupts what the kernel is doing, flushes it to disk, and ends its thread.
    /// Blocks the caller until that is done. Later calls do nothing.
    pub fn close(&self) {
        let Some(thread) = self.inner.thread.lock().take() else {
            return;
        };
        self.inner.view.closing.store(true, Ordering::Relaxed);
        if let Err(err) = self.inner.view.context.interrupt() {
            warn!(%err, "interrupting the kernel");
        }
        // A closed channel means that the thread has ended already.
        let _ = self.inner.commands.blocking_send(Command::Stop);
        if thread.join().is_err() {
            warn!("the kernel's thread panicked");
        }
        info!("chain closed");
    }
}

/// Makes the header store and the kernel's block tree know the same chain.
fn align_headers(
    (engine, view): (Engine, View),
    headers: &HeaderStore,
) -> Result<(Engine, View), ChainError> {
    let active = &view.active;
    let mut recovered = Vec::new();
    for height in 1..=active.current_tip().height {
        let known = active
            .hash_at(height)
            .is_some_and(|hash| headers.contains(&hash));
        if !known {
            let header = engine.active_header(height);
            recovered.push(header.ok_or(ChainError::Failed(format!(
                "the header of block {height} cannot be read from the kernel's block tree"
            )))?);
        }
    }
    if !recovered.is_empty() {
        warn!(
            count = recovered.len(),
            "headers recovered from the kernel's block tree"
        );
    }
    for run in recovered.chunks(MAX_HEADERS) {
        headers
            .insert(run)
            .map_err(|err| ChainError::Failed(format!("storing recovered headers: {err}")))?;
    }
    if !recovered.is_empty() {
        recover_branches(&view.files, headers);
    }
    let mut fed = 0u32;
    for header in headers.all() {
        let hash = header.block_hash();
        if engine.knows(&hash) {
            continue;
        }
        if let HeadersVerdict::Invalid { reason, .. } = engine.process_headers(&[header])? {
            warn!(%hash, reason, "a stored header is invalid");
            headers.mark_invalid(&hash);
        }
        fed += 1;
    }
    if fed > 0 {
        info!(count = fed, "stored headers fed to the kernel");
    }
    Ok((engine, view))
}

/// Gives the store back the headers of stored blocks beside the active chain: where
/// there are siblings, it has to be known.
fn recover_branches(files: &BlockFiles, headers: &HeaderStore) {
    let mut missing: Vec<Header> = files
        .headers()
        .filter(|header| !headers.contains(&header.block_hash()))
        .collect();
    // Blocks may be stored before their parents.
    loop {
        let count = missing.len();
        missing.retain(|header| headers.insert(std::slice::from_ref(header)).is_err());
        if missing.is_empty() || missing.len() == count {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
