//! Kills at every point where the disk changes, in the bulk load and with a log.
//!
//! What a kill leaves is what the system has of the files at that moment: a copy of the
//! directory. It is opened in place of the original, must stand at one block with all its
//! rows, and goes on from there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use pulse_primitives::bitcoin::BlockHash;
use tempfile::TempDir;

use super::{
    Fixture, config,
    memchain::{MemChain, mine},
    naive::Naive,
    params, scratch_dir, undisturbed_digest,
};
use crate::IndexConfig;

/// What a kill left of a database, and at which point.
type Image = (TempDir, &'static str);

/// Copies a database as a kill would leave it. Table files must not be deleted meanwhile.
fn image(from: &Path) -> TempDir {
    let to = scratch_dir();
    let copy = |wanted: &dyn Fn(&str) -> bool| {
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let source = from.join(&name);
            // Logs of before a flush may go at any time.
            if wanted(&name) && fs::copy(&source, to.path().join(&name)).is_err() {
                assert!(!source.exists(), "{name}");
            }
        }
    };
    // The list of table files first: what is added to it afterwards is not in the image.
    let list = |name: &str| name == "CURRENT" || name.starts_with("MANIFEST");
    copy(&list);
    copy(&|name| !list(name) && name != "LOCK" && !name.starts_with("LOG"));
    to
}

/// Takes images at points that catching up comes by.
pub(super) struct Killer(Arc<Mutex<Taken>>);

struct Taken {
    dir: PathBuf,
    /// Points still to come by before the first image.
    left: u32,
    /// Most images.
    most: usize,
    images: Vec<Image>,
}

impl Taken {
    fn point(&mut self, what: &'static str) {
        if self.left > 0 {
            self.left -= 1;
        } else if self.images.len() < self.most {
            self.images.push((image(&self.dir), what));
        }
    }
}

impl Killer {
    /// Takes up to `most` images, the first at the point that comes after `points` others.
    pub(super) fn new(fixture: &Fixture, dir: &Path, points: u32, most: usize) -> Self {
        let taken = Arc::new(Mutex::new(Taken {
            dir: dir.to_owned(),
            left: points,
            most,
            images: Vec::new(),
        }));
        let shared = Arc::clone(&taken);
        *fixture.index.shared.store.hook.lock() =
            Some(Box::new(move |what| shared.lock().point(what)));
        Self(taken)
    }

    /// The images since the last call; one of now if there are none.
    pub(super) fn take(&self, fixture: &Fixture) -> Vec<Image> {
        let mut taken = self.0.lock();
        if taken.images.is_empty() {
            taken.left = 0;
            drop(taken);
            fixture.index.shared.store.point("afterwards");
            taken = self.0.lock();
        }
        std::mem::take(&mut taken.images)
    }
}

/// Opens what a kill left and checks that it is the index of one block of the chain.
pub(super) fn open_image(dir: &Path, chain: &Arc<MemChain>, config: &IndexConfig) -> Fixture {
    let fixture = Fixture::open_with(dir, Arc::clone(chain), config, &params());
    let tip = *fixture.index.tip().borrow();
    match tip {
        Some(tip) => assert_eq!(fixture.index.digest().unwrap(), digest_at(chain, tip.hash)),
        None => {
            let counts = fixture.index.row_counts().unwrap();
            let rows = counts.into_iter().filter(|(family, _)| *family != "meta");
            assert_eq!(rows.map(|(_, count)| count).sum::<u64>(), 0);
        }
    }
    fixture
}

fn digest_at(chain: &MemChain, hash: BlockHash) -> [u8; 32] {
    undisturbed_digest(&Arc::new(chain.up_to(&params(), hash)))
}

/// Bulk load, the switch, the tip, a reorganisation across the switch, back to bulk, and a
/// reorganisation there.
#[test]
fn a_kill_at_any_write_leaves_one_block_and_all_its_rows() {
    let chain = Arc::new(MemChain::new(&params()));
    let dir = scratch_dir();
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    let killer = Killer::new(&fixture, dir.path(), 0, usize::MAX);
    let mut met = BTreeSet::new();
    let mut step = || {
        fixture.catch_up().unwrap();
        let digest = fixture.index.digest().unwrap();
        assert_eq!(digest, undisturbed_digest(&chain));
        for (image, what) in killer.take(&fixture) {
            met.insert(what);
            let mut again = open_image(image.path(), &chain, &config());
            again.catch_up().unwrap();
            assert_eq!(again.index.digest().unwrap(), digest, "{what}");
        }
        Naive::new(&chain.blocks()).check(&fixture.query.view().unwrap());
    };
    // The blocks up to 6 below the best header are a bulk load.
    mine(&chain, 24, 12, 1);
    step();
    chain.disconnect(8);
    mine(&chain, 10, 12, 2);
    step();
    mine(&chain, 1, 40, 3);
    step();
    // Headers without blocks are far ahead.
    chain.set_best_header(200);
    mine(&chain, 6, 12, 4);
    step();
    chain.disconnect(4);
    mine(&chain, 30, 12, 5);
    chain.set_best_header(chain.active().len() as u32 - 1);
    step();
    let points = [
        "after a flush",
        "after a write",
        "before a flush",
        "before a write",
        "bulk load begins",
        "bulk load ended",
    ];
    assert!(points.iter().all(|point| met.contains(point)), "{met:?}");
}

