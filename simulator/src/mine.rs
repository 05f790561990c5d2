//! Puts blocks together and finds their proof of work.

use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Target,
    Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness, WitnessMerkleNode, Wtxid,
    absolute::LockTime,
    block::{Header, Version},
    consensus::serialize,
    hashes::{Hash, HashEngine, sha256, sha256d},
    merkle_tree::calculate_root,
    script::{Builder, PushBytesBuf},
    transaction,
};
use pulse_primitives::{Height, network::ChainParams};
use rayon::prelude::*;

/// First bytes of the script of a witness commitment: OP_RETURN, a push of 36 bytes and
/// the header of BIP 141.
const COMMITMENT_HEADER: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
/// The witness of a coinbase, on which the commitment depends.
const RESERVED_VALUE: [u8; 32] = [0; 32];
/// Nonces tried at once before more threads are asked for help.
const NONCE_BATCH: u32 = 1 << 16;

/// Everything of a block that is not computed from the rest of it.
#[derive(Debug, Clone)]
pub struct BlockParts {
    /// Height, which the coinbase commits to (BIP 34).
    pub height: Height,
    /// Hash of the block before it.
    pub prev: BlockHash,
    /// Seconds since 1970.
    pub time: u32,
    /// Target of the proof of work.
    pub bits: CompactTarget,
    /// Bytes behind the height in the coinbase's scriptSig, at most 80.
    pub extra: Vec<u8>,
    /// Outputs of the coinbase, without the witness commitment.
    pub outputs: Vec<TxOut>,
    /// The other transactions.
    pub txs: Vec<Transaction>,
}

/// New coins of the block at `height`: 50 BTC, halved every 210,000 blocks (150 on regtest).
#[must_use]
pub fn subsidy(network: Network, height: Height) -> Amount {
    let interval = if network == Network::Regtest {
        150
    } else {
        210_000
    };
    let halvings = height / interval;
    Amount::from_sat(if halvings < 64 {
        (50 * Amount::ONE_BTC.to_sat()) >> halvings
    } else {
        0
    })
}

/// Target of the block at `height` behind `prev`. `period_start` is the time of the
/// first block of the difficulty period that ends with `prev`; it only matters at the
/// start of a period on networks that adjust.
///
/// Blocks at the minimum difficulty of testnets are not considered.
#[must_use]
pub fn next_bits(
    params: &ChainParams,
    height: Height,
    prev: &Header,
    period_start: u32,
) -> CompactTarget {
    let period = params.consensus.difficulty_adjustment_interval();
    if params.consensus.no_pow_retargeting || !u64::from(height).is_multiple_of(period) {
        return prev.bits;
    }
    let timespan = u64::from(prev.time.saturating_sub(period_start));
    CompactTarget::from_next_work_required(prev.bits, timespan, &params.consensus)
}

/// Puts a block together, with its coinbase and witness commitment, and mines it.
///
/// # Panics
/// If no nonce meets the target, which is certain to happen on mainnet.
#[must_use]
pub fn mine_block(parts: BlockParts) -> Block {
    let txids: Vec<_> = parts.txs.iter().map(Transaction::compute_txid).collect();
    let wtxids: Vec<_> = parts.txs.iter().map(Transaction::compute_wtxid).collect();
    mine_with_ids(parts, &txids, &wtxids)
}

/// As [`mine_block`], with the ids of `parts.txs` already known.
pub(crate) fn mine_with_ids(parts: BlockParts, txids: &[Txid], wtxids: &[Wtxid]) -> Block {
    let commitment = witness_commitment(wtxids);
    let coinbase = coinbase(parts.height, &parts.extra, parts.outputs, commitment);
    let ids = std::iter::once(coinbase.compute_txid()).chain(txids.iter().copied());
    let root = calculate_root(ids.map(Txid::to_raw_hash)).expect("there is a coinbase");
    let mut header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parts.prev,
        merkle_root: TxMerkleNode::from_raw_hash(root),
        time: parts.time,
        bits: parts.bits,
        nonce: 0,
    };
    grind(&mut header);
    let mut txdata = Vec::with_capacity(parts.txs.len() + 1);
    txdata.push(coinbase);
    txdata.extend(parts.txs);
    Block { header, txdata }
}

