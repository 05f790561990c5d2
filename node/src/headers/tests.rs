use std::{
    fs,
    path::{Path, PathBuf},
};

use pulse_primitives::{
    bitcoin::{
        Network, TxMerkleNode,
        consensus::deserialize,
        hashes::{Hash, sha256d},
    },
    network::ChainParams,
};

use super::*;

/// The project's chain data, or `None` (said aloud) where it is not at hand.
fn chaindata() -> Option<PathBuf> {
    let path = std::env::var_os("PULSE_CHAINDATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/chaindata"),
        PathBuf::from,
    );
    if path.is_dir() {
        return Some(path);
    }
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{} is missing, and CI must not skip it",
        path.display()
    );
    eprintln!("skipped: {} is missing", path.display());
    None
}

/// Real headers without genesis, oldest first.
fn real_headers(name: &str) -> Option<Vec<Header>> {
    let packed = fs::read(chaindata()?.join("headers").join(name)).unwrap();
    let bytes = zstd::decode_all(packed.as_slice()).unwrap();
    Some(
        bytes
            .chunks_exact(80)
            .skip(1)
            .map(|header| deserialize(header).unwrap())
            .collect(),
    )
}

fn mainnet() -> ChainParams {
    ChainParams::new(Network::Bitcoin, None)
}

fn regtest() -> ChainParams {
    ChainParams::new(Network::Regtest, None)
}

/// `count` regtest headers with proof of work on top of `parent`; `branch` makes
/// chains on the same parent differ.
fn mine(parent: &Header, count: u32, branch: u8) -> Vec<Header> {
    let mut headers = Vec::new();
    let mut prev = *parent;
    for _ in 0..count {
        let mut header = Header {
            prev_blockhash: prev.block_hash(),
            merkle_root: TxMerkleNode::from_raw_hash(sha256d::Hash::hash(&[branch])),
            time: prev.time + 600,
            nonce: 0,
            ..prev
        };
        while header.validate_pow(header.target()).is_err() {
            header.nonce += 1;
        }
        headers.push(header);
        prev = header;
    }
    headers
}

fn genesis() -> Header {
    regtest().genesis().header
}

fn insert_all(store: &HeaderStore, headers: &[Header]) {
    for run in headers.chunks(MAX_HEADERS) {
        assert_eq!(store.insert(run).unwrap(), run.len());
    }
}

#[test]
fn real_mainnet_headers_are_stored_and_come_back_from_the_file() {
    let Some(headers) = real_headers("mainnet-0-10236.headers.zst") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("headers.dat");
    let best = {
        let store = HeaderStore::open(&path, &mainnet()).unwrap();
        insert_all(&store, &headers);
        assert_eq!(store.insert(&headers[..10]).unwrap(), 0);
        store.flush().unwrap();
        store.best()
    };
    assert_eq!(best.tip.height, 10_236);
    assert_eq!(best.tip.hash, headers[10_235].block_hash());
    // Every block so far has difficulty 1, which is 2^32 + 2^16 + 1 hashes.
    let work = 10_237_u128 * 0x1_0001_0001;
    let mut bytes = [0; 32];
    bytes[16..].copy_from_slice(&work.to_be_bytes());
    assert_eq!(best.work, Work::from_be_bytes(bytes));

    let store = HeaderStore::open(&path, &mainnet()).unwrap();
    assert_eq!(store.best(), best);
    assert_eq!(store.len(), 10_237);
    assert_eq!(store.all().collect::<Vec<_>>(), headers);
    for (height, header) in (1..).zip(&headers) {
        let hash = header.block_hash();
        assert_eq!(store.best_hash_at(height), Some(hash));
        assert_eq!(store.height_of(&hash), Some(height));
        assert_eq!(store.header(&hash), Some(*header));
    }
    assert_eq!(store.best_hash_at(10_237), None);
}

#[test]
fn real_signet_headers_pass_the_check() {
    let Some(headers) = real_headers("signet-0-2015.headers.zst") else {
        return;
    };
    let store = HeaderStore::in_memory(&ChainParams::new(Network::Signet, None));
    insert_all(&store, &headers);
    assert_eq!(store.best().tip.height, 2015);
}

