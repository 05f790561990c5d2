//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

/// Version and commit, as `--version` and `pulse_build_info` show them.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit that was built, or "unknown".
pub const COMMIT: &str = env!("PULSE_COMMIT");
const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("PULSE_COMMIT"), ")");

/// A Bitcoin node, an index of every address, and the Esplora API in one process.
///
/// Every setting can also stand in a TOML file (--config) or in the environment, as
/// PULSE_SECTION__KEY: PULSE_HTTP__ADDR is http.addr. Defaults < file < environment <
/// flags; "pulse-node config" shows what is in force.
#[derive(Debug, Parser)]
#[command(name = "pulse-node", version = LONG_VERSION)]
pub struct Cli {
    /// Settings.
    #[command(flatten)]
    pub flags: Flags,
    /// What to do instead of running the node.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags, each of which is also a key of the configuration.
#[derive(Debug, Default, Clone, Args)]
pub struct Flags {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Directory of everything that the node keeps [default: ~/.pulse-node/NETWORK].
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// mainnet, testnet4, testnet3, signet or regtest [default: mainnet].
    #[arg(long, value_name = "NETWORK", global = true)]
    pub network: Option<String>,
    /// Challenge script of a custom signet, as hex.
    #[arg(long, value_name = "HEX", global = true)]
    pub signet_challenge: Option<String>,
    /// Bitcoin peer to connect to, and to no others; may be given several times.
    #[arg(long, value_name = "HOST:PORT", global = true)]
    pub connect: Vec<String>,
    /// Bitcoin peer to connect to besides those that the node finds by itself; may be
    /// given several times.
    #[arg(long, value_name = "HOST:PORT", global = true)]
    pub add_node: Vec<String>,
    /// Address on which other Bitcoin nodes can connect [default: none].
    #[arg(long, value_name = "IP:PORT", global = true)]
    pub listen: Option<String>,
    /// Most connections with Bitcoin peers [default: 125].
    #[arg(long, value_name = "N", global = true)]
    pub max_peers: Option<u64>,
    /// SOCKS5 proxy for all connections to peers [default: none].
    #[arg(long, value_name = "IP:PORT", global = true)]
    pub proxy: Option<String>,
    /// Connect to peers in this network only: ipv4, ipv6, onion or cjdns; may be given
    /// several times.
    #[arg(long, value_name = "NETWORK", global = true)]
    pub only_net: Vec<String>,
    /// Least total work of a chain that answers may be drawn from [default: that of
    /// Bitcoin Core for the network].
    #[arg(long, value_name = "HEX", global = true)]
    pub min_chain_work: Option<String>,
    /// Address of the HTTP API [default: 127.0.0.1:8080].
    #[arg(long, value_name = "IP:PORT", global = true)]
    pub http_addr: Option<String>,
    /// Address for /metrics and everything administrative [default: that of the API].
    #[arg(long, value_name = "IP:PORT", global = true)]
    pub ops_addr: Option<String>,
    /// Another Esplora server that answers while this node is not synced [default: none].
    #[arg(long, value_name = "URL", global = true)]
    pub fallback_esplora: Option<String>,
    /// Make a living regtest chain of one's own instead of syncing one.
    #[arg(long, global = true)]
    pub simulate: bool,
    /// Where an empty data directory begins: blocks, from genesis, or snapshot, from a snapshot
    /// of a sibling [default: blocks].
    #[arg(long, value_name = "FROM", global = true)]
    pub bootstrap: Option<String>,
    /// text or json [default: text].
    #[arg(long, value_name = "FORMAT", global = true)]
    pub log_format: Option<String>,
}

/// What to do instead of running the node.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Print the configuration that is in force, as TOML.
    Config,
    /// Write a generated chain to a file in blk-file framing, which Bitcoin Core can
    /// load. Equal arguments make equal files.
    Simulate(SimulateArgs),
    /// Print the peer id of this node, making it if there is none yet.
    Id,
    /// Ask the node that runs in the data directory whether it answers, as a container's
    /// health check does. Ends with code 1 if not.
    Health {
        /// Ask whether it is synced (/health) instead (of /health/live).
        #[arg(long)]
        ready: bool,
    },
    /// Print a digest over all rows of the index of a node that is not running. Two
    /// nodes at the same tip have the same digest.
    Digest,
    /// Check every row of the index against the blocks, and print the hashes and counts
    /// that Bitcoin Core's gettxoutsetinfo prints. A node that runs in the data directory does
    /// it itself and goes on answering. Ends with code 1 if anything differs.
    Verify(VerifyArgs),
    /// Build the index anew from the blocks on disk, without the network. The old one is
    /// kept as index.old-N. The node must not be running.
    Reindex(ReindexArgs),
    /// Make, prove or restore a snapshot: a copy of chain and index without anything that
    /// is of this node alone.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Write blocks, transactions and what happened to addresses to Parquet files, for
    /// analytics. Files that are there are kept. A node that runs in the data directory does
    /// it itself and goes on answering.
    Archive(ArchiveArgs),
    /// Write what a snapshot does not have, the identity of this node, its labels and API
    /// keys, to a new file that is to be kept secret.
    Export {
        /// File to write; it must not exist.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Take identity, labels and API keys from a file that export has written. The node must not be running.
    Import {
        /// File to read.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// What to do with a snapshot.
#[derive(Debug, Clone, Subcommand)]
pub enum SnapshotCommand {
    /// Make a snapshot, also of a running node, which goes on answering.
    Create {
        /// Folder to make; it must not exist.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Make a data directory, which must be empty or absent, of a snapshot. The same command
    /// goes on after an interruption.
    Restore {
        /// Folder of the snapshot.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Read and hash a whole snapshot.
    Verify {
        /// Folder of the snapshot.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

/// What to check.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Check the rows of blocks from this height on only. What other blocks left unspent is
    /// checked by the commitment alone, and Bitcoin Core's numbers are not computed.
    #[arg(long, value_name = "HEIGHT", default_value_t = 0)]
    pub from: u32,
    /// Compute hash_serialized_3 too, which needs about 80 bytes of disk per unspent output
    /// meanwhile.
    #[arg(long)]
    pub hash_serialized: bool,
}

/// What to archive.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct ArchiveArgs {
    /// Folder of the files; made if it is not there.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// First height, rounded up to the beginning of a file.
    #[arg(long, value_name = "HEIGHT", default_value_t = 0)]
    pub from: u32,
    /// Last height, rounded down to the end of a file [default: 100 blocks below the tip,
    /// which is the highest].
    #[arg(long, value_name = "HEIGHT")]
    pub to: Option<u32>,
    /// Blocks in a file.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub blocks_per_file: u32,
}

/// How to build the index anew.
#[derive(Debug, Clone, Args)]
pub struct ReindexArgs {
    /// Go on with the index that is there, after a reindex was interrupted.
    #[arg(long)]
    pub resume: bool,
}

/// Size and seed of a generated chain.
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// Blocks to generate, besides genesis.
    #[arg(long, value_name = "N")]
    pub blocks: u32,
    /// Transactions in a block besides the coinbase, once there are coins enough.
    #[arg(long, value_name = "M", default_value_t = 25)]
    pub txs_per_block: u32,
    /// Seed of all keys and all choices.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Make the traffic as uneven as that of mainnet: one address in about a twelfth of all
    /// transactions, and one with thousands of unspent outputs on a long chain.
    #[arg(long)]
    pub uneven: bool,
    /// File to write; one that exists is replaced.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

impl Flags {
    /// Flags that were given, as (flag, key of the configuration, value).
    pub fn given(&self) -> Vec<(&'static str, &'static str, figment::value::Value)> {
        use figment::value::Value;

        let text = |value: &Option<String>| value.clone().map(Value::from);
        let path = |value: &Option<PathBuf>| {
            value
                .as_ref()
                .map(|path| Value::from(path.to_string_lossy().into_owned()))
        };
        let list = |values: &[String]| (!values.is_empty()).then(|| Value::from(values.to_vec()));
        [
            ("--data-dir", "node.data_dir", path(&self.data_dir)),
            ("--network", "node.network", text(&self.network)),
            (
                "--signet-challenge",
                "node.signet_challenge",
                text(&self.signet_challenge),
            ),
            (
                "--min-chain-work",
                "node.min_chain_work",
                text(&self.min_chain_work),
            ),
            (
                "--simulate",
                "node.simulate",
                self.simulate.then(|| Value::from(true)),
            ),
            ("--bootstrap", "node.bootstrap", text(&self.bootstrap)),
            ("--connect", "p2p.connect", list(&self.connect)),
            ("--add-node", "p2p.add_node", list(&self.add_node)),
            ("--listen", "p2p.listen", text(&self.listen)),
            (
                "--max-peers",
                "p2p.max_peers",
                self.max_peers.map(Value::from),
            ),
            ("--proxy", "p2p.proxy", text(&self.proxy)),
            ("--only-net", "p2p.only_net", list(&self.only_net)),
            ("--http-addr", "http.addr", text(&self.http_addr)),
            (
                "--fallback-esplora",
                "http.fallback_esplora",
                text(&self.fallback_esplora),
            ),
            ("--ops-addr", "http.ops_addr", text(&self.ops_addr)),
            ("--log-format", "log.format", text(&self.log_format)),
        ]
        .into_iter()
        .filter_map(|(flag, key, value)| Some((flag, key, value?)))
        .collect()
    }
}
