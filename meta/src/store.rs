//! The store: opens, recovers, and answers.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    KnownPeer, MAX_PEERS, MetaError, RunStats,
    api_keys::{self, Keys},
    damage::{self, OpenFailure},
    identity::{self, Found, Keypair, PeerId},
    labels::{self, Labels},
    values,
};

const FOLDER: &str = "meta";
const IDENTITY_FILE: &str = "identity.key";
const IDENTITY_KEY: &[u8] = b"identity";
const STATS_KEY: &[u8] = b"run_stats";
const PEERS_TREE: &[u8] = b"peers";

/// Metadata of one data directory.
///
/// Every call may touch the disk. None of them is needed for an answer: a caller
/// that meets an error logs it and goes on.
#[derive(Debug)]
pub struct MetaStore {
    dir: PathBuf,
    pub(crate) db: sled::Db,
    peers: sled::Tree,
    pub(crate) values: sled::Tree,
    pub(crate) labels: Labels,
    pub(crate) keys: Keys,
    key: Keypair,
    stats: Mutex<RunStats>,
    /// Serialises "count, make room, insert".
    peers_guard: Mutex<()>,
    /// Keeps a reader of several rows from seeing half of a change.
    pub(crate) values_guard: Mutex<()>,
}

/// How [`MetaStore::open`] found the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// It was not there.
    New,
    /// It was there and read well.
    Existing,
    /// It was damaged and has been replaced.
    Recovered {
        /// Where the damaged one is now.
        moved_to: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
}

/// Everything that is read at the start.
struct Contents {
    db: sled::Db,
    peers: sled::Tree,
    values: sled::Tree,
    labels: Labels,
    keys: Keys,
    key: Option<Keypair>,
    stats: RunStats,
}

impl MetaStore {
    /// Opens the metadata of `data_dir`: `meta/` and `identity.key` in it, both made
    /// if missing. A damaged database is moved aside and replaced (see the crate's
    /// documentation).
    ///
    /// The identity file counts more than the database, so that an operator can
    /// restore an identity by putting that file back.
    ///
    /// # Errors
    /// [`MetaError::InUse`] when another process has it open, [`MetaError::Io`] when
    /// the operating system refuses.
    pub fn open(data_dir: &Path) -> Result<(Self, Opened), MetaError> {
        let dir = data_dir.join(FOLDER);
        let file = dir.join("db");
        let is_new = !file.try_exists().map_err(|err| MetaError::io(&file, err))?;
        let (contents, opened) = match damage::open(&dir, move |db| read_contents(db, is_new)) {
            Ok(contents) if is_new => (contents, Opened::New),
            Ok(contents) => (contents, Opened::Existing),
            Err(OpenFailure::Damaged(reason)) => {
                let moved_to = damage::move_aside(&dir)?;
                crate::metrics::count_recovery();
                tracing::warn!(
                    dir = %dir.display(),
                    moved_to = %moved_to.display(),
                    err = reason,
                    "metadata was damaged; moved it aside and started a new one"
                );
                let contents = damage::open(&dir, |db| read_contents(db, true))
                    .map_err(|failure| into_error(&dir, failure))?;
                (contents, Opened::Recovered { moved_to, reason })
            }
            Err(failure) => return Err(into_error(&dir, failure)),
        };

        let in_database = contents.key.as_ref().map(Keypair::public);
        let key = settle_identity(&data_dir.join(IDENTITY_FILE), contents.key)?;
        let store = Self {
            dir,
            db: contents.db,
            peers: contents.peers,
            values: contents.values,
            labels: contents.labels,
            keys: contents.keys,
            stats: Mutex::new(contents.stats),
            peers_guard: Mutex::new(()),
            values_guard: Mutex::new(()),
            key,
        };
        if in_database.as_ref() != Some(&store.key.public()) {
            let bytes = identity::encode(&store.key);
            store.guarded(|| store.db.insert(IDENTITY_KEY, bytes))?;
            store.flush()?;
        }
        Ok((store, opened))
    }

