//! From what was typed to what is true.

use std::{
    env,
    path::{Path, PathBuf, absolute},
    time::Duration,
};

use pulse_api::{ApiConfig, electrum::ElectrumConfig, push::PushConfig};
use pulse_fleet::FleetConfig;
use pulse_indexer::IndexConfig;
use pulse_mempool::MempoolConfig;
use pulse_node::config::SyncConfig;
use pulse_primitives::{
    bitcoin::{Network, Work},
    network::{ChainParams, network_by_name},
};
use tracing_subscriber::EnvFilter;

use super::{Bootstrap, ConfigError, LogConfig, RawConfig, TraceConfig};

/// The configuration in force: checked, and with every default filled in.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory of everything that the node keeps, absolute.
    pub data_dir: PathBuf,
    /// The network, with the minimum chain work that is in force.
    pub chain: ChainParams,
    /// Set when the node makes its own chain.
    pub simulate: Option<Simulate>,
    /// Time for a clean stop.
    pub stop_timeout: Duration,
    /// Time between SIGTERM and the stop.
    pub drain: Duration,
    /// Where an empty data directory begins.
    pub bootstrap: Bootstrap,
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
    /// The same as it would stand in a file, for `pulse-node config`.
    pub raw: RawConfig,
}

/// How a simulated chain grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Simulate {
    /// Time between two blocks.
    pub interval: Duration,
    /// Seed of a chain that is to be made; one that exists keeps its own.
    pub seed: u64,
}

impl Config {
    /// Checks `raw`. `network_given` tells whether somebody asked for the network or it
    /// is only the default, which `simulate` may replace.
    ///
    /// # Errors
    /// [`ConfigError`]: the first thing found wrong.
    pub fn resolve(mut raw: RawConfig, network_given: bool) -> Result<Self, ConfigError> {
        if raw.node.simulate && !network_given {
            raw.node.network = "regtest".to_owned();
        }
        let chain = chain_params(&raw)?;
        if raw.node.simulate && chain.network != Network::Regtest {
            return Err(ConfigError::meaning(
                "node.simulate",
                format!("a simulated chain is regtest, not {}", chain.name()),
            ));
        }
        raw.node.min_chain_work = hex::encode(chain.min_chain_work.to_be_bytes());

        let data_dir = data_dir(&raw)?;
        raw.node.data_dir = data_dir.display().to_string();

        let seconds = |key, seconds| {
            if seconds == 0 {
                return Err(ConfigError::meaning(key, "must be at least 1"));
            }
            Ok(Duration::from_secs(seconds))
        };
        let interval = seconds(
            "node.simulate_interval_secs",
            raw.node.simulate_interval_secs,
        )?;
        let stop_timeout = seconds("node.stop_timeout_secs", raw.node.stop_timeout_secs)?;
        EnvFilter::try_new(&raw.log.filter)
            .map_err(|err| ConfigError::meaning("log.filter", err.to_string()))?;
        check_trace(&raw.trace)?;
        raw.p2p.simulate = raw.node.simulate;
        raw.fleet.check()?;
        raw.p2p.only_siblings = only_siblings(&raw)?;
        check_bootstrap(&raw)?;
        // Parsed again where they are used; a mistake is to stop the start.
        raw.p2p.peers(chain.default_port)?;

        Ok(Self {
            data_dir,
            simulate: raw.node.simulate.then_some(Simulate {
                interval,
                seed: raw.node.simulate_seed,
            }),
            stop_timeout,
            drain: Duration::from_secs(raw.node.drain_secs),
            bootstrap: raw.node.bootstrap,
            p2p: raw.p2p.clone(),
            http: raw.http.clone(),
            push: raw.push.clone(),
            electrum: raw.electrum.clone(),
            index: raw.index.clone(),
            mempool: raw.mempool.clone(),
            fleet: raw.fleet.clone(),
            trace: raw.trace.clone(),
            log: raw.log.clone(),
            chain,
            raw,
        })
    }

    /// The configuration in force as a TOML file.
    ///
    /// # Errors
    /// When a value does not fit into TOML (an integer above 2^63).
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(&self.raw)
    }
}

fn check_trace(trace: &TraceConfig) -> Result<(), ConfigError> {
    if !(0.0..=1.0).contains(&trace.sample_ratio) {
        let reason = format!("{} is not between 0 and 1", trace.sample_ratio);
        return Err(ConfigError::meaning("trace.sample_ratio", reason));
    }
    let endpoint = &trace.otlp_endpoint;
    let is_http = endpoint.starts_with("http://") || endpoint.starts_with("https://");
    if !endpoint.is_empty() && !is_http {
        let reason = format!("\"{endpoint}\" is no http:// or https:// URL");
        return Err(ConfigError::meaning("trace.otlp_endpoint", reason));
    }
    Ok(())
}

