//! Compact blocks (BIP 152): decoded, and put together.

use std::{ops::ControlFlow, sync::Arc};

use pulse_p2p::{
    compact::{CompactError, CompactSource, PartialBlock},
    message::Message,
};
use pulse_primitives::bitcoin::{
    Block, Transaction, Wtxid,
    consensus::{deserialize, serialize},
};

use super::{message::decode, outcome};
use crate::seeds;

/// A mempool with every second transaction of the block.
struct Half(Vec<Arc<Transaction>>);

impl CompactSource for Half {
    fn visit(&self, see: &mut dyn FnMut(&Wtxid, &Arc<Transaction>) -> ControlFlow<()>) {
        for tx in &self.0 {
            if see(&tx.compute_wtxid(), tx).is_break() {
                return;
            }
        }
    }
}

/// What is put together is a block with the header that was sent, whose transactions
/// that header commits to.
pub fn run(data: &[u8]) -> u64 {
    let decoded = decode("cmpctblock", data);
    let Ok(Message::CompactBlock(compact)) = Message::decode("cmpctblock", data.to_vec()) else {
        return decoded;
    };
    let header = compact.header;
    let txs = seeds::block().txdata;
    let half = Half(txs.iter().step_by(2).cloned().map(Arc::new).collect());
    let partial = match PartialBlock::new(*compact, &half) {
        Ok(partial) => partial,
        Err(err) => return outcome((decoded, kind(&err))),
    };
    let count = partial.tx_count();
    let indexes = partial.request().map_or(Vec::new(), |request| {
        assert_eq!(request.block_hash, header.block_hash());
        request.indexes
    });
    assert!(indexes.iter().all(|index| *index < count as u64));
    let missing = indexes
        .iter()
        .map(|index| txs[usize::try_from(*index).unwrap_or(0) % txs.len()].clone())
        .collect();
    match partial.fill(missing) {
        Ok(bytes) => {
            let block: Block = deserialize(&bytes).expect("a block");
            assert_eq!((block.header, block.txdata.len()), (header, count));
            assert!(block.check_merkle_root());
            if block.txdata[0].is_coinbase() {
                assert!(block.check_witness_commitment());
            }
            outcome((decoded, "whole"))
        }
        Err(err) => outcome((decoded, indexes.len(), kind(&err))),
    }
}

fn kind(err: &CompactError) -> &'static str {
    match err {
        CompactError::Invalid(what) => what,
        CompactError::Unusable => "unusable",
    }
}

/// A block with two prefilled transactions.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![serialize(&seeds::compact_block())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_put_together() {
        let seed = seeds().remove(0);
        let whole = outcome((decode("cmpctblock", &seed), "whole"));
        assert_eq!(run(&seed), whole);
    }
}
