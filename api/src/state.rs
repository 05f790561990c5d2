//! What handlers may touch.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::{Mutex, RwLock};
use pulse_indexer::query::{Query, View};
use pulse_primitives::{
    Height,
    api_keys::ApiKeyStore,
    fleet::FleetStatus,
    mempool::{MempoolSource, TxSubmitter},
    network::ChainParams,
    ports::NodeStatus,
    status::{Readiness, TrustReport},
    tip::ChainTip,
};
use tokio::sync::{Semaphore, watch};

use crate::{
    access::Access, at_height, blocking::Blocking, config::ApiConfig, fallback::Fallback,
    ops::sampler::Sampler, rest::script::Rendering,
};

/// Submissions at the same time. They have slots of their own, so that script checks do
/// not keep queries waiting, nor queries broadcasts.
const MAX_SUBMISSIONS: NonZeroUsize = NonZeroUsize::new(8).expect("the constant is not zero");

/// The unconfirmed side of the node.
#[derive(Clone)]
pub struct MempoolPorts {
    /// What is in the mempool.
    pub source: Arc<dyn MempoolSource>,
    /// Takes transactions of clients.
    pub submitter: Arc<dyn TxSubmitter>,
}

/// Shared by all requests. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    inner: Arc<Inner>,
    around: Arc<Around>,
    patience: Duration,
    partial: Option<Arc<Partial>>,
}

/// What a node may have around it.
#[derive(Clone, Default)]
struct Around {
    fallback: Option<Arc<Fallback>>,
    fleet: Option<Arc<dyn FleetStatus>>,
    drain: Arc<AtomicBool>,
    trust: Option<watch::Receiver<TrustReport>>,
}

/// A request that takes what is indexed so far for the whole.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    /// Height of the view that answers it.
    indexed: Mutex<Option<Height>>,
}

impl Partial {
    /// Notes the view that the answer is drawn from.
    pub(crate) fn note(&self, indexed: Option<Height>) {
        *self.indexed.lock() = indexed;
    }

    /// Height of the view that answered; `None` if there was none, or it was empty.
    pub(crate) fn indexed(&self) -> Option<Height> {
        *self.indexed.lock()
    }
}

/// How long a request waits for index and mempool to meet.
const PATIENCE: Duration = Duration::from_secs(1);

struct Inner {
    query: Query,
    status: Arc<dyn NodeStatus>,
    mempool: Option<MempoolPorts>,
    params: ChainParams,
    config: ApiConfig,
    prometheus: PrometheusHandle,
    access: Arc<Access>,
    blocking: Blocking,
    submitting: Blocking,
    sampler: Sampler,
    /// Tip of the newest view that was found synced; `None` if there was none since the start.
    settled: RwLock<Option<ChainTip>>,
    waiting: Semaphore,
    started: Instant,
}

impl ApiState {
    /// State for answers from `query` about a chain with `params`. `prometheus` renders
    /// what the process has recorded. Without `mempool` nothing is unconfirmed, and the
    /// routes of the mempool, of fees and of submissions do not exist.
    pub fn new(
        query: Query,
        status: Arc<dyn NodeStatus>,
        mempool: Option<MempoolPorts>,
        params: ChainParams,
        config: ApiConfig,
        prometheus: PrometheusHandle,
    ) -> Self {
        let slots = |count| {
            Blocking::new(
                count,
                Duration::from_secs(config.queue_wait_secs.get()),
                Duration::from_secs(config.request_timeout_secs.get()),
            )
        };
        let inner = Inner {
            query,
            blocking: slots(config.max_queries),
            submitting: slots(MAX_SUBMISSIONS),
            status,
            mempool,
            params,
            access: Arc::new(Access::new(config.access.clone())),
            config,
            prometheus,
            sampler: Sampler::default(),
            settled: RwLock::default(),
            waiting: Semaphore::new(at_height::MOST_WAITING),
            started: Instant::now(),
        };
        Self {
            inner: Arc::new(inner),
            around: Arc::default(),
            patience: PATIENCE,
            partial: None,
        }
    }

    /// To be changed; clones that were made before do not see it.
    fn around(&mut self) -> &mut Around {
        Arc::make_mut(&mut self.around)
    }

    /// The same, with a server that answers while this node cannot.
    #[must_use]
    pub fn with_fallback(mut self, fallback: Fallback) -> Self {
        self.around().fallback = Some(Arc::new(fallback));
        self
    }

    /// The server that answers while this node cannot.
    pub(crate) fn fallback(&self) -> Option<&Fallback> {
        self.around.fallback.as_deref()
    }

    /// The same, as one node of a fleet.
    #[must_use]
    pub fn with_fleet(mut self, fleet: Arc<dyn FleetStatus>) -> Self {
        self.around().fleet = Some(fleet);
        self
    }

    /// The same, unhealthy as soon as `drain` is set.
    #[must_use]
    pub fn with_drain(mut self, drain: Arc<AtomicBool>) -> Self {
        self.around().drain = drain;
        self
    }

    /// The same, with a state that may be another node's word.
    #[must_use]
    pub fn with_trust(mut self, trust: watch::Receiver<TrustReport>) -> Self {
        self.around().trust = Some(trust);
        self
    }

    /// Whose word the state is.
    pub(crate) fn trust(&self) -> TrustReport {
        let told = self.around.trust.as_ref();
        told.map_or(TrustReport::OWN, |trust| *trust.borrow())
    }

    /// The other nodes of the fleet, if there is one.
    pub(crate) fn fleet(&self) -> Option<&dyn FleetStatus> {
        self.around.fleet.as_deref()
    }

