//! Whom to dial: the places that seeds name, and the siblings that others tell of.
//!
//! ```text
//! look-ups -> places  (an address of a seed is one sibling)   -+
//!          -> named   (libp2p addresses without an IP)         +-> Dial -> swarm
//! statuses -> known   (peer id -> where it listens)           -+
//! ```
//!
//! # Correctness
//! A place is dialled over each of its transports in turn until it has been a connection,
//! and again once that is lost; a place that turns out to be this node itself is left alone.
//! What a sibling tells of another one is tried once each time it is told.
//!
//! # Limits
//! [`MAX_KNOWN`] siblings, [`crate::seeds::MAX_ADDRS`] addresses of seeds.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use libp2p::{
    Multiaddr, PeerId,
    multiaddr::Protocol,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};

/// Siblings whose addresses are remembered.
pub const MAX_KNOWN: usize = 256;

/// One place where a sibling may be, over whichever transport.
pub(super) type Place = (IpAddr, u16);

/// An attempt, and the place of a seed that it is for.
pub(super) type Dial = (DialOpts, Option<Place>);

/// What is known of where siblings are.
pub(super) struct Whom {
    own: PeerId,
    /// Addresses of the seeds at their last look-up, by place.
    places: HashMap<Place, Vec<Multiaddr>>,
    /// Addresses of the seeds that name no IP address.
    named: Vec<Multiaddr>,
    /// Whom each place turned out to be.
    found: HashMap<Place, PeerId>,
    dialing: HashMap<ConnectionId, Option<Place>>,
    attempts: HashMap<Place, usize>,
    /// What siblings tell.
    known: HashMap<PeerId, Vec<Multiaddr>>,
}

impl Whom {
    pub(super) fn new(own: PeerId) -> Self {
        Self {
            own,
            places: HashMap::new(),
            named: Vec::new(),
            found: HashMap::new(),
            dialing: HashMap::new(),
            attempts: HashMap::new(),
            known: HashMap::new(),
        }
    }

    /// The addresses that the seeds have now.
    pub(super) fn set_seeds(&mut self, addrs: Vec<Multiaddr>) {
        self.places.clear();
        self.named.clear();
        for addr in addrs {
            match place(&addr) {
                Some(place) => self.places.entry(place).or_default().push(addr),
                None => self.named.push(addr),
            }
        }
        let places = &self.places;
        self.found.retain(|place, _| places.contains_key(place));
        self.attempts.retain(|place, _| places.contains_key(place));
    }

    /// Remembers where a sibling is that is not connected.
    pub(super) fn learn(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) {
        let is_wanted = peer != self.own && !addrs.is_empty();
        if is_wanted && (self.known.len() < MAX_KNOWN || self.known.contains_key(&peer)) {
            self.known.insert(peer, addrs);
        }
    }

    /// An attempt has begun.
    pub(super) fn began(&mut self, id: ConnectionId, place: Option<Place>) {
        self.dialing.insert(id, place);
    }

    /// Whether seeds have addresses and no attempt is under way.
    pub(super) fn is_settled(&self) -> bool {
        let has_seeds = !self.places.is_empty() || !self.named.is_empty();
        has_seeds && self.dialing.is_empty()
    }

    /// An attempt, or a connection that came in, has got to `peer`.
    pub(super) fn reached(&mut self, id: ConnectionId, peer: PeerId) {
        if let Some(Some(place)) = self.dialing.remove(&id) {
            self.found.insert(place, peer);
            self.attempts.remove(&place);
        }
    }

    /// An attempt got nowhere, or, `to_self`, to this node, which need not be dialled again.
    pub(super) fn failed(&mut self, id: ConnectionId, to_self: bool) {
        let place = self.dialing.remove(&id).flatten();
        if let Some(place) = place
            && to_self
        {
            self.found.insert(place, self.own);
        }
    }

    /// Every place of the seeds that is neither connected nor being dialled.
    pub(super) fn seeds(&mut self, is_connected: impl Fn(&PeerId) -> bool) -> Vec<Dial> {
        let busy: HashSet<_> = self.dialing.values().flatten().copied().collect();
        let is_here = |place: &Place| {
            let peer = self.found.get(place);
            peer.is_some_and(|peer| *peer == self.own || is_connected(peer))
        };
        let wanted: Vec<_> = self
            .places
            .iter()
            .filter(|(place, _)| !busy.contains(*place) && !is_here(place))
            .map(|(place, addrs)| {
                let attempt = self.attempts.get(place).copied().unwrap_or(0);
                (Some(*place), addrs[attempt % addrs.len()].clone())
            })
            .chain(self.named.iter().map(|addr| (None, addr.clone())))
            .collect();
        let mut dials = Vec::new();
        for (place, addr) in wanted {
            if let Some(place) = place {
                *self.attempts.entry(place).or_default() += 1;
            }
            match peer_of(&addr) {
                Some(peer) if peer == self.own => {}
                Some(peer) => dials.push((to(peer, vec![addr]), place)),
                None => dials.push((DialOpts::unknown_peer_id().address(addr).build(), place)),
            }
        }
        dials
    }

