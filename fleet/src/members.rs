//! Who belongs to the fleet.
//!
//! ```text
//! [fleet] allow + members_file + key_file -> Members -> Gate -> admitted, or why not
//! ```
//!
//! # Security
//! A denied peer id is refused whatever else it can show. The files are read again while
//! the node runs; one that cannot be read leaves the members as they were, so that a
//! half-written file neither opens nor closes the fleet.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::{
    config::{ConfigError, FleetConfig},
    hello::Version,
    ticket::FleetKey,
};

/// Tickets and punishments that are remembered.
const MAX_REMEMBERED: usize = 4096;

/// Why the members could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembersError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key of the configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Who may join.
#[derive(Debug, Clone, Default)]
pub struct Members {
    /// Members by name.
    pub allow: HashSet<PeerId>,
    /// Refused, whatever else they show.
    pub deny: HashSet<PeerId>,
    /// Keys of the fleet; the first one signs.
    pub keys: Vec<FleetKey>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MembersFile {
    allow: Vec<String>,
    deny: Vec<String>,
}

/// Where members come from.
#[derive(Debug, Clone)]
pub struct MembersSource {
    allow: Vec<PeerId>,
    members: Option<PathBuf>,
    keys: Option<PathBuf>,
}

impl MembersSource {
    /// As the configuration says.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(config: &FleetConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            allow: config.allowed()?,
            members: config.members_path(),
            keys: config.key_path(),
        })
    }

    /// The texts of the files, to see whether they have changed.
    ///
    /// # Errors
    /// [`MembersError::Read`].
    pub fn read(&self) -> Result<[Option<String>; 2], MembersError> {
        let read = |path: &Option<PathBuf>| {
            path.as_ref()
                .map(|path| {
                    fs::read_to_string(path).map_err(|source| MembersError::Read {
                        path: path.clone(),
                        source,
                    })
                })
                .transpose()
        };
        Ok([read(&self.members)?, read(&self.keys)?])
    }

    /// The members that the texts name.
    ///
    /// # Errors
    /// [`MembersError::Content`].
    pub fn parse(&self, texts: &[Option<String>; 2]) -> Result<Members, MembersError> {
        let mut members = Members {
            allow: self.allow.iter().copied().collect(),
            ..Members::default()
        };
        if let (Some(path), Some(text)) = (&self.members, &texts[0]) {
            let content = |reason: String| MembersError::Content {
                path: path.clone(),
                reason,
            };
            let file: MembersFile =
                toml::from_str(text).map_err(|err| content(err.message().to_owned()))?;
            let parse = |text: &String| {
                let parsed = text.parse::<PeerId>();
                parsed.map_err(|_| content(format!("\"{text}\" is not a peer id")))
            };
            for id in &file.allow {
                members.allow.insert(parse(id)?);
            }
            for id in &file.deny {
                members.deny.insert(parse(id)?);
            }
        }
        if let (Some(path), Some(text)) = (&self.keys, &texts[1]) {
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                let key = FleetKey::from_hex(line).ok_or_else(|| MembersError::Content {
                    path: path.clone(),
                    reason: "a key is 64 hex digits".to_owned(),
                })?;
                members.keys.push(key);
            }
        }
        Ok(members)
    }
}

/// Why a peer id is not let in. One word each, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The operator denies it.
    #[error("denied")]
    Denied,
    /// It misbehaved a short while ago.
    #[error("punished")]
    Punished,
    /// It is not on the list, and shows no good ticket.
    #[error("stranger")]
    Stranger,
}

/// Decides who is let in. One for the whole node.
#[derive(Debug)]
pub struct Gate {
    network: [u8; 32],
    version: Version,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    members: Members,
    /// The ticket by which each peer id was last let in.
    tickets: HashMap<PeerId, Vec<u8>>,
    punished: HashMap<PeerId, Instant>,
}

impl Gate {
    /// For the members of a network that its genesis block names, of a node that speaks this
    /// version.
    #[must_use]
    pub fn new(network: [u8; 32], version: Version, members: Members) -> Self {
        let state = State {
            members,
            ..State::default()
        };
        Self {
            network,
            version,
            state: Mutex::new(state),
        }
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &[u8; 32] {
        &self.network
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Replaces the members.
    pub fn set_members(&self, members: Members) {
        self.state.lock().members = members;
    }

    /// A ticket for ourselves, if there is a key.
    #[must_use]
    pub fn own_ticket(&self, own: &PeerId, now: u64) -> Vec<u8> {
        let state = self.state.lock();
        let key = state.members.keys.first();
        key.map_or_else(Vec::new, |key| key.issue(own, &self.network, now))
    }

    /// Whether it is worth asking `peer` for a ticket.
    ///
    /// # Errors
    /// [`Refusal`] if no ticket would help.
    pub fn check_id(&self, peer: &PeerId) -> Result<(), Refusal> {
        let state = self.state.lock();
        state.check_standing(peer)?;
        let may_join = state.members.allow.contains(peer) || !state.members.keys.is_empty();
        may_join.then_some(()).ok_or(Refusal::Stranger)
    }

    /// Whether `peer`, which shows `ticket` (or nothing), is a member at `now`, in seconds
    /// since 1970.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admit(&self, peer: &PeerId, ticket: &[u8], now: u64) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        state.check_standing(peer)?;
        let accepts = |key: &FleetKey| key.accepts(ticket, peer, &self.network, now);
        if state.members.keys.iter().any(accepts) {
            if state.tickets.len() >= MAX_REMEMBERED {
                state.tickets.clear();
            }
            state.tickets.insert(*peer, ticket.to_vec());
            return Ok(());
        }
        let is_listed = state.members.allow.contains(peer);
        is_listed.then_some(()).ok_or(Refusal::Stranger)
    }

    /// Whether a peer that was let in may stay, now that the members may have changed.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn recheck(&self, peer: &PeerId) -> Result<(), Refusal> {
        let state = self.state.lock();
        state.check_standing(peer)?;
        let has_ticket = state.tickets.get(peer).is_some_and(|ticket| {
            let signed = |key: &FleetKey| key.has_signed(ticket, peer, &self.network);
            state.members.keys.iter().any(signed)
        });
        let may_stay = has_ticket || state.members.allow.contains(peer);
        may_stay.then_some(()).ok_or(Refusal::Stranger)
    }

