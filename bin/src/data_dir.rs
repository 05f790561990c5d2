//! The data directory: one network, one format, one process.
//!
//! ```text
//! node.json        what the directory is bound to
//! .lock            held while a process uses the directory
//! kernel/          of the kernel: blocks, undo data, its databases
//! index/           RocksDB
//! index.old-N/     an index that reindex replaced
//! meta/            sled
//! identity.key     mirror of the identity that meta/ holds
//! headers.dat      headers of all known chains
//! mempool.dat      unconfirmed transactions of the last run
//! fees.dat         what fee estimates are learned from
//! listen.json      addresses that the running process listens on
//! control.sock     where it takes commands
//! restore.partial/ while a snapshot is being restored; there is no node.json then, but when the
//!                  snapshot is fetched from siblings
//! restore.manifest which snapshot that is
//! trust.json       whose word the state of the chain is, if it is not computed here
//! ```
//!
//! # Correctness
//! `node.json` is written once, by rename, before anything else. A directory that is
//! bound to something else, or that this program did not make, is refused; nothing is
//! ever deleted.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use pulse_meta::durable;
use pulse_primitives::network::ChainParams;
use pulse_snapshot::{Origin, STAGING_FOLDER};
use serde::{Deserialize, Serialize};

mod binding;

use binding::Binding;

/// Version of the layout of the directory.
///
/// History: 1, the first.
pub const FORMAT: u32 = 1;

const BINDING_FILE: &str = "node.json";
const LOCK_FILE: &str = ".lock";
/// Where a process that uses the directory says on which addresses it listens.
pub const LISTEN_FILE: &str = "listen.json";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another process uses it.
    #[error("data directory {} is in use by another process", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// It holds things and no `node.json`.
    #[error(
        "data directory {} is not empty and was not made by pulse-node (there is no {BINDING_FILE}). Hint: give another --data-dir",
        dir.display()
    )]
    Foreign {
        /// The directory.
        dir: PathBuf,
    },
    /// A restore into it was cut short.
    #[error(
        "data directory {} holds a restore that was not finished. Hint: run pulse-node snapshot restore again",
        dir.display()
    )]
    Unfinished {
        /// The directory.
        dir: PathBuf,
    },
    /// A snapshot is to be restored into it, and it is not empty.
    #[error("data directory {} is not empty, and nothing is written over. Hint: give another --data-dir", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// It is of another format.
    #[error(
        "data directory {} has format {found}, and this version of pulse-node reads format {FORMAT}",
        dir.display()
    )]
    Format {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It is bound to something else than what was asked for.
    #[error(
        "data directory {} holds {holds}, not {asked}. Hint: give another --data-dir",
        dir.display()
    )]
    Bound {
        /// The directory.
        dir: PathBuf,
        /// What it holds.
        holds: String,
        /// What was asked for.
        asked: String,
    },
    /// `node.json` does not read.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused.
    #[error("{}: {err}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        err: io::Error,
    },
}

/// Addresses that the running process listens on: `listen.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// HTTP API.
    pub http: String,
    /// Operator's listener, if there is one of its own.
    pub ops: Option<String>,
    /// Other Bitcoin nodes, if they are served.
    pub p2p: Option<String>,
    /// Electrum clients, by transport: `tcp`, `tls`, `ws`, `wss`.
    pub electrum: BTreeMap<String, String>,
    /// The process, so that a reader can tell a file left behind.
    pub pid: u32,
}

/// An open data directory. Locked until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    binding: Binding,
    _lock: File,
}

impl DataDir {
    /// Opens `root` for `chain`, making it if it is not there or empty.
    ///
    /// `simulated` is `Some(seed)` for a simulated chain. The seed counts only when the
    /// directory is made; [`DataDir::seed`] tells the one in force.
    ///
    /// # Errors
    /// [`DataDirError`]. Nothing has been changed then.
    pub fn open(
        root: &Path,
        chain: &ChainParams,
        simulated: Option<u64>,
    ) -> Result<Self, DataDirError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(|err| io_error(root, err))?;
        let path = root.join(BINDING_FILE);
        // Before the lock file is made: a stranger's directory stays as it is.
        if !exists(&path)? && exists(&root.join(STAGING_FOLDER))? {
            return Err(DataDirError::Unfinished {
                dir: root.to_owned(),
            });
        }
        if !exists(&path)? && holds_anything(root)? {
            return Err(DataDirError::Foreign {
                dir: root.to_owned(),
            });
        }
        let lock = lock(root)?;

