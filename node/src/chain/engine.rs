//! The kernel's own thread: it owns the chainstate manager, takes headers and
//! blocks one after the other, and flushes when it is told to stop.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bitcoinkernel::{
    Block as KernelBlock, BlockHash as KernelHash, BlockHeader as KernelHeader, ChainType,
    ChainstateManager, Context, KernelError, ProcessBlockHeaderResult, ProcessBlockResult,
    notifications::types::BlockValidationResult, prelude::*,
};
use parking_lot::RwLock;
use pulse_primitives::{
    Height,
    bitcoin::{
        Amount, BlockHash, Network, ScriptBuf, TxOut,
        block::Header,
        consensus::{deserialize, serialize},
        hashes::Hash,
    },
    block::SpentOutput,
    tip::ChainTip,
    trace::TRACE_TARGET,
};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, field::Empty, info, trace_span, warn};

use super::{
    BlockVerdict, ChainConfig, ChainError, ChainEvent, FreshBlock, HeadersVerdict, InvalidBlock,
    StoredBlocks, View,
    active::{ActiveChain, ChainStep},
    blockfiles::{self, BlockFiles},
    callbacks::{self, Observed},
};

/// What each transaction of a block but the coinbase spent.
pub(super) type SpentOutputs = Vec<Vec<SpentOutput>>;

/// What the thread is asked for.
pub(super) enum Command {
    Headers(
        Vec<Header>,
        oneshot::Sender<Result<HeadersVerdict, ChainError>>,
    ),
    Block(Vec<u8>, oneshot::Sender<Result<BlockVerdict, ChainError>>),
    /// `None` when the kernel cannot read them.
    SpentOutputs(BlockHash, oneshot::Sender<Option<SpentOutputs>>),
    /// To be called while the kernel is closed.
    WhileClosed(WhileClosed),
    Stop,
}

/// Work for while the kernel is closed. It gets the tip at which the kernel was closed, or
/// why it cannot be done; it answers whoever asked by itself.
pub(super) type WhileClosed = Box<dyn FnOnce(Result<ChainTip, ChainError>) + Send>;

/// The kernel, opened, with what it knew.
pub(super) struct Engine {
    chainman: ChainstateManager,
    around: Around,
}

/// What stays when the kernel is closed and opened again.
struct Around {
    observed: Arc<Observed>,
    events: mpsc::UnboundedSender<ChainEvent>,
    active: Arc<ActiveChain>,
    files: Arc<BlockFiles>,
    stored: Arc<RwLock<StoredBlocks>>,
    config: ChainConfig,
    context: Arc<Context>,
    closing: Arc<AtomicBool>,
}

