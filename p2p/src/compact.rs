//! Compact blocks (BIP 152): a block put together from what the mempool has.
//!
//! ```text
//! cmpctblock -> short ids looked up -> missing -> getblocktxn -> blocktxn -> block
//!                                   -> nothing missing ---------------------> block
//! ```
//!
//! Pure: no sockets, no mempool; transactions are looked up through [`CompactSource`].
//!
//! # Correctness
//! Short ids have 48 bits, so that now and then a wrong transaction matches. The merkle
//! root and the witness commitment tell: [`CompactError::Unusable`] then means that the
//! whole block is to be asked for, and is nobody's fault. [`CompactError::Invalid`] is
//! what no honest peer sends.
//!
//! # Security
//! Short ids come from the peer, who can make them collide in an ordinary hash table;
//! the one here is keyed, so that they cannot. What does not need the mempool is checked
//! before it is walked.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, collections::hash_map::Entry, ops::ControlFlow, sync::Arc};

use pulse_primitives::bitcoin::{
    Block, BlockHash, Transaction, TxMerkleNode, VarInt, Wtxid,
    bip152::{BlockTransactionsRequest, HeaderAndShortIds, ShortId},
    block::Header,
    consensus::Encodable,
    hashes::{Hash, HashEngine, sha256d},
};

/// Version of compact blocks that the node speaks: short ids of witness transaction ids.
pub const COMPACT_VERSION: u64 = 2;
/// Most transactions of a compact block: their indexes have 16 bits.
const MAX_TXS: usize = u16::MAX as usize;
/// What a witness commitment's output script begins with (BIP 141).
const COMMITMENT_PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
/// Length of such a script, at least.
const COMMITMENT_LEN: usize = 38;

/// Transactions that a block may be put together from: the mempool's first, then others
/// that were seen lately (replaced, evicted, orphans).
pub trait CompactSource: Send + Sync {
    /// Shows every transaction to `see`, until it breaks. May hold a lock meanwhile.
    fn visit(&self, see: &mut dyn FnMut(&Wtxid, &Arc<Transaction>) -> ControlFlow<()>);
}

/// No transactions.
impl CompactSource for () {
    fn visit(&self, _see: &mut dyn FnMut(&Wtxid, &Arc<Transaction>) -> ControlFlow<()>) {}
}

/// Why a block could not be put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// The peer broke the protocol.
    #[error("invalid compact block: {0}")]
    Invalid(&'static str),
    /// Short ids collide. The whole block is needed.
    #[error("short ids collide")]
    Unusable,
}

/// A transaction of the block, with its id where that was at hand.
struct Slot {
    tx: Arc<Transaction>,
    wtxid: Option<Wtxid>,
}

/// A block of which some transactions may be missing.
pub struct PartialBlock {
    header: Header,
    slots: Vec<Option<Slot>>,
}

impl PartialBlock {
    /// Takes what the message itself brings, and looks the rest up.
    ///
    /// # Errors
    /// [`CompactError`].
    pub fn new(
        compact: HeaderAndShortIds,
        source: &dyn CompactSource,
    ) -> Result<Self, CompactError> {
        let count = compact.short_ids.len() + compact.prefilled_txs.len();
        if count == 0 {
            return Err(CompactError::Invalid("no transactions"));
        }
        if count > MAX_TXS {
            return Err(CompactError::Invalid(
                "more transactions than a block can have",
            ));
        }
        let keys = ShortId::calculate_siphash_keys(&compact.header, compact.nonce);
        let mut slots: Vec<Option<Slot>> = Vec::new();
        slots.resize_with(count, || None);
        let mut next = 0;
        for prefilled in compact.prefilled_txs {
            let index = next + usize::from(prefilled.idx);
            if prefilled.tx.input.is_empty() && prefilled.tx.output.is_empty() {
                return Err(CompactError::Invalid("an empty transaction"));
            }
            // So many indexes lie below it that it has to be one of the block.
            let slot = slots
                .get_mut(index)
                .ok_or(CompactError::Invalid("an index behind the block's end"))?;
            *slot = Some(Slot {
                tx: Arc::new(prefilled.tx),
                wtxid: None,
            });
            next = index + 1;
        }
        let mut wanted = HashMap::with_capacity(compact.short_ids.len());
        let free = (0..count).filter(|index| slots[*index].is_none());
        for (index, id) in free.zip(&compact.short_ids) {
            match wanted.entry(*id) {
                Entry::Vacant(entry) => entry.insert(Match {
                    index,
                    taken: false,
                }),
                // Both are in the block, and nobody can tell which is where.
                Entry::Occupied(_) => return Err(CompactError::Unusable),
            };
        }
        let mut partial = Self {
            header: compact.header,
            slots,
        };
        partial.look_up(wanted, keys, source);
        Ok(partial)
    }