        let asked = Binding::new(chain, simulated);
        let binding = if exists(&path)? {
            let found = Binding::read(root, &path)?;
            found.refuse_other_than(&asked, root)?;
            found
        } else {
            asked.write(&path)?;
            asked
        };
        let dir = Self {
            root: root.to_owned(),
            binding,
            _lock: lock,
        };
        // That of an earlier run says nothing about this one.
        match fs::remove_file(dir.listen()) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(io_error(&dir.listen(), err)),
            _ => Ok(dir),
        }
    }

    /// Whether there is a bound directory.
    pub fn exists(root: &Path) -> bool {
        root.join(BINDING_FILE).is_file()
    }

    /// Locks a directory into which a snapshot of `origin` is to be restored, making it if it
    /// is not there. It may hold what an earlier restore has left, and nothing else.
    ///
    /// # Errors
    /// [`DataDirError`], when the snapshot is not of `chain`, too.
    pub fn for_restore(
        root: &Path,
        chain: &ChainParams,
        simulated: Option<u64>,
        origin: &Origin,
    ) -> Result<Unbound, DataDirError> {
        let binding = Binding::of(origin);
        if binding.format != FORMAT {
            return Err(DataDirError::Format {
                dir: root.to_owned(),
                found: binding.format,
            });
        }
        binding.refuse_other_than(&Binding::new(chain, simulated), root)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(|err| io_error(root, err))?;
        let goes_on = exists(&root.join(STAGING_FOLDER))?;
        let is_bound = exists(&root.join(BINDING_FILE))?;
        if is_bound || (!goes_on && holds_anything(root)?) {
            return Err(DataDirError::NotEmpty {
                dir: root.to_owned(),
            });
        }
        Ok(Unbound {
            _lock: lock(root)?,
            root: root.to_owned(),
            binding,
        })
    }

    /// Whether a snapshot of `origin` can be what this directory holds.
    ///
    /// # Errors
    /// [`DataDirError::Bound`], [`DataDirError::Format`].
    pub fn accepts(&self, origin: &Origin) -> Result<(), DataDirError> {
        let binding = Binding::of(origin);
        if binding.format != FORMAT {
            return Err(DataDirError::Format {
                dir: self.root.clone(),
                found: binding.format,
            });
        }
        self.binding.refuse_other_than(&binding, &self.root)
    }

    /// What it is bound to, for a snapshot.
    pub fn origin(&self) -> Origin {
        self.binding.origin()
    }

    /// The directory itself (`MetaStore::open` takes it).
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The kernel's directory.
    pub fn kernel(&self) -> PathBuf {
        self.root.join("kernel")
    }

    /// The index.
    pub fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// Renames the index to `index.old-N`, with the lowest N that is free, and returns where
    /// it is now; `None` if there is none.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn move_index_aside(&self) -> Result<Option<PathBuf>, DataDirError> {
        let index = self.index();
        if !exists(&index)? {
            return Ok(None);
        }
        let mut number = 1;
        let aside = loop {
            let aside = self.root.join(format!("index.old-{number}"));
            if !exists(&aside)? {
                break aside;
            }
            number += 1;
        };
        fs::rename(&index, &aside).map_err(|err| io_error(&index, err))?;
        File::open(&self.root)
            .and_then(|root| root.sync_all())
            .map_err(|err| io_error(&self.root, err))?;
        Ok(Some(aside))
    }

    /// The header store.
    pub fn headers(&self) -> PathBuf {
        self.root.join("headers.dat")
    }

    /// Where [`DataDir::write_listen`] writes.
    pub fn listen(&self) -> PathBuf {
        self.root.join(LISTEN_FILE)
    }

    /// Seed of the simulated chain that lives here.
    pub fn seed(&self) -> Option<u64> {
        self.binding.seed
    }

    /// Tells others which addresses this process listens on.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn write_listen(&self, listen: &Listen) -> Result<(), DataDirError> {
        let path = self.listen();
        let text = serde_json::to_string(listen).expect("a struct of strings serialises");
        durable::write(&path, text.as_bytes(), 0o644).map_err(|err| io_error(&path, err))
    }
}

/// A directory that is being filled. Locked until it is dropped.
#[derive(Debug)]
pub struct Unbound {
    root: PathBuf,
    binding: Binding,
    _lock: File,
}

impl Unbound {
    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes it a data directory: everything is in its place.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn bind(&self) -> Result<(), DataDirError> {
        self.binding.write(&self.root.join(BINDING_FILE))
    }
}

/// Whether anything lies in the directory that a start cut short does not explain.
fn holds_anything(root: &Path) -> Result<bool, DataDirError> {
    for entry in fs::read_dir(root).map_err(|err| io_error(root, err))? {
        let name = entry.map_err(|err| io_error(root, err))?.file_name();
        if name != LOCK_FILE && name != "node.json.tmp" && name != "lost+found" {
            return Ok(true);
        }
    }
    Ok(false)
}

fn lock(root: &Path) -> Result<File, DataDirError> {
    let path = root.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|err| io_error(&path, err))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(DataDirError::InUse {
                dir: root.to_owned(),
            });
        }
        Err(TryLockError::Error(err)) => return Err(io_error(&path, err)),
    }
    // For people who wonder who holds it.
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(|err| io_error(&path, err))?;
    Ok(file)
}

