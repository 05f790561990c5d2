//! What the sync needs of the validation engine: [`Chain`], or a stand-in in tests.

use std::{future::Future, pin::Pin};

use pulse_primitives::{
    bitcoin::{BlockHash, block::Header},
    tip::ChainTip,
};
use tokio::sync::mpsc;

use crate::chain::{BlockVerdict, Chain, ChainError, ChainEvent, HeadersVerdict};

/// A verdict to wait for.
pub type Verdict<'a, T> = Pin<Box<dyn Future<Output = Result<T, ChainError>> + Send + 'a>>;

/// The one who decides what is valid.
pub trait Validator: Send + std::marker::Sync + 'static {
    /// See [`Chain::submit_headers`].
    fn submit_headers(&self, headers: Vec<Header>) -> Verdict<'_, HeadersVerdict>;
    /// See [`Chain::submit_block`].
    fn submit_block(&self, block: Vec<u8>) -> Verdict<'_, BlockVerdict>;
    /// See [`Chain::has_block`].
    fn has_block(&self, hash: &BlockHash) -> bool;
    /// See [`Chain::active_tip`].
    fn active_tip(&self) -> ChainTip;
    /// See [`Chain::take_events`].
    fn take_events(&self) -> Option<mpsc::UnboundedReceiver<ChainEvent>>;
}

impl Validator for Chain {
    fn submit_headers(&self, headers: Vec<Header>) -> Verdict<'_, HeadersVerdict> {
        Box::pin(Chain::submit_headers(self, headers))
    }

    fn submit_block(&self, block: Vec<u8>) -> Verdict<'_, BlockVerdict> {
        Box::pin(Chain::submit_block(self, block))
    }

    fn has_block(&self, hash: &BlockHash) -> bool {
        Chain::has_block(self, hash)
    }

    fn active_tip(&self) -> ChainTip {
        Chain::active_tip(self)
    }

    fn take_events(&self) -> Option<mpsc::UnboundedReceiver<ChainEvent>> {
        Chain::take_events(self)
    }
}
