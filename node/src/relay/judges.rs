//! Transactions that wait for their verdict: a few at a time, each peer in its turn.
//!
//! # Security
//! Peers take turns, so one that sends much waits for itself. What waits is bounded per
//! peer by count and bytes; what comes beyond is dropped, and may be asked for elsewhere.
//!
//! # Correctness
//! A transaction does not start while one that it spends from is being judged.

use std::collections::{HashMap, HashSet, VecDeque};

use pulse_p2p::peer::PeerId;
use pulse_primitives::bitcoin::{Txid, Wtxid};

use super::download::Candidate;

/// Verdicts under way at once.
pub const MAX_RUNNING: usize = 2;
/// Jobs that wait per peer.
const MAX_JOBS: usize = 500;
/// Bytes that wait per peer; one transaction may be larger.
const MAX_BYTES: usize = 1 << 20;

/// What is to be judged.
#[derive(Debug, Clone)]
pub enum Job {
    /// One transaction.
    Single {
        /// It.
        tx: Candidate,
        /// Whether it is judged for the first time.
        first: bool,
    },
    /// A parent whose fee is too low alone, and its child.
    Package(Box<[Candidate; 2]>),
}

impl Job {
    /// The transactions of it.
    #[must_use]
    pub fn txs(&self) -> &[Candidate] {
        match self {
            Self::Single { tx, .. } => std::slice::from_ref(tx),
            Self::Package(txs) => txs.as_slice(),
        }
    }

    fn bytes(&self) -> usize {
        self.txs().iter().map(|tx| tx.tx.total_size()).sum()
    }
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
}

/// Jobs of all peers. Not shared: its owner drives it.
#[derive(Debug, Default)]
pub struct Judges {
    queues: HashMap<PeerId, Queue>,
    /// Peers in the order of their turns.
    turns: VecDeque<PeerId>,
    running: HashMap<u64, HashSet<Txid>>,
    next_id: u64,
}

impl Judges {
    /// A peer is there.
    pub fn connected(&mut self, peer: PeerId) {
        if self.queues.insert(peer, Queue::default()).is_none() {
            self.turns.push_back(peer);
        }
    }

    /// A peer is gone. Returns what will not be judged for it.
    pub fn closed(&mut self, peer: PeerId) -> Vec<Wtxid> {
        self.turns.retain(|other| *other != peer);
        let queue = self.queues.remove(&peer).unwrap_or_default();
        queue
            .jobs
            .iter()
            .flat_map(|job| job.txs())
            .map(|tx| tx.wtxid)
            .collect()
    }

    /// Adds a job; gives it back if the peer has too many, or is gone.
    ///
    /// # Errors
    /// The job.
    pub fn push(&mut self, peer: PeerId, job: Job) -> Result<(), Job> {
        let Some(queue) = self.queues.get_mut(&peer) else {
            return Err(job);
        };
        let bytes = job.bytes();
        let full = queue.jobs.len() >= MAX_JOBS
            || (!queue.jobs.is_empty() && queue.bytes + bytes > MAX_BYTES);
        if full {
            return Err(job);
        }
        queue.bytes += bytes;
        queue.jobs.push_back(job);
        Ok(())
    }

    /// The next job to start, if any may: with the peer whose it is and a number to
    /// [`Self::finish`] it by. `orphan` gives the next orphan of a peer, which comes
    /// before what it sent.
    pub fn start(
        &mut self,
        mut orphan: impl FnMut(PeerId) -> Option<Candidate>,
    ) -> Option<(u64, PeerId, Job)> {
        if self.running.len() >= MAX_RUNNING {
            return None;
        }
        for _ in 0..self.turns.len() {
            let peer = self.turns.pop_front()?;
            self.turns.push_back(peer);
            let queue = self.queues.get_mut(&peer)?;
            if let Some(tx) = orphan(peer) {
                let job = Job::Single { tx, first: false };
                queue.bytes += job.bytes();
                queue.jobs.push_front(job);
            }
            let waits = |job: &Job| depends_on(job, &self.running);
            if queue.jobs.front().is_none_or(waits) {
                continue;
            }
            let Some(job) = queue.jobs.pop_front() else {
                continue;
            };
            queue.bytes -= job.bytes();
            let id = self.next_id;
            self.next_id += 1;
            let txids = job.txs().iter().map(|tx| tx.txid).collect();
            self.running.insert(id, txids);
            return Some((id, peer, job));
        }
        None
    }