    /// Refuses `peer` for a while.
    pub fn punish(&self, peer: PeerId, duration: Duration) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.punished.retain(|_, until| *until > now);
        if state.punished.len() < MAX_REMEMBERED {
            state.punished.insert(peer, now + duration);
        }
    }
}

impl State {
    fn check_standing(&self, peer: &PeerId) -> Result<(), Refusal> {
        if self.members.deny.contains(peer) {
            return Err(Refusal::Denied);
        }
        let until = self.punished.get(peer);
        match until.is_some_and(|until| *until > Instant::now()) {
            true => Err(Refusal::Punished),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::hello::VERSION;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn source() -> MembersSource {
        MembersSource {
            allow: Vec::new(),
            members: Some("members".into()),
            keys: Some("keys".into()),
        }
    }

    fn members(file: &str, keys: &str) -> Members {
        let texts = [Some(file.to_owned()), Some(keys.to_owned())];
        source().parse(&texts).unwrap()
    }

    #[test]
    fn listed_peers_and_holders_of_a_ticket_are_let_in_and_nobody_else() {
        let (listed, holder, denied) = (PeerId::random(), PeerId::random(), PeerId::random());
        let key = "11".repeat(32);
        let file = format!("allow = [\"{listed}\", \"{denied}\"]\ndeny = [\"{denied}\"]");
        let gate = Gate::new([0; 32], VERSION, members(&file, &key));
        let ticket = |peer| FleetKey::from_hex(&key).unwrap().issue(peer, &[0; 32], NOW);
        assert_eq!(gate.admit(&listed, &[], NOW), Ok(()));
        assert_eq!(gate.admit(&holder, &ticket(&holder), NOW), Ok(()));
        assert_eq!(
            gate.admit(&holder, &ticket(&listed), NOW),
            Err(Refusal::Stranger)
        );
        assert_eq!(gate.admit(&holder, &[], NOW), Err(Refusal::Stranger));
        assert_eq!(
            gate.admit(&denied, &ticket(&denied), NOW),
            Err(Refusal::Denied)
        );
        assert_eq!(gate.check_id(&denied), Err(Refusal::Denied));

        // A change of the files cuts off those who are not named any more.
        assert_eq!(gate.recheck(&listed), Ok(()));
        assert_eq!(gate.recheck(&holder), Ok(()));
        gate.set_members(members("", &"22".repeat(32)));
        assert_eq!(gate.recheck(&listed), Err(Refusal::Stranger));
        assert_eq!(gate.recheck(&holder), Err(Refusal::Stranger));
        // A second key in the file: members can be moved to it one after another.
        gate.set_members(members("", &format!("{}\n{key}\n", "22".repeat(32))));
        assert_eq!(gate.recheck(&holder), Ok(()));
    }

    #[test]
    fn without_a_key_a_stranger_is_not_even_asked_for_a_ticket() {
        let gate = Gate::new([0; 32], VERSION, members("", ""));
        assert_eq!(gate.check_id(&PeerId::random()), Err(Refusal::Stranger));
        gate.set_members(members("", &"11".repeat(32)));
        assert_eq!(gate.check_id(&PeerId::random()), Ok(()));
    }

    #[test]
    fn the_punished_are_refused_until_their_time_is_over() {
        let peer = PeerId::random();
        let gate = Gate::new(
            [0; 32],
            VERSION,
            members(&format!("allow = [\"{peer}\"]"), ""),
        );
        gate.punish(peer, Duration::from_secs(60));
        assert_eq!(gate.admit(&peer, &[], NOW), Err(Refusal::Punished));
        gate.punish(peer, Duration::ZERO);
        assert_eq!(gate.admit(&peer, &[], NOW), Ok(()));
    }

    #[test]
    fn a_mistake_in_a_file_is_named() {
        let error = |file: &str, keys: &str| {
            let texts = [Some(file.to_owned()), Some(keys.to_owned())];
            source().parse(&texts).unwrap_err().to_string()
        };
        assert_eq!(
            error("allow = [\"x\"]", ""),
            "members: \"x\" is not a peer id"
        );
        assert!(error("alow = []", "").starts_with("members: unknown field"));
        assert_eq!(error("", "secret"), "keys: a key is 64 hex digits");
    }
}