    /// Whether the node is about to stop.
    pub(crate) fn is_draining(&self) -> bool {
        self.around.drain.load(Ordering::Acquire)
    }

    /// The same, with keys of clients to be found there.
    #[must_use]
    pub fn with_api_keys(self, keys: Arc<dyn ApiKeyStore>) -> Self {
        self.inner.access.set_keys(keys);
        self
    }

    /// Keys and limits of clients.
    pub(crate) fn access(&self) -> Arc<Access> {
        Arc::clone(&self.inner.access)
    }

    /// The same, for one request that takes a part of the chain for the whole.
    pub(crate) fn partial(&self) -> (Self, Arc<Partial>) {
        let partial = Arc::<Partial>::default();
        let state = Self {
            partial: Some(Arc::clone(&partial)),
            ..self.clone()
        };
        (state, partial)
    }

    /// Whether this request takes a part of the chain for the whole.
    pub(crate) fn takes_part(&self) -> Option<&Partial> {
        self.partial.as_deref()
    }

    /// The same, for work that must not wait.
    pub(crate) fn impatient(&self) -> Self {
        Self {
            patience: Duration::ZERO,
            ..self.clone()
        }
    }

    /// How long an answer may wait for index and mempool to meet.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> &ApiConfig {
        &self.inner.config
    }

    pub(crate) fn query(&self) -> &Query {
        &self.inner.query
    }

    /// Whether answers from `view` are complete.
    pub(crate) fn readiness(&self, view: &View<'_>) -> Readiness {
        let hash = |height| view.block_hash_at(height).ok().flatten();
        let report = self.status().report_without_peers();
        let readiness = report.readiness(view.tip(), hash);
        if readiness == Readiness::Synced
            && let Some(tip) = view.tip()
            && *self.inner.settled.read() != Some(tip)
            && !self.is_between(tip)
        {
            *self.inner.settled.write() = Some(tip);
        }
        readiness
    }

    /// Whether answers were complete once since the start: what is not so now will be
    /// again soon.
    pub(crate) fn was_synced(&self) -> bool {
        self.inner.settled.read().is_some()
    }

    /// Whether an index that ends at `tip` is in the middle of a reorganisation.
    pub(crate) fn is_between(&self, tip: ChainTip) -> bool {
        let Some(settled) = *self.inner.settled.read() else {
            return false;
        };
        // Most often it is there already.
        settled != tip
            && is_between(
                settled,
                tip,
                self.status().report_without_peers().active_tip,
            )
    }

    pub(crate) fn status(&self) -> &dyn NodeStatus {
        &*self.inner.status
    }

    pub(crate) fn mempool(&self) -> Option<&MempoolPorts> {
        self.inner.mempool.as_ref()
    }

    pub(crate) fn params(&self) -> &ChainParams {
        &self.inner.params
    }

    /// Places of requests that wait for a block.
    pub(crate) fn waiting(&self) -> &Semaphore {
        &self.inner.waiting
    }

    /// How transactions are written.
    pub(crate) fn rendering(&self) -> Rendering {
        Rendering {
            network: self.params().network,
            types: self.config().script_types,
        }
    }

    pub(crate) fn prometheus(&self) -> &PrometheusHandle {
        &self.inner.prometheus
    }

    pub(crate) fn blocking(&self) -> &Blocking {
        &self.inner.blocking
    }

    /// The slots for submissions.
    pub(crate) fn submitting(&self) -> &Blocking {
        &self.inner.submitting
    }

    pub(crate) fn sampler(&self) -> &Sampler {
        &self.inner.sampler
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.inner.started.elapsed()
    }
}

/// Whether an index that was at `settled`, and is to come to `active`, only passes by `tip`: it was
/// as far once, and is not where the chain ends. On the way through new blocks it is further.
fn is_between(settled: ChainTip, tip: ChainTip, active: ChainTip) -> bool {
    tip != settled && tip != active && tip.height <= settled.height
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::{BlockHash, hashes::Hash};

    use super::*;

    /// A block of a branch.
    fn tip(branch: u8, height: Height) -> ChainTip {
        let mut hash = [branch; 32];
        hash[..4].copy_from_slice(&height.to_le_bytes());
        ChainTip {
            height,
            hash: BlockHash::from_byte_array(hash),
            time: 0,
        }
    }

    #[test]
    fn a_reorganisation_is_between_until_it_has_reached_the_end_of_the_chain() {
        let settled = tip(1, 112);
        for (active, between, through) in [
            // One more block than before, many more, as many, and fewer with more work.
            (
                tip(2, 113),
                vec![tip(1, 111), tip(1, 110), tip(2, 111), tip(2, 112)],
                vec![],
            ),
            (
                tip(2, 120),
                vec![tip(1, 110), tip(2, 112)],
                vec![tip(2, 113), tip(2, 119)],
            ),
            (
                tip(2, 112),
                vec![tip(1, 111), tip(1, 110), tip(2, 111)],
                vec![],
            ),
            (tip(2, 111), vec![tip(1, 111), tip(1, 110)], vec![]),
        ] {
            for tip in between {
                assert!(
                    is_between(settled, tip, active),
                    "{tip:?} on the way to {active:?}"
                );
            }
            // At rest it is where the chain ends, whatever headers promise.
            for tip in [settled, active].into_iter().chain(through) {
                assert!(
                    !is_between(settled, tip, active),
                    "{tip:?} on the way to {active:?}"
                );
            }
        }
    }
}
