//! What handlers may touch.

use std::{sync::Arc, time::Duration, time::Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use pulse_indexer::query::Query;
use pulse_primitives::{network::ChainParams, ports::NodeStatus};

use crate::{blocking::Blocking, config::ApiConfig, ops::sampler::Sampler};

/// Shared by all requests. Cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Inner>);

struct Inner {
    query: Query,
    status: Arc<dyn NodeStatus>,
    params: ChainParams,
    config: ApiConfig,
    prometheus: PrometheusHandle,
    blocking: Blocking,
    sampler: Sampler,
    started: Instant,
}

impl ApiState {
    /// State for answers from `query` about a chain with `params`. `prometheus` renders
    /// what the process has recorded.
    pub fn new(
        query: Query,
        status: Arc<dyn NodeStatus>,
        params: ChainParams,
        config: ApiConfig,
        prometheus: PrometheusHandle,
    ) -> Self {
        let blocking = Blocking::new(
            config.max_queries,
            Duration::from_secs(config.queue_wait_secs.get()),
            Duration::from_secs(config.request_timeout_secs.get()),
        );
        Self(Arc::new(Inner {
            query,
            status,
            params,
            config,
            prometheus,
            blocking,
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

    pub(crate) fn params(&self) -> &ChainParams {
        &self.0.params
    }

    pub(crate) fn prometheus(&self) -> &PrometheusHandle {
        &self.0.prometheus
    }

    pub(crate) fn blocking(&self) -> &Blocking {
        &self.0.blocking
    }

    pub(crate) fn sampler(&self) -> &Sampler {
        &self.0.sampler
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }
}