impl Engine {
    /// Opens the kernel in its directory, creating what is missing. Blocks the caller while the
    /// kernel loads, verifies its last blocks, and connects what it can.
    pub fn open(
        config: &ChainConfig,
        events: mpsc::UnboundedSender<ChainEvent>,
        stored: Arc<RwLock<StoredBlocks>>,
    ) -> Result<(Self, View), ChainError> {
        let (dir, params) = (&config.dir, &config.params);
        let blocks_dir = dir.join("blocks");
        std::fs::create_dir_all(&blocks_dir)
            .and_then(|()| blockfiles::prepare(&blocks_dir))
            .map_err(|err| {
                ChainError::Failed(format!("preparing {}: {err}", blocks_dir.display()))
            })?;
        let observed = Arc::new(Observed::default());
        // The callbacks exist before the chain does; while the kernel opens they only collect.
        let published: Arc<RwLock<Option<Arc<ActiveChain>>>> = Arc::default();
        let on_tip = {
            let observed = Arc::clone(&observed);
            let published = Arc::clone(&published);
            let stored = Arc::clone(&stored);
            move || {
                if let Some(active) = published.read().as_ref() {
                    follow(&observed, active, &stored);
                }
            }
        };
        let builder = match &params.signet_challenge {
            Some(challenge) => Context::builder().signet(challenge),
            None => Context::builder().chain_type(chain_type(params.network)),
        };
        let on_fresh = {
            let published = Arc::clone(&published);
            move |block: FreshBlock| {
                if let Some(active) = published.read().as_ref() {
                    active.show_fresh(block);
                }
            }
        };
        let context = callbacks::register(builder, &observed, events.clone(), on_tip, on_fresh)
            .build()
            .map_err(failed("creating the kernel's context"))?;
        let chainman = open_chainman(config, &context)?;
        observed.take_steps();
        observed.take_invalid();
        let (hashes, tip) = active_chain(&chainman);
        let active = ActiveChain::new(hashes, tip, config.is_second);
        *published.write() = Some(Arc::clone(&active));
        let files = BlockFiles::open(&blocks_dir, params.magic)
            .map(Arc::new)
            .map_err(|err| ChainError::Failed(format!("opening the block files: {err}")))?;
        let context = Arc::new(context);
        let closing = Arc::new(AtomicBool::new(false));
        let around = Around {
            observed,
            events,
            active: Arc::clone(&active),
            files: Arc::clone(&files),
            stored,
            config: config.clone(),
            context: Arc::clone(&context),
            closing: Arc::clone(&closing),
        };
        let engine = Self { chainman, around };
        let view = View {
            context,
            active,
            files,
            closing,
        };
        Ok((engine, view))
    }

