//! Transactions that are not in the mempool and may be in the next block all the same:
//! replaced, rejected by policy, orphans. For compact blocks (BIP 152).

use std::{collections::VecDeque, sync::Arc};

use pulse_primitives::bitcoin::{Transaction, Wtxid};

/// Transactions kept (Bitcoin Core's `blockreconstructionextratxn`).
const MAX: usize = 100;
/// Larger ones are not kept, in bytes.
const MAX_BYTES: usize = 100_000;

/// The last ones. At most 10 MB.
#[derive(Debug, Default)]
pub(super) struct ExtraTxs(VecDeque<(Wtxid, Arc<Transaction>)>);

impl ExtraTxs {
    /// Keeps one, and drops the oldest if there are too many.
    pub fn push(&mut self, wtxid: Wtxid, tx: Arc<Transaction>) {
        if tx.total_size() > MAX_BYTES || self.0.iter().any(|(kept, _)| *kept == wtxid) {
            return;
        }
        if self.0.len() == MAX {
            self.0.pop_front();
        }
        self.0.push_back((wtxid, tx));
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &(Wtxid, Arc<Transaction>)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::{Network, constants::genesis_block, hashes::Hash};

    use super::*;

    #[test]
    fn the_last_hundred_are_kept_once_each() {
        let tx = Arc::new(genesis_block(Network::Bitcoin).txdata.remove(0));
        let mut extra = ExtraTxs::default();
        for n in 0..150 {
            for _ in 0..2 {
                extra.push(Wtxid::from_byte_array([n; 32]), Arc::clone(&tx));
            }
        }
        let kept: Vec<u8> = extra
            .iter()
            .map(|(wtxid, _)| wtxid.to_byte_array()[0])
            .collect();
        assert_eq!(kept, (50..150).collect::<Vec<u8>>());
    }
}
