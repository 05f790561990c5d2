//! The chain with the real kernel on real blocks.

use std::path::{Path, PathBuf};

use pulse_primitives::{
    bitcoin::{
        Block, Network, OutPoint, Transaction, TxIn,
        absolute::LockTime,
        consensus::{deserialize, serialize},
        hashes::Hash,
        hex::FromHex,
        transaction::Version,
    },
    ports::{BlockSource, BlockSourceError},
};
use pulse_testkit::ChainBuilder;

use super::*;

/// Blocks of a run of the shared chain data, or `None` where it is missing and the
/// machine is no CI.
fn run_blocks(name: &str) -> Option<Vec<Vec<u8>>> {
    let dir = std::env::var_os("PULSE_CHAINDATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/chaindata"),
        PathBuf::from,
    );
    let path = dir.join("runs").join(name);
    if !path.exists() {
        assert!(
            std::env::var_os("CI").is_none(),
            "{} is missing",
            path.display()
        );
        eprintln!("skipped: {} is missing", path.display());
        return None;
    }
    let text = std::fs::read_to_string(path).unwrap();
    let hex = text.split(|c: char| !c.is_ascii_hexdigit());
    Some(
        hex.filter(|part| part.len() > 160)
            .map(|part| Vec::from_hex(part).unwrap())
            .collect(),
    )
}

struct Fixture {
    dir: tempfile::TempDir,
    params: ChainParams,
}

impl Fixture {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            params: ChainParams::new(Network::Regtest, None),
        }
    }

    fn open(&self) -> Chain {
        let headers = HeaderStore::open(&self.dir.path().join("headers.dat"), &self.params);
        let config = ChainConfig {
            dir: self.dir.path().join("kernel"),
            params: self.params.clone(),
            script_threads: 1,
            is_second: false,
        };
        Chain::open(&config, Arc::new(headers.unwrap())).unwrap()
    }
}

/// Feeds header and body of each block, as the sync does.
fn feed(chain: &Chain, blocks: &[Vec<u8>]) -> Vec<BlockVerdict> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut verdicts = Vec::new();
        for bytes in blocks {
            let header: Header = deserialize(&bytes[..80]).unwrap();
            let verdict = chain.submit_headers(vec![header]).await.unwrap();
            assert_eq!(verdict, HeadersVerdict::Accepted);
            chain.inner.headers.insert(&[header]).unwrap();
            verdicts.push(chain.submit_block(bytes.clone()).await.unwrap());
        }
        verdicts
    })
}

fn decoded(blocks: &[Vec<u8>]) -> Vec<Block> {
    blocks
        .iter()
        .map(|bytes| deserialize(bytes).unwrap())
        .collect()
}

#[test]
fn connected_blocks_read_back_with_their_spent_outputs_also_after_a_restart() {
    let Some(blocks) = run_blocks("regtest-kernel-1-206.txt") else {
        return;
    };
    let fixture = Fixture::new();
    let chain = fixture.open();
    let verdicts = feed(&chain, &blocks);
    assert!(
        verdicts
            .iter()
            .all(|verdict| *verdict == BlockVerdict::Accepted)
    );
    let parsed = decoded(&blocks);
    let check = |chain: &Chain| {
        assert_eq!(chain.active_height(), 206);
        let mut outputs = std::collections::HashMap::new();
        for (height, block) in (1..).zip(&parsed) {
            let hash = block.block_hash();
            assert_eq!(chain.hash_at(height), Some(hash));
            assert_eq!(chain.header_height(&hash), Some(height));
            assert!(chain.has_block(&hash));
            let loaded = chain.load(&hash, height).unwrap();
            assert_eq!(loaded.block, *block);
            assert_eq!(chain.locate(&hash, height).unwrap(), loaded.position);
            for (tx, spent) in block.txdata[1..].iter().zip(&loaded.spent) {
                for (input, spent) in tx.input.iter().zip(spent) {
                    let (output, created) = outputs.remove(&input.previous_output).unwrap();
                    assert_eq!((&spent.output, spent.height), (&output, created));
                }
            }
            for (tx, txid) in block.txdata.iter().zip(&loaded.txids) {
                for (vout, output) in (0..).zip(&tx.output) {
                    let outpoint = pulse_primitives::bitcoin::OutPoint::new(*txid, vout);
                    outputs.insert(outpoint, (output.clone(), height));
                }
            }
        }
    };
    check(&chain);
    chain.close();
    drop(chain);
    // The header file is lost: the kernel's block tree has the headers, too.
    std::fs::remove_file(fixture.dir.path().join("headers.dat")).unwrap();
    let chain = fixture.open();
    check(&chain);
    let genesis = fixture.params.genesis();
    assert_eq!(chain.load(&genesis.block_hash(), 0).unwrap().block, genesis);
    chain.close();
}