fn chain_params(raw: &RawConfig) -> Result<ChainParams, ConfigError> {
    let name = &raw.node.network;
    let network = network_by_name(name).ok_or_else(|| {
        let names = "mainnet, testnet4, testnet3, signet or regtest";
        ConfigError::meaning("node.network", format!("\"{name}\" is not {names}"))
    })?;
    let challenge = match raw.node.signet_challenge.as_str() {
        "" => None,
        _ if network != Network::Signet => {
            return Err(ConfigError::meaning(
                "node.signet_challenge",
                format!("means nothing on {name}, only on signet"),
            ));
        }
        text => Some(hex::decode(text).map_err(|_| {
            ConfigError::meaning("node.signet_challenge", format!("\"{text}\" is not hex"))
        })?),
    };
    let mut chain = ChainParams::new(network, challenge);
    if !raw.node.min_chain_work.is_empty() {
        chain.min_chain_work = parse_work(&raw.node.min_chain_work).ok_or_else(|| {
            let text = &raw.node.min_chain_work;
            ConfigError::meaning(
                "node.min_chain_work",
                format!("\"{text}\" is not a number of at most 64 hex digits"),
            )
        })?;
    }
    Ok(chain)
}

/// Hex digits, most significant first, with or without `0x`, as short as one likes.
fn parse_work(text: &str) -> Option<Work> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(format!("{digits:0>64}"), &mut bytes).ok()?;
    Some(Work::from_be_bytes(bytes))
}

/// Whether blocks come from siblings alone, with which no other peer can be named.
fn only_siblings(raw: &RawConfig) -> Result<bool, ConfigError> {
    if !raw.fleet.only_siblings {
        return Ok(false);
    }
    let error = |reason: &str| Err(ConfigError::meaning("fleet.only_siblings", reason));
    let p2p = &raw.p2p;
    if !raw.fleet.is_enabled() {
        return error("there is no fleet. Hint: set fleet.listen");
    }
    if !p2p.connect.is_empty() || !p2p.add_node.is_empty() || p2p.listen.is_some() {
        return error("goes with none of p2p.connect, p2p.add_node and p2p.listen");
    }
    Ok(true)
}

/// A snapshot comes from siblings, and a chain that is made here from nobody.
fn check_bootstrap(raw: &RawConfig) -> Result<(), ConfigError> {
    let error = |reason: &str| Err(ConfigError::meaning("node.bootstrap", reason));
    match raw.node.bootstrap {
        Bootstrap::Blocks => Ok(()),
        Bootstrap::Snapshot if !raw.fleet.is_enabled() => {
            error("there is no fleet to take a snapshot from. Hint: set fleet.listen")
        }
        Bootstrap::Snapshot if raw.node.simulate => error("a simulated chain begins with blocks"),
        Bootstrap::Snapshot => Ok(()),
    }
}

fn data_dir(raw: &RawConfig) -> Result<PathBuf, ConfigError> {
    let error = |reason: String| ConfigError::meaning("node.data_dir", reason);
    let path = if raw.node.data_dir.is_empty() {
        let home = env::var_os("HOME")
            .filter(|home| !home.is_empty())
            .ok_or_else(|| error("not given, and HOME is not set".to_owned()))?;
        let name = if raw.node.simulate {
            "simulate"
        } else {
            &raw.node.network
        };
        Path::new(&home).join(".pulse-node").join(name)
    } else {
        PathBuf::from(&raw.node.data_dir)
    };
    absolute(&path).map_err(|err| error(format!("{}: {err}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_work_may_be_short_long_or_prefixed() {
        assert_eq!(parse_work("0"), Some(Work::from_be_bytes([0; 32])));
        let mut bytes = [0; 32];
        bytes[31] = 0x34;
        bytes[30] = 0x12;
        assert_eq!(parse_work("0x1234"), Some(Work::from_be_bytes(bytes)));
        assert_eq!(parse_work("00001234"), Some(Work::from_be_bytes(bytes)));
        assert!(parse_work(&"f".repeat(64)).is_some());
        for wrong in ["", "0x", "12g4", "-1", &"f".repeat(65)] {
            assert_eq!(parse_work(wrong), None, "{wrong:?}");
        }
    }
}
