//! An address with more than 100,000 transactions: every list of it is complete and in order,
//! page by page and in one piece, and costs the node no more memory than a short one.

use std::{
    collections::HashSet,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
};

use pulse_primitives::bitcoin::{
    Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness, absolute::LockTime, hashes::Hash, hashes::sha256, transaction::Version,
};
use pulse_testkit::{ChainBuilder, NodeOptions, PulseNode, ScriptedPeer};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    common::{DEADLINE, options, params, served},
    electrum::raw,
};

/// Blocks that are full of the address, and transactions of it in each.
const BLOCKS: usize = 20;
const TXS_PER_BLOCK: usize = 5_050;
/// Height of the first of them.
const FIRST: usize = 102;
/// Satoshis of the outputs that stay.
const SMALL: u64 = 1_000;

#[derive(Debug, Deserialize)]
struct Tx {
    txid: Txid,
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Status {
    block_height: usize,
}

#[derive(Debug, Deserialize)]
struct Unspent {
    txid: Txid,
    vout: u32,
    value: u64,
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Summary {
    txid: Txid,
    height: usize,
    value: i64,
}

/// A chain of payments of an address to itself, and what is to be known of it.
struct Fixture {
    chain: ChainBuilder,
    script: ScriptBuf,
    /// Oldest first.
    history: Vec<(usize, Txid)>,
    /// In the order of the chain.
    unspent: Vec<(usize, OutPoint, u64)>,
    /// With the first coinbase.
    total: u64,
}

impl Fixture {
    fn new() -> Self {
        let anyone = ScriptBuf::from_bytes(vec![0x51]);
        let script = ScriptBuf::new_p2wsh(&anyone.wscript_hash());
        let mut chain = ChainBuilder::new(params(Network::Regtest));
        let coinbase = chain.mine(&script, Amount::ZERO, vec![]).txdata[0].clone();
        chain.mine_empty_blocks(u32::try_from(FIRST).unwrap() - 2);
        let total = coinbase.output[0].value.to_sat();
        let mut history = vec![(1, coinbase.compute_txid())];
        let mut unspent = Vec::new();
        let mut coin = (OutPoint::new(history[0].1, 0), total);
        let witness = Witness::from_slice(&[anyone.as_bytes()]);
        for height in FIRST..FIRST + BLOCKS {
            let mut txs = Vec::with_capacity(TXS_PER_BLOCK);
            for at in 0..TXS_PER_BLOCK {
                // The next one spends the first output; a second one stays.
                let small = if at % 8 == 0 { SMALL } else { 0 };
                let values = [coin.1 - small, small];
                let output = (values.iter().filter(|value| **value > 0)).map(|value| TxOut {
                    value: Amount::from_sat(*value),
                    script_pubkey: script.clone(),
                });
                let tx = Transaction {
                    version: Version::TWO,
                    lock_time: LockTime::ZERO,
                    input: vec![TxIn {
                        previous_output: coin.0,
                        sequence: Sequence::MAX,
                        witness: witness.clone(),
                        ..TxIn::default()
                    }],
                    output: output.collect(),
                };
                let txid = tx.compute_txid();
                if small > 0 {
                    unspent.push((height, OutPoint::new(txid, 1), small));
                }
                coin = (OutPoint::new(txid, 0), values[0]);
                history.push((height, txid));
                txs.push(tx);
            }
            chain.mine(&anyone, Amount::ZERO, txs);
        }
        unspent.push((FIRST + BLOCKS - 1, coin.0, coin.1));
        assert!(history.len() > 100_000);
        Self {
            chain,
            script,
            history,
            unspent,
            total,
        }
    }

