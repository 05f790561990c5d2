//! The `[fleet]` section.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use crate::seeds::Seed;

/// The nodes of one operator among each other (`[fleet]`). Off without `listen`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetConfig {
    /// Address for siblings, TCP and (with `quic`) UDP, for example `0.0.0.0:4001`.
    /// Default: empty, no fleet.
    pub listen: String,
    /// Also listen and dial over QUIC. Default true.
    pub quic: bool,
    /// Where siblings are: `host:port` (a name is looked up again and again, each of its
    /// addresses is one sibling), `_service._tcp.name` (SRV records), `/dnsaddr/name`, or any
    /// other libp2p address. Default: none.
    pub seeds: Vec<String>,
    /// Time between two look-ups of the seeds, in seconds. Default 15.
    pub lookup_secs: u64,
    /// Name server that the seeds are looked up with, `IP:PORT`. Default: empty, those of
    /// the system.
    pub resolver: String,
    /// Find siblings of the local network by mDNS. Default false.
    pub mdns: bool,
    /// Peer ids (`pulse-node id`) that belong to the fleet. Default: none.
    pub allow: Vec<String>,
    /// File of more members, TOML with `allow = [..]` and `deny = [..]`, read again when it
    /// changes. Default: empty, none.
    pub members_file: String,
    /// File of the fleet's secret key: 64 hex digits, one key a line. Whoever holds it is a
    /// member. The first one signs, all are accepted. Read again when it changes.
    /// Default: empty, none.
    pub key_file: String,
    /// Neither dial nor take peers of the public network: blocks come from siblings alone.
    /// Default false.
    pub only_siblings: bool,
    /// Most siblings at a time. Default 64.
    pub max_siblings: u32,
    /// Most connections whose handshake is under way. Default 16.
    pub max_pending: u32,
    /// Blocks that this node may be behind the fleet's best tip and still be healthy.
    /// Default 5.
    pub max_lag_blocks: u32,
    /// Folder whose newest snapshots siblings can start from: folders that `pulse-node snapshot
    /// create` makes in it. Default: empty, none are offered.
    pub snapshots_dir: String,
    /// Time between two snapshots that the node makes there by itself, in hours; of those it
    /// keeps two. Default 0, none.
    pub snapshot_every_hours: u32,
    /// Most that is sent to siblings that fetch a snapshot, all together, in MiB a second.
    /// Default 200.
    pub snapshot_mib_per_second: u32,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            listen: String::new(),
            quic: true,
            seeds: Vec::new(),
            lookup_secs: 15,
            resolver: String::new(),
            mdns: false,
            allow: Vec::new(),
            members_file: String::new(),
            key_file: String::new(),
            only_siblings: false,
            max_siblings: 64,
            max_pending: 16,
            max_lag_blocks: 5,
            snapshots_dir: String::new(),
            snapshot_every_hours: 0,
            snapshot_mib_per_second: 200,
        }
    }
}

/// What is wrong with the `[fleet]` section.
#[derive(Debug, thiserror::Error)]
#[error("fleet.{key}: {reason}")]
pub struct ConfigError {
    /// The key.
    pub key: &'static str,
    /// Why.
    pub reason: String,
}

impl FleetConfig {
    /// Whether there is a fleet.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        !self.listen.is_empty()
    }

    /// Checks what can be checked without the disk and the network.
    ///
    /// # Errors
    /// [`ConfigError`]: the first key that makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.is_enabled() {
            return Ok(());
        }
        self.listen_addr()?;
        self.parsed_seeds()?;
        self.resolver_addr()?;
        self.allowed()?;
        let at_least_one = [
            ("lookup_secs", self.lookup_secs),
            ("max_siblings", self.max_siblings.into()),
            ("max_pending", self.max_pending.into()),
            (
                "snapshot_mib_per_second",
                self.snapshot_mib_per_second.into(),
            ),
        ];
        for (key, value) in at_least_one {
            if value == 0 {
                let reason = "must be at least 1".to_owned();
                return Err(ConfigError { key, reason });
            }
        }
        if self.allow.is_empty() && self.members_file.is_empty() && self.key_file.is_empty() {
            return Err(ConfigError {
                key: "listen",
                reason: "nobody could join. Hint: set allow, members_file or key_file".to_owned(),
            });
        }
        if self.snapshot_every_hours > 0 && self.snapshots_dir.is_empty() {
            return Err(ConfigError {
                key: "snapshot_every_hours",
                reason: "there is no place for them. Hint: set snapshots_dir".to_owned(),
            });
        }
        Ok(())
    }

    pub(crate) fn listen_addr(&self) -> Result<SocketAddr, ConfigError> {
        self.listen.parse().map_err(|_| ConfigError {
            key: "listen",
            reason: format!("\"{}\" is not IP:PORT", self.listen),
        })
    }

    pub(crate) fn parsed_seeds(&self) -> Result<Vec<Seed>, ConfigError> {
        let parse = |text: &String| {
            text.parse().map_err(|reason| ConfigError {
                key: "seeds",
                reason: format!("\"{text}\": {reason}"),
            })
        };
        self.seeds.iter().map(parse).collect()
    }

    /// `None`: those of the system.
    pub(crate) fn resolver_addr(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.resolver.is_empty() {
            return Ok(None);
        }
        let addr = self.resolver.parse().map_err(|_| ConfigError {
            key: "resolver",
            reason: format!("\"{}\" is not IP:PORT", self.resolver),
        })?;
        Ok(Some(addr))
    }

    pub(crate) fn allowed(&self) -> Result<Vec<PeerId>, ConfigError> {
        let parse = |text: &String| {
            text.parse().map_err(|_| ConfigError {
                key: "allow",
                reason: format!("\"{text}\" is not a peer id"),
            })
        };
        self.allow.iter().map(parse).collect()
    }

    /// Folder of the snapshots that siblings are offered, if there is one.
    #[must_use]
    pub fn snapshots_path(&self) -> Option<PathBuf> {
        path(&self.snapshots_dir)
    }

    pub(crate) fn members_path(&self) -> Option<PathBuf> {
        path(&self.members_file)
    }

    pub(crate) fn key_path(&self) -> Option<PathBuf> {
        path(&self.key_file)
    }
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| Path::new(text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_named_and_nothing_is_checked_without_a_fleet() {
        let wrong = FleetConfig {
            seeds: vec!["nonsense".to_owned()],
            ..FleetConfig::default()
        };
        wrong.check().unwrap();
        let error = |config: FleetConfig| config.check().unwrap_err().to_string();
        let on = |config| FleetConfig {
            listen: "127.0.0.1:4001".to_owned(),
            ..config
        };
        assert!(error(on(wrong)).starts_with("fleet.seeds: \"nonsense\""));
        assert!(error(on(FleetConfig::default())).contains("nobody could join"));
        let allow = vec!["me".to_owned()];
        let wrong = on(FleetConfig {
            allow,
            ..FleetConfig::default()
        });
        assert_eq!(error(wrong), "fleet.allow: \"me\" is not a peer id");
    }
}
