//! Unspent outputs for the mempool: [`CoinSource`] over the index.
//!
//! # Correctness
//! Answers what Bitcoin Core's coin database would at the same block:
//! - outputs that can never be spent, the output of genesis among them, do not exist;
//! - of two transactions with one id (BIP 30) only the later one does, whether its
//!   outputs are spent or not: it replaced the earlier one's outputs.
//!
//! Whether an output is spent is a row of the snapshot. Amount and script come from the
//! transaction itself, which proves what it is by its id.

use pulse_primitives::{
    Height,
    bitcoin::{OutPoint, Txid},
    block::SpentOutput,
    coins::{CoinError, CoinSource, CoinView},
    tip::ChainTip,
};
use tokio::sync::watch;

use super::{
    Query, QueryError, View,
    read::{ProvenTx, missing},
};
use crate::{
    keys::is_unspendable,
    rows::TxNum,
    store::{
        Family,
        reader::{TxLookup, TxPositions},
    },
};

/// Cursors over rows, used again for many transactions.
struct Cursors<'a> {
    txs: TxLookup<'a>,
    positions: TxPositions<'a>,
}

/// Outputs of one transaction that are asked for.
struct Asked<'a> {
    txid: &'a Txid,
    /// Index of each output, and where its answer goes.
    outputs: &'a [(u32, usize)],
}

impl View<'_> {
    /// The unspent outputs at `outpoints`, in the order given; `None` for those that are
    /// spent, can never be spent, or were never made.
    ///
    /// # Errors
    /// [`QueryError::PositionRenewing`] if a transaction is not where the index says, or
    /// a failed read.
    pub fn unspent(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<SpentOutput>>, QueryError> {
        let mut coins = vec![None; outpoints.len()];
        let mut order = (0..outpoints.len()).collect::<Vec<_>>();
        order.sort_unstable_by_key(|at| outpoints[*at]);
        let (mut cursors, mut outputs) = (self.cursors(), Vec::new());
        for group in order.chunk_by(|a, b| outpoints[*a].txid == outpoints[*b].txid) {
            outputs.clear();
            outputs.extend(group.iter().map(|at| (outpoints[*at].vout, *at)));
            let asked = Asked {
                txid: &outpoints[group[0]].txid,
                outputs: &outputs,
            };
            self.unspent_of(&asked, &mut cursors, &mut coins)?;
        }
        Ok(coins)
    }

    /// Puts the unspent ones of the outputs that are asked for into `coins`.
    fn unspent_of(
        &self,
        asked: &Asked<'_>,
        cursors: &mut Cursors<'_>,
        coins: &mut [Option<SpentOutput>],
    ) -> Result<(), QueryError> {
        let candidates = self.candidates(asked.txid, cursors)?;
        // Of each candidate in turn, whether it has each output spent.
        let mut spent = Vec::with_capacity(candidates.len() * asked.outputs.len());
        for txnum in &candidates {
            for (vout, _) in asked.outputs {
                spent.push(self.reader.spender(*txnum, *vout)?.is_some());
            }
        }
        // Then none of the transactions need be read.
        if spent.iter().all(|spent| *spent) {
            return Ok(());
        }
        let Some((rank, tx)) = self.newest(asked.txid, &candidates, cursors)? else {
            return Ok(());
        };
        let is_coinbase = tx.tx.is_coinbase();
        let spent = &spent[rank * asked.outputs.len()..];
        for ((vout, at), spent) in asked.outputs.iter().zip(spent) {
            let index = usize::try_from(*vout).ok();
            let output = index.and_then(|index| tx.tx.output.get(index));
            let output = output.filter(|output| !spent && !is_unspendable(&output.script_pubkey));
            coins[*at] = output.map(|output| SpentOutput {
                output: output.clone(),
                height: tx.pos.height,
                is_coinbase,
            });
        }
        Ok(())
    }

    /// Whether any output of the confirmed transaction `txid` is unspent.
    ///
    /// # Errors
    /// As [`View::unspent`].
    pub fn has_unspent(&self, txid: &Txid) -> Result<bool, QueryError> {
        let mut cursors = self.cursors();
        let candidates = self.candidates(txid, &mut cursors)?;
        let Some((_, tx)) = self.newest(txid, &candidates, &cursors)? else {
            return Ok(false);
        };
        let spent = self.reader.spenders(tx.pos.txnum)?;
        Ok((0..).zip(&tx.tx.output).any(|(vout, output)| {
            !is_unspendable(&output.script_pubkey)
                && spent
                    .binary_search_by_key(&vout, |(vout, _)| *vout)
                    .is_err()
        }))
    }

    fn cursors(&self) -> Cursors<'_> {
        Cursors {
            txs: self.reader.tx_lookup(),
            positions: self.reader.tx_positions(),
        }
    }

    /// Numbers of the transactions that may have that id, newest first.
    fn candidates(&self, txid: &Txid, cursors: &mut Cursors<'_>) -> Result<Vec<TxNum>, QueryError> {
        let hash = self.reader.keys.txid(txid);
        let mut candidates = cursors.txs.candidates(hash, 0..TxNum::MAX)?;
        candidates.reverse();
        Ok(candidates)
    }

    /// The newest transaction with that id among `candidates`, which are newest first, and
    /// its place there. `None` for that of genesis: the coin database never holds its output.
    fn newest(
        &self,
        txid: &Txid,
        candidates: &[TxNum],
        cursors: &Cursors<'_>,
    ) -> Result<Option<(usize, ProvenTx)>, QueryError> {
        for (rank, txnum) in candidates.iter().enumerate() {
            let pos = self.tx_pos(&cursors.positions, *txnum)?;
            if let Some(tx) = self.read_candidate(pos, txid)? {
                return Ok(Some((rank, tx)).filter(|(_, tx)| tx.pos.height > 0));
            }
        }
        Ok(None)
    }
}

/// A view with a tip.
struct Coins<'a> {
    view: View<'a>,
    tip: ChainTip,
}

fn coin_error(err: QueryError) -> CoinError {
    CoinError(Box::new(err))
}

impl CoinView for Coins<'_> {
    fn tip(&self) -> ChainTip {
        self.tip
    }

    fn coin(&self, outpoint: &OutPoint) -> Result<Option<SpentOutput>, CoinError> {
        let coins = self.coins_many(std::slice::from_ref(outpoint))?;
        Ok(coins.into_iter().next().flatten())
    }

    fn coins_many(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<SpentOutput>>, CoinError> {
        self.view.unspent(outpoints).map_err(coin_error)
    }

    fn has_unspent(&self, txid: &Txid) -> Result<bool, CoinError> {
        self.view.has_unspent(txid).map_err(coin_error)
    }

    fn median_time_past(&self, height: Height) -> Result<u32, CoinError> {
        let block = self.view.block_at(height).map_err(coin_error)?;
        let block = block.ok_or_else(|| coin_error(missing(Family::Blk)))?;
        Ok(block.median_time)
    }
}

impl CoinSource for Query {
    fn coins(&self) -> Result<Option<Box<dyn CoinView + '_>>, CoinError> {
        let view = self.view().map_err(coin_error)?;
        Ok(match view.tip() {
            Some(tip) => Some(Box::new(Coins { view, tip })),
            None => None,
        })
    }

    fn tip(&self) -> watch::Receiver<Option<ChainTip>> {
        self.tip_watch()
    }
}
