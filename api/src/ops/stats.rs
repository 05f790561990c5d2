//! `/stats`: the node in numbers, for people.

use axum::{extract::State, http::StatusCode, response::Response};
use pulse_primitives::{
    Height,
    bitcoin::BlockHash,
    fleet::{FleetReport, FleetStatus},
    status::{NodeReport, PeerReport, Readiness, Trust, TrustReport},
    tip::ChainTip,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    describe::{HashText, Peer, Ready},
    health::readiness,
    json,
    sampler::Rates,
};
use crate::state::ApiState;

/// The answer to `/stats`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stats)]
pub(super) struct StatsJson {
    network: &'static str,
    version: &'static str,
    uptime_seconds: u64,
    #[schema(value_type = Ready)]
    readiness: Readiness,
    /// Tip of the index; `null` before the first block is indexed.
    #[schema(required = true)]
    index_tip: Option<TipJson>,
    /// Tip of the chain that is validated.
    active_tip: TipJson,
    /// Tip of the best header chain.
    best_header: TipJson,
    /// Blocks from the index tip to the best header.
    #[schema(value_type = u32)]
    lag_blocks: Height,
    /// Blocks indexed per minute, over the last two minutes.
    blocks_per_minute: f64,
    /// Transactions in them.
    transactions_per_minute: f64,
    /// Share of the blocks of the best header chain that is indexed, 0 to 1. Blocks are
    /// counted, not their sizes.
    sync_progress: f64,
    /// Time until the index reaches the best header at the present rate; `null` when
    /// there is nothing to do or no rate yet.
    #[schema(required = true)]
    sync_eta_seconds: Option<u64>,
    blocks_in_flight: usize,
    blocks_received: u64,
    bytes_received: u64,
    peers_dropped: u64,
    #[schema(value_type = Vec<Peer>)]
    peers: Vec<PeerReport>,
    /// `validated` when the node has computed its state from genesis; `sibling` while it is
    /// that of a snapshot of a sibling, which is being computed anew.
    #[schema(value_type = String)]
    trust: Trust,
    /// How far that is; not there when nothing is computed anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<ReplayJson>,
    /// The other nodes of the fleet; not there without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    fleet: Option<FleetReport>,
}

/// Blocks that were computed anew, of how many.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replay)]
struct ReplayJson {
    #[schema(value_type = u32)]
    height: Height,
    #[schema(value_type = u32)]
    target: Height,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tip)]
struct TipJson {
    #[schema(value_type = u32)]
    height: Height,
    #[schema(value_type = HashText)]
    hash: BlockHash,
    time: u32,
}

impl From<ChainTip> for TipJson {
    fn from(tip: ChainTip) -> Self {
        Self {
            height: tip.height,
            hash: tip.hash,
            time: tip.time,
        }
    }
}

/// `/stats`.
pub(super) async fn stats(State(state): State<ApiState>) -> Response {
    let index_tip = *state.query().tip_watch().borrow();
    let report = state.status().report();
    let mut body = StatsJson::new(
        state.params().name(),
        state.uptime().as_secs(),
        index_tip,
        report,
        readiness(&state),
        state.sampler().rates(),
    );
    // Initial sync knows better: it counts transactions, which later blocks have more of.
    if let Some(left) = state.query().time_left() {
        body.sync_eta_seconds = Some(left.as_secs());
    }
    let TrustReport { trust, replayed } = state.trust();
    body.trust = trust;
    body.replay = replayed.map(|(height, target)| ReplayJson { height, target });
    body.fleet = state.fleet().map(FleetStatus::report);
    json("/stats", StatusCode::OK, &body)
}

impl StatsJson {
    fn new(
        network: &'static str,
        uptime_seconds: u64,
        index_tip: Option<ChainTip>,
        report: NodeReport,
        readiness: Readiness,
        rates: Rates,
    ) -> Self {
        let best = report.best_header.height;
        // Genesis counts, so that an index of the whole chain is at 1.
        let indexed = index_tip.map_or(0, |tip| u64::from(tip.height) + 1);
        let wanted = u64::from(best) + 1;
        let missing = wanted.saturating_sub(indexed);
        Self {
            network,
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds,
            readiness,
            index_tip: index_tip.map(Into::into),
            active_tip: report.active_tip.into(),
            best_header: report.best_header.into(),
            lag_blocks: index_tip.map_or(best, |tip| best.saturating_sub(tip.height)),
            blocks_per_minute: rates.blocks_per_minute,
            transactions_per_minute: rates.txs_per_minute,
            sync_progress: ratio(indexed.min(wanted), wanted),
            sync_eta_seconds: eta_seconds(missing, rates.blocks_per_minute),
            blocks_in_flight: report.blocks_in_flight,
            blocks_received: report.blocks_received,
            bytes_received: report.bytes_received,
            peers_dropped: report.peers_dropped,
            peers: report.peers,
            trust: Trust::Validated,
            replay: None,
            fleet: None,
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "heights are far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a float cast to an integer saturates, and the estimate is never negative"
)]
fn eta_seconds(missing: u64, blocks_per_minute: f64) -> Option<u64> {
    (missing > 0 && blocks_per_minute > 0.0)
        .then(|| (missing as f64 / blocks_per_minute * 60.0).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::{Work, hashes::Hash};

    use super::*;

    fn tip(height: Height) -> ChainTip {
        ChainTip {
            height,
            hash: BlockHash::all_zeros(),
            time: 0,
        }
    }

    fn stats(index_tip: Option<ChainTip>, blocks_per_minute: f64) -> StatsJson {
        let work = Work::from_be_bytes([0; 32]);
        let report = NodeReport {
            best_header: tip(99),
            best_hashes: vec![BlockHash::all_zeros()],
            best_header_work: work,
            min_chain_work: work,
            headers_answered: true,
            active_tip: tip(60),
            peers: Vec::new(),
            blocks_in_flight: 0,
            blocks_received: 0,
            bytes_received: 0,
            peers_dropped: 0,
        };
        let rates = Rates {
            blocks_per_minute,
            txs_per_minute: 0.0,
        };
        let hash = |height| Some(index_tip.filter(|tip| tip.height == height)?.hash);
        let readiness = report.readiness(index_tip, hash);
        StatsJson::new("regtest", 5, index_tip, report, readiness, rates)
    }

    #[test]
    fn progress_and_estimate_follow_the_index() {
        let half = stats(Some(tip(49)), 25.0);
        assert_eq!((half.lag_blocks, half.sync_eta_seconds), (50, Some(120)));
        assert!((half.sync_progress - 0.5).abs() < 1e-9);
        assert!(matches!(half.readiness, Readiness::NotSynced { .. }));

        let done = stats(Some(tip(99)), 25.0);
        assert_eq!((done.lag_blocks, done.sync_eta_seconds), (0, None));
        assert!((done.sync_progress - 1.0).abs() < 1e-9);
        assert_eq!(done.readiness, Readiness::Synced);

        let empty = stats(None, 0.0);
        assert_eq!(empty.sync_eta_seconds, None);
        assert!(empty.sync_progress.abs() < 1e-9);
        // An index above the best header known so far is no negative lag.
        assert_eq!(stats(Some(tip(100)), 1.0).lag_blocks, 0);
    }
}
