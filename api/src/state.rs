//! What handlers may touch.

use std::{num::NonZeroUsize, sync::Arc, time::Duration, time::Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use pulse_indexer::query::Query;
use pulse_primitives::{
    mempool::{MempoolSource, TxSubmitter},
    network::ChainParams,
    ports::NodeStatus,
};

use crate::{blocking::Blocking, config::ApiConfig, ops::sampler::Sampler};

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
pub struct ApiState(Arc<Inner>);

struct Inner {
    query: Query,
    status: Arc<dyn NodeStatus>,
    mempool: Option<MempoolPorts>,
    params: ChainParams,
    config: ApiConfig,
    prometheus: PrometheusHandle,
    blocking: Blocking,
    submitting: Blocking,
    sampler: Sampler,
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
        Self(Arc::new(Inner {
            query,
            blocking: slots(config.max_queries),
            submitting: slots(MAX_SUBMISSIONS),
            status,
            mempool,
            params,
            config,
            prometheus,
            sampler: Sampler::default(),
            started: Instant::now(),
        }))
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> &ApiConfig {
        &self.0.config
    }

    pub(crate) fn query(&self) -> &Query {
        &self.0.query
    }

    pub(crate) fn status(&self) -> &dyn NodeStatus {
        &*self.0.status
    }

    pub(crate) fn mempool(&self) -> Option<&MempoolPorts> {
        self.0.mempool.as_ref()
    }

    pub(crate) fn params(&self) -> &ChainParams {
        &self.0.params
    }

    pub(crate) fn prometheus(&self) -> &PrometheusHandle {
        &self.0.prometheus
    }

    pub(crate) fn blocking(&self) -> &Blocking {
        &self.0.blocking
    }

    /// The slots for submissions.
    pub(crate) fn submitting(&self) -> &Blocking {
        &self.0.submitting
    }

    pub(crate) fn sampler(&self) -> &Sampler {
        &self.0.sampler
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }
}
