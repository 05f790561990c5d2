//! What the kernel tells while it works, collected for its thread.
//!
//! Callbacks run on the kernel's thread under its main lock: they copy, push, and
//! return. They never call back into the kernel, never block, and never panic.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bitcoinkernel::{
    Block, BlockTreeEntry, BlockValidationStateRef, ContextBuilder, ValidationMode,
    notifications::types::BlockValidationResult, prelude::*,
};
use parking_lot::Mutex;
use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, hashes::Hash},
    tip::ChainTip,
};
use tokio::sync::mpsc;

use super::{ChainEvent, FreshBlock, InvalidBlock, active::ChainStep};

/// Collects what the callbacks hear until the kernel's thread takes it.
#[derive(Default)]
pub(super) struct Observed {
    steps: Mutex<Vec<ChainStep>>,
    invalid: Mutex<Vec<InvalidBlock>>,
    failed: AtomicBool,
}

impl Observed {
    /// Steps of the active chain since the last call, in order.
    pub fn take_steps(&self) -> Vec<ChainStep> {
        std::mem::take(&mut *self.steps.lock())
    }

    /// Whether the kernel has ever said that it could not write or go on.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Blocks found invalid since the last call.
    pub fn take_invalid(&self) -> Vec<InvalidBlock> {
        std::mem::take(&mut *self.invalid.lock())
    }
}

/// Registers the callbacks. `on_tip` is called when the kernel announces a tip, and `on_fresh` before
/// it connects a block to the newest one.
pub(super) fn register(
    builder: ContextBuilder,
    observed: &Arc<Observed>,
    events: mpsc::UnboundedSender<ChainEvent>,
    on_tip: impl Fn() + Send + Sync + 'static,
    on_fresh: impl Fn(FreshBlock) + Send + Sync + 'static,
) -> ContextBuilder {
    let connected = Arc::clone(observed);
    let disconnected = Arc::clone(observed);
    let checked = Arc::clone(observed);
    let flush_events = events.clone();
    let (flush_failed, failed) = (Arc::clone(observed), Arc::clone(observed));
    builder
        .with_block_connected_validation(move |block: Block, entry: BlockTreeEntry<'_>| {
            let step = ChainStep::Connected(tip_of(&block, &entry));
            connected.steps.lock().push(step);
        })
        .with_block_disconnected_validation(move |block: Block, entry: BlockTreeEntry<'_>| {
            let step = ChainStep::Disconnected(tip_of(&block, &entry));
            disconnected.steps.lock().push(step);
        })
        .with_block_checked_validation(move |block: Block, state: BlockValidationStateRef<'_>| {
            // An internal error is no verdict about the block.
            if state.mode() == ValidationMode::Invalid {
                let result = state.result();
                checked.invalid.lock().push(InvalidBlock {
                    hash: BlockHash::from_byte_array(block.hash().to_bytes()),
                    mutated: result == BlockValidationResult::Mutated,
                    reason: format!("{result:?}"),
                });
            }
        })
        .with_new_pow_valid_block_validation(move |entry: BlockTreeEntry<'_>, block: Block| {
            if let Ok(bytes) = block.consensus_encode() {
                on_fresh(FreshBlock {
                    tip: tip_of(&block, &entry),
                    bytes: bytes.into(),
                    is_refused: false,
                });
            }
        })
        .with_block_tip_notification(move |_, _, _| on_tip())
        .with_flush_error_notification(move |message: String| {
            flush_failed.failed.store(true, Ordering::Relaxed);
            // The receiver is gone only while the node stops.
            let _ = flush_events.send(ChainEvent::Fatal(message));
        })
        .with_fatal_error_notification(move |message: String| {
            failed.failed.store(true, Ordering::Relaxed);
            let _ = events.send(ChainEvent::Fatal(message));
        })
}

fn tip_of(block: &Block, entry: &BlockTreeEntry<'_>) -> ChainTip {
    ChainTip {
        // The kernel's heights of connected blocks are never negative.
        height: Height::try_from(entry.height()).unwrap_or(0),
        hash: BlockHash::from_byte_array(entry.block_hash().to_bytes()),
        time: block.header().timestamp(),
    }
}
