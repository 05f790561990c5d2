//! Verdicts: how they are come by, and what follows from them.

use std::sync::Arc;

use pulse_mempool::{AcceptOptions, PackageResult, RejectClass, Rejected};
use tracing::debug;

use super::Manager;
use crate::{
    mempool::{NotAccepted, NotJudged},
    metrics,
    p2p::peer::PeerId,
    relay::{
        download::{Aftermath, Candidate, Refusal},
        judges::Job,
    },
};

/// A job that is done.
pub(super) struct Judged {
    id: u64,
    peer: PeerId,
    verdict: Verdict,
}

enum Verdict {
    Single {
        tx: Candidate,
        first: bool,
        result: Result<(), NotAccepted>,
    },
    Package {
        txs: Box<[Candidate; 2]>,
        result: Result<PackageResult, NotJudged>,
    },
}

impl Manager {
    /// Queues a job; if there are too many, the transactions may come from elsewhere.
    pub(super) fn push_job(&mut self, peer: PeerId, job: Job) {
        if let Err(job) = self.judges.push(peer, job) {
            metrics::relay_judged("dropped");
            for tx in job.txs() {
                self.downloads.not_judged(&tx.wtxid);
            }
        }
    }

    /// Starts as many jobs as may run.
    pub(super) fn start_judges(&mut self) {
        let downloads = &mut self.downloads;
        while let Some((id, peer, job)) = self.judges.start(|peer| downloads.next_orphan(peer)) {
            let (mempool, verdicts) = (self.mempool.clone(), self.verdicts.0.clone());
            tokio::task::spawn_blocking(move || {
                let verdict = match job {
                    Job::Single { tx, first } => {
                        let result = mempool.accept(&tx.tx, AcceptOptions::default()).map(|_| ());
                        Verdict::Single { tx, first, result }
                    }
                    Job::Package(txs) => {
                        let package: Vec<_> = txs.iter().map(|tx| Arc::clone(&tx.tx)).collect();
                        let result = mempool.accept_package(&package, AcceptOptions::default());
                        Verdict::Package { txs, result }
                    }
                };
                // The relay is gone only while the node stops.
                let _ = verdicts.blocking_send(Judged { id, peer, verdict });
            });
        }
    }

    pub(super) fn judged(&mut self, judged: Judged) {
        let Judged { id, peer, verdict } = judged;
        self.judges.finish(id);
        match verdict {
            Verdict::Single { tx, first, result } => match result {
                Ok(()) => self.accepted(peer, &tx),
                Err(NotAccepted::Rejected(rejected)) => {
                    self.rejected(peer, &tx, &rejected, first);
                }
                Err(NotAccepted::NotJudged(err)) => {
                    debug!(%err, txid = %tx.txid, "a transaction could not be judged");
                    metrics::relay_judged("not_judged");
                    self.downloads.not_judged(&tx.wtxid);
                }
            },
            Verdict::Package { txs, result } => self.package(peer, &txs, result),
        }
    }

    fn accepted(&mut self, from: PeerId, tx: &Candidate) {
        debug!(peer = %from, txid = %tx.txid, "transaction accepted");
        metrics::relay_judged("accepted");
        self.downloads.accepted(tx);
        if let Some(peer) = self.peers.get(&from) {
            peer.peer.note_tx();
        }
        self.announce(tx.txid, tx.wtxid);
    }

    fn rejected(&mut self, from: PeerId, tx: &Candidate, rejected: &Rejected, first: bool) {
        debug!(peer = %from, txid = %tx.txid, %rejected, "transaction refused");
        let refusal = refusal(rejected.class);
        metrics::relay_judged(match refusal {
            Refusal::MissingInputs => "orphan",
            _ => "rejected",
        });
        let now = self.clock.now();
        let Aftermath {
            package,
            parents,
            keep_for_blocks,
        } = self
            .downloads
            .rejected(from, tx, refusal, first, now, &self.mempool);
        self.note_known(from, &parents);
        if keep_for_blocks {
            self.mempool.keep_extra(tx.wtxid, Arc::clone(&tx.tx));
        }
        if let Some(package) = package {
            self.push_job(from, Job::Package(package));
        }
    }

    fn package(
        &mut self,
        from: PeerId,
        txs: &[Candidate; 2],
        result: Result<PackageResult, NotJudged>,
    ) {
        let result = match result {
            Ok(result) => result,
            Err(err) => {
                debug!(%err, "a package could not be judged");
                for tx in txs {
                    self.downloads.not_judged(&tx.wtxid);
                }
                return;
            }
        };
        if let Some(rejected) = &result.rejected {
            debug!(peer = %from, reason = rejected.message(), "package refused");
            self.downloads.package_rejected(txs);
        }
        // The child first, so that it does not become its parent's work.
        for (tx, told) in txs.iter().zip(&result.txs).rev() {
            match &told.result {
                Some(Ok(_)) => self.accepted(from, tx),
                Some(Err(rejected)) => self.rejected(from, tx, rejected, false),
                None => self.downloads.not_judged(&tx.wtxid),
            }
        }
    }
}

fn refusal(class: RejectClass) -> Refusal {
    match class {
        RejectClass::MissingInputs => Refusal::MissingInputs,
        RejectClass::WitnessStripped => Refusal::WitnessStripped,
        RejectClass::Reconsiderable => Refusal::Reconsiderable,
        RejectClass::InputsNotStandard => Refusal::InputsNotStandard,
        _ => Refusal::Other,
    }
}
