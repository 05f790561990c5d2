//! What the changes of the mempool have touched, scripts and transactions: lists that one
//! writes and many read, each at its own pace.
//!
//! # Limits
//! The newest [`KEPT_SCRIPTS`] and [`KEPT_TXS`] are kept. A reader that falls behind more
//! than that is told so ([`Touched::All`]), and has to take everything for touched.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bitcoin::{OutPoint, Transaction, Txid};
use tokio::sync::watch;

use crate::mempool::ScriptHash;

/// Scripts kept for readers that are behind: 2 MiB.
const KEPT_SCRIPTS: usize = 65_536;
/// Transactions kept for readers that are behind: some 2 MiB.
const KEPT_TXS: usize = 16_384;

/// Scripts of what entered or left.
pub type TouchedScripts = TouchedList<ScriptHash>;
/// What entered or left.
pub type TouchedTxs = TouchedList<TouchedTx>;

/// What a reader has missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched<T> {
    /// These, oldest first; the same one may occur several times.
    These(Vec<T>),
    /// More than is remembered.
    All,
}

/// A transaction that entered or left, with the outputs whose state it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TouchedTx {
    /// Its id.
    pub txid: Txid,
    /// How many outputs it has.
    pub outputs: u32,
    /// What it spends.
    pub spends: Box<[OutPoint]>,
}

impl TouchedTx {
    /// What `tx` touches; `txid` is its id.
    #[must_use]
    pub fn new(txid: Txid, tx: &Transaction) -> Self {
        let spends = tx.input.iter().map(|input| input.previous_output);
        Self {
            txid,
            // Four billion outputs do not fit into any transaction.
            outputs: u32::try_from(tx.output.len()).unwrap_or(u32::MAX),
            spends: spends.collect(),
        }
    }
}

/// A list. Its writer appends after the change can be seen.
#[derive(Debug)]
pub struct TouchedList<T> {
    ring: Mutex<VecDeque<T>>,
    kept: usize,
    /// How many were ever appended.
    end: watch::Sender<u64>,
}

impl Default for TouchedScripts {
    fn default() -> Self {
        Self::keeping(KEPT_SCRIPTS)
    }
}

impl Default for TouchedTxs {
    fn default() -> Self {
        Self::keeping(KEPT_TXS)
    }
}

impl<T: Clone> TouchedList<T> {
    /// A list of the newest `kept`.
    fn keeping(kept: usize) -> Self {
        Self {
            ring: Mutex::default(),
            kept,
            end: watch::Sender::new(0),
        }
    }

    /// Appends what a change has touched, and wakes readers.
    pub fn append(&self, touched: impl IntoIterator<Item = T>) {
        let mut ring = self.lock();
        let mut count = 0;
        for one in touched {
            if ring.len() == self.kept {
                ring.pop_front();
            }
            ring.push_back(one);
            count += 1;
        }
        if count > 0 {
            // Within the lock, so that the number and the list agree.
            self.end.send_modify(|end| *end += count);
        }
    }

    /// Position of a reader that wants to know what comes from now on, which changes
    /// whenever there is something to read.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    /// What was appended after `position`, and the position after it.
    #[must_use]
    pub fn since(&self, position: u64) -> (Touched<T>, u64) {
        let ring = self.lock();
        let end = *self.end.borrow();
        let missed = usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX);
        let touched = match ring.len().checked_sub(missed) {
            Some(skip) => Touched::These(ring.range(skip..).cloned().collect()),
            None => Touched::All,
        };
        (touched, end)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        // Whatever panicked has left a list that is whole.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    fn script(n: usize) -> ScriptHash {
        ScriptHash::hash(&n.to_le_bytes())
    }

    #[test]
    fn a_reader_gets_what_came_after_its_position() {
        let list = TouchedScripts::default();
        list.append([script(0)]);
        let mut watch = list.watch();
        let position = *watch.borrow_and_update();
        list.append([script(1), script(2)]);
        assert!(watch.has_changed().unwrap());
        let (touched, next) = list.since(position);
        assert_eq!(touched, Touched::These(vec![script(1), script(2)]));
        assert_eq!(list.since(next), (Touched::These(Vec::new()), next));
    }

    #[test]
    fn a_reader_that_is_too_far_behind_is_told() {
        let list = TouchedScripts::default();
        list.append((0..KEPT_SCRIPTS).map(script));
        assert!(matches!(list.since(0).0, Touched::These(all) if all.len() == KEPT_SCRIPTS));
        list.append([script(KEPT_SCRIPTS)]);
        assert_eq!(list.since(0), (Touched::All, KEPT_SCRIPTS as u64 + 1));
        assert!(matches!(list.since(1).0, Touched::These(all) if all[0] == script(1)));
    }

    #[test]
    fn a_transaction_touches_what_it_spends_and_what_it_creates() {
        let block = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        let txid = block.txdata[0].compute_txid();
        let touched = TouchedTx::new(txid, &block.txdata[0]);
        assert_eq!((touched.txid, touched.outputs), (txid, 1));
        assert_eq!(*touched.spends, [OutPoint::null()]);
    }
}
