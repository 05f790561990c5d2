//! What entered and left the mempool, for relay and for fee estimates.

use std::sync::Arc;

use bitcoin::{Amount, Transaction, Txid, Wtxid};
use pulse_primitives::{Height, bitcoin, mempool::RemovalReason};

/// A change of the mempool's contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolEvent {
    /// A transaction was accepted.
    Entered(Entered),
    /// A transaction is gone.
    Left {
        /// Its id.
        txid: Txid,
        /// Its id with witnesses.
        wtxid: Wtxid,
        /// The transaction.
        tx: Arc<Transaction>,
        /// Why.
        reason: LeftReason,
    },
}

/// A transaction that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// Its id.
    pub txid: Txid,
    /// Its id with witnesses.
    pub wtxid: Wtxid,
    /// Inputs minus outputs.
    pub fee: Amount,
    /// Virtual size as policy sees it, in vB.
    pub vsize: u64,
    /// When it was accepted, in seconds since 1970.
    pub time: u64,
    /// Height of the block that the mempool built upon.
    pub height: Height,
    /// Its place in the order of arrival.
    pub sequence: u64,
    /// Whether it spends outputs of unconfirmed transactions.
    pub has_unconfirmed_parents: bool,
    /// Whether it came as part of a package, or back from a block that was disconnected:
    /// its own fee rate says little then.
    pub in_package_or_reorg: bool,
}

/// Why a transaction is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftReason {
    /// It is in a block at this height.
    Confirmed(Height),
    /// Without being confirmed.
    Removed(RemovalReason),
}
