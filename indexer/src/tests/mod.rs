//! The index as a whole, over chains kept in memory.

mod coins;
mod core_stats;
mod crash;
mod damage;
mod disturbed;
mod edges;
mod filters;
mod golden;
mod memchain;
mod naive;
mod property;
mod remembered;
mod speed;
mod totals;
mod verify;

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use memchain::MemChain;
use pulse_primitives::{bitcoin::Network, network::ChainParams, ports::BlockSource};

use crate::{Index, IndexConfig, IndexSync, Query, SyncError, store::totals::Hot};

/// An index over a [`MemChain`].
struct Fixture {
    chain: Arc<MemChain>,
    index: Index,
    sync: IndexSync,
    query: Query,
}

/// A new directory, in memory where the system has such a place: the tests open
/// hundreds of databases.
fn scratch_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn params() -> ChainParams {
    ChainParams::new(Network::Regtest, None)
}

/// Checkpoints from two transactions on, and renewed often.
const HOT: Hot = Hot {
    rows: 2,
    block_rows: 3,
    renew_one_in: 2,
    find_one_in: 4,
};

/// Small in every respect, so that short chains meet every limit.
fn config() -> IndexConfig {
    IndexConfig {
        memory_mib: 2,
        bulk_lag_blocks: 9,
        recent_txs: 20,
        undo_blocks: 3,
        salt: Some("00112233445566778899aabbccddeeff".to_owned()),
        ..IndexConfig::default()
    }
}

impl Fixture {
    fn open(path: &Path, chain: Arc<MemChain>) -> Self {
        Self::open_with(path, chain, &config(), &params())
    }

    fn open_with(
        path: &Path,
        chain: Arc<MemChain>,
        config: &IndexConfig,
        params: &ChainParams,
    ) -> Self {
        let index = Index::open_changed(path, config, params, |store| store.hot = HOT).unwrap();
        Self::of(index, chain)
    }

    fn of(index: Index, chain: Arc<MemChain>) -> Self {
        let source = Arc::clone(&chain) as Arc<dyn BlockSource>;
        Self {
            sync: index.syncer(Arc::clone(&source)),
            query: index.query(source),
            chain,
            index,
        }
    }

    fn catch_up(&mut self) -> Result<(), SyncError> {
        self.sync.catch_up(&AtomicBool::new(false))
    }

    /// Closes and opens again.
    fn reopen(self, path: &Path) -> Self {
        let chain = Arc::clone(&self.chain);
        drop(self);
        Self::open(path, chain)
    }
}

/// The rows of unspent outputs add up to the commitment, which covers what the chain
/// left.
fn check_utxos(fixture: &Fixture) {
    let check = fixture
        .index
        .check_utxos(&AtomicBool::new(false), &mut |_| {});
    let found = check.unwrap().unwrap();
    // A coin database does not have the output of genesis, the index has.
    let coins = fixture.chain.coins();
    assert_eq!(found.outputs, coins.len() as u64 + 1);
}

/// Digest of an index that went straight to the tip of `chain`.
fn undisturbed_digest(chain: &Arc<MemChain>) -> [u8; 32] {
    let dir = scratch_dir();
    let config = IndexConfig {
        recent_txs: u32::MAX,
        undo_blocks: 0,
        // With a log from the first block to the last.
        bulk_lag_blocks: u32::MAX,
        ..config()
    };
    let mut fixture = Fixture::open_with(dir.path(), Arc::clone(chain), &config, &params());
    fixture.catch_up().unwrap();
    fixture.index.digest().unwrap()
}
