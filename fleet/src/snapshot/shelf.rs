//! The snapshots in a folder that are offered to siblings.
//!
//! # Correctness
//! A folder counts when its manifest meets its hash and all files are there with their
//! sizes. What bytes they have is for whoever gets them to find out, chunk by chunk.
//!
//! # Limits
//! The newest [`MAX_KEPT`] are offered; their manifests are in memory. The folder is read
//! at most every [`LOOK_INTERVAL`].

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use pulse_snapshot::{ChunkHash, Snapshot};
use tracing::{info, warn};

/// Snapshots that are offered: the newest, and the one before for those who are fetching it.
pub(super) const MAX_KEPT: usize = 2;
/// Time between two looks into the folder.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// A snapshot on the shelf.
#[derive(Debug)]
pub(super) struct Kept {
    pub snapshot: Snapshot,
    dir: PathBuf,
    changed: SystemTime,
}

#[derive(Debug, Default)]
struct State {
    looked: Option<Instant>,
    kept: Vec<Arc<Kept>>,
    /// Those that were complained about.
    bad: HashSet<(PathBuf, SystemTime)>,
}

/// A folder of snapshots.
#[derive(Debug)]
pub(super) struct Shelf {
    dir: PathBuf,
    state: Mutex<State>,
}

impl Shelf {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            state: Mutex::default(),
        }
    }

    /// What is offered, newest first. Reads the disk.
    pub(super) fn kept(&self) -> Vec<Arc<Kept>> {
        let mut state = self.state.lock();
        let is_fresh = |looked: Instant| looked.elapsed() < LOOK_INTERVAL;
        if !state.looked.is_some_and(is_fresh) {
            if let Err(err) = state.look(&self.dir) {
                warn!(dir = %self.dir.display(), %err, "the folder of snapshots cannot be read");
                state.kept.clear();
            }
            state.looked = Some(Instant::now());
        }
        state.kept.clone()
    }

    /// The one with this manifest, if it is there. Reads the disk.
    pub(super) fn get(&self, manifest: ChunkHash) -> Option<Arc<Kept>> {
        let kept = self.kept();
        kept.into_iter()
            .find(|kept| kept.snapshot.hash() == manifest)
    }
}

impl State {
    fn look(&mut self, dir: &Path) -> io::Result<()> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(dir) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                self.kept.clear();
                return Ok(());
            }
            entries => entries?,
        };
        for entry in entries {
            let dir = entry?.path();
            // Anything else in the folder is somebody's own affair.
            if let Ok(meta) = fs::metadata(dir.join("manifest.json")) {
                found.push((meta.modified()?, dir));
            }
        }
        self.bad.retain(|(dir, changed)| {
            found
                .iter()
                .any(|found| (&found.1, &found.0) == (dir, changed))
        });
        let mut kept = Vec::new();
        for (changed, dir) in found {
            let known = self.kept.iter().find(|kept| kept.dir == dir);
            if let Some(known) = known.filter(|known| known.changed == changed) {
                kept.push(Arc::clone(known));
                continue;
            }
            if self.bad.contains(&(dir.clone(), changed)) {
                continue;
            }
            match Snapshot::open(&dir) {
                Ok(snapshot) => {
                    let height = snapshot.manifest().snapshot.tip.height;
                    info!(dir = %dir.display(), height, "snapshot offered to siblings");
                    kept.push(Arc::new(Kept {
                        snapshot,
                        dir,
                        changed,
                    }));
                }
                Err(err) => {
                    warn!(dir = %dir.display(), %err, "snapshot not offered to siblings");
                    self.bad.insert((dir, changed));
                }
            }
        }
        let created = |kept: &Arc<Kept>| kept.snapshot.manifest().snapshot.created;
        kept.sort_by_key(|kept| std::cmp::Reverse((created(kept), kept.dir.clone())));
        kept.truncate(MAX_KEPT);
        self.kept = kept;
        Ok(())
    }
}
