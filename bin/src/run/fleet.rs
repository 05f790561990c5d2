//! Puts the fleet together with the node.

use std::{
    fs,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use pulse_fleet::{Fleet, FleetHandle};
use pulse_indexer::Index;
use pulse_meta::MetaStore;
use pulse_node::{chain::Chain, headers::HeaderStore};
use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, constants::genesis_block, hashes::Hash},
    fleet::{FleetSource, OwnState, SiblingStream},
    network::ChainParams,
    ports::BlockSource,
    tip::ChainTip,
};
use tokio::sync::{mpsc, watch};

use crate::{
    config::Config,
    tasks::{Drain, Tasks},
};

/// Streams of siblings that may wait for the net.
const STREAMS: usize = 16;

/// The fleet at work, and the streams of siblings for the net.
pub struct Siblings {
    /// What the API asks.
    pub handle: FleetHandle,
    /// For the net.
    pub streams: mpsc::Receiver<SiblingStream>,
}

/// Listens and spawns the fleet, if there is one. Snapshots are offered while `vouches` is
/// set.
///
/// # Errors
/// Why it cannot begin.
pub fn spawn(
    tasks: &mut Tasks,
    config: &Config,
    meta: &MetaStore,
    source: NodeSource,
    vouches: Arc<AtomicBool>,
) -> anyhow::Result<Option<Siblings>> {
    if !config.fleet.is_enabled() {
        return Ok(None);
    }
    let identity = meta.identity().to_protobuf_encoding()?;
    let network = config.chain.genesis_hash().to_byte_array();
    let (node, streams) = mpsc::channel(STREAMS);
    let (mut fleet, handle) =
        Fleet::new(&config.fleet, &identity, network, Arc::new(source), node)?;
    if let Some(dir) = config.fleet.snapshots_path() {
        let rate = config.fleet.snapshot_mib_per_second;
        fleet.serve_snapshots(dir, rate, vouches)?;
    }
    tasks.spawn("fleet", |stop| async move {
        fleet.run(stop).await;
        Ok(())
    });
    Ok(Some(Siblings { handle, streams }))
}

/// What the fleet is told of this node.
pub struct NodeSource {
    /// The active chain.
    pub chain: Chain,
    /// All headers that were checked.
    pub headers: Arc<HeaderStore>,
    /// The index, if there is one.
    pub index: Option<Index>,
    /// The network.
    pub params: ChainParams,
    /// Whether the node is about to stop.
    pub drain: Drain,
}

impl FleetSource for NodeSource {
    fn own_state(&self) -> OwnState {
        let tip = self.chain.active_tip();
        let header = self.headers.header(&tip.hash);
        let indexed = self.index.as_ref().and_then(|index| *index.tip().borrow());
        OwnState {
            header: header.unwrap_or_else(|| genesis_block(self.params.network).header),
            height: tip.height,
            indexed: indexed.map(|tip| tip.height),
            load_percent: load_percent().unwrap_or(0),
            is_draining: self.drain.has_begun(),
        }
    }

    fn header_height(&self, hash: &BlockHash) -> Option<Height> {
        let height = self.headers.height_of(hash)?;
        (!self.headers.is_invalid(hash)).then_some(height)
    }

    fn tip(&self) -> watch::Receiver<ChainTip> {
        self.chain.tip()
    }
}

/// Processes that ran or waited in the last minute, in percent of the processors.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast to an integer saturates, and the average is never negative"
)]
fn load_percent() -> Option<u16> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    let minute: f64 = text.split(' ').next()?.parse().ok()?;
    let cores = thread::available_parallelism().ok()?.get();
    Some((minute * 100.0 / f64::from(u16::try_from(cores).ok()?)) as u16)
}