/// Sets the lowest nonce with which `header` meets its own target.
///
/// # Panics
/// If there is none.
pub fn grind(header: &mut Header) {
    let target = header.target();
    let bytes = serialize(header);
    // The first 64 of the 80 bytes do not change.
    let mut midstate = sha256::Hash::engine();
    midstate.input(&bytes[..64]);
    let meets = |nonce: u32| {
        let mut engine = midstate.clone();
        engine.input(&bytes[64..76]);
        engine.input(&nonce.to_le_bytes());
        let hash = sha256d::Hash::from_byte_array(
            sha256::Hash::hash(sha256::Hash::from_engine(engine).as_byte_array()).to_byte_array(),
        );
        meets_target(&BlockHash::from_raw_hash(hash), target)
    };
    let first = (0..NONCE_BATCH).find(|nonce| meets(*nonce));
    header.nonce = first
        .or_else(|| {
            (1..=u32::MAX / NONCE_BATCH).find_map(|batch| {
                let start = batch * NONCE_BATCH;
                (start..=start + (NONCE_BATCH - 1))
                    .into_par_iter()
                    .find_first(|nonce| meets(*nonce))
            })
        })
        .expect("one of 2^32 nonces meets an easy target");
}

fn meets_target(hash: &BlockHash, target: Target) -> bool {
    target.is_met_by(*hash)
}

/// The commitment to the wtxids of a block without its coinbase (BIP 141).
fn witness_commitment(wtxids: &[Wtxid]) -> [u8; 32] {
    let ids = std::iter::once(Wtxid::all_zeros()).chain(wtxids.iter().copied());
    let root = calculate_root(ids.map(Wtxid::to_raw_hash)).expect("there is a coinbase");
    Block::compute_witness_commitment(&WitnessMerkleNode::from_raw_hash(root), &RESERVED_VALUE)
        .to_byte_array()
}

fn coinbase(
    height: Height,
    extra: &[u8],
    mut outputs: Vec<TxOut>,
    commitment: [u8; 32],
) -> Transaction {
    let mut script = COMMITMENT_HEADER.to_vec();
    script.extend_from_slice(&commitment);
    outputs.push(TxOut {
        value: Amount::ZERO,
        script_pubkey: ScriptBuf::from_bytes(script),
    });
    let script_sig = Builder::new()
        .push_int(i64::from(height))
        .push_slice(PushBytesBuf::try_from(extra.to_vec()).expect("the extra bytes are short"))
        .into_script();
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig,
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[RESERVED_VALUE]),
        }],
        output: outputs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mined_block_commits_to_its_transactions() {
        let params = ChainParams::new(Network::Regtest, None);
        let genesis = params.genesis();
        let block = mine_block(BlockParts {
            height: 1,
            prev: genesis.block_hash(),
            time: genesis.header.time + 600,
            bits: genesis.header.bits,
            extra: vec![1],
            outputs: vec![TxOut {
                value: subsidy(Network::Regtest, 1),
                script_pubkey: ScriptBuf::new(),
            }],
            txs: vec![],
        });
        assert!(block.check_merkle_root());
        assert!(block.check_witness_commitment());
        assert!(block.header.validate_pow(block.header.target()).is_ok());
    }

    #[test]
    fn subsidy_halves_and_ends() {
        assert_eq!(subsidy(Network::Regtest, 149).to_sat(), 5_000_000_000);
        assert_eq!(subsidy(Network::Regtest, 150).to_sat(), 2_500_000_000);
        assert_eq!(subsidy(Network::Signet, 150).to_sat(), 5_000_000_000);
        assert_eq!(subsidy(Network::Regtest, 150 * 64).to_sat(), 0);
    }
}
