//! What the node knows about itself, and the one definition of "synced".

use bitcoin::{BlockHash, Work};
use serde::Serialize;

use crate::{Height, tip::ChainTip};

/// The index may be this many blocks behind the best header and still count as synced.
pub const SYNCED_LAG_BLOCKS: Height = 2;

/// State of peers, headers and validation at one moment.
#[derive(Debug, Clone)]
pub struct NodeReport {
    /// Tip of the best valid header chain.
    pub best_header: ChainTip,
    /// Hashes of the last blocks of that chain, newest first: as many as the index may
    /// be behind, and one.
    pub best_hashes: Vec<BlockHash>,
    /// Total work of that chain.
    pub best_header_work: Work,
    /// Work that a chain must have before it is trusted (`--min-chain-work`).
    pub min_chain_work: Work,
    /// Whether a peer has answered a header request since the start (or the node
    /// simulates its own chain).
    pub headers_answered: bool,
    /// Tip of the active chain, as validated by the kernel.
    pub active_tip: ChainTip,
    /// Peers with a finished handshake.
    pub peers: Vec<PeerReport>,
    /// Blocks requested from peers and not yet received.
    pub blocks_in_flight: usize,
    /// Blocks received since the start.
    pub blocks_received: u64,
    /// Bytes received from peers since the start.
    pub bytes_received: u64,
    /// Peers dropped for misbehaviour since the start.
    pub peers_dropped: u64,
}

/// One connected peer.
#[derive(Debug, Clone, Serialize)]
pub struct PeerReport {
    /// Address as given or as seen.
    pub addr: String,
    /// Why there is a connection: `manual`, `full_relay`, `block_relay`, `inbound` or `sibling`.
    pub kind: &'static str,
    /// How its bytes look: `v1`, or `v2` when they are encrypted (BIP 324).
    pub transport: &'static str,
    /// Age of the connection, in seconds.
    pub connected_seconds: u64,
    /// Shortest time from a ping to its answer so far, in milliseconds; `null` before
    /// the first.
    pub least_ping_ms: Option<u64>,
    /// User agent that the peer claims (BIP 14), printable ASCII only.
    pub user_agent: String,
    /// Height that the peer claimed in its version message.
    pub start_height: i32,
    /// Blocks requested from this peer and not yet received.
    pub in_flight: usize,
}

/// Whose word the state of the chain is (unspent outputs, undo data, index).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// A sibling's, whose snapshot the node began with.
    Sibling,
    /// The node has computed it from genesis.
    Validated,
    /// The node has computed it, and it is not what the sibling gave.
    Refuted,
}

/// Whose word the state is, and how far the node is in computing it anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustReport {
    /// Whose word it is.
    pub trust: Trust,
    /// Blocks that were computed anew, and how many there are; `None` when nothing is.
    pub replayed: Option<(Height, Height)>,
}

impl TrustReport {
    /// Nothing was ever taken on trust.
    pub const OWN: Self = Self {
        trust: Trust::Validated,
        replayed: None,
    };
}

/// Whether answers can be trusted to be complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Readiness {
    /// The index follows the best chain.
    Synced,
    /// Why it does not yet.
    NotSynced {
        /// One sentence for an operator.
        reason: String,
    },
}

impl NodeReport {
    /// The definition of "synced": a peer has answered our header request once, the
    /// best header chain has the minimum work, and the index has all of that chain but
    /// its last [`SYNCED_LAG_BLOCKS`] blocks. What the index holds of another branch
    /// counts as blocks that are to come: in a short reorganisation answers go on. The
    /// age of the tip never decides.
    ///
    /// `index_hash` gives the hash of an indexed block; it is asked for the last few heights.
    #[must_use]
    pub fn readiness(
        &self,
        index_tip: Option<ChainTip>,
        index_hash: impl Fn(Height) -> Option<BlockHash>,
    ) -> Readiness {
        let reason = if !self.headers_answered {
            "no peer has answered a header request yet".to_owned()
        } else if self.best_header_work < self.min_chain_work {
            format!(
                "the best header chain (height {}) has less than the minimum chain work",
                self.best_header.height
            )
        } else {
            match index_tip {
                None => "the index is empty".to_owned(),
                Some(tip) if tip.height + SYNCED_LAG_BLOCKS < self.best_header.height => format!(
                    "indexed {} of {} blocks",
                    tip.height, self.best_header.height
                ),
                Some(tip) if !self.shares_recent_block(&tip, index_hash) => format!(
                    "the indexed block {} of height {} is not on the best header chain",
                    tip.hash, tip.height
                ),
                Some(_) => return Readiness::Synced,
            }
        };
        Readiness::NotSynced { reason }
    }

    /// Whether one of the last blocks of the best header chain is in the index.
    fn shares_recent_block(
        &self,
        tip: &ChainTip,
        index_hash: impl Fn(Height) -> Option<BlockHash>,
    ) -> bool {
        if self.best_hashes.contains(&tip.hash) {
            return true;
        }
        let best = (0..=self.best_header.height).rev().zip(&self.best_hashes);
        let indexed = best.filter(|(height, _)| *height < tip.height);
        indexed
            .into_iter()
            .any(|(height, hash)| index_hash(height) == Some(*hash))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    fn tip(height: Height, branch: u8) -> ChainTip {
        let mut hash = [branch; 32];
        hash[..4].copy_from_slice(&height.to_le_bytes());
        ChainTip {
            height,
            hash: BlockHash::from_byte_array(hash),
            time: 0,
        }
    }

    #[test]
    fn an_index_is_synced_that_lacks_no_more_than_the_last_blocks_of_the_best_chain() {
        let work = Work::from_be_bytes([0; 32]);
        let report = NodeReport {
            best_header: tip(100, 1),
            best_hashes: [100, 99, 98].map(|height| tip(height, 1).hash).to_vec(),
            best_header_work: work,
            min_chain_work: work,
            headers_answered: true,
            active_tip: tip(100, 1),
            peers: Vec::new(),
            blocks_in_flight: 0,
            blocks_received: 0,
            bytes_received: 0,
            peers_dropped: 0,
        };
        // What an index holds that left the chain above height `fork`.
        let branch = |fork| move |height| Some(tip(height, if height > fork { 2 } else { 1 }).hash);
        for height in 98..=100 {
            let indexed = Some(tip(height, 1));
            assert_eq!(report.readiness(indexed, branch(height)), Readiness::Synced);
        }
        for height in 99..=101 {
            let stale = Some(tip(height, 2));
            assert_eq!(report.readiness(stale, branch(98)), Readiness::Synced);
            assert_ne!(report.readiness(stale, branch(97)), Readiness::Synced);
        }
        assert_ne!(
            report.readiness(Some(tip(97, 1)), branch(97)),
            Readiness::Synced
        );
        assert_ne!(report.readiness(None, |_| None), Readiness::Synced);
    }
}