    /// Peer id of `data_dir` from its plain file alone, so that it can be asked while
    /// a node runs. `None` when there is no such file yet.
    ///
    /// # Errors
    /// [`MetaError::Io`] when it cannot be read, [`MetaError::Damaged`] when it holds
    /// no key.
    pub fn read_peer_id(data_dir: &Path) -> Result<Option<PeerId>, MetaError> {
        let path = data_dir.join(IDENTITY_FILE);
        match identity::read(&path).map_err(|err| MetaError::io(&path, err))? {
            Found::Key(key) => Ok(Some(key.public().to_peer_id())),
            Found::Nothing => Ok(None),
            Found::Damaged => Err(MetaError::Damaged {
                dir: path,
                reason: "it does not hold a key".to_owned(),
            }),
        }
    }

    /// Key pair of this node.
    #[must_use]
    pub fn identity(&self) -> &Keypair {
        &self.key
    }

    /// Name of this node among libp2p peers.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.key.public().to_peer_id()
    }

    /// Statistics of all runs.
    #[must_use]
    pub fn run_stats(&self) -> RunStats {
        self.stats.lock().clone()
    }

    /// Records a start at `now` (seconds since 1970); a run before it that recorded
    /// no stop counts as an unclean one.
    ///
    /// # Errors
    /// [`MetaError::Damaged`], [`MetaError::Io`].
    pub fn record_start(&self, now: u64) -> Result<RunStats, MetaError> {
        self.update_stats(|stats| {
            stats.unclean_stops += u64::from(stats.running);
            stats.starts += 1;
            stats.last_start = Some(now);
            stats.running = true;
        })
    }

    /// Records a clean stop at `now` (seconds since 1970).
    ///
    /// # Errors
    /// As [`MetaStore::record_start`].
    pub fn record_stop(&self, now: u64) -> Result<RunStats, MetaError> {
        self.update_stats(|stats| {
            stats.last_stop = Some(now);
            stats.running = false;
        })
    }

    /// Adds to the number of blocks indexed. Meant for every few seconds, not for
    /// every block.
    ///
    /// # Errors
    /// As [`MetaStore::record_start`].
    pub fn add_blocks_indexed(&self, count: u64) -> Result<RunStats, MetaError> {
        self.update_stats(|stats| stats.blocks_indexed = stats.blocks_indexed.saturating_add(count))
    }

    /// Records a finished handshake with `addr` at `now` (seconds since 1970). Above
    /// [`MAX_PEERS`] the peer that was not seen for longest is forgotten.
    ///
    /// # Errors
    /// As [`MetaStore::record_start`].
    pub fn record_peer(&self, addr: &str, user_agent: &str, now: u64) -> Result<(), MetaError> {
        let _guard = self.peers_guard.lock();
        let known = self.guarded(|| self.peers.get(addr))?;
        let peer = match known.and_then(|bytes| decode::<KnownPeer>(&bytes)) {
            Some(peer) => KnownPeer {
                last_seen: now,
                handshakes: peer.handshakes.saturating_add(1),
                user_agent: user_agent.to_owned(),
                ..peer
            },
            None => {
                self.make_room()?;
                KnownPeer {
                    addr: addr.to_owned(),
                    first_seen: now,
                    last_seen: now,
                    handshakes: 1,
                    user_agent: user_agent.to_owned(),
                }
            }
        };
        self.guarded(|| self.peers.insert(addr, encode(&peer)))?;
        Ok(())
    }

    /// Peers that this node has met, the latest first.
    ///
    /// # Errors
    /// As [`MetaStore::record_start`].
    pub fn peers(&self) -> Result<Vec<KnownPeer>, MetaError> {
        let mut peers = self.guarded(|| read_peers(&self.peers))?;
        peers.sort_by(|a, b| b.last_seen.cmp(&a.last_seen).then(a.addr.cmp(&b.addr)));
        Ok(peers)
    }

    /// Writes everything to the disk.
    ///
    /// # Errors
    /// As [`MetaStore::record_start`].
    pub fn flush(&self) -> Result<(), MetaError> {
        self.guarded(|| self.db.flush()).map(drop)
    }

    fn make_room(&self) -> Result<(), MetaError> {
        let mut peers = self.peers()?;
        while peers.len() >= MAX_PEERS {
            let Some(oldest) = peers.pop() else { break };
            self.guarded(|| self.peers.remove(&oldest.addr))?;
        }
        Ok(())
    }

    fn update_stats(&self, change: impl FnOnce(&mut RunStats)) -> Result<RunStats, MetaError> {
        let mut stats = self.stats.lock();
        change(&mut stats);
        let bytes = encode(&*stats);
        self.guarded(|| {
            self.db.insert(STATS_KEY, bytes)?;
            self.db.flush()
        })?;
        Ok(stats.clone())
    }

    /// Runs a call into sled; an error or a panic of it becomes ours.
    pub(crate) fn guarded<T>(
        &self,
        action: impl FnOnce() -> Result<T, sled::Error>,
    ) -> Result<T, MetaError> {
        match damage::guard(action) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(err)) => Err(into_error(&self.dir, err.into())),
            Err(panic) => Err(into_error(&self.dir, OpenFailure::Damaged(panic))),
        }
    }
}

