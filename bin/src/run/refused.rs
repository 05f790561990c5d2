//! A node whose state was found to be false: nothing is opened, and every answer is 503 with
//! the reason.
//!
//! A supervisor that starts the process again gets the same; nothing is deleted.

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use pulse_api::{Certificates, CorsOrigin, HttpsAcceptor, Opening, ServerLimits};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::replay;
use crate::{
    config::Config,
    data_dir::{DataDir, Listen},
    listen, systemd,
    tasks::Tasks,
    trust::{Record, Trust},
};

/// What clients are told.
const WHY: &str = "the node does not answer: the sibling's snapshot that it began with is not what the blocks make (trust.json in its data directory says how). Nothing was deleted. What to do: docs/fleet.md, A false snapshot";

/// What was found, if the state in the data directory is false.
///
/// # Errors
/// When that cannot be read.
pub fn record(config: &Config) -> anyhow::Result<Option<Record>> {
    let record = Record::read(&config.data_dir)?;
    Ok(record.filter(|record| record.trust == Trust::Refuted))
}

/// Refuses until `stop`.
///
/// # Errors
/// When it cannot listen.
pub async fn run(
    config: &Config,
    metrics: PrometheusHandle,
    record: &Record,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let vouchers = record.vouchers.iter();
    let vouchers: Vec<_> = vouchers.map(|voucher| &voucher.peer_id).collect();
    error!(reason = record.reason, ?vouchers, "{WHY}");
    pulse_api::record_trust(replay::report(Some(record)));
    let seed = config.simulate.map(|simulate| simulate.seed);
    let data_dir = DataDir::open(&config.data_dir, &config.chain, seed)?;
    let http = listen::bind("http.addr", config.http.addr).await?;
    let addr = http.local_addr()?.to_string();
    let certificates = Certificates::given(
        "http",
        config.http.tls_cert.as_deref(),
        config.http.tls_key.as_deref(),
    )?;
    let https = certificates.as_ref().map(HttpsAcceptor::new).transpose()?;
    let opening = Opening::new(metrics);
    opening.doing(WHY);
    let limits = ServerLimits::from(&config.http);
    let mut tasks = Tasks::new(stop);
    let door = opening.door(config.http.cors.clone(), config.http.ops_addr.is_none());
    tasks.spawn("http", {
        let limits = limits.clone();
        |stop| async move {
            pulse_api::serve(http, https, door.router(), limits, stop).await;
            Ok(())
        }
    });
    let mut ops_addr = None;
    if let Some(addr) = config.http.ops_addr {
        let ops = listen::bind("http.ops_addr", addr).await?;
        ops_addr = Some(ops.local_addr()?.to_string());
        let door = opening.door(CorsOrigin::none(), true);
        tasks.spawn("ops", |stop| async move {
            pulse_api::serve(ops, None, door.router(), limits, stop).await;
            Ok(())
        });
    }
    tasks.spawn("systemd", systemd::run);
    data_dir
        .write_listen(&Listen {
            http: addr,
            ops: ops_addr,
            p2p: None,
            electrum: std::collections::BTreeMap::new(),
            pid: std::process::id(),
        })
        .context("listen.json")?;
    tasks.finish(config.stop_timeout).await
}