    /// Every sibling that was told of and `is_wanted`. It is forgotten until it is told of
    /// again, which happens while it is alive.
    pub(super) fn told(&mut self, is_wanted: impl Fn(&PeerId) -> bool) -> Vec<Dial> {
        let wanted = self.known.extract_if(|peer, _| is_wanted(peer));
        wanted
            .map(|(peer, addrs)| (to(peer, addrs), None))
            .collect()
    }
}

/// A dial of `peer`, unless it is connected or being dialled by then.
fn to(peer: PeerId, addrs: Vec<Multiaddr>) -> DialOpts {
    DialOpts::peer_id(peer)
        .condition(PeerCondition::DisconnectedAndNotDialing)
        .addresses(addrs)
        .build()
}

fn place(addr: &Multiaddr) -> Option<Place> {
    let mut parts = addr.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some((ip, port)),
        _ => None,
    }
}

fn peer_of(addr: &Multiaddr) -> Option<PeerId> {
    addr.iter().find_map(|part| match part {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Dials, and says where to.
    fn dial(whom: &mut Whom, connected: &[PeerId]) -> Vec<(ConnectionId, String)> {
        let mut dialed = Vec::new();
        for (dial, place) in whom.seeds(|peer| connected.contains(peer)) {
            let id = dial.connection_id();
            whom.began(id, place);
            dialed.push((id, format!("{dial:?}")));
        }
        dialed
    }

    #[test]
    fn a_place_is_dialled_over_each_transport_in_turn_until_it_is_connected() {
        let mut whom = Whom::new(PeerId::random());
        whom.set_seeds(addrs(&[
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/127.0.0.1/udp/1/quic-v1",
        ]));
        let first = dial(&mut whom, &[]);
        assert_eq!(first.len(), 1);
        assert!(first[0].1.contains("/tcp/1"), "{first:?}");
        assert!(dial(&mut whom, &[]).is_empty(), "it is being dialled");
        whom.failed(first[0].0, false);
        let second = dial(&mut whom, &[]);
        assert!(second[0].1.contains("quic-v1"), "{second:?}");
        let peer = PeerId::random();
        whom.reached(second[0].0, peer);
        assert!(dial(&mut whom, &[peer]).is_empty(), "it is connected");
        assert_eq!(dial(&mut whom, &[]).len(), 1, "it is lost");
    }

    #[test]
    fn it_is_settled_when_each_seed_was_reached_or_could_not_be() {
        let mut whom = Whom::new(PeerId::random());
        assert!(!whom.is_settled(), "the seeds are not known");
        whom.set_seeds(addrs(&["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2"]));
        let dialed = dial(&mut whom, &[]);
        whom.reached(dialed[0].0, PeerId::random());
        assert!(!whom.is_settled(), "one is being dialled");
        whom.failed(dialed[1].0, false);
        assert!(whom.is_settled());
    }

    #[test]
    fn this_node_itself_is_dialled_no_more_than_once() {
        let mut whom = Whom::new(PeerId::random());
        let seeds = addrs(&["/ip4/127.0.0.1/tcp/1"]);
        whom.set_seeds(seeds.clone());
        let first = dial(&mut whom, &[]);
        whom.failed(first[0].0, true);
        whom.set_seeds(seeds);
        assert!(dial(&mut whom, &[]).is_empty());
    }

    #[test]
    fn what_a_name_has_no_more_is_forgotten_and_what_is_new_is_dialled() {
        let mut whom = Whom::new(PeerId::random());
        whom.set_seeds(addrs(&["/ip4/127.0.0.1/tcp/1"]));
        let first = dial(&mut whom, &[]);
        let peer = PeerId::random();
        whom.reached(first[0].0, peer);
        whom.set_seeds(addrs(&["/ip4/127.0.0.1/tcp/2"]));
        assert!(whom.found.is_empty());
        let second = dial(&mut whom, &[peer]);
        assert_eq!(second.len(), 1);
        assert!(second[0].1.contains("/tcp/2"), "{second:?}");
    }

    #[test]
    fn who_is_told_of_is_dialled_once_each_time() {
        let own = PeerId::random();
        let mut whom = Whom::new(own);
        let at = addrs(&["/ip4/127.0.0.1/tcp/1"]);
        let (peer, other) = (PeerId::random(), PeerId::random());
        whom.learn(own, at.clone());
        whom.learn(peer, at.clone());
        whom.learn(other, Vec::new());
        assert!(whom.told(|_| false).is_empty());
        assert_eq!(whom.told(|_| true).len(), 1);
        assert!(whom.told(|_| true).is_empty());
        for _ in 0..2 * MAX_KNOWN {
            whom.learn(PeerId::random(), at.clone());
        }
        assert_eq!(whom.known.len(), MAX_KNOWN);
    }
}