/// Reads every row, so that damage shows now. sled drops what fails its checksum
/// without a word; but a database that is not new has an identity, always.
fn read_contents(db: sled::Db, is_new: bool) -> Result<Contents, OpenFailure> {
    let damaged = |what: &str| OpenFailure::Damaged(format!("{what} does not decode"));
    let key = match db.get(IDENTITY_KEY)? {
        Some(bytes) => Some(identity::decode(&bytes).ok_or_else(|| damaged("the identity"))?),
        None if is_new => None,
        None => return Err(OpenFailure::Damaged("its rows are gone".to_owned())),
    };
    let stats = match db.get(STATS_KEY)? {
        Some(bytes) => decode(&bytes).ok_or_else(|| damaged("the run statistics"))?,
        None => RunStats::default(),
    };
    let peers = db.open_tree(PEERS_TREE)?;
    for row in &peers {
        let (_, value) = row?;
        decode::<KnownPeer>(&value).ok_or_else(|| damaged("a peer"))?;
    }
    let values = db.open_tree(values::TREE)?;
    for row in &values {
        row?;
    }
    let labels = Labels::read(db.open_tree(labels::TREE)?)?;
    let keys = Keys::read(db.open_tree(api_keys::TREE)?)?;
    Ok(Contents {
        labels: labels.ok_or_else(|| damaged("a label"))?,
        keys: keys.ok_or_else(|| damaged("an API key"))?,
        db,
        peers,
        values,
        key,
        stats,
    })
}

fn read_peers(tree: &sled::Tree) -> Result<Vec<KnownPeer>, sled::Error> {
    let mut peers = Vec::new();
    for row in tree {
        peers.extend(decode(&row?.1));
    }
    Ok(peers)
}

/// Decides which key counts (file, then database, then a new one) and leaves it in
/// the file. A file without a key is moved aside.
fn settle_identity(path: &Path, in_database: Option<Keypair>) -> Result<Keypair, MetaError> {
    let found = identity::read(path).map_err(|err| MetaError::io(path, err))?;
    let is_damaged = matches!(found, Found::Damaged);
    if let Found::Key(key) = found {
        return Ok(key);
    }
    let is_known = in_database.is_some();
    let key = in_database.unwrap_or_else(Keypair::generate_ed25519);
    if is_damaged {
        let moved_to = damage::move_aside(path)?;
        tracing::warn!(
            file = %path.display(),
            moved_to = %moved_to.display(),
            restored = is_known,
            peer_id = %key.public().to_peer_id(),
            "the identity file held no key; moved it aside and wrote a new one"
        );
    }
    identity::write(path, &key).map_err(|err| MetaError::io(path, err))?;
    Ok(key)
}

