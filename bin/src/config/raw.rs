//! What was typed: one struct per section, each with its defaults. The sections of the
//! other crates are theirs.

use pulse_api::{ApiConfig, electrum::ElectrumConfig, push::PushConfig};
use pulse_fleet::FleetConfig;
use pulse_indexer::IndexConfig;
use pulse_mempool::MempoolConfig;
use pulse_node::config::SyncConfig;
use serde::{Deserialize, Serialize};

/// All sections, as they stand in a file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// What this node is.
    pub node: NodeSection,
    /// Peers and download.
    pub p2p: SyncConfig,
    /// HTTP listeners.
    pub http: ApiConfig,
    /// WebSocket and Server-Sent Events.
    pub push: PushConfig,
    /// The Electrum server.
    pub electrum: ElectrumConfig,
    /// The index.
    pub index: IndexConfig,
    /// Unconfirmed transactions.
    pub mempool: MempoolConfig,
    /// The nodes of one operator among each other.
    pub fleet: FleetConfig,
    /// Traces.
    pub trace: TraceConfig,
    /// Logs.
    pub log: LogConfig,
}

/// What this node is (`[node]`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSection {
    /// Directory of everything that the node keeps; one network each. Default: empty,
    /// which is `~/.pulse-node/NETWORK` (or `~/.pulse-node/simulate`).
    pub data_dir: String,
    /// `mainnet`, `testnet4`, `testnet3`, `signet` or `regtest`. Default `mainnet`, and
    /// `regtest` with `simulate`.
    pub network: String,
    /// Challenge script of a custom signet, as hex. Default: empty, the public signet.
    pub signet_challenge: String,
    /// Least total work of a chain that answers may be drawn from, as hex. Default:
    /// empty, Bitcoin Core's value for the network.
    pub min_chain_work: String,
    /// Make a living regtest chain of one's own instead of syncing one. Default false.
    pub simulate: bool,
    /// Time between two simulated blocks, in seconds. Default 10.
    pub simulate_interval_secs: u64,
    /// Seed of a simulated chain that is to be made: equal seeds, equal keys. A chain that
    /// exists keeps its own. Default 1.
    pub simulate_seed: u64,
    /// Time for a clean stop, in seconds; what has not ended then is left behind.
    /// Default 60.
    pub stop_timeout_secs: u64,
    /// Time between SIGTERM and the stop, in seconds, in which `/health` is 503 and all else
    /// goes on, so that a balancer sends clients elsewhere. Default 0.
    pub drain_secs: u64,
    /// Where an empty data directory begins: `blocks`, from genesis, or `snapshot`, from a
    /// snapshot of a sibling, which is computed anew in the background. Default `blocks`.
    pub bootstrap: Bootstrap,
}

/// Where an empty data directory begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bootstrap {
    /// From genesis.
    Blocks,
    /// From a snapshot of a sibling.
    Snapshot,
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            data_dir: String::new(),
            network: "mainnet".to_owned(),
            signet_challenge: String::new(),
            min_chain_work: String::new(),
            simulate: false,
            simulate_interval_secs: 10,
            simulate_seed: 1,
            stop_timeout_secs: 60,
            drain_secs: 0,
            bootstrap: Bootstrap::Blocks,
        }
    }
}

/// Traces (`[trace]`): spans of requests, blocks and the index for an OTLP endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceConfig {
    /// Where they are sent, for example `http://127.0.0.1:4318`, without the path of the
    /// signal. Default: empty, nowhere, and nothing is traced.
    pub otlp_endpoint: String,
    /// How they are sent. Default `http/protobuf`.
    pub otlp_protocol: OtlpProtocol,
    /// Part of all traces that is sent, from 0 to 1. Default 0.01.
    pub sample_ratio: f64,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            otlp_protocol: OtlpProtocol::HttpProtobuf,
            sample_ratio: 0.01,
        }
    }
}

/// How spans are sent, by the words of OpenTelemetry. There is no gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OtlpProtocol {
    /// Protocol buffers over HTTP.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// Logs (`[log]`), written to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `text` or `json`. Default `text`.
    pub format: LogFormat,
    /// What is logged, in the directives of the `tracing` libraries, for example
    /// `info,pulse_node=debug`. Default `info`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".to_owned(),
        }
    }
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}