#[test]
fn a_branch_with_more_work_replaces_the_other_and_the_stale_blocks_stay_readable() {
    let Some(blocks) = run_blocks("regtest-reorg.json") else {
        return;
    };
    let fixture = Fixture::new();
    let chain = fixture.open();
    let mut tip = chain.tip();
    feed(&chain, &blocks[..10]);
    assert_eq!(tip.borrow_and_update().height, 10);
    feed(&chain, &blocks[10..]);
    assert_eq!(tip.borrow_and_update().height, 16);
    let parsed = decoded(&blocks);
    assert_eq!(chain.hash_at(16), Some(parsed[20].block_hash()));
    let stale = parsed[9].block_hash();
    assert_ne!(chain.hash_at(10), Some(stale));
    assert!(chain.has_block(&stale));
    assert_eq!(chain.load(&stale, 10).unwrap().block, parsed[9]);
    chain.close();
}

/// A block upon `chain` in which nothing but an output of OP_TRUE, the coinbase at
/// `height`, is spent.
fn spending_coinbase(chain: &ChainBuilder, height: usize) -> Block {
    let spent = &chain.blocks()[height].txdata[0];
    let tx = Transaction {
        version: Version(2),
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(spent.compute_txid(), 0),
            ..TxIn::default()
        }],
        output: spent.output[..1].to_vec(),
    };
    chain.build(chain.blocks()[1].txdata[0].output[..1].to_vec(), vec![tx])
}

#[test]
fn siblings_are_read_each_with_its_own_spent_outputs() {
    let fixture = Fixture::new();
    let mut common = ChainBuilder::new(fixture.params.clone());
    common.mine_empty_blocks(110);
    // Of the same shape, so that nothing but the outputs tells them apart.
    let siblings = [1, 2, 3].map(|height| (spending_coinbase(&common, height), height));
    let branch = |block: &Block, count| {
        let mut blocks = common.blocks().to_vec();
        blocks.push(block.clone());
        let mut chain = ChainBuilder::from_blocks(fixture.params.clone(), blocks);
        chain.mine_empty_blocks(count);
        chain.blocks()[111..]
            .iter()
            .map(serialize)
            .collect::<Vec<_>>()
    };
    let check = |chain: &Chain| {
        for (block, height) in siblings.iter().chain(siblings.iter().rev()) {
            let loaded = chain.load(&block.block_hash(), 111).unwrap();
            assert_eq!(loaded.block, *block);
            assert_eq!(loaded.spent[0][0].height as usize, *height);
            let at = chain.locate(&block.block_hash(), 111).unwrap();
            assert_eq!(at, loaded.position);
        }
    };
    let chain = fixture.open();
    let blocks: Vec<_> = common.blocks()[1..].iter().map(serialize).collect();
    feed(&chain, &blocks);
    // None is read before the last one has replaced the others.
    for ((block, _), count) in siblings.iter().zip(0..) {
        feed(&chain, &branch(block, count));
    }
    assert_eq!(chain.hash_at(111), Some(siblings[2].0.block_hash()));
    check(&chain);
    chain.close();
    drop(chain);
    // With the file the store loses what it knew of branches.
    std::fs::remove_file(fixture.dir.path().join("headers.dat")).unwrap();
    let chain = fixture.open();
    check(&chain);
    chain.close();
    // Nothing is missing: there is only nobody to ask any more.
    let (block, _) = &siblings[0];
    let closed = chain.load(&block.block_hash(), 111);
    assert!(
        matches!(closed, Err(BlockSourceError::Closed)),
        "{closed:?}"
    );
}