    fn newest_first(&self) -> Vec<(usize, Txid)> {
        self.history.iter().rev().copied().collect()
    }
}

fn read<T: DeserializeOwned>(node: &PulseNode, path: &str) -> (Vec<T>, Option<String>) {
    let answer = node.call("GET", path, &[], "");
    assert_eq!(answer.status, 200, "{path}: {:.200}", answer.shown());
    let next = answer.header("x-next-cursor").map(str::to_owned);
    (serde_json::from_slice(&answer.body).unwrap(), next)
}

/// All pages of a list that has cursors, of at most `limit` entries each.
fn by_cursor<T: DeserializeOwned>(node: &PulseNode, path: &str, limit: usize) -> Vec<T> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let (page, next) = read(node, &format!("{path}limit={limit}{cursor}"));
        assert!(page.len() <= limit);
        all.extend(page);
        match next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// All pages of a list that goes on after the last txid; `path` makes one of them.
fn by_txid<T: DeserializeOwned>(
    node: &PulseNode,
    path: impl Fn(Option<Txid>) -> String,
    txid: impl Fn(&T) -> Txid,
) -> Vec<T> {
    let mut all: Vec<T> = Vec::new();
    loop {
        let (page, _) = read(node, &path(all.last().map(&txid)));
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

fn places(txs: &[Tx]) -> Vec<(usize, Txid)> {
    txs.iter()
        .map(|tx| (tx.status.block_height, tx.txid))
        .collect()
}

fn outputs(unspent: &[Unspent]) -> Vec<(usize, OutPoint, u64)> {
    let outputs = unspent.iter().map(|utxo| {
        let outpoint = OutPoint::new(utxo.txid, utxo.vout);
        (utxo.status.block_height, outpoint, utxo.value)
    });
    outputs.collect()
}

/// Every list of transactions by every way of paging.
fn assert_histories(node: &PulseNode, fixture: &Fixture, base: &str) {
    let wanted = fixture.newest_first();
    // Esplora: 25 at a time.
    let esplora = by_txid(
        node,
        |last| match last {
            None => format!("{base}/txs"),
            Some(last) => format!("{base}/txs/chain/{last}"),
        },
        |tx: &Tx| tx.txid,
    );
    assert!(places(&esplora) == wanted, "pages of Esplora");
    let pages = by_cursor::<Tx>(node, &format!("{base}/txs/chain?"), 1_000);
    assert!(places(&pages) == wanted, "pages by cursor");
    let pages = by_txid(
        node,
        |last| match last {
            None => format!("{base}/txs?max_txs=1000"),
            Some(last) => format!("{base}/txs?max_txs=1000&after_txid={last}"),
        },
        |tx: &Tx| tx.txid,
    );
    assert!(places(&pages) == wanted, "pages of mempool/electrs");
    let summary = by_txid(
        node,
        |last| match last {
            None => format!("{base}/txs/summary"),
            Some(last) => format!("{base}/txs/summary/{last}"),
        },
        |entry: &Summary| entry.txid,
    );
    let found: Vec<_> = (summary.iter())
        .map(|entry| (entry.height, entry.txid))
        .collect();
    assert!(found == wanted, "summaries");
    let balance: i64 = summary.iter().map(|entry| entry.value).sum();
    assert_eq!(u64::try_from(balance).unwrap(), fixture.total);
    // Those of one block.
    let block = FIRST + BLOCKS / 2;
    let path = format!("{base}/txs/chain?from_height={block}&to_height={block}&");
    let pages = by_cursor::<Tx>(node, &path, 1_000);
    let wanted: Vec<_> = (wanted.into_iter())
        .filter(|(height, _)| *height == block)
        .collect();
    assert!(places(&pages) == wanted, "one block");
}

fn assert_outputs_and_balances(node: &PulseNode, fixture: &Fixture, base: &str) {
    let (whole, _) = read::<Unspent>(node, &format!("{base}/utxo"));
    assert!(outputs(&whole) == fixture.unspent, "all outputs");
    let pages = by_cursor::<Unspent>(node, &format!("{base}/utxo?"), 10_000);
    assert!(outputs(&pages) == fixture.unspent, "pages of outputs");

    let stats: Value = node.get_json(base);
    let (count, left) = (fixture.history.len() as u64, fixture.unspent.len() as u64);
    let stats = &stats["chain_stats"];
    assert_eq!(stats["tx_count"], count);
    // Each but the first spends one output.
    assert_eq!(stats["spent_txo_count"], count - 1);
    assert_eq!(stats["funded_txo_count"], count - 1 + left);
    let sum = |key: &str| stats[key].as_u64().unwrap();
    assert_eq!(sum("funded_txo_sum") - sum("spent_txo_sum"), fixture.total);

    let blocks = by_cursor::<Value>(node, &format!("{base}/balance/history?"), 7);
    let heights: Vec<_> = blocks.iter().map(|block| &block["block_height"]).collect();
    let mut wanted: Vec<_> = (FIRST..FIRST + BLOCKS).rev().collect();
    wanted.push(1);
    assert_eq!(heights, wanted);
    for block in &blocks[..BLOCKS] {
        assert_eq!(block["tx_count"], TXS_PER_BLOCK);
        assert_eq!(
            (&block["change"], &block["balance"]),
            (&json!(0), &json!(fixture.total))
        );
    }
    let tip = FIRST + BLOCKS - 1;
    // In the middle, too: rows say what these transactions add, none has to be read.
    for height in [tip, tip - 1, FIRST, FIRST + 9] {
        let at: Value = node.get_json(&format!("{base}/balance?height={height}"));
        assert_eq!(at["balance"], fixture.total, "{height}");
    }
}

/// The same for several addresses at once.
fn assert_many(node: &PulseNode, fixture: &Fixture, address: &str) {
    let body = json!([address, address]).to_string();
    let ask = |path: &str| -> Vec<Value> {
        let answer = node.call("POST", path, &[], &body);
        assert_eq!(answer.status, 200, "{path}: {:.200}", answer.shown());
        serde_json::from_slice(&answer.body).unwrap()
    };
    let newest: Vec<Txid> = (fixture.history.iter().rev().take(1_000))
        .map(|(_, txid)| *txid)
        .collect();
    let ids = |txs: &[Value]| -> Vec<Txid> {
        let ids = txs.iter().map(|tx| tx["txid"].as_str().unwrap());
        ids.map(|txid| txid.parse().unwrap()).collect()
    };
    for entry in ask("/bulk/addresses/txs?limit=1000") {
        assert!(ids(entry["txs"].as_array().unwrap()) == newest);
        assert!(entry["next_cursor"].is_string());
    }
    for entry in ask("/bulk/addresses/stats") {
        assert_eq!(entry["chain_stats"]["tx_count"], fixture.history.len());
    }
    for entry in ask("/bulk/addresses/utxo") {
        let unspent = entry["utxos"].as_array().unwrap();
        assert_eq!(unspent.len(), fixture.unspent.len());
    }
    // Two names of one script are one list.
    assert!(ids(&ask("/addresses/txs?max_txs=1000")) == newest);
    assert_eq!(ask("/addresses/txs/summary").len(), 5_000);
}

fn electrum(node: &PulseNode) -> raw::Client {
    raw::Client::speaking(node.electrum_addr("tcp").unwrap(), "1.6")
}

fn assert_electrum(node: &PulseNode, fixture: &Fixture) {
    let name = electrum_name(fixture);
    let mut client = electrum(node);
    let found = |answer: &Value| -> Vec<(usize, Txid)> {
        let entries = answer.as_array().unwrap().iter();
        let entries = entries.map(|entry| {
            let txid = entry["tx_hash"].as_str().unwrap().parse().unwrap();
            (
                usize::try_from(entry["height"].as_u64().unwrap()).unwrap(),
                txid,
            )
        });
        entries.collect()
    };
    let method = |name: &str| format!("blockchain.scripthash.{name}");
    let whole = client.call(&method("get_history"), json!([name]));
    assert!(found(&whole) == fixture.history, "get_history");
    let mut pages = Vec::new();
    for from in (0..FIRST + BLOCKS).step_by(10) {
        let page = client.call(&method("get_history"), json!([name, from, from + 10]));
        pages.extend(found(&page));
    }
    assert!(pages == fixture.history, "get_history by heights");
    let text: String = (fixture.history.iter())
        .map(|(height, txid)| format!("{txid}:{height}:"))
        .collect();
    let status = sha256::Hash::hash(text.as_bytes()).to_byte_array();
    let status: String = status.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(client.call(&method("subscribe"), json!([name])), status);
    let balance = client.call(&method("get_balance"), json!([name]));
    assert_eq!(
        balance,
        json!({"confirmed": fixture.total, "unconfirmed": 0})
    );
    let unspent = client.call(&method("listunspent"), json!([name]));
    let unspent: HashSet<_> = (unspent.as_array().unwrap().iter())
        .map(|utxo| format!("{}:{}", utxo["tx_hash"].as_str().unwrap(), utxo["tx_pos"]))
        .collect();
    let wanted = fixture.unspent.iter().map(|(_, at, _)| at.to_string());
    assert!(unspent == wanted.collect(), "listunspent");
}

fn electrum_name(fixture: &Fixture) -> String {
    let mut hash = sha256::Hash::hash(fixture.script.as_bytes()).to_byte_array();
    hash.reverse();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Memory that is the node's own, in MiB.
fn own_memory_mib(node: &PulseNode) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib >> 10
}

/// Clients that have begun to take a long list, and take no more of it, cost a few pieces of it
/// each, and nobody else his answer.
fn assert_slow_clients_cost_little(node: &PulseNode, fixture: &Fixture, address: &str) {
    const CLIENTS: u64 = 12;
    /// Where an answer about many ends.
    const LONGEST_MIB: u64 = 32;
    let body = json!(vec![address; 40]).to_string();
    let request = format!(
        "POST /bulk/addresses/txs?limit=1000 HTTP/1.1\r\nhost: node\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let before = own_memory_mib(node);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut stream = TcpStream::connect(node.http_addr()).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut head = [0; 1_000];
            stream.read_exact(&mut head).unwrap();
            assert!(head.starts_with(b"HTTP/1.1 200"));
            stream
        })
        .collect();
    let (list, _) = read::<Unspent>(node, &format!("/address/{address}/utxo"));
    assert_eq!(list.len(), fixture.unspent.len());
    let more = own_memory_mib(node).saturating_sub(before);
    assert!(
        more < CLIENTS * LONGEST_MIB / 3,
        "{more} MiB for {CLIENTS} clients"
    );
    drop(clients);
}

fn node_options(peer: &ScriptedPeer, data_dir: &Path) -> NodeOptions {
    options("regtest")
        .connect(peer.addr())
        .data_dir(data_dir)
        .env("PULSE_ELECTRUM__ADDR", "127.0.0.1:0")
}

#[test]
fn an_address_with_a_hundred_thousand_transactions_is_answered_in_full() {
    let fixture = Fixture::new();
    let peer = ScriptedPeer::honest(served(Network::Regtest, fixture.chain.blocks()));
    let dir = tempfile::tempdir().unwrap();
    let mut node = node_options(&peer, dir.path()).start();
    node.wait_synced_to(fixture.chain.height(), DEADLINE);
    let address = Address::from_script(&fixture.script, Network::Regtest).unwrap();
    let base = format!("/address/{address}");
    std::thread::scope(|scope| {
        let (node, fixture, base) = (&node, &fixture, &base);
        scope.spawn(move || assert_histories(node, fixture, base));
        scope.spawn(move || {
            assert_outputs_and_balances(node, fixture, base);
            assert_many(node, fixture, base.strip_prefix("/address/").unwrap());
            assert_electrum(node, fixture);
        });
    });
    assert_slow_clients_cost_little(&node, &fixture, &address.to_string());

    // A server that allows less says so.
    assert!(node.terminate(DEADLINE).status.success());
    let mut node = node_options(&peer, dir.path())
        .env("PULSE_ELECTRUM__MAX_HISTORY", "100000")
        .env("PULSE_HTTP__UTXOS_LIMIT", "10000")
        .start();
    node.wait_synced_to(fixture.chain.height(), DEADLINE);
    let name = electrum_name(&fixture);
    let mut client = electrum(&node);
    for method in ["get_history", "subscribe"] {
        let refused = client.error(&format!("blockchain.scripthash.{method}"), json!([name]));
        assert_eq!(
            refused,
            (1, "history too large (limit: 100000 entries)".to_owned())
        );
    }
    let few = json!([name, FIRST, FIRST + 1]);
    let few = client.call("blockchain.scripthash.get_history", few);
    assert_eq!(few.as_array().unwrap().len(), TXS_PER_BLOCK);
    let refused = node.get(&format!("{base}/utxo"));
    assert_eq!(
        (refused.status, refused.text()),
        (400, "Too many unspent outputs")
    );
    let pages = by_cursor::<Unspent>(&node, &format!("{base}/utxo?"), 50_000);
    assert!(outputs(&pages) == fixture.unspent);
}