fn exists(path: &Path) -> Result<bool, DataDirError> {
    path.try_exists().map_err(|err| io_error(path, err))
}

fn io_error(path: &Path, err: io::Error) -> DataDirError {
    DataDirError::Io {
        path: path.to_owned(),
        err,
    }
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::Network;

    use super::*;

    fn params(network: Network) -> ChainParams {
        ChainParams::new(network, None)
    }

    fn custom_signet(challenge: u8) -> ChainParams {
        ChainParams::new(Network::Signet, Some(vec![challenge]))
    }

    #[test]
    fn a_directory_opens_again_for_what_it_was_made_for() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("a/b");
        for _ in 0..2 {
            DataDir::open(&root, &custom_signet(0x51), None).unwrap();
        }
        let text = fs::read_to_string(root.join("node.json")).unwrap();
        let binding = serde_json::from_str::<Binding>(&text).unwrap();
        assert_eq!(binding.signet_challenge.as_deref(), Some("51"));
        assert_eq!((binding.format, binding.network.as_str()), (1, "signet"));
    }

    #[test]
    fn a_second_process_is_refused_until_the_first_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), &params(Network::Bitcoin), None).unwrap();
        assert!(matches!(
            DataDir::open(dir.path(), &params(Network::Bitcoin), None),
            Err(DataDirError::InUse { .. })
        ));
        drop(first);
        DataDir::open(dir.path(), &params(Network::Bitcoin), None).unwrap();
    }

    #[test]
    fn another_network_challenge_or_kind_is_refused_and_nothing_changes() {
        let dir = tempfile::tempdir().unwrap();
        DataDir::open(dir.path(), &custom_signet(0x51), None).unwrap();
        let before = fs::read(dir.path().join("node.json")).unwrap();
        for (chain, simulated) in [
            (params(Network::Bitcoin), None),
            (params(Network::Signet), None),
            (custom_signet(0x52), None),
            (custom_signet(0x51), Some(1)),
        ] {
            let err = DataDir::open(dir.path(), &chain, simulated).unwrap_err();
            let DataDirError::Bound { holds, .. } = &err else {
                panic!("{err:?}");
            };
            assert!(holds.contains("signet with challenge 51"), "{holds}");
        }
        assert_eq!(fs::read(dir.path().join("node.json")).unwrap(), before);
    }

    #[test]
    fn a_simulated_directory_keeps_its_first_seed_and_refuses_plain_regtest() {
        let dir = tempfile::tempdir().unwrap();
        let chain = params(Network::Regtest);
        DataDir::open(dir.path(), &chain, Some(7)).unwrap();
        let again = DataDir::open(dir.path(), &chain, Some(8)).unwrap();
        assert_eq!(again.seed(), Some(7));
        drop(again);
        assert!(matches!(
            DataDir::open(dir.path(), &chain, None),
            Err(DataDirError::Bound { .. })
        ));
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("wallet.dat"), b"precious").unwrap();
        assert!(matches!(
            DataDir::open(dir.path(), &params(Network::Bitcoin), None),
            Err(DataDirError::Foreign { .. })
        ));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_start_cut_short_before_the_binding_was_written_is_made_good() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".lock"), b"").unwrap();
        fs::write(dir.path().join("node.json.tmp"), b"{").unwrap();
        DataDir::open(dir.path(), &params(Network::Bitcoin), None).unwrap();
    }

    #[test]
    fn another_format_and_a_damaged_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.json");
        fs::write(&path, br#"{"format": 2, "what": "a later version writes"}"#).unwrap();
        assert!(matches!(
            DataDir::open(dir.path(), &params(Network::Bitcoin), None),
            Err(DataDirError::Format { found: 2, .. })
        ));
        for text in ["", "{}", r#"{"format": 1}"#, "\0\0\0"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(
                DataDir::open(dir.path(), &params(Network::Bitcoin), None),
                Err(DataDirError::Damaged { .. })
            ));
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn listen_addresses_of_an_earlier_run_are_gone_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let chain = params(Network::Regtest);
        let open = DataDir::open(dir.path(), &chain, None).unwrap();
        let listen = Listen {
            http: "127.0.0.1:8080".to_owned(),
            ops: None,
            p2p: None,
            electrum: BTreeMap::new(),
            pid: 1,
        };
        open.write_listen(&listen).unwrap();
        let text = fs::read(open.listen()).unwrap();
        assert_eq!(serde_json::from_slice::<Listen>(&text).unwrap(), listen);
        drop(open);
        assert!(
            !DataDir::open(dir.path(), &chain, None)
                .unwrap()
                .listen()
                .exists()
        );
    }
}
