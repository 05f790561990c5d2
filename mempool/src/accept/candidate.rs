//! What is found out about a transaction from itself and from the outputs that it spends.

use std::{collections::HashSet, sync::Arc};

use bitcoin::{Amount, OutPoint, Transaction, TxOut, Txid, Wtxid, consensus::serialize};
use pulse_primitives::{bitcoin, block::SpentOutput, coins::CoinView};

use super::Rules;
use crate::{
    error::{AcceptError, RejectClass, Rejected},
    feerate::{FeeFrac, rate_sat_kvb},
    judge::TxJudge,
    policy::{
        adjusted_weight,
        amounts::check_amounts,
        check::check_transaction,
        ephemeral,
        inputs::{check_inputs, check_sigop_cost, check_witnesses, sigop_cost},
        locks::{LockPoints, is_final},
        standard::check_standard,
        vsize,
    },
    pool::{Mempool, entry},
};

/// A transaction that has passed what does not depend on the rest of the mempool.
#[derive(Debug)]
pub(super) struct Candidate {
    pub tx: Arc<Transaction>,
    /// In network format.
    pub raw: Vec<u8>,
    pub txid: Txid,
    pub wtxid: Wtxid,
    pub prevouts: Vec<TxOut>,
    /// Of each input, whether the output is confirmed.
    pub confirmed: Vec<bool>,
    pub fee: Amount,
    pub weight: u64,
    pub adjusted_weight: u64,
    pub vsize: u64,
    pub sigop_cost: u32,
    pub locks: LockPoints,
    pub spends_coinbase: bool,
}

impl Candidate {
    pub fn rate(&self) -> FeeFrac {
        entry::rate(self.fee, self.adjusted_weight)
    }

    pub fn rate_sat_kvb(&self) -> u64 {
        rate_sat_kvb(self.fee.to_sat(), self.vsize)
    }
}

/// An output to spend and where it was found: height and whether a coinbase made it, or
/// `None` for unconfirmed ones.
type Found = (TxOut, Option<(u32, bool)>);

impl Mempool {
    /// Checks `tx` up to, and without, its fee rate. `package` finds outputs of the
    /// transactions before it in its package.
    pub(super) fn examine(
        &self,
        tx: &Arc<Transaction>,
        coins: &dyn CoinView,
        judge: &dyn TxJudge,
        rules: Rules,
        package: impl Fn(&OutPoint) -> Option<TxOut>,
    ) -> Result<Candidate, AcceptError> {
        let tip = coins.tip().height;
        check_transaction(tx)?;
        let raw = serialize(&**tx);
        judge.check(&raw).map_err(Rejected::consensus)?;
        let weight = tx.weight().to_wu();
        check_standard(tx, weight)?;
        if !is_final(tx, tip, coins)? {
            return Err(Rejected::premature("non-final").into());
        }
        let mut candidate = Candidate {
            tx: Arc::clone(tx),
            raw,
            txid: tx.compute_txid(),
            wtxid: tx.compute_wtxid(),
            prevouts: Vec::new(),
            confirmed: Vec::new(),
            fee: Amount::ZERO,
            weight,
            adjusted_weight: weight,
            vsize: 0,
            sigop_cost: 0,
            locks: LockPoints {
                height: -1,
                time: -1,
                newest_input: 0,
            },
            spends_coinbase: false,
        };
        self.check_absent(&candidate)?;
        let conflicts = |outpoint| self.spender_slot(outpoint).is_some();
        let mut outpoints = tx.input.iter().map(|input| &input.previous_output);
        if !rules.allow_replacement && outpoints.any(conflicts) {
            return Err(Rejected::policy("bip125-replacement-disallowed").into());
        }
        let found = self.find_inputs(&candidate, coins, package)?;
        let heights: Vec<_> = found.iter().map(|(_, at)| at.map(|(h, _)| h)).collect();
        candidate.locks = LockPoints::of(tx, &heights, tip, coins)?;
        if !candidate.locks.are_reached(tip, coins)? {
            return Err(Rejected::premature("non-BIP68-final").into());
        }
        candidate.confirmed = heights.iter().map(Option::is_some).collect();
        let inputs: Vec<SpentOutput> = found
            .into_iter()
            .map(|(output, at)| SpentOutput {
                output,
                height: at.map_or(tip + 1, |(height, _)| height),
                is_coinbase: at.is_some_and(|(_, is_coinbase)| is_coinbase),
            })
            .collect();
        candidate.fee = check_amounts(tx, &inputs, tip + 1)?;
        candidate.spends_coinbase = inputs.iter().any(|input| input.is_coinbase);
        candidate.prevouts = inputs.into_iter().map(|input| input.output).collect();
        check_inputs(tx, &candidate.prevouts)?;
        check_witnesses(tx, &candidate.prevouts)?;
        let cost = sigop_cost(tx, &candidate.prevouts);
        candidate.adjusted_weight = adjusted_weight(weight, cost);
        candidate.vsize = vsize(candidate.adjusted_weight);
        ephemeral::check_fee(tx, candidate.fee)?;
        check_sigop_cost(cost)?;
        candidate.sigop_cost = u32::try_from(cost).expect("checked to be at most 16,000");
        Ok(candidate)
    }

