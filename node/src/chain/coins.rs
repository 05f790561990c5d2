//! The unspent outputs in a kernel's own database, as one digest.
//!
//! chainstate folder of a closed kernel -> its coins in the order of their keys -> SHA-256
//!
//! # Correctness
//! A coin is the key `C`, txid, index (varint), and a value that the database holds XORed
//! with 8 bytes of its own, at `\0obfuscate_key` (Bitcoin Core: `src/txdb.cpp`,
//! `src/dbwrapper.h`, `src/util/obfuscation.h`). Each coin has one encoding, so that two
//! databases with the same coins have the same digest, whatever files they are made of. `B`
//! is the block that they are as of; `H` is there only while a flush is unfinished.
//!
//! # Limits
//! The LevelDB of this process is another one than the kernel's, and writes to its folder
//! when it opens it: give it a copy, or a folder that nobody needs any more. Table files are
//! never written again, so they may be second names. Reads everything, one block at a time.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use pulse_primitives::bitcoin::{
    BlockHash,
    hashes::{Hash, HashEngine, sha256},
};
use rusty_leveldb::{DB, LdbIterator, Options, Status};

const COIN: u8 = b'C';
const BEST_BLOCK: &[u8] = b"B";
const HEAD_BLOCKS: &[u8] = b"H";
/// The name with its length before it, as the kernel writes texts.
const OBFUSCATION_KEY: &[u8] = b"\x0e\0obfuscate_key";
const OBFUSCATION_LEN: usize = 8;
/// Coins between two looks at whether to stop.
const STOP_INTERVAL: u64 = 1 << 14;

/// Why there is no digest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoinsError {
    /// The database does not open or does not read.
    #[error("the coins in {}", dir.display())]
    Database {
        /// Its folder.
        dir: PathBuf,
        /// What LevelDB says.
        source: Status,
    },
    /// It is not what the kernel makes.
    #[error("the coins in {}: {what}", dir.display())]
    Malformed {
        /// Its folder.
        dir: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// All unspent outputs as of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoinsDigest {
    /// The block.
    pub block: BlockHash,
    /// How many there are.
    pub coins: u64,
    /// SHA-256 over all of them.
    pub digest: [u8; 32],
}

impl fmt::Display for CoinsDigest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} coins, ", self.coins)?;
        self.digest
            .iter()
            .try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The digest over the coins in the chainstate folder `dir`, which no kernel has open.
/// `None` if it was stopped.
///
/// # Errors
/// [`CoinsError`].
pub fn coins_digest(dir: &Path, stop: &AtomicBool) -> Result<Option<CoinsDigest>, CoinsError> {
    let failed = |source| CoinsError::Database {
        dir: dir.to_owned(),
        source,
    };
    let malformed = |what| CoinsError::Malformed {
        dir: dir.to_owned(),
        what,
    };
    let options = Options {
        create_if_missing: false,
        paranoid_checks: true,
        ..Options::default()
    };
    let mut db = DB::open(dir, options).map_err(failed)?;
    let key = match db.get(OBFUSCATION_KEY).as_deref() {
        None => [0; OBFUSCATION_LEN],
        Some([len, key @ ..]) if usize::from(*len) == key.len() => {
            <[u8; OBFUSCATION_LEN]>::try_from(key)
                .map_err(|_| malformed("its key has another length"))?
        }
        Some(_) => return Err(malformed("its key has another form")),
    };
    if db.get(HEAD_BLOCKS).is_some() {
        return Err(malformed("it was not written to its end"));
    }
    let mut block = db
        .get(BEST_BLOCK)
        .ok_or_else(|| malformed("it names no block"))?
        .to_vec();
    apply(&key, &mut block);
    let block = BlockHash::from_slice(&block).map_err(|_| malformed("it names no block"))?;
    let mut engine = sha256::Hash::engine();
    let (mut coins, mut plain) = (0u64, Vec::new());
    let mut rows = db.new_iter().map_err(failed)?;
    rows.seek(&[COIN]);
    while let Some((name, value)) = rows.current() {
        if name.first() != Some(&COIN) {
            break;
        }
        plain.clear();
        plain.extend_from_slice(&value);
        apply(&key, &mut plain);
        for part in [&name[..], &plain] {
            engine.input(&(part.len() as u64).to_le_bytes());
            engine.input(part);
        }
        coins += 1;
        if coins.is_multiple_of(STOP_INTERVAL) && stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if !rows.advance() {
            break;
        }
    }
    Ok(Some(CoinsDigest {
        block,
        coins,
        digest: sha256::Hash::from_engine(engine).to_byte_array(),
    }))
}