#[test]
fn locator_thins_out_and_ends_at_genesis() {
    let Some(headers) = real_headers("mainnet-0-10236.headers.zst") else {
        return;
    };
    let store = HeaderStore::in_memory(&mainnet());
    insert_all(&store, &headers);
    let heights: Vec<_> = store
        .locator()
        .iter()
        .map(|hash| store.height_of(hash).unwrap())
        .collect();
    assert_eq!(
        heights[..12],
        [
            10_235, 10_234, 10_233, 10_232, 10_231, 10_230, 10_229, 10_228, 10_227, 10_226, 10_225,
            10_223
        ]
    );
    assert_eq!(heights.last(), Some(&0));
    assert!(heights.is_sorted_by(|a, b| a > b));
    assert!(heights.len() < 30);
    let tip = store.best().tip.hash;
    assert_eq!(store.locator_from(&tip).unwrap()[0], tip);
    assert_eq!(store.locator_from(&BlockHash::all_zeros()), None);
}

#[test]
fn the_branch_with_more_work_becomes_best_and_a_locator_follows_either() {
    let store = HeaderStore::in_memory(&regtest());
    let old = mine(&genesis(), 20, 1);
    let new = mine(&old[4], 16, 2);
    insert_all(&store, &old);
    insert_all(&store, &new[..15]);
    // Equal work: the first seen stays.
    assert_eq!(store.best().tip.hash, old[19].block_hash());
    let new_locator = store.locator_from(&new[14].block_hash()).unwrap();
    assert_eq!(new_locator[1], new[13].block_hash());
    assert_eq!(new_locator[11], new[2].block_hash());
    assert!(!new_locator.iter().any(|hash| *hash == old[5].block_hash()));
    assert_eq!(*new_locator.last().unwrap(), genesis().block_hash());

    insert_all(&store, &new[15..]);
    let best = store.best();
    assert_eq!(best.tip.hash, new[15].block_hash());
    assert_eq!(best.tip.height, 21);
    assert_eq!(store.best_hash_at(5), Some(old[4].block_hash()));
    assert_eq!(store.best_hash_at(6), Some(new[0].block_hash()));
    let fork = store.fork_point(&old[19].block_hash()).unwrap();
    assert_eq!((fork.height, fork.hash), (5, old[4].block_hash()));
}

#[test]
fn an_invalid_mark_covers_the_descendants_and_the_next_best_chain_wins() {
    let store = HeaderStore::in_memory(&regtest());
    let long = mine(&genesis(), 10, 1);
    let short = mine(&long[2], 3, 2);
    insert_all(&store, &long);
    insert_all(&store, &short);

    assert!(store.mark_invalid(&long[4].block_hash()));
    assert!(!store.mark_invalid(&long[4].block_hash()));
    assert!(store.is_invalid(&long[9].block_hash()));
    assert!(!store.is_invalid(&long[3].block_hash()));
    assert_eq!(store.best().tip.hash, short[2].block_hash());
    assert_eq!(store.best_hash_at(7), None);

    let more = mine(&long[9], 1, 1);
    assert_eq!(
        store.check(&more),
        Err(HeaderError::InvalidChain {
            hash: long[9].block_hash()
        })
    );
    assert_eq!(
        store.check(&long),
        Err(HeaderError::InvalidChain {
            hash: long[4].block_hash()
        })
    );
    assert!(!store.mark_invalid(&genesis().block_hash()));
}