#[test]
fn wrong_blocks_are_refused_and_told_apart() {
    let Some(blocks) = run_blocks("regtest-kernel-1-206.txt") else {
        return;
    };
    let fixture = Fixture::new();
    let chain = fixture.open();
    let mut mutated = blocks[0].clone();
    let last = mutated.len() - 1;
    mutated[last] ^= 1;
    let verdicts = feed(&chain, &[mutated, blocks[0].clone()]);
    assert!(matches!(&verdicts[0], BlockVerdict::Invalid(invalid) if invalid.mutated));
    assert_eq!(verdicts[1], BlockVerdict::Accepted);
    assert_eq!(feed(&chain, &blocks[..1]), [BlockVerdict::Duplicate]);
    let missing = BlockHash::from_byte_array([7; 32]);
    assert!(matches!(
        chain.load(&missing, 1),
        Err(BlockSourceError::NotStored { .. })
    ));
    chain.close();
}

#[test]
fn the_kernel_closes_for_a_while_and_goes_on() {
    let Some(blocks) = run_blocks("regtest-kernel-1-206.txt") else {
        return;
    };
    let fixture = Fixture::new();
    let chain = fixture.open();
    feed(&chain, &blocks[..150]);
    let parsed = decoded(&blocks);
    let hash = parsed[99].block_hash();
    let kernel = fixture.dir.path().join("kernel");
    let copy = tempfile::tempdir().unwrap();
    let (inner, to) = (chain.clone(), copy.path().join("kernel"));
    let tip = chain
        .while_closed(move |tip| {
            assert!(inner.load(&hash, 100).is_ok());
            copy_dir(&kernel, &to);
            tip
        })
        .unwrap();
    assert_eq!(tip.height, 150);
    // A panic is nobody else's.
    let panicked = chain.while_closed(|_| panic!("on purpose"));
    assert!(matches!(panicked, Err::<(), _>(ChainError::Failed(_))));
    assert_eq!(chain.active_height(), 150);
    feed(&chain, &blocks[150..]);
    assert_eq!(chain.active_height(), 206);
    assert!(chain.settled_files().is_empty());
    chain.close();
    assert!(matches!(
        chain.while_closed(|_| ()),
        Err(ChainError::Stopped)
    ));

    // What was copied is the chain up to then.
    let copied = Fixture {
        dir: copy,
        params: fixture.params,
    };
    let chain = copied.open();
    assert_eq!(chain.active_tip(), tip);
    feed(&chain, &blocks[150..]);
    assert_eq!(chain.active_height(), 206);
    assert_eq!(chain.load(&hash, 100).unwrap().block, parsed[99]);
    chain.close();
}

#[test]
fn a_node_that_stops_does_not_open_the_kernel_again() {
    let fixture = Fixture::new();
    let chain = fixture.open();
    let mut events = chain.take_events().unwrap();
    let (started, wait_started) = std::sync::mpsc::channel();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let worker = chain.clone();
    let working = thread::spawn(move || {
        worker.while_closed(move |_| {
            started.send(()).unwrap();
            wait.recv().unwrap();
        })
    });
    wait_started.recv().unwrap();
    let closer = chain.clone();
    let closing = thread::spawn(move || closer.close());
    while !chain.inner.view.closing.load(Ordering::Relaxed) {
        thread::yield_now();
    }
    go_on.send(()).unwrap();
    working.join().unwrap().unwrap();
    closing.join().unwrap();
    assert!(events.try_recv().is_err());
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
