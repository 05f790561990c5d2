//! Spans to an OTLP endpoint, if the operator has named one (`[trace]`).
//!
//! ```text
//! span of TRACE_TARGET -> sampler -> queue -> thread of the exporter -> HTTP, protobuf
//! ```
//!
//! # Correctness
//! The exporter has a thread of its own, and its requests run on the runtime like all others.
//! When the endpoint does not answer, spans are lost and the log says so; nothing waits.
//!
//! # Limits
//! 2048 spans wait at most, 512 are sent at a time. A request takes ten seconds at most, the
//! last one at the stop [`CLOSING`].

use std::{fmt, sync::Arc, time::Duration};

use anyhow::Context;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use pulse_primitives::trace::TRACE_TARGET;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::runtime::Handle;
use tracing::{Subscriber, level_filters::LevelFilter, warn};
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use crate::{
    cli::{COMMIT, VERSION},
    config::TraceConfig,
};

/// Path of the endpoint that takes spans (OTLP 1.0, "OTLP/HTTP Request").
const PATH: &str = "/v1/traces";
/// Time for a request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the last spans at the stop.
const CLOSING: Duration = Duration::from_secs(3);
/// Longest answer of the endpoint.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The way of spans out of the process.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Opens the way that `config` names; `None` if it names none. Requests run on `runtime`.
    ///
    /// # Errors
    /// When the endpoint is no URL, or its certificate could not be judged.
    pub fn open(config: &TraceConfig, runtime: &Handle) -> anyhow::Result<Option<Self>> {
        if config.otlp_endpoint.is_empty() {
            return Ok(None);
        }
        let endpoint = format!("{}{PATH}", config.otlp_endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(endpoint)
            .with_timeout(TIMEOUT)
            .with_http_client(Sender::new(&config.otlp_endpoint, runtime)?)
            .build()
            .context("trace.otlp_endpoint")?;
        let resource = Resource::builder()
            .with_service_name("pulse-node")
            .with_attributes([
                KeyValue::new("service.version", VERSION),
                KeyValue::new("pulse.commit", COMMIT),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                config.sample_ratio,
            ))))
            .with_resource(resource)
            .build();
        Ok(Some(Self(provider)))
    }

    /// What takes the spans.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("pulse-node"))
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(TRACE_TARGET, LevelFilter::TRACE))
    }

    /// Sends what is left. Blocks for [`CLOSING`] at most.
    pub fn close(self) {
        if let Err(err) = self.0.shutdown_with_timeout(CLOSING) {
            warn!(%err, "the last traces were not sent");
        }
    }
}

/// Sends requests of the exporter's thread on the runtime.
#[derive(Clone)]
struct Sender {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl Sender {
    fn new(endpoint: &str, runtime: &Handle) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        if endpoint.starts_with("https:") {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            anyhow::ensure!(
                !roots.is_empty(),
                "trace.otlp_endpoint: no root certificates for https. Hint: install ca-certificates"
            );
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CLOSING));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            runtime: runtime.clone(),
        })
    }
}

#[async_trait::async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sending = async move {
            let response = client.request(request.map(Full::new)).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
            Ok::<_, HttpError>(Response::from_parts(parts, body.to_bytes()))
        };
        // The clock of the runtime is not there in the exporter's thread.
        let sending = async { tokio::time::timeout(TIMEOUT, sending).await };
        self.runtime.spawn(sending).await??
    }
}