    /// A job that was started is done.
    pub fn finish(&mut self, id: u64) {
        self.running.remove(&id);
    }

    /// Jobs of `peer` that wait.
    #[must_use]
    pub fn waiting_of(&self, peer: PeerId) -> usize {
        self.queues.get(&peer).map_or(0, |queue| queue.jobs.len())
    }

    /// Jobs that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queues.values().map(|queue| queue.jobs.len()).sum()
    }
}

fn depends_on(job: &Job, running: &HashMap<u64, HashSet<Txid>>) -> bool {
    job.txs().iter().flat_map(|tx| &tx.tx.input).any(|input| {
        running
            .values()
            .any(|txids| txids.contains(&input.previous_output.txid))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pulse_primitives::bitcoin::{
        OutPoint, ScriptBuf, Sequence, Transaction, TxIn, Witness, absolute::LockTime,
        hashes::Hash, transaction::Version,
    };

    use super::*;

    const A: PeerId = PeerId(1);
    const B: PeerId = PeerId(2);

    fn spending(parent: Txid, padding: usize) -> Candidate {
        Candidate::new(Arc::new(Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::new(parent, 0),
                script_sig: ScriptBuf::from_bytes(vec![0; padding]),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![],
        }))
    }

    fn root(tag: u64) -> Candidate {
        let mut bytes = [1; 32];
        bytes[..8].copy_from_slice(&tag.to_le_bytes());
        spending(Txid::from_byte_array(bytes), 0)
    }

    fn single(tx: Candidate) -> Job {
        Job::Single { tx, first: true }
    }

    fn judges() -> Judges {
        let mut judges = Judges::default();
        judges.connected(A);
        judges.connected(B);
        judges
    }

    fn start(judges: &mut Judges) -> Option<(u64, PeerId, Txid)> {
        let (id, peer, job) = judges.start(|_| None)?;
        Some((id, peer, job.txs()[0].txid))
    }

    #[test]
    fn a_peer_that_sends_much_does_not_hold_up_another() {
        let mut judges = judges();
        for tag in 0..100 {
            judges.push(A, single(root(tag))).unwrap();
        }
        judges.push(B, single(root(1000))).unwrap();
        let peers: Vec<PeerId> = (0..3)
            .map(|_| {
                let (id, peer, _) = start(&mut judges).unwrap();
                judges.finish(id);
                peer
            })
            .collect();
        assert_eq!(peers, [A, B, A]);
    }

    #[test]
    fn no_more_than_two_run_at_once() {
        let mut judges = judges();
        for tag in 0..3 {
            judges.push(A, single(root(tag))).unwrap();
        }
        let (first, ..) = start(&mut judges).unwrap();
        assert!(start(&mut judges).is_some());
        assert!(start(&mut judges).is_none());
        judges.finish(first);
        assert!(start(&mut judges).is_some());
    }

    #[test]
    fn a_child_waits_for_its_parent() {
        let mut judges = judges();
        let parent = root(1);
        let child = spending(parent.txid, 0);
        judges.push(A, single(parent.clone())).unwrap();
        judges.push(B, single(child.clone())).unwrap();
        let (id, _, txid) = start(&mut judges).unwrap();
        assert_eq!(txid, parent.txid);
        assert!(start(&mut judges).is_none());
        judges.finish(id);
        assert_eq!(start(&mut judges).map(|(.., txid)| txid), Some(child.txid));
    }

    #[test]
    fn what_a_peer_may_queue_is_bounded() {
        let mut judges = judges();
        let taken = (0..10_000)
            .filter(|tag| judges.push(A, single(root(*tag))).is_ok())
            .count();
        assert_eq!(taken, MAX_JOBS);
        let large = || single(spending(Txid::all_zeros(), MAX_BYTES));
        assert!(judges.push(B, large()).is_ok());
        assert!(judges.push(B, large()).is_err());
        assert_eq!(judges.closed(A).len(), MAX_JOBS);
        assert!(judges.push(A, large()).is_err());
    }

    #[test]
    fn orphans_come_first() {
        let mut judges = judges();
        judges.push(A, single(root(1))).unwrap();
        let mut orphan = Some(root(2));
        let (_, peer, job) = judges.start(|_| orphan.take()).unwrap();
        assert_eq!((peer, job.txs()[0].txid), (A, root(2).txid));
        assert!(matches!(job, Job::Single { first: false, .. }));
    }
}