    /// Works until told to stop or until every handle is gone, then flushes and
    /// closes the kernel.
    pub fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.blocking_recv() {
            // A caller that no longer waits has its reasons.
            match command {
                Command::Headers(headers, reply) => {
                    let _ = reply.send(self.process_headers(&headers));
                }
                Command::Block(block, reply) => {
                    let _ = reply.send(self.process_block(&block));
                }
                Command::SpentOutputs(hash, reply) => {
                    let _ = reply.send(self.spent_outputs(&hash));
                }
                Command::WhileClosed(work) => match self.while_closed(work) {
                    Some(reopened) => self = reopened,
                    None => return,
                },
                Command::Stop => break,
            }
        }
    }

    /// Closes the kernel, which flushes it, does the work, and opens it again. `None` when
    /// it stays closed, because the node stops or because it does not open.
    fn while_closed(self, work: WhileClosed) -> Option<Self> {
        let started = Instant::now();
        let Self { chainman, around } = self;
        drop(chainman);
        let closed = match around.observed.has_failed() {
            true => Err(ChainError::Failed(
                "the kernel could not write its state".to_owned(),
            )),
            false => Ok(around.active.current_tip()),
        };
        // Whoever waits for the work learns from its silence that it panicked.
        if catch_unwind(AssertUnwindSafe(|| work(closed))).is_err() {
            error!("work beside the closed kernel panicked");
        }
        let is_closing = || around.closing.load(Ordering::Relaxed);
        if is_closing() {
            return None;
        }
        let closed_ms = started.elapsed().as_millis();
        let chainman = match open_chainman(&around.config, &around.context) {
            Ok(chainman) => chainman,
            Err(err) => {
                if !is_closing() {
                    let _ = around.events.send(ChainEvent::Fatal(err.to_string()));
                }
                return None;
            }
        };
        // What it connected while it opened has been told; what it has lost has not.
        around.follow();
        let (hashes, tip) = active_chain(&chainman);
        around.active.become_chain(hashes, tip);
        let elapsed_ms = started.elapsed().as_millis();
        info!(height = tip.height, hash = %tip.hash, closed_ms, elapsed_ms, "chain closed and opened again");
        Some(Self { chainman, around })
    }

    /// Header of the active chain's block at `height`, from the kernel's block tree.
    /// Costs a small leak per call (the binding never frees it): for recovery only.
    pub fn active_header(&self, height: Height) -> Option<Header> {
        let entry = self.chainman.active_chain().at_height(height as usize)?;
        deserialize(&entry.header().consensus_encode().ok()?).ok()
    }

    /// Whether the kernel's block tree has this header.
    pub fn knows(&self, hash: &BlockHash) -> bool {
        KernelHash::new(hash.as_byte_array())
            .is_ok_and(|hash| self.chainman.get_block_tree_entry(&hash).is_some())
    }

    /// What a connected block spent, as the kernel reads it.
    fn spent_outputs(&self, hash: &BlockHash) -> Option<SpentOutputs> {
        let hash = KernelHash::new(hash.as_byte_array()).ok()?;
        let entry = self.chainman.get_block_tree_entry(&hash)?;
        let spent = self.chainman.read_spent_outputs(&entry).ok()?;
        let txs = spent.iter();
        txs.map(|tx| tx.coins().map(|coin| spent_output(&coin)).collect())
            .collect()
    }

    /// Feeds headers in order until one is refused.
    pub fn process_headers(&self, headers: &[Header]) -> Result<HeadersVerdict, ChainError> {
        for (index, header) in headers.iter().enumerate() {
            let verdict = KernelHeader::new(&serialize(header))
                .and_then(|header| self.chainman.process_block_header(&header))
                .map_err(failed("processing a header"))?;
            if let ProcessBlockHeaderResult::Invalid(state) = verdict {
                let result = state.result();
                return Ok(HeadersVerdict::Invalid {
                    index,
                    reason: format!("{result:?}"),
                    too_new: result == BlockValidationResult::TimeFuture,
                });
            }
        }
        Ok(HeadersVerdict::Accepted)
    }

    fn process_block(&self, bytes: &[u8]) -> Result<BlockVerdict, ChainError> {
        let Some(hash) = bytes.get(..80).map(header_hash) else {
            return Ok(BlockVerdict::Invalid(undecodable(BlockHash::all_zeros())));
        };
        let span = trace_span!(
            target: TRACE_TARGET,
            "block connect",
            %hash,
            bytes = bytes.len(),
            verdict = Empty,
            height = Empty,
        )
        .entered();
        let Ok(block) = KernelBlock::new(bytes) else {
            return Ok(BlockVerdict::Invalid(undecodable(hash)));
        };
        let result = self.chainman.process_block(&block);
        if result == ProcessBlockResult::NewBlock {
            self.around.files.note_stored(&hash);
        }
        // Normally applied when the kernel announced its tip; a reorganisation that
        // failed and was undone announces nothing.
        self.around.follow();
        let mut verdict = None;
        for invalid in self.around.observed.take_invalid() {
            self.around.stored.write().remove(&invalid.hash);
            if invalid.hash == hash {
                self.around.active.refuse_fresh(&hash);
                verdict = Some(BlockVerdict::Invalid(invalid));
            } else {
                let _ = self.around.events.send(ChainEvent::BlockInvalid(invalid));
            }
        }
        let verdict = match (verdict, result) {
            (Some(invalid), _) => invalid,
            (None, ProcessBlockResult::NewBlock) => BlockVerdict::Accepted,
            (None, ProcessBlockResult::Duplicate) => BlockVerdict::Duplicate,
            (None, ProcessBlockResult::Rejected) => {
                let message = format!("block {hash} was not processed, and not judged invalid");
                error!(%hash, "the kernel failed on a block without a verdict");
                return Err(ChainError::Failed(message));
            }
        };
        if !matches!(verdict, BlockVerdict::Invalid(_)) && !self.is_active(&block, &hash) {
            self.around.stored.write().insert(hash);
        }
        if !span.is_disabled() {
            span.record("verdict", verdict.word());
            span.record("height", self.around.active.current_tip().height);
        }
        Ok(verdict)
    }

    fn is_active(&self, block: &KernelBlock, hash: &BlockHash) -> bool {
        // A block that has just been connected is nearly always the tip.
        self.around.active.current_tip().hash == *hash
            || self
                .chainman
                .get_block_tree_entry(&block.hash())
                .and_then(|entry| Height::try_from(entry.height()).ok())
                .is_some_and(|height| self.around.active.contains(hash, height))
    }
}

