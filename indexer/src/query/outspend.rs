//! Who spent an output.

use pulse_primitives::bitcoin::{OutPoint, Txid};

use super::{
    QueryError, View,
    model::Spender,
    read::{ProvenTx, missing},
};
use crate::store::{Family, faults};

impl View<'_> {
    /// Confirmed spender of an output; `None` if unspent or unknown.
    ///
    /// # Errors
    /// [`QueryError::PositionRenewing`] if the spender is not where the index says, or
    /// a failed read.
    pub fn spender(&self, outpoint: &OutPoint) -> Result<Option<Spender>, QueryError> {
        let positions = self.reader.tx_positions();
        let hash = self.reader.keys.txid(&outpoint.txid);
        for funding in self.reader.tx_candidates(hash)? {
            let Some(txnum) = self.reader.spender(funding, outpoint.vout)? else {
                continue;
            };
            // The spender names the outpoint in full, which settles whether this
            // candidate is the transaction that was asked for.
            let spender = self.tx_of(&positions, txnum)?;
            if let Some(found) = self.as_spender(&spender, outpoint)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Confirmed spender of each output; `None` if the transaction is unknown.
    ///
    /// # Errors
    /// As [`View::spender`].
    pub fn spenders(&self, txid: &Txid) -> Result<Option<Vec<Option<Spender>>>, QueryError> {
        let Some(funding) = self.find_tx(txid)? else {
            return Ok(None);
        };
        self.remember_proven(&funding);
        let positions = self.reader.tx_positions();
        let mut spenders = vec![None; funding.tx.output.len()];
        let mut last: Option<ProvenTx> = None;
        for (vout, txnum) in self.reader.spenders(funding.pos.txnum)? {
            let tx = match last.take() {
                Some(tx) if tx.pos.txnum == txnum => tx,
                _ => self.tx_of(&positions, txnum)?,
            };
            let found = self.as_spender(&tx, &OutPoint { txid: *txid, vout })?;
            let index = usize::try_from(vout).ok();
            let slot = index.and_then(|index| spenders.get_mut(index));
            let (Some(slot), Some(found)) = (slot, found) else {
                const WHAT: &str = "the spender does not spend the output";
                return Err(QueryError::Store(faults::row(Family::Spend, WHAT)));
            };
            *slot = Some(found);
            last = Some(tx);
        }
        Ok(Some(spenders))
    }

    /// The input of `tx` that spends `outpoint`, if one does.
    fn as_spender(
        &self,
        tx: &ProvenTx,
        outpoint: &OutPoint,
    ) -> Result<Option<Spender>, QueryError> {
        let mut inputs = tx.tx.input.iter();
        let Some(index) = inputs.position(|input| input.previous_output == *outpoint) else {
            return Ok(None);
        };
        Ok(Some(Spender {
            txid: tx.txid,
            vin: u32::try_from(index).map_err(|_| missing(Family::Spend))?,
            block: self.block_ref(tx.pos.height)?,
        }))
    }
}
