//! A compact block (BIP 152) as far as it comes without asking its sender for more.

use pulse_primitives::bitcoin::bip152::HeaderAndShortIds;

use crate::p2p::compact::{CompactError, CompactSource, PartialBlock};

/// What could be made of a compact block.
pub(super) enum Assembly {
    /// The serialised block.
    Whole(Vec<u8>),
    /// Transactions are missing.
    Missing(PartialBlock),
    /// It cannot be used.
    Failed(CompactError),
}

impl Assembly {
    /// One word, for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Whole(_) => "whole",
            Self::Missing(_) => "missing",
            Self::Failed(_) => "failed",
        }
    }

    /// Looks the transactions up in `source`.
    pub fn of(compact: HeaderAndShortIds, source: &dyn CompactSource) -> Self {
        match PartialBlock::new(compact, source) {
            Ok(partial) if partial.request().is_some() => Self::Missing(partial),
            Ok(partial) => match partial.fill(Vec::new()) {
                Ok(bytes) => Self::Whole(bytes),
                Err(err) => Self::Failed(err),
            },
            Err(err) => Self::Failed(err),
        }
    }
}
