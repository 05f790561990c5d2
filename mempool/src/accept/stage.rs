//! What accepting a transaction would change, and the rules about that: fee floor, version
//! 3, replacement, limits of clusters.

use std::collections::{BTreeSet, HashSet};

use bitcoin::{Transaction, Txid};
use pulse_primitives::{bitcoin, mempool::RemovalReason};

use super::{Candidate, Plan, Rules};
use crate::{
    cluster::{Member, NewTx, Slot},
    error::Rejected,
    feerate::fee_at,
    policy::{
        ephemeral,
        replace::{MAX_CONFLICTING_CLUSTERS, check_fees},
        truc::{TrucParent, TrucTx, check_single, is_truc},
    },
    pool::{Mempool, entry},
};

/// How a transaction stands to those in the mempool.
#[derive(Debug)]
pub(super) struct Position {
    /// Sorted by id.
    pub parents: Vec<Slot>,
    /// What it replaces directly, by id.
    pub conflicts: BTreeSet<Txid>,
    /// One of the conflicts only has the same parent.
    pub evicts_sibling: bool,
}

impl Candidate {
    fn effective(&self, mut rejected: Rejected) -> Rejected {
        rejected.effective = Some((self.rate_sat_kvb(), vec![self.wtxid]));
        rejected
    }

    pub(super) fn truc(&self) -> TrucTx<'_> {
        TrucTx {
            tx: &self.tx,
            txid: self.txid,
            wtxid: self.wtxid,
            vsize: self.vsize,
        }
    }
}

impl Mempool {
    pub(super) fn plan_single(
        &self,
        candidate: &Candidate,
        now: u64,
        rules: Rules,
    ) -> Result<Plan, Rejected> {
        let position = self.position(candidate, now, rules)?;
        let replaced = self.replaced_by(candidate, &position)?;
        let slots: HashSet<Slot> = replaced.iter().copied().collect();
        let new = [self.new_tx(candidate, &[])];
        let staging = self.clusters.stage(&slots, &new, &[]);
        let staging = staging.map_err(|_| Rejected::policy("too-large-cluster"))?;
        if !position.conflicts.is_empty() {
            if !staging.improves() {
                let detail = "insufficient feerate: does not improve feerate diagram";
                let failed = Rejected::reconsiderable("replacement-failed").debug(detail);
                return Err(candidate.effective(failed));
            }
            self.check_spends_no_conflict(candidate, &position)?;
        }
        let options = rules.options;
        if exceeds(candidate, options.max_fee_rate_sat_kvb) {
            return Err(Rejected::policy("max feerate exceeded"));
        }
        if !rules.bypass_limits {
            let ids = (candidate.txid, candidate.wtxid);
            ephemeral::check_spends(&candidate.tx, ids, |txid| self.parent(txid))?;
        }
        let by = candidate.txid;
        let removed = replaced
            .into_iter()
            .map(|slot| (slot, RemovalReason::Replaced { by }))
            .collect();
        Ok(Plan {
            removed,
            staging,
            package: None,
        })
    }

    fn parent(&self, txid: &Txid) -> Option<&Transaction> {
        self.get(txid).map(|entry| &*entry.tx)
    }

    /// Parents and conflicts, the fee floor, and the rules of version 3.
    pub(super) fn position(
        &self,
        candidate: &Candidate,
        now: u64,
        rules: Rules,
    ) -> Result<Position, Rejected> {
        if !rules.bypass_limits && !rules.package_feerates {
            self.check_fee_floor(candidate.fee.to_sat(), candidate.vsize, now)
                .map_err(|rejected| candidate.effective(rejected))?;
        }
        let inputs = candidate.tx.input.iter().map(|input| input.previous_output);
        let ids: BTreeSet<Txid> = inputs.clone().map(|outpoint| outpoint.txid).collect();
        let conflicts = inputs.filter_map(|outpoint| self.spender(&outpoint));
        let mut position = Position {
            parents: ids.iter().filter_map(|txid| self.slot(txid)).collect(),
            conflicts: conflicts.map(|(entry, _)| entry.txid).collect(),
            evicts_sibling: false,
        };
        if rules.bypass_limits {
            return Ok(position);
        }
        let parents = self.truc_parents(candidate, &position.parents);
        let is_conflict = |txid: &Txid| position.conflicts.contains(txid);
        if let Err(violation) = check_single(&candidate.truc(), &parents, is_conflict) {
            let sibling = violation.sibling.filter(|_| rules.allow_sibling_eviction);
            let Some(sibling) = sibling else {
                return Err(Rejected::policy("TRUC-violation").debug(violation.debug));
            };
            position.conflicts.insert(sibling);
            position.evicts_sibling = true;
        }
        Ok(position)
    }

