//! How long a new block takes from a peer's announcement to the answers.

use std::time::{Duration, Instant};

use pulse_primitives::bitcoin::{
    Amount, Block, Network, OutPoint, ScriptBuf, Transaction, TxOut,
    consensus::encode::serialize_hex,
};
use pulse_testkit::{
    ChainBuilder, PulseNode, ScriptedPeer,
    txgen::{
        lock::{Keys, Lock, usual},
        sign::{OpenFault, SigFault, sign},
        unsigned,
    },
};
use serde_json::Value;

use crate::e2e::common::{DEADLINE, options, params, scripthash, served};

/// Transactions of each block.
const TXS: usize = 3_000;
const ROUNDS: usize = 7;
const COIN: Amount = Amount::from_sat(1_000_000);
const FEE: Amount = Amount::from_sat(1_000);

/// A coin that the next block spends.
struct Coin {
    lock: Lock,
    outpoint: OutPoint,
    value: Amount,
}

/// Every transaction of the block was in the mempool before. Prints, for each round, the
/// time from the announcement until the block is the tip, and until an answer that
/// joins index and mempool has it; and the kernel's part of it.
#[test]
#[ignore = "a measurement, for a quiet machine"]
#[allow(clippy::print_stdout, reason = "the figures are what it is for")]
fn from_a_new_block_to_the_answers() {
    let keys = Keys::default();
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(101);
    let mut coins = fund(&keys, &mut chain);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let mut node = options("regtest").connect(peer.addr()).start();
    node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    println!(
        "| transactions | bytes | inputs | kernel ms | tip after kernel ms | joined answer after kernel ms |"
    );
    let mut behind = Vec::new();
    for _ in 0..ROUNDS {
        let txs: Vec<Transaction> = coins.drain(..).map(|coin| spend(&keys, coin)).collect();
        for tx in &txs {
            let reply = node.post("/tx", &serialize_hex(tx));
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        coins = txs
            .iter()
            .zip(locks(&keys))
            .map(|(tx, lock)| coin_of(tx, lock))
            .collect();
        let (script, fees) = (ScriptBuf::from_bytes(vec![0x51]), FEE * TXS as u64);
        let block = chain.mine(&script, fees, txs).clone();
        behind.push(measure(&node, &peer, &block));
    }
    behind.sort();
    println!(
        "median of the joined answer after the kernel: {:?}",
        behind[ROUNDS / 2]
    );
}

/// Pushes the block; how long after the kernel's part the joined answer has it.
#[allow(clippy::print_stdout, reason = "the figures are what it is for")]
fn measure(node: &PulseNode, peer: &ScriptedPeer, block: &Block) -> Duration {
    let before = kernel_seconds(node);
    let last = block.txdata.last().unwrap();
    let hash = scripthash(last.output[0].script_pubkey.as_bytes());
    let txid = last.compute_txid().to_string();
    let start = Instant::now();
    peer.push_block(block);
    let tip = block.block_hash().to_string();
    wait(|| node.get("/blocks/tip/hash").text() == tip);
    let shown = start.elapsed();
    wait(|| {
        let txs: Value = node.get_json(&format!("/scripthash/{hash}/txs"));
        txs[0]["txid"] == txid && txs[0]["status"]["confirmed"] == true
            || txs
                .as_array()
                .is_some_and(|txs| txs.iter().all(|tx| tx["status"]["confirmed"] == true))
    });
    let joined = start.elapsed();
    let kernel = Duration::from_secs_f64(kernel_seconds(node) - before);
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    println!(
        "| {} | {} | {} | {:.1} | {:.1} | {:.1} |",
        block.txdata.len(),
        block.total_size(),
        block.txdata.iter().map(|tx| tx.input.len()).sum::<usize>(),
        ms(kernel),
        ms(shown.saturating_sub(kernel)),
        ms(joined.saturating_sub(kernel)),
    );
    joined.saturating_sub(kernel)
}

fn wait(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "the block does not show");
    }
}

/// Sum of the kernel's times for blocks.
fn kernel_seconds(node: &PulseNode) -> f64 {
    let metrics = node.get("/metrics");
    let line = (metrics.text().lines())
        .find_map(|line| line.strip_prefix("pulse_sync_submit_seconds_sum "))
        .expect("the metric");
    line.parse().expect("a number")
}

/// One lock for each transaction of a block, of the kinds that wallets use.
fn locks(keys: &Keys) -> impl Iterator<Item = Lock> {
    let locks: Vec<Lock> = usual(keys, 101)
        .into_iter()
        .filter(|lock| lock.lock_height.is_none() && lock.lock_blocks.is_none())
        .collect();
    locks.into_iter().cycle().take(TXS)
}

/// Coins for the first block.
fn fund(keys: &Keys, chain: &mut ChainBuilder) -> Vec<Coin> {
    let coinbase = chain.blocks()[1].txdata[0].compute_txid();
    let output = locks(keys)
        .map(|lock| TxOut {
            value: COIN,
            script_pubkey: lock.script_pubkey(keys),
        })
        .collect();
    let tx = unsigned(OutPoint::new(coinbase, 0), output);
    let txid = tx.compute_txid();
    chain.mine(&ScriptBuf::from_bytes(vec![0x51]), Amount::ZERO, vec![tx]);
    let coins = locks(keys).zip(0..).map(|(lock, vout)| Coin {
        lock,
        outpoint: OutPoint::new(txid, vout),
        value: COIN,
    });
    coins.collect()
}

/// Pays the coin to its own lock.
fn spend(keys: &Keys, coin: Coin) -> Transaction {
    let output = vec![TxOut {
        value: coin.value - FEE,
        script_pubkey: coin.lock.script_pubkey(keys),
    }];
    let mut tx = unsigned(coin.outpoint, output);
    sign(
        keys,
        &mut tx,
        &[(coin.lock, coin.value)],
        SigFault::None,
        OpenFault::None,
    );
    tx
}

fn coin_of(tx: &Transaction, lock: Lock) -> Coin {
    Coin {
        lock,
        outpoint: OutPoint::new(tx.compute_txid(), 0),
        value: tx.output[0].value,
    }
}