#[test]
fn a_kill_in_the_bulk_load_goes_back_to_the_last_flush() {
    let chain = Arc::new(MemChain::new(&params()));
    mine(&chain, 20, 12, 6);
    chain.set_best_header(1000);
    let dir = scratch_dir();
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    assert!(fixture.index.shared.store.is_bulk());
    fixture.index.flush().unwrap();
    let flushed = fixture.index.tip().borrow().unwrap();
    assert_eq!(flushed.height, 20);
    mine(&chain, 20, 12, 7);
    chain.set_best_header(1000);
    fixture.catch_up().unwrap();
    assert_eq!(fixture.index.tip().borrow().unwrap().height, 40);

    let killer = Killer::new(&fixture, dir.path(), 0, 1);
    let (left, _) = killer.take(&fixture).remove(0);
    let mut again = open_image(left.path(), &chain, &config());
    assert_eq!(*again.index.tip().borrow(), Some(flushed));
    again.catch_up().unwrap();
    assert_eq!(again.index.digest().unwrap(), undisturbed_digest(&chain));
    // The undisturbed one has it all, also when it is closed without ending the bulk load.
    let fixture = fixture.reopen(dir.path());
    assert_eq!(fixture.index.tip().borrow().unwrap().height, 40);
    assert_eq!(fixture.index.digest().unwrap(), undisturbed_digest(&chain));
}

#[test]
fn a_checkpoint_in_the_bulk_load_has_all_that_is_indexed() {
    let chain = Arc::new(MemChain::new(&params()));
    mine(&chain, 20, 12, 6);
    chain.set_best_header(1000);
    let dir = scratch_dir();
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    assert!(fixture.index.shared.store.is_bulk());
    let place = scratch_dir();
    let path = place.path().join("index");
    let (tip, utxos) = fixture.index.checkpoint(&path).unwrap().unwrap();
    assert_eq!(Some(tip), *fixture.index.tip().borrow());
    assert_eq!(Some((tip, utxos)), crate::Index::read_state(&path).unwrap());
    let expected = fixture.index.digest().unwrap();
    // The load goes on beside it, and neither changes the other.
    mine(&chain, 20, 12, 7);
    chain.set_best_header(1000);
    fixture.catch_up().unwrap();
    let mut copy = Fixture::open(&path, Arc::clone(&chain));
    assert_eq!(copy.index.digest().unwrap(), expected);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let found = copy.index.check_utxos(&stop, &mut |_| {}).unwrap();
    assert_eq!(found, Some(utxos));
    copy.catch_up().unwrap();
    assert_eq!(copy.index.digest().unwrap(), undisturbed_digest(&chain));
    assert_eq!(fixture.index.digest().unwrap(), undisturbed_digest(&chain));
}

#[test]
fn what_a_bulk_load_leaves_is_merged_in_the_background() {
    let chain = Arc::new(MemChain::new(&params()));
    let dir = scratch_dir();
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    for seed in 0..5 {
        mine(&chain, 10, 12, seed);
        chain.set_best_header(1000);
        fixture.catch_up().unwrap();
        fixture.index.flush().unwrap();
    }
    let store = Arc::clone(&fixture.index.shared);
    let hist = crate::store::Family::Hist;
    assert!(store.store.runs(hist).unwrap() >= 5);
    assert!(store.store.is_unsettled().unwrap());
    drop(store);
    // It is still to be done after a restart.
    fixture = fixture.reopen(dir.path());
    let tip = chain.active().len() as u32 - 1;
    chain.set_best_header(tip);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while fixture.index.shared.store.is_unsettled().unwrap() {
        fixture.catch_up().unwrap();
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert!(fixture.index.shared.store.runs(hist).unwrap() <= 1);
    assert_eq!(fixture.index.digest().unwrap(), undisturbed_digest(&chain));
    let written = fixture.index.written();
    assert!(written.compacted > 0);
}