    fn find_inputs(
        &self,
        candidate: &Candidate,
        coins: &dyn CoinView,
        package: impl Fn(&OutPoint) -> Option<TxOut>,
    ) -> Result<Vec<Found>, AcceptError> {
        let inputs = candidate.tx.input.iter().map(|input| input.previous_output);
        // `None` for what must be confirmed, if it exists.
        let unconfirmed = inputs.clone().map(|outpoint| {
            if let Some(output) = package(&outpoint) {
                return Some(Some(output));
            }
            let parent = self.get(&outpoint.txid)?;
            Some(parent.tx.output.get(outpoint.vout as usize).cloned())
        });
        let unconfirmed: Vec<_> = unconfirmed.collect();
        let sources = inputs.clone().zip(&unconfirmed);
        let wanted: Vec<OutPoint> = sources
            .filter(|(_, output)| output.is_none())
            .map(|(outpoint, _)| outpoint)
            .collect();
        let mut confirmed = coins.coins_many(&wanted)?.into_iter();
        let mut found = Vec::with_capacity(unconfirmed.len());
        let mut missing = Vec::new();
        for (outpoint, output) in inputs.zip(unconfirmed) {
            let output = match output {
                Some(output) => output.map(|output| (output, None)),
                None => confirmed
                    .next()
                    .flatten()
                    .map(|coin| (coin.output, Some((coin.height, coin.is_coinbase)))),
            };
            match output {
                Some(output) => found.push(output),
                None => missing.push(outpoint.txid),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        if coins.has_unspent(&candidate.txid)? {
            return Err(Rejected::new(RejectClass::Conflict, "txn-already-known").into());
        }
        Err(missing_inputs(missing).into())
    }

    /// Whether the outputs that were found for `candidate` are still where they were; the
    /// confirmed ones are while the tip is the same.
    pub(super) fn check_sources(
        &self,
        candidate: &Candidate,
        package: &HashSet<Txid>,
    ) -> Result<(), Rejected> {
        let inputs = candidate.tx.input.iter().zip(&candidate.confirmed);
        let missing: Vec<_> = inputs
            .filter(|(_, confirmed)| !**confirmed)
            .map(|(input, _)| input.previous_output.txid)
            .filter(|txid| !self.contains(txid) && !package.contains(txid))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(missing_inputs(missing))
    }
}

fn missing_inputs(mut parents: Vec<Txid>) -> Rejected {
    parents.sort_unstable();
    parents.dedup();
    let reason = "bad-txns-inputs-missingorspent";
    let mut rejected = Rejected::new(RejectClass::MissingInputs, reason);
    rejected.missing_parents = parents;
    rejected
}
