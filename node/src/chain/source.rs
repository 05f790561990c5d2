//! The chain as the indexer sees it: [`BlockSource`] over the kernel's files.

use pulse_primitives::{
    Height,
    bitcoin::{
        Block, BlockHash, Transaction, Txid, VarInt,
        block::Header,
        consensus::{Decodable, encode},
        hashes::{Hash, HashEngine},
        merkle_tree,
    },
    block::{BlockPosition, ConnectedBlock, SpentOutput},
    ports::{BlockSource, BlockSourceError},
    tip::ChainTip,
};
use tokio::sync::{oneshot, watch};

use super::{
    Chain,
    engine::{Command, SpentOutputs},
    undo,
};

impl BlockSource for Chain {
    fn tip(&self) -> watch::Receiver<ChainTip> {
        self.inner.view.active.tip()
    }

    fn hash_at(&self, height: Height) -> Option<BlockHash> {
        self.inner.view.active.hash_at(height)
    }

    fn header_height(&self, hash: &BlockHash) -> Option<Height> {
        self.inner.headers.height_of(hash)
    }

    fn best_header_height(&self) -> Height {
        self.inner.headers.best().tip.height
    }

    fn load(&self, hash: &BlockHash, height: Height) -> Result<ConnectedBlock, BlockSourceError> {
        let (position, undo) = self.find(hash, height)?;
        let bytes = self
            .inner
            .view
            .files
            .read_block(&position, 0, position.block_len)?;
        let parsed = parse_block(&bytes)?;
        if parsed.block.block_hash() != *hash {
            return Err(BlockSourceError::Stale { position });
        }
        let undo_parts = if height == 0 {
            undo::BlockUndo {
                spent: Vec::new(),
                lens: Vec::new(),
                first_offset: 0,
            }
        } else {
            undo::decode_block_undo(&undo)?
        };
        if undo_parts.spent.len() + 1 != parsed.block.txdata.len()
            || undo_parts
                .spent
                .iter()
                .zip(&parsed.block.txdata[1..])
                .any(|(spent, tx)| spent.len() != tx.input.len())
        {
            return Err(BlockSourceError::Malformed {
                what: "undo data that belongs to another block",
            });
        }
        Ok(ConnectedBlock {
            height,
            block: parsed.block,
            txids: parsed.txids,
            tx_lens: parsed.tx_lens,
            first_tx_offset: parsed.first_tx_offset,
            spent: undo_parts.spent,
            undo,
            undo_lens: undo_parts.lens,
            first_undo_offset: undo_parts.first_offset,
            position,
        })
    }

    fn locate(&self, hash: &BlockHash, height: Height) -> Result<BlockPosition, BlockSourceError> {
        Ok(self.find(hash, height)?.0)
    }

    fn read_block(
        &self,
        position: &BlockPosition,
        offset: u32,
        len: u32,
    ) -> Result<Vec<u8>, BlockSourceError> {
        self.inner.view.files.read_block(position, offset, len)
    }

    fn read_undo(
        &self,
        position: &BlockPosition,
        offset: u32,
        len: u32,
    ) -> Result<Vec<u8>, BlockSourceError> {
        self.inner.view.files.read_undo(position, offset, len)
    }

    fn decode_undo(&self, bytes: &[u8]) -> Result<Vec<SpentOutput>, BlockSourceError> {
        undo::decode_tx_undo(bytes)
    }
}

impl Chain {
    /// See [`Chain::undo_bytes`].
    pub(super) fn undo_of(
        &self,
        hash: &BlockHash,
        height: Height,
    ) -> Result<Vec<u8>, BlockSourceError> {
        Ok(self.find(hash, height)?.1)
    }

    /// Where a block and its undo data are, and the undo data itself.
    ///
    /// The undo data of blocks with the same parent cannot be told apart by itself. The
    /// kernel knows which is whose, and is asked when there are such blocks.
    fn find(
        &self,
        hash: &BlockHash,
        height: Height,
    ) -> Result<(BlockPosition, Vec<u8>), BlockSourceError> {
        let prev_hash = self.prev_hash(hash)?;
        let files = &self.inner.view.files;
        if height == 0 || !self.inner.headers.has_siblings(hash) {
            return files.find(hash, &prev_hash, height == 0, |_| true);
        }
        let spent = self
            .ask_spent_outputs(hash)?
            .ok_or(BlockSourceError::UndoMissing { hash: *hash })?;
        files.find(hash, &prev_hash, false, |undo| {
            undo::decode_block_undo(undo).is_ok_and(|undo| undo.spent == spent)
        })
    }

