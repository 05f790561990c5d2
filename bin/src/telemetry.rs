//! Logs, metrics and traces of the process.

mod traces;

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use anyhow::Context;
use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

pub use traces::Traces;

use crate::{
    cli::{COMMIT, VERSION},
    config::{LogConfig, LogFormat},
};

const BUILD_INFO: &str = "pulse_build_info";

/// Buckets for numbers of blocks: reorganisations from one block to the deepest.
const BLOCKS_BUCKETS: [f64; 9] = [1.0, 2.0, 3.0, 6.0, 10.0, 50.0, 100.0, 500.0, 2_000.0];

/// How often measured values move into their buckets and the process is looked at.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Starts logging to standard error, and tracing if there is somewhere to. Call once.
///
/// # Errors
/// When the filter does not parse, or logging was started before.
pub fn init_logs(config: &LogConfig, traces: Option<&Traces>) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.filter).context("log.filter")?;
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match config.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let registry = tracing_subscriber::registry();
    let result = match traces {
        // The filter of the lines must not keep spans from the traces.
        Some(traces) => registry
            .with(lines.with_filter(filter))
            .with(traces.layer())
            .try_init(),
        None => registry.with(lines).with(filter).try_init(),
    };
    result.context("starting the logs")
}

/// Starts recording metrics. Call once, before anything is counted. The handle renders
/// them.
///
/// # Errors
/// When a recorder was installed before.
pub fn init_metrics() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Suffix("_seconds".to_owned()),
            &pulse_api::SECONDS_BUCKETS,
        )
        .and_then(|builder| {
            let suffix = Matcher::Suffix("_blocks".to_owned());
            builder.set_buckets_for_metric(suffix, &BLOCKS_BUCKETS)
        })
        .and_then(PrometheusBuilder::install_recorder)
        .context("starting the metrics")?;

    describe_gauge!(BUILD_INFO, "Always 1; version and commit are its labels.");
    gauge!(BUILD_INFO, "version" => VERSION, "commit" => COMMIT).set(1.0);
    pulse_api::describe_metrics();
    pulse_fleet::metrics::describe();
    pulse_indexer::metrics::describe();
    pulse_meta::metrics::describe();
    pulse_node::metrics::describe();
    let process = metrics_process::Collector::default();
    process.describe();
    process.collect();
    Ok(handle)
}

/// Keeps the metrics in order until `stop`. A task of its own.
///
/// # Errors
/// Never; the signature is that of a task.
pub async fn run_upkeep(handle: PrometheusHandle, stop: CancellationToken) -> anyhow::Result<()> {
    let process = metrics_process::Collector::default();
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = interval.tick() => {}
        }
        process.collect();
        handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// Words that start with `pulse_` and stand between two `mark`s.
    fn names(text: &str, mark: char) -> BTreeSet<String> {
        text.split(mark)
            .filter(|word| {
                word.strip_prefix("pulse_")
                    .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            })
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_documentation_lists_every_metric_in_the_code_and_no_other() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let documented = names(
            &fs::read_to_string(root.join("docs/metrics.md")).unwrap(),
            '`',
        );
        let mut spelled = BTreeSet::from([BUILD_INFO.to_owned()]);
        for name in ["api", "fleet", "indexer", "mempool", "meta", "node", "p2p"] {
            let file = root.join(name).join("src/metrics.rs");
            spelled.extend(names(&fs::read_to_string(file).unwrap(), '"'));
        }
        assert_eq!(documented, spelled);
    }

    #[test]
    fn what_is_recorded_is_rendered_with_buckets_and_the_build() {
        let handle = init_metrics().unwrap();
        metrics::histogram!("test_duration_seconds").record(0.3);
        let text = handle.render();
        assert!(
            text.contains("test_duration_seconds_bucket{le=\"1\"} 1"),
            "{text}"
        );
        let build = format!("pulse_build_info{{version=\"{VERSION}\",commit=\"{COMMIT}\"}} 1");
        assert!(text.contains(&build), "{text}");
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    }
}
