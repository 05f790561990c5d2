//! What the mempool tells the relay.

use std::sync::Arc;

use pulse_primitives::{
    bitcoin::{Transaction, Txid, Wtxid},
    block::ConnectedBlock,
};
use tokio::sync::mpsc;

/// Notices that may wait for the relay. Those above are dropped: own transactions are
/// announced again later, and what was confirmed is found in the index.
pub(super) const NOTICES: usize = 4_096;

/// Something that the relay acts upon.
#[derive(Debug, Clone)]
pub enum Notice {
    /// A transaction was handed in here: announce it.
    Announce {
        /// Its id.
        txid: Txid,
        /// Its id with witnesses.
        wtxid: Wtxid,
    },
    /// A transaction was accepted that no peer sent: orphans may wait for it.
    Accepted(Arc<Transaction>),
    /// A block was connected.
    Connected(Arc<ConnectedBlock>),
    /// A block was disconnected.
    Disconnected(Arc<ConnectedBlock>),
}

/// Where the relay hears of the mempool.
pub type Notices = mpsc::Receiver<Notice>;