/// Obfuscates or undoes it.
fn apply(key: &[u8; OBFUSCATION_LEN], value: &mut [u8]) {
    for (byte, key) in value.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pulse_primitives::{
        bitcoin::{Network, consensus::serialize},
        network::ChainParams,
    };
    use pulse_testkit::ChainBuilder;

    use super::*;
    use crate::{
        chain::{Chain, ChainConfig},
        headers::HeaderStore,
    };

    /// A kernel's chainstate after these blocks, flushed in the middle or not.
    fn chainstate(dir: &Path, chain: &ChainBuilder, closed_at: Option<usize>) -> PathBuf {
        let params = ChainParams::new(Network::Regtest, None);
        let config = ChainConfig {
            dir: dir.to_owned(),
            params: params.clone(),
            script_threads: 1,
            is_second: false,
        };
        let headers = Arc::new(HeaderStore::in_memory(&params));
        let open = || Chain::open(&config, Arc::clone(&headers)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut kernel = open();
        for (height, block) in chain.blocks().iter().enumerate().skip(1) {
            runtime.block_on(async {
                kernel.submit_headers(vec![block.header]).await.unwrap();
                headers.insert(&[block.header]).unwrap();
                kernel.submit_block(serialize(block)).await.unwrap();
            });
            if Some(height) == closed_at {
                kernel.close();
                kernel = open();
            }
        }
        assert_eq!(kernel.active_tip().hash, chain.tip_hash());
        kernel.close();
        dir.join("chainstate")
    }

    fn digest(dir: &Path) -> CoinsDigest {
        let stop = AtomicBool::new(false);
        coins_digest(dir, &stop).unwrap().unwrap()
    }

    #[test]
    fn equal_coins_have_an_equal_digest_and_one_coin_less_another() {
        let dir = tempfile::tempdir().unwrap();
        let mut chain = ChainBuilder::new(ChainParams::new(Network::Regtest, None));
        chain.mine_empty_blocks(30);
        let one = chainstate(&dir.path().join("one"), &chain, None);
        let other = chainstate(&dir.path().join("other"), &chain, Some(12));
        let (first, second) = (digest(&one), digest(&other));
        assert_eq!((first.coins, first.block), (30, chain.tip_hash()));
        assert_eq!(first, second);
        // Reading changed nothing that counts.
        assert_eq!(digest(&one), first);

        let options = Options {
            create_if_missing: false,
            ..Options::default()
        };
        let mut db = DB::open(&other, options).unwrap();
        let mut rows = db.new_iter().unwrap();
        rows.seek(&[COIN]);
        let (coin, _) = rows.current().unwrap();
        drop(rows);
        db.delete(&coin).unwrap();
        db.close().unwrap();
        drop(db);
        let forged = digest(&other);
        assert_eq!(forged.coins, 29);
        assert_ne!(forged.digest, first.digest);
    }

    #[test]
    fn what_is_no_chainstate_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let stop = AtomicBool::new(false);
        coins_digest(&dir.path().join("nothing"), &stop).unwrap_err();
        let mut db = DB::open(dir.path(), Options::default()).unwrap();
        db.put(b"x", b"y").unwrap();
        db.close().unwrap();
        drop(db);
        let err = coins_digest(dir.path(), &stop).unwrap_err();
        assert!(matches!(err, CoinsError::Malformed { .. }), "{err}");
    }
}