fn into_error(dir: &Path, failure: OpenFailure) -> MetaError {
    let dir = dir.to_owned();
    match failure {
        OpenFailure::InUse => MetaError::InUse { dir },
        OpenFailure::System(source) => MetaError::Io { path: dir, source },
        OpenFailure::Damaged(reason) => MetaError::Damaged { dir, reason },
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain structs of strings and numbers serialise")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(dir: &Path) -> (MetaStore, Opened) {
        MetaStore::open(dir).unwrap()
    }

    #[test]
    fn identity_statistics_and_peers_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (store, opened) = open(dir.path());
        assert_eq!(opened, Opened::New);
        let id = store.peer_id();
        store.record_start(100).unwrap();
        store.record_peer("203.0.113.1:8333", "/one/", 110).unwrap();
        store.record_peer("203.0.113.2:8333", "/two/", 120).unwrap();
        store
            .record_peer("203.0.113.1:8333", "/three/", 130)
            .unwrap();
        store.add_blocks_indexed(7).unwrap();
        store.record_stop(200).unwrap();
        drop(store);

        let (store, opened) = open(dir.path());
        assert_eq!(opened, Opened::Existing);
        assert_eq!(store.peer_id(), id);
        assert_eq!(MetaStore::read_peer_id(dir.path()).unwrap(), Some(id));
        let stats = store.record_start(300).unwrap();
        assert_eq!(
            stats,
            RunStats {
                starts: 2,
                unclean_stops: 0,
                last_start: Some(300),
                last_stop: Some(200),
                blocks_indexed: 7,
                running: true,
            }
        );
        let peers = store.peers().unwrap();
        assert_eq!(peers[0].addr, "203.0.113.1:8333");
        assert_eq!(peers[0].user_agent, "/three/");
        assert_eq!((peers[0].first_seen, peers[0].handshakes), (110, 2));
        assert_eq!(peers[1].addr, "203.0.113.2:8333");
    }

    #[test]
    fn a_run_without_a_recorded_stop_counts_as_unclean() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).0.record_start(1).unwrap();
        let stats = open(dir.path()).0.record_start(2).unwrap();
        assert_eq!((stats.starts, stats.unclean_stops), (2, 1));
    }

    #[test]
    fn a_second_open_is_refused_and_nothing_is_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (_store, _) = open(dir.path());
        assert!(matches!(
            MetaStore::open(dir.path()),
            Err(MetaError::InUse { .. })
        ));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_oldest_peer_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        for i in 0..=MAX_PEERS {
            let now = u64::try_from(i).unwrap();
            store
                .record_peer(&format!("peer{i}:1"), "/x/", now)
                .unwrap();
        }
        let peers = store.peers().unwrap();
        assert_eq!(peers.len(), MAX_PEERS);
        assert!(peers.iter().all(|peer| peer.addr != "peer0:1"));
    }

    #[test]
    fn a_lost_identity_file_is_written_again_from_the_database() {
        let dir = tempfile::tempdir().unwrap();
        let id = open(dir.path()).0.peer_id();
        fs::remove_file(dir.path().join(IDENTITY_FILE)).unwrap();
        assert_eq!(open(dir.path()).0.peer_id(), id);
        assert_eq!(MetaStore::read_peer_id(dir.path()).unwrap(), Some(id));
    }

    #[test]
    fn a_damaged_identity_file_is_kept_aside_and_restored_from_the_database() {
        let dir = tempfile::tempdir().unwrap();
        let id = open(dir.path()).0.peer_id();
        let path = dir.path().join(IDENTITY_FILE);
        fs::write(&path, b"what is this").unwrap();
        assert!(MetaStore::read_peer_id(dir.path()).is_err());
        assert_eq!(open(dir.path()).0.peer_id(), id);
        assert_eq!(MetaStore::read_peer_id(dir.path()).unwrap(), Some(id));
        let kept = fs::read_dir(dir.path()).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            path.is_file() && fs::read(path).unwrap() == b"what is this"
        });
        assert!(kept);
    }

    #[test]
    fn an_identity_file_put_back_by_the_operator_counts() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).0.peer_id();
        let key = Keypair::generate_ed25519();
        identity::write(&dir.path().join(IDENTITY_FILE), &key).unwrap();
        let second = open(dir.path()).0.peer_id();
        assert_eq!(second, key.public().to_peer_id());
        assert_ne!(second, first);
    }

    #[test]
    fn a_folder_without_permission_is_an_error_and_stays_where_it_is() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let db = dir.path().join(FOLDER).join("db");
        fs::set_permissions(&db, fs::Permissions::from_mode(0o000)).unwrap();
        if fs::File::open(&db).is_ok() {
            // Permissions do not bind root; the sorting itself is still checked.
            let refused = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
            let failure = OpenFailure::from(sled::Error::Io(refused));
            assert!(matches!(failure, OpenFailure::System(_)));
            return;
        }
        assert!(matches!(
            MetaStore::open(dir.path()),
            Err(MetaError::Io { .. })
        ));
        assert!(dir.path().join(FOLDER).exists());
    }
}
