//! The peers in the hands of the operator.

use std::time::Duration;

use pulse_primitives::peers::{BanDetail, MAX_BAN_SECS, PeerCommandError, PeerControl, PeerDetail};
use tracing::info;

use super::{
    handle::NetHandle,
    peer::{Fault, Peer},
};
use crate::p2p::{
    bans::{Ban, BanTarget, DEFAULT_BAN_SECS},
    peer::PeerId,
};

impl PeerControl for NetHandle {
    fn peers(&self) -> Vec<PeerDetail> {
        let now = self.clock().unix();
        let peers = Self::peers(self);
        peers.iter().map(|peer| detail(peer, now)).collect()
    }

    fn disconnect(&self, id: u64) -> bool {
        let peer = self.shared.peers.lock().get(&PeerId(id)).cloned();
        let Some(peer) = peer else {
            return false;
        };
        info!(peer = %peer.id, addr = %peer.addr, "disconnected by the operator");
        peer.disconnect(Fault::Useless("operator"));
        true
    }

    fn bans(&self) -> Vec<BanDetail> {
        let bans = Self::bans(self).into_iter();
        bans.map(|(target, ban)| told(&target, &ban)).collect()
    }

    fn ban(&self, target: &str, seconds: Option<u64>) -> Result<BanDetail, PeerCommandError> {
        let target = parse(target)?;
        let seconds = seconds.unwrap_or(DEFAULT_BAN_SECS);
        if !(1..=MAX_BAN_SECS).contains(&seconds) {
            return Err(PeerCommandError::Duration);
        }
        Self::ban(self, target, Duration::from_secs(seconds))
            .map_err(|_| PeerCommandError::TooManyBans)?;
        info!(%target, seconds, "banned by the operator");
        let now = self.clock().unix();
        let mut bans = Self::bans(self).into_iter();
        let ban = bans.find(|(banned, _)| *banned == target);
        // It may be lifted again by now.
        let ban = ban.map_or(
            Ban {
                since: now,
                until: now.saturating_add(seconds),
            },
            |(_, ban)| ban,
        );
        Ok(told(&target, &ban))
    }

    fn unban(&self, target: &str) -> Result<bool, PeerCommandError> {
        let target = parse(target)?;
        let lifted = Self::unban(self, &target);
        if lifted {
            info!(%target, "ban lifted by the operator");
        }
        Ok(lifted)
    }
}

fn parse(text: &str) -> Result<BanTarget, PeerCommandError> {
    text.parse().map_err(|_| PeerCommandError::Target {
        text: text.to_owned(),
    })
}

fn told(target: &BanTarget, ban: &Ban) -> BanDetail {
    BanDetail {
        target: target.to_string(),
        since: ban.since,
        until: ban.until,
    }
}

fn detail(peer: &Peer, now: u64) -> PeerDetail {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (bytes_received, bytes_sent) = peer.bytes();
    PeerDetail {
        id: peer.id.0,
        addr: peer.addr.to_string(),
        network: peer.host.map(|host| host.kind().name()),
        kind: peer.kind.name(),
        direction: if peer.kind.is_inbound() {
            "inbound"
        } else {
            "outbound"
        },
        transport: peer.transport.name(),
        version: peer.remote.version,
        services: peer.remote.services.to_u64(),
        user_agent: peer.remote.user_agent.clone(),
        relays_txs: peer.relays_txs(),
        start_height: peer.remote.start_height,
        known_height: peer.known_height(),
        last_ping_ms: peer.last_ping().map(millis),
        least_ping_ms: peer.least_ping().map(millis),
        bytes_received,
        bytes_sent,
        connected_since: now.saturating_sub(peer.age().as_secs()),
    }
}