#[test]
fn bad_runs_are_refused_and_nothing_is_kept() {
    let store = HeaderStore::in_memory(&regtest());
    let headers = mine(&genesis(), 5, 1);
    let hash = |index: usize| headers[index].block_hash();

    assert_eq!(store.check(&[]), Ok(vec![]));
    assert_eq!(
        store.check(&headers[1..]),
        Err(HeaderError::Unconnected {
            hash: hash(1),
            prev_hash: hash(0)
        })
    );
    assert_eq!(
        store.check(&[headers[0], headers[2]]),
        Err(HeaderError::Discontinuous {
            index: 1,
            hash: hash(2)
        })
    );
    let mut forged = headers.clone();
    while forged[2].validate_pow(forged[2].target()).is_ok() {
        forged[2].nonce += 1;
    }
    let forged_hash = forged[2].block_hash();
    assert_eq!(
        store.check(&forged),
        Err(HeaderError::BadProofOfWork { hash: forged_hash })
    );
    assert!(matches!(
        store.insert(&forged),
        Err(HeaderStoreError::Refused(_))
    ));
    assert_eq!(
        store.check(&vec![headers[0]; 2001]),
        Err(HeaderError::TooMany { count: 2001 })
    );
    assert_eq!(store.len(), 1);
    // Regtest's targets are easier than mainnet allows.
    let mainnet = HeaderStore::in_memory(&mainnet());
    assert!(matches!(
        mainnet.check(&headers),
        Err(HeaderError::BadProofOfWork { .. })
    ));
}

/// A file with 50 headers, and those headers.
fn file_with_headers(dir: &tempfile::TempDir) -> (PathBuf, Vec<Header>) {
    let path = dir.path().join("headers.dat");
    let headers = mine(&genesis(), 50, 1);
    insert_all(&HeaderStore::open(&path, &regtest()).unwrap(), &headers);
    (path, headers)
}

#[test]
fn a_torn_end_is_cut_off_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (path, headers) = file_with_headers(&dir);
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len(), 52 + 50 * 84);
    // A partial record; a whole one with a wrong byte; zeros where a batch should be.
    let mut wrong_byte = whole.clone();
    wrong_byte[52 + 49 * 84 + 3] ^= 1;
    let mut zeros = whole[..52 + 49 * 84].to_vec();
    zeros.extend_from_slice(&[0; 200]);
    for torn in [whole[..whole.len() - 1].to_vec(), wrong_byte, zeros] {
        fs::write(&path, &torn).unwrap();
        let store = HeaderStore::open(&path, &regtest()).unwrap();
        assert_eq!(store.best().tip.height, 49);
        assert_eq!(fs::read(&path).unwrap(), whole[..52 + 49 * 84]);
        assert_eq!(store.insert(&headers).unwrap(), 1);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn damage_in_the_middle_is_an_error_that_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = file_with_headers(&dir);
    let mut damaged = fs::read(&path).unwrap();
    damaged[52 + 20 * 84 + 40] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let err = HeaderStore::open(&path, &regtest()).err().unwrap();
    assert!(matches!(
        err,
        HeaderStoreError::Damaged {
            record: 20,
            offset: 1732,
            ..
        }
    ));
    assert!(err.to_string().contains("move the file aside"));
    assert_eq!(fs::read(&path).unwrap(), damaged);
}

#[test]
fn a_missing_record_is_an_error_although_every_checksum_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = file_with_headers(&dir);
    let mut bytes = fs::read(&path).unwrap();
    bytes.drain(52 + 20 * 84..52 + 21 * 84);
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(
        HeaderStore::open(&path, &regtest()).err().unwrap(),
        HeaderStoreError::Damaged { record: 20, .. }
    ));
}

#[test]
fn files_of_another_network_format_or_kind_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = file_with_headers(&dir);
    assert!(matches!(
        HeaderStore::open(&path, &mainnet()).err().unwrap(),
        HeaderStoreError::WrongNetwork { .. }
    ));
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    let crc = crc32fast::hash(&bytes[..48]).to_le_bytes();
    bytes[48..52].copy_from_slice(&crc);
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(
        HeaderStore::open(&path, &regtest()).err().unwrap(),
        HeaderStoreError::FormatVersion { found: 9, .. }
    ));
    fs::write(&path, b"something else entirely").unwrap();
    assert!(matches!(
        HeaderStore::open(&path, &regtest()).err().unwrap(),
        HeaderStoreError::NotAHeaderFile { .. }
    ));
    assert_eq!(fs::read(&path).unwrap(), b"something else entirely");
}

#[test]
fn a_creation_that_was_cut_short_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = file_with_headers(&dir);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..30]).unwrap();
    let store = HeaderStore::open(&path, &regtest()).unwrap();
    assert_eq!(store.len(), 1);
    drop(store);
    assert_eq!(fs::read(&path).unwrap(), whole[..52]);
}