    fn look_up(
        &mut self,
        mut wanted: HashMap<ShortId, Match>,
        keys: (u64, u64),
        source: &dyn CompactSource,
    ) {
        let mut open = wanted.len();
        if open == 0 {
            return;
        }
        let slots = &mut self.slots;
        source.visit(&mut |wtxid, tx| {
            let id = ShortId::with_siphash_keys(wtxid, keys);
            if let Some(found) = wanted.get_mut(&id) {
                let slot = &mut slots[found.index];
                if !found.taken {
                    found.taken = true;
                    *slot = Some(Slot {
                        tx: Arc::clone(tx),
                        wtxid: Some(*wtxid),
                    });
                    open -= 1;
                } else if slot.as_ref().is_some_and(|slot| slot.wtxid != Some(*wtxid)) {
                    // Two that match: it is asked for, which costs less than a wrong guess.
                    *slot = None;
                    open += 1;
                }
            }
            // A second match further on would go unseen; it is too rare to go on for.
            if open == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
    }

    /// Header of the block.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Hash of the block.
    #[must_use]
    pub fn block_hash(&self) -> BlockHash {
        self.header.block_hash()
    }

    /// Transactions of the block.
    #[must_use]
    pub fn tx_count(&self) -> usize {
        self.slots.len()
    }

    /// The request for the missing transactions; `None` if there are none.
    #[must_use]
    pub fn request(&self) -> Option<BlockTransactionsRequest> {
        let indexes: Vec<_> = (0..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.is_none())
            .map(|(index, _)| index)
            .collect();
        (!indexes.is_empty()).then(|| BlockTransactionsRequest {
            block_hash: self.block_hash(),
            indexes,
        })
    }

    /// Puts the missing transactions in, in the order of [`PartialBlock::request`]; the
    /// serialised block.
    ///
    /// Segregated witness is taken as active: compact blocks are of use at the tip only.
    ///
    /// # Errors
    /// [`CompactError::Invalid`] when there are too many or too few;
    /// [`CompactError::Unusable`] when merkle root or witness commitment do not match.
    pub fn fill(self, missing: Vec<Transaction>) -> Result<Vec<u8>, CompactError> {
        let mut missing = missing.into_iter();
        let mut txs = Vec::with_capacity(self.slots.len());
        for slot in self.slots {
            txs.push(match slot {
                Some(slot) => slot,
                None => Slot {
                    tx: Arc::new(
                        missing
                            .next()
                            .ok_or(CompactError::Invalid("too few transactions"))?,
                    ),
                    wtxid: None,
                },
            });
        }
        if missing.next().is_some() {
            return Err(CompactError::Invalid("too many transactions"));
        }
        if !belongs(&self.header, &txs) {
            return Err(CompactError::Unusable);
        }
        Ok(serialize(&self.header, &txs))
    }
}

struct Match {
    index: usize,
    taken: bool,
}

/// The compact form of a block, with its coinbase in full.
///
/// `None` for a block without transactions, which is no block.
#[must_use]
pub fn compact_block(block: &Block, nonce: u64) -> Option<HeaderAndShortIds> {
    if block.txdata.is_empty() {
        return None;
    }
    HeaderAndShortIds::from_block(block, nonce, 2, &[]).ok()
}

fn serialize(header: &Header, txs: &[Slot]) -> Vec<u8> {
    let size: usize = txs.iter().map(|slot| slot.tx.total_size()).sum();
    let mut bytes = Vec::with_capacity(80 + 9 + size);
    put(header, &mut bytes);
    put(&VarInt::from(txs.len()), &mut bytes);
    for slot in txs {
        put(slot.tx.as_ref(), &mut bytes);
    }
    bytes
}

fn put(part: &impl Encodable, bytes: &mut Vec<u8>) {
    part.consensus_encode(bytes)
        .expect("writing to memory does not fail");
}

/// Whether these are the transactions that the header commits to, witnesses included.
///
/// # Consensus
/// As Bitcoin Core's `IsBlockMutated`: a merkle tree with two equal neighbours, of which
/// the second may have been added to change the block and not its root (CVE-2012-2459),
/// does not count, nor do transactions of 64 bytes in a block without a coinbase, which
/// could be inner nodes of the tree.
fn belongs(header: &Header, txs: &[Slot]) -> bool {
    let txids = txs.iter().map(|slot| slot.tx.compute_txid().to_raw_hash());
    if unambiguous_root(txids.collect()).map(TxMerkleNode::from_raw_hash)
        != Some(header.merkle_root)
    {
        return false;
    }
    match txs.first() {
        Some(first) if first.tx.is_coinbase() => witnesses_belong(&first.tx, txs),
        _ => txs.iter().all(|slot| slot.tx.base_size() != 64),
    }
}

/// Whether the witnesses are those that the coinbase commits to (BIP 141); without a
/// commitment there must be none.
fn witnesses_belong(coinbase: &Transaction, txs: &[Slot]) -> bool {
    let commitment = coinbase.output.iter().rev().find_map(|output| {
        let script = output.script_pubkey.as_bytes();
        (script.len() >= COMMITMENT_LEN && script.starts_with(&COMMITMENT_PREFIX))
            .then(|| &script[COMMITMENT_PREFIX.len()..COMMITMENT_LEN])
    });
    let Some(commitment) = commitment else {
        let mut inputs = txs.iter().flat_map(|slot| &slot.tx.input);
        return inputs.all(|input| input.witness.is_empty());
    };
    let witness = &coinbase.input[0].witness;
    let reserved = witness.nth(0).filter(|value| value.len() == 32);
    let Some(reserved) = reserved.filter(|_| witness.len() == 1) else {
        return false;
    };
    let mut wtxids: Vec<_> = txs
        .iter()
        .map(|slot| slot.wtxid.unwrap_or_else(|| slot.tx.compute_wtxid()))
        .map(Wtxid::to_raw_hash)
        .collect();
    // The coinbase cannot commit to itself.
    wtxids[0] = sha256d::Hash::all_zeros();
    let Some(root) = merkle_root(wtxids, |_| true) else {
        return false;
    };
    let mut engine = sha256d::Hash::engine();
    engine.input(root.as_byte_array());
    engine.input(reserved);
    sha256d::Hash::from_engine(engine).as_byte_array() == commitment
}

/// Root of a merkle tree in which no two equal hashes stand side by side.
fn unambiguous_root(hashes: Vec<sha256d::Hash>) -> Option<sha256d::Hash> {
    merkle_root(hashes, |level| {
        level.chunks_exact(2).all(|pair| pair[0] != pair[1])
    })
}

/// Root of a merkle tree, if every level passes `check`.
fn merkle_root(
    mut level: Vec<sha256d::Hash>,
    check: impl Fn(&[sha256d::Hash]) -> bool,
) -> Option<sha256d::Hash> {
    while level.len() > 1 {
        if !check(&level) {
            return None;
        }
        level = level
            .chunks(2)
            .map(|pair| {
                let mut engine = sha256d::Hash::engine();
                engine.input(pair[0].as_byte_array());
                engine.input(pair[pair.len() - 1].as_byte_array());
                sha256d::Hash::from_engine(engine)
            })
            .collect();
    }
    level.pop()
}