    /// Parents of `candidate` as the rules of version 3 see them.
    pub(super) fn truc_parents(&self, candidate: &Candidate, parents: &[Slot]) -> Vec<TrucParent> {
        let parent = |&slot: &Slot| {
            let entry = self.entry(slot);
            let ancestors = |slot| self.clusters.ancestors(slot).len();
            // Of interest between transactions of version 3 only, where there are few.
            let families = is_truc(candidate.tx.version.0) && is_truc(entry.tx.version.0);
            let descendants = if families {
                self.clusters.descendants(slot)
            } else {
                Vec::new()
            };
            let descendants = descendants.into_iter();
            TrucParent {
                txid: entry.txid,
                wtxid: entry.wtxid,
                version: entry.tx.version.0,
                ancestors: ancestors(slot),
                descendants: descendants
                    .filter(|&other| other != slot)
                    .map(|other| (self.entry(other).txid, ancestors(other)))
                    .collect(),
            }
        };
        parents.iter().map(parent).collect()
    }

    /// Fees below what evictions, and what relay, ask for.
    pub(super) fn check_fee_floor(&self, fee: u64, vsize: u64, now: u64) -> Result<(), Rejected> {
        let rolling = fee_at(self.rolling_min_fee_rate(now), vsize);
        if fee < rolling {
            return Err(Rejected::reconsiderable("mempool min fee not met")
                .debug(format!("{fee} < {rolling}")));
        }
        let relay = fee_at(self.config.min_relay_fee_sat_kvb, vsize);
        if fee < relay {
            return Err(
                Rejected::reconsiderable("min relay fee not met").debug(format!("{fee} < {relay}"))
            );
        }
        Ok(())
    }

    /// All that would leave for the conflicts of `candidate`, if it pays enough for that.
    fn replaced_by(
        &self,
        candidate: &Candidate,
        position: &Position,
    ) -> Result<Vec<Slot>, Rejected> {
        let suffix = if position.evicts_sibling {
            " (including sibling eviction)"
        } else {
            ""
        };
        let replaced = self
            .conflict_set(&candidate.txid, &position.conflicts)
            .map_err(|detail| {
                let reason = format!("too many potential replacements{suffix}");
                Rejected::policy(reason).debug(detail)
            })?;
        if replaced.is_empty() {
            return Ok(replaced);
        }
        check_fees(
            self.fees_of(&replaced),
            candidate.fee.to_sat(),
            candidate.vsize,
            self.config.incremental_fee_sat_kvb,
            &candidate.txid,
        )
        .map_err(|detail| {
            let reason = format!("insufficient fee{suffix}");
            candidate.effective(Rejected::reconsiderable(reason).debug(detail))
        })?;
        Ok(replaced)
    }

    pub(super) fn fees_of(&self, slots: &[Slot]) -> u64 {
        let fees = slots.iter().map(|&slot| self.entry(slot).fee.to_sat());
        fees.sum()
    }

    /// `conflicts` with their descendants, if they are in few enough clusters.
    pub(super) fn conflict_set(
        &self,
        txid: &Txid,
        conflicts: &BTreeSet<Txid>,
    ) -> Result<Vec<Slot>, String> {
        let direct: Vec<Slot> = conflicts.iter().filter_map(|id| self.slot(id)).collect();
        let clusters: HashSet<_> = direct.iter().map(|&slot| self.clusters.of(slot)).collect();
        if clusters.len() > MAX_CONFLICTING_CLUSTERS {
            return Err(format!(
                "rejecting replacement {txid}; too many conflicting clusters ({} > {MAX_CONFLICTING_CLUSTERS})",
                clusters.len()
            ));
        }
        Ok(self.with_descendants(direct))
    }

    fn check_spends_no_conflict(
        &self,
        candidate: &Candidate,
        position: &Position,
    ) -> Result<(), Rejected> {
        let parents = position.parents.iter();
        let ancestors: BTreeSet<Txid> = parents
            .flat_map(|&parent| self.clusters.ancestors(parent))
            .map(|slot| self.entry(slot).txid)
            .collect();
        let Some(conflict) = ancestors.intersection(&position.conflicts).next() else {
            return Ok(());
        };
        let txid = candidate.txid;
        Err(Rejected::consensus("bad-txns-spends-conflicting-tx")
            .debug(format!("{txid} spends conflicting transaction {conflict}")))
    }

    /// As the clusters see it; `before` are the ones before it in its package.
    pub(super) fn new_tx(&self, candidate: &Candidate, before: &[Candidate]) -> NewTx {
        let inputs = candidate.tx.input.iter().map(|i| i.previous_output.txid);
        let ids: HashSet<Txid> = inputs.collect();
        let mut parents: Vec<Member> = ids
            .iter()
            .filter_map(|txid| self.slot(txid))
            .map(Member::Pool)
            .collect();
        let in_package = before.iter().zip(0..);
        let in_package = in_package.filter(|(other, _)| ids.contains(&other.txid));
        parents.extend(in_package.map(|(_, index)| Member::New(index)));
        NewTx {
            rate: candidate.rate(),
            tie: entry::tie(&candidate.txid),
            parents,
        }
    }
}

/// Whether the fee rate is above what the client allows.
pub(super) fn exceeds(candidate: &Candidate, max_fee_rate_sat_kvb: Option<u64>) -> bool {
    max_fee_rate_sat_kvb.is_some_and(|max| {
        let fee = u128::from(candidate.fee.to_sat()) * 1000;
        fee > u128::from(max) * u128::from(candidate.vsize)
    })
}