impl Around {
    fn follow(&self) {
        follow(&self.observed, &self.active, &self.stored);
    }
}

/// Takes the steps that the kernel has told into the active chain. `stored` holds
/// what lies beside it.
fn follow(observed: &Observed, active: &ActiveChain, stored: &RwLock<StoredBlocks>) {
    let steps = observed.take_steps();
    if steps.is_empty() {
        return;
    }
    active.apply(&steps);
    let mut stored = stored.write();
    for step in steps {
        match step {
            ChainStep::Connected(block) => stored.remove(&block.hash),
            ChainStep::Disconnected(block) => stored.insert(block.hash),
        };
    }
}

fn spent_output(coin: &impl CoinExt) -> Option<SpentOutput> {
    let output = coin.output();
    Some(SpentOutput {
        output: TxOut {
            value: Amount::from_sat(u64::try_from(output.value()).ok()?),
            script_pubkey: ScriptBuf::from_bytes(output.script_pubkey().to_bytes()),
        },
        height: coin.confirmation_height(),
        is_coinbase: coin.is_coinbase(),
    })
}

fn undecodable(hash: BlockHash) -> InvalidBlock {
    InvalidBlock {
        hash,
        mutated: true,
        reason: "undecodable".to_owned(),
    }
}

fn header_hash(header: &[u8]) -> BlockHash {
    BlockHash::hash(header)
}

/// Opens the kernel's databases and connects what is stored.
fn open_chainman(config: &ChainConfig, context: &Context) -> Result<ChainstateManager, ChainError> {
    let blocks_dir = config.dir.join("blocks");
    let (dir, blocks) = (path_text(&config.dir)?, path_text(&blocks_dir)?);
    let chainman = ChainstateManager::builder(context, dir, blocks)
        .map(|builder| builder.worker_threads(config.script_threads.min(15).into()))
        .and_then(|builder| builder.build())
        .map_err(failed("opening the kernel's databases"))?;
    chainman
        .import_blocks()
        .map_err(failed("connecting stored blocks"))?;
    Ok(chainman)
}

/// The kernel's active chain: hashes from genesis, and the tip.
fn active_chain(chainman: &ChainstateManager) -> (Vec<BlockHash>, ChainTip) {
    let chain = chainman.active_chain();
    let count = usize::try_from(chain.height()).unwrap_or(0) + 1;
    let hashes: Vec<BlockHash> = (0..count)
        .map_while(|height| chain.at_height(height))
        .map(|entry| BlockHash::from_byte_array(entry.block_hash().to_bytes()))
        .collect();
    let last = hashes.len().saturating_sub(1);
    let tip = ChainTip {
        height: Height::try_from(last).unwrap_or(Height::MAX),
        hash: hashes.last().copied().unwrap_or_else(BlockHash::all_zeros),
        time: chain
            .at_height(last)
            .map_or(0, |entry| entry.header().timestamp()),
    };
    (hashes, tip)
}

fn chain_type(network: Network) -> ChainType {
    match network {
        Network::Bitcoin => ChainType::Mainnet,
        Network::Testnet => ChainType::Testnet,
        Network::Testnet4 => ChainType::Testnet4,
        Network::Signet => ChainType::Signet,
        _ => ChainType::Regtest,
    }
}

fn path_text(path: &Path) -> Result<&str, ChainError> {
    path.to_str()
        .ok_or_else(|| ChainError::Failed(format!("{} is not valid UTF-8", path.display())))
}

fn failed(what: &'static str) -> impl Fn(KernelError) -> ChainError {
    move |err| {
        warn!(%err, what, "the kernel reported an error");
        ChainError::Failed(format!(
            "{what}: {err}. Hint: the log above has the kernel's own words; if its databases are damaged, stop the node, move the kernel/ directory aside and start again to download the blocks anew"
        ))
    }
}