    /// Waits for the kernel's thread; not for async code.
    fn ask_spent_outputs(
        &self,
        hash: &BlockHash,
    ) -> Result<Option<SpentOutputs>, BlockSourceError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::SpentOutputs(*hash, reply);
        let sent = self.inner.commands.blocking_send(command);
        sent.map_err(|_| BlockSourceError::Closed)?;
        answer.blocking_recv().map_err(|_| BlockSourceError::Closed)
    }

    fn prev_hash(&self, hash: &BlockHash) -> Result<BlockHash, BlockSourceError> {
        self.inner
            .headers
            .header(hash)
            .map(|header| header.prev_blockhash)
            .ok_or(BlockSourceError::NotStored { hash: *hash })
    }
}

/// A block with what only its bytes tell.
struct ParsedBlock {
    block: Block,
    txids: Vec<Txid>,
    tx_lens: Vec<u32>,
    first_tx_offset: u32,
}

/// Decodes a block, noting where its transactions stand, and checks its merkle root.
fn parse_block(bytes: &[u8]) -> Result<ParsedBlock, BlockSourceError> {
    const MALFORMED: BlockSourceError = BlockSourceError::Malformed { what: "a block" };
    let malformed = |_: encode::Error| MALFORMED;
    let too_long = |_: std::num::TryFromIntError| MALFORMED;
    let mut rest = bytes;
    let header = Header::consensus_decode(&mut rest).map_err(malformed)?;
    let count = VarInt::consensus_decode(&mut rest).map_err(malformed)?.0;
    // Each transaction takes at least ten bytes.
    let count = usize::try_from(count)
        .ok()
        .filter(|n| *n <= rest.len() / 10)
        .ok_or(MALFORMED)?;
    let first_tx_offset = u32::try_from(bytes.len() - rest.len()).map_err(too_long)?;
    let mut txdata = Vec::with_capacity(count);
    let mut txids = Vec::with_capacity(count);
    let mut tx_lens = Vec::with_capacity(count);
    for _ in 0..count {
        let before = rest;
        let tx = Transaction::consensus_decode_from_finite_reader(&mut rest).map_err(malformed)?;
        let tx_bytes = &before[..before.len() - rest.len()];
        tx_lens.push(u32::try_from(tx_bytes.len()).map_err(too_long)?);
        txids.push(txid(&tx, tx_bytes).ok_or(MALFORMED)?);
        txdata.push(tx);
    }
    let root = merkle_tree::calculate_root(txids.iter().map(|txid| txid.to_raw_hash()));
    if !rest.is_empty() || root != Some(header.merkle_root.to_raw_hash()) {
        return Err(MALFORMED);
    }
    Ok(ParsedBlock {
        block: Block { header, txdata },
        txids,
        tx_lens,
        first_tx_offset,
    })
}

/// The id of `tx` from its bytes, which need not be made again for it: the hash of all but
/// marker, flag and witnesses (BIP 144). `None` if they are not its bytes.
fn txid(tx: &Transaction, bytes: &[u8]) -> Option<Txid> {
    const VERSION: usize = 4;
    const MARKER_AND_FLAG: usize = 2;
    const LOCK_TIME: usize = 4;
    let stripped = tx.base_size();
    let mut engine = Txid::engine();
    if bytes.len() == stripped {
        engine.input(bytes);
    } else {
        let (version, rest) = bytes.split_at_checked(VERSION)?;
        let (body, _) = rest
            .get(MARKER_AND_FLAG..)?
            .split_at_checked(stripped.checked_sub(VERSION + LOCK_TIME)?)?;
        engine.input(version);
        engine.input(body);
        engine.input(bytes.last_chunk::<LOCK_TIME>()?);
    }
    Some(Txid::from_engine(engine))
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::{
        Network, Sequence, TxIn, Witness, consensus::serialize, constants::genesis_block,
    };

    use super::*;

    #[test]
    fn a_block_parses_with_the_places_of_its_transactions() {
        let genesis = genesis_block(Network::Bitcoin);
        let bytes = serialize(&genesis);
        let parsed = parse_block(&bytes).unwrap();
        assert_eq!(parsed.block, genesis);
        assert_eq!(parsed.first_tx_offset, 81);
        assert_eq!(parsed.tx_lens, [u32::try_from(bytes.len() - 81).unwrap()]);
        assert_eq!(parsed.txids, [genesis.txdata[0].compute_txid()]);
    }

    #[test]
    fn an_id_follows_from_the_bytes_with_and_without_witnesses() {
        let mut tx = genesis_block(Network::Bitcoin).txdata.remove(0);
        for witness in [&[][..], &[&[1, 2, 3][..], &[]], &[&[7; 300]]] {
            tx.input.push(TxIn {
                sequence: Sequence::ZERO,
                witness: Witness::from_slice(witness),
                ..TxIn::default()
            });
            let bytes = serialize(&tx);
            assert_eq!(txid(&tx, &bytes), Some(tx.compute_txid()));
        }
        assert_eq!(txid(&tx, &[0; 9]), None);
    }

    #[test]
    fn a_changed_transaction_is_noticed() {
        let mut bytes = serialize(&genesis_block(Network::Bitcoin));
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(parse_block(&bytes).is_err());
        assert!(parse_block(&bytes[..last]).is_err());
    }
}
