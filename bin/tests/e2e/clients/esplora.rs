//! Every call of esplora-client, blocking and asynchronous, against what the chain and the
//! mempool are.

use std::collections::{HashMap, HashSet};

use esplora_client::{
    AddressStats, AsyncClient, BlockInfo, BlockStatus, BlockingClient, Builder, Error, EsploraTx,
    MempoolRecentTx, MempoolStats, MerkleProof, OutputStatus, ScriptHashStats, SubmitPackageResult,
    TxStatus, Utxo,
};
use pulse_primitives::bitcoin::{
    Address, Amount, Block, BlockHash, FeeRate, MerkleBlock, Network, OutPoint, Script, ScriptBuf,
    Transaction, TxOut, Txid, WPubkeyHash, block::Header, hashes::Hash,
};
use pulse_testkit::txgen::unsigned;

use crate::e2e::electrum::Scene;

/// Transactions of a long block, more than one page.
const MANY: usize = 30;

/// A chain with what the calls ask for.
struct Story {
    scene: Scene,
    /// Of the long block, which is at height 111.
    blocks: Vec<Block>,
    /// Pays to `to`, in block 112.
    confirmed: Transaction,
    /// Neither is known to the node yet.
    parent: Transaction,
    child: Transaction,
    /// Not known either.
    later: [Transaction; 2],
    to: ScriptBuf,
}

impl Story {
    fn new() -> Self {
        let mut scene = Scene::new();
        scene.fund();
        let to = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([9; 20]));
        scene.mine(links(&scene.chain.blocks()[4], MANY - 1));
        let confirmed = scene.pay(&to, 1_000_000);
        scene.mine(vec![confirmed.clone()]);
        let parent = scene.pay(&to, 2_000_000);
        let child = scene.pay_all_from(&parent, &to);
        let other = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([8; 20]));
        let first = scene.pay(&other, 3_000_000);
        let later = [first.clone(), scene.pay_all_from(&first, &other)];
        let blocks = scene.chain.blocks().to_vec();
        Self {
            scene,
            blocks,
            confirmed,
            parent,
            child,
            later,
            to,
        }
    }
}

/// Transactions that each spend the one before, the first the coinbase of `block`, which
/// anybody can spend.
fn links(block: &Block, count: usize) -> Vec<Transaction> {
    let mut coin = OutPoint::new(block.txdata[0].compute_txid(), 0);
    let mut value = block.txdata[0].output[0].value;
    let mut link = || {
        value -= Amount::from_sat(1_000);
        let anyone = TxOut {
            value,
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        };
        let tx = unsigned(coin, vec![anyone]);
        coin = OutPoint::new(tx.compute_txid(), 0);
        tx
    };
    (0..count).map(|_| link()).collect()
}

/// The calls of both clients, so that one scene serves both.
macro_rules! calls {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {
        trait Calls {
            $(fn $name(&self, $($argument: $kind),*) -> Result<$result, Error>;)*
        }

        #[allow(deprecated, reason = "these too are called by somebody")]
        impl Calls for BlockingClient {
            $(fn $name(&self, $($argument: $kind),*) -> Result<$result, Error> {
                BlockingClient::$name(self, $($argument),*)
            })*
        }

        #[allow(deprecated, reason = "these too are called by somebody")]
        impl Calls for Waiting {
            $(fn $name(&self, $($argument: $kind),*) -> Result<$result, Error> {
                self.runtime.block_on(self.client.$name($($argument),*))
            })*
        }
    };
}

/// The asynchronous client, and where it runs.
struct Waiting {
    client: AsyncClient,
    runtime: tokio::runtime::Runtime,
}

#[allow(deprecated, reason = "these too are called by somebody")]
type Summaries = Vec<esplora_client::BlockSummary>;

calls! {
    get_tx(txid: &Txid) -> Option<Transaction>;
    get_tx_no_opt(txid: &Txid) -> Transaction;
    get_txid_at_block_index(hash: &BlockHash, index: usize) -> Option<Txid>;
    get_tx_status(txid: &Txid) -> TxStatus;
    get_tx_info(txid: &Txid) -> Option<EsploraTx>;
    get_tx_outspends(txid: &Txid) -> Vec<OutputStatus>;
    get_header_by_hash(hash: &BlockHash) -> Header;
    get_block_status(hash: &BlockHash) -> BlockStatus;
    get_block_by_hash(hash: &BlockHash) -> Option<Block>;
    get_merkle_proof(txid: &Txid) -> Option<MerkleProof>;
    get_merkle_block(txid: &Txid) -> Option<MerkleBlock>;
    get_output_status(txid: &Txid, index: u64) -> Option<OutputStatus>;
    broadcast(tx: &Transaction) -> Txid;
    submit_package(txs: &[Transaction], fee_rate: Option<FeeRate>, burnt: Option<Amount>) -> SubmitPackageResult;
    get_height() -> u32;
    get_tip_hash() -> BlockHash;
    get_block_hash(height: u32) -> BlockHash;
    get_mempool_stats() -> MempoolStats;
    get_mempool_recent_txs() -> Vec<MempoolRecentTx>;
    get_mempool_txids() -> Vec<Txid>;
    get_fee_estimates() -> HashMap<u16, FeeRate>;
    get_address_stats(address: &Address) -> AddressStats;
    get_scripthash_stats(script: &Script) -> ScriptHashStats;
    get_address_txs(address: &Address, last_seen: Option<Txid>) -> Vec<EsploraTx>;
    get_mempool_address_txs(address: &Address) -> Vec<EsploraTx>;
    get_scripthash_txs(script: &Script, last_seen: Option<Txid>) -> Vec<EsploraTx>;
    get_mempool_scripthash_txs(script: &Script) -> Vec<EsploraTx>;
    get_block_info(hash: &BlockHash) -> BlockInfo;
    get_block_txids(hash: &BlockHash) -> Vec<Txid>;
    get_block_txs(hash: &BlockHash, start: Option<u32>) -> Vec<EsploraTx>;
    get_blocks(height: Option<u32>) -> Summaries;
    get_block_infos(height: Option<u32>) -> Vec<BlockInfo>;
    get_address_utxos(address: &Address) -> Vec<Utxo>;
    get_scripthash_utxos(script: &Script) -> Vec<Utxo>;
}

/// The status of an error of HTTP, and its text.
#[track_caller]
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String) {
    match result {
        Err(Error::HttpResponse { status, message }) => (status, message),
        other => panic!("{other:?}"),
    }
}

fn ids(txs: &[EsploraTx]) -> Vec<Txid> {
    txs.iter().map(|tx| tx.txid).collect()
}

fn txids(block: &Block) -> Vec<Txid> {
    block.txdata.iter().map(Transaction::compute_txid).collect()
}

/// A hash of nothing.
const UNKNOWN: [u8; 32] = [0x11; 32];

fn blocks_are_read(client: &impl Calls, story: &Story) {
    let blocks = &story.blocks;
    let tip = blocks[112].block_hash();
    let unknown = BlockHash::from_byte_array(UNKNOWN);
    assert_eq!(client.get_height().unwrap(), 112);
    assert_eq!(client.get_tip_hash().unwrap(), tip);
    let above = refusal(client.get_block_hash(113));
    assert_eq!(above, (404, "Block not found".to_owned()));
    for (height, block) in (0..).zip(blocks) {
        assert_eq!(client.get_block_hash(height).unwrap(), block.block_hash());
    }
    let infos = client.get_block_infos(None).unwrap();
    let heights: Vec<u32> = infos.iter().map(|info| info.height).collect();
    assert_eq!(heights, (103..=112).rev().collect::<Vec<_>>());
    let infos = client.get_block_infos(Some(3)).unwrap();
    assert_eq!(infos.len(), 4);
    assert_eq!(infos[3].previousblockhash, None);
    assert_eq!(client.get_blocks(Some(112)).unwrap().len(), 10);
    assert_eq!(refusal(client.get_block_infos(Some(113))).0, 404);

    let (block, hash) = (&blocks[111], blocks[111].block_hash());
    assert_eq!(client.get_header_by_hash(&hash).unwrap(), block.header);
    assert_eq!(refusal(client.get_header_by_hash(&unknown)).0, 404);
    let status = client.get_block_status(&hash).unwrap();
    assert_eq!((status.in_best_chain, status.height), (true, Some(111)));
    assert_eq!(status.next_best, Some(tip));
    assert_eq!(client.get_block_status(&tip).unwrap().next_best, None);
    let status = client.get_block_status(&unknown).unwrap();
    assert_eq!((status.in_best_chain, status.height), (false, None));
    assert_eq!(
        client.get_block_by_hash(&hash).unwrap().as_ref(),
        Some(block)
    );
    assert_eq!(client.get_block_by_hash(&unknown).unwrap(), None);
    let info = client.get_block_info(&hash).unwrap();
    assert_eq!((info.id, info.height), (hash, 111));
    assert_eq!(info.version, block.header.version);
    assert_eq!(info.bits, block.header.bits);
    assert_eq!(info.merkle_root, block.header.merkle_root);
    assert_eq!(
        (info.size, info.weight),
        (block.total_size(), block.weight())
    );
    assert_eq!(refusal(client.get_block_info(&unknown)).0, 404);

    let expected = txids(block);
    assert_eq!(expected.len(), MANY);
    assert_eq!(client.get_block_txids(&hash).unwrap(), expected);
    assert_eq!(
        ids(&client.get_block_txs(&hash, None).unwrap()),
        expected[..25]
    );
    assert_eq!(
        ids(&client.get_block_txs(&hash, Some(0)).unwrap()),
        expected[..25]
    );
    assert_eq!(
        ids(&client.get_block_txs(&hash, Some(25)).unwrap()),
        expected[25..]
    );
    assert_eq!(refusal(client.get_block_txs(&hash, Some(50))).0, 400);
    for (index, txid) in expected.iter().enumerate() {
        let found = client.get_txid_at_block_index(&hash, index).unwrap();
        assert_eq!(found, Some(*txid));
    }
    let past = client.get_txid_at_block_index(&hash, MANY).unwrap();
    assert_eq!(past, None);
}

fn transactions_are_read(client: &impl Calls, story: &Story) {
    let block = &story.blocks[112];
    let tx = &story.confirmed;
    let txid = tx.compute_txid();
    let unknown = Txid::from_byte_array(UNKNOWN);
    assert_eq!(client.get_tx(&txid).unwrap().as_ref(), Some(tx));
    assert_eq!(client.get_tx(&unknown).unwrap(), None);
    assert_eq!(client.get_tx_no_opt(&txid).unwrap(), *tx);
    let missing = client.get_tx_no_opt(&unknown);
    assert!(matches!(missing, Err(Error::TransactionNotFound(found)) if found == unknown));
    let status = client.get_tx_status(&txid).unwrap();
    assert!(status.confirmed);
    assert_eq!(status.block_height, Some(112));
    assert_eq!(status.block_hash, Some(block.block_hash()));
    assert_eq!(status.block_time, Some(block.header.time.into()));
    assert!(!client.get_tx_status(&unknown).unwrap().confirmed);

    let info = client.get_tx_info(&txid).unwrap().unwrap();
    assert_eq!(info.to_tx(), *tx);
    assert_eq!(info.status, status);
    assert_eq!((info.size, info.weight), (tx.total_size(), tx.weight()));
    let spent: Amount = info
        .previous_outputs()
        .iter()
        .flatten()
        .map(|out| out.value)
        .sum();
    let paid: Amount = tx.output.iter().map(|output| output.value).sum();
    assert_eq!(info.fee, spent - paid);
    let coinbase = client
        .get_tx_info(&block.txdata[0].compute_txid())
        .unwrap()
        .unwrap();
    assert_eq!(coinbase.to_tx(), block.txdata[0]);
    assert_eq!(coinbase.previous_outputs(), [None]);
    assert_eq!(client.get_tx_info(&unknown).unwrap(), None);

    let proof = client.get_merkle_proof(&txid).unwrap().unwrap();
    assert_eq!(
        (proof.block_height, proof.pos, proof.merkle.len()),
        (112, 1, 1)
    );
    assert_eq!(client.get_merkle_proof(&unknown).unwrap(), None);
    let merkle = client.get_merkle_block(&txid).unwrap().unwrap();
    let (mut matches, mut indexes) = (vec![], vec![]);
    let root = merkle
        .txn
        .extract_matches(&mut matches, &mut indexes)
        .unwrap();
    assert_eq!((root, matches), (block.header.merkle_root, vec![txid]));
    assert_eq!(client.get_merkle_block(&unknown).unwrap(), None);

    // Each of the long block spends the one before.
    let links = txids(&story.blocks[111]);
    let spend = client.get_output_status(&links[1], 0).unwrap().unwrap();
    assert_eq!(
        (spend.spent, spend.txid, spend.vin),
        (true, Some(links[2]), Some(0))
    );
    assert_eq!(spend.status.unwrap().block_height, Some(111));
    let spends = client.get_tx_outspends(&links[1]).unwrap();
    assert_eq!((spends.len(), spends[0].txid), (1, Some(links[2])));
    let unspent = client.get_output_status(&unknown, 0).unwrap().unwrap();
    assert!(!unspent.spent);
    assert_eq!(refusal(client.get_tx_outspends(&unknown)).0, 404);
}

fn transactions_are_sent(client: &impl Calls, story: &Story) {
    let (parent, child) = (&story.parent, &story.child);
    assert_eq!(client.get_mempool_txids().unwrap(), []);
    assert_eq!(client.get_mempool_stats().unwrap().count, 0);
    let early = refusal(client.broadcast(child));
    let reason = "sendrawtransaction RPC error -25: bad-txns-inputs-missingorspent";
    assert_eq!(early, (400, reason.to_owned()));
    for _ in 0..2 {
        let txid = client.broadcast(parent).unwrap();
        assert_eq!(txid, parent.compute_txid(), "once more is no error");
    }
    let mined = refusal(client.broadcast(&story.confirmed));
    assert_eq!(mined.0, 400);

    let limits = [None, Some(FeeRate::from_sat_per_vb_u32(50))];
    let packages = [vec![parent.clone(), child.clone()], story.later.to_vec()];
    for (package, limit) in packages.iter().zip(limits) {
        let result = client.submit_package(package, limit, None).unwrap();
        assert_eq!(result.package_msg, "success");
        for tx in package {
            let entry = &result.tx_results[&tx.compute_wtxid()];
            assert_eq!((entry.txid, &entry.error), (tx.compute_txid(), &None));
        }
    }
    let mut orphan = child.clone();
    orphan.input[0].previous_output.txid = Txid::from_byte_array(UNKNOWN);
    let result = client.submit_package(&[orphan.clone()], None, Some(Amount::ZERO));
    let result = result.unwrap();
    assert_ne!(result.package_msg, "success");
    let entry = &result.tx_results[&orphan.compute_wtxid()];
    assert_eq!(
        entry.error.as_deref(),
        Some("bad-txns-inputs-missingorspent")
    );

    let sent = [parent, child, &story.later[0], &story.later[1]];
    let expected: HashSet<Txid> = sent.iter().map(|tx| tx.compute_txid()).collect();
    let found: HashSet<Txid> = client.get_mempool_txids().unwrap().into_iter().collect();
    assert_eq!(found, expected);
    let recent = client.get_mempool_recent_txs().unwrap();
    assert_eq!(recent.len(), 4);
    let newest = recent
        .iter()
        .find(|tx| tx.txid == child.compute_txid())
        .unwrap();
    assert_eq!(newest.vsize, child.vsize());
    assert!(client.get_fee_estimates().unwrap().is_empty(), "on regtest");
    let status = client.get_tx_status(&child.compute_txid()).unwrap();
    assert_eq!((status.confirmed, status.block_hash), (false, None));
    assert_eq!(
        client.get_merkle_proof(&child.compute_txid()).unwrap(),
        None
    );
    let coin = child.input[0].previous_output;
    let spend = client
        .get_output_status(&coin.txid, coin.vout.into())
        .unwrap()
        .unwrap();
    assert_eq!(spend.txid, Some(child.compute_txid()));
    assert!(!spend.status.unwrap().confirmed);
}

fn scripts_are_read(client: &impl Calls, story: &Story) {
    let address = Address::from_script(&story.to, Network::Regtest).unwrap();
    let confirmed = story.confirmed.compute_txid();
    let unconfirmed = [&story.parent, &story.child].map(Transaction::compute_txid);
    let stats = client.get_address_stats(&address).unwrap();
    assert_eq!(stats.address, address);
    let by_hash = client.get_scripthash_stats(&story.to).unwrap();
    assert_eq!(
        (by_hash.chain_stats, by_hash.mempool_stats),
        (stats.chain_stats, stats.mempool_stats)
    );
    let (chain, mempool) = (stats.chain_stats, stats.mempool_stats);
    assert_eq!(
        (chain.tx_count, chain.funded_txo_sum),
        (1, Amount::from_sat(1_000_000))
    );
    assert_eq!((mempool.tx_count, mempool.funded_txo_count), (2, 2));

    let mempool = client.get_mempool_address_txs(&address).unwrap();
    assert_eq!(ids(&mempool), unconfirmed);
    assert_eq!(
        client.get_mempool_scripthash_txs(&story.to).unwrap(),
        mempool
    );
    let all = client.get_address_txs(&address, None).unwrap();
    assert_eq!(ids(&all), [unconfirmed[0], unconfirmed[1], confirmed]);
    assert_eq!(client.get_scripthash_txs(&story.to, None).unwrap(), all);
    assert_eq!(
        client.get_address_txs(&address, Some(confirmed)).unwrap(),
        []
    );
    let utxos = client.get_address_utxos(&address).unwrap();
    let found: Vec<Txid> = utxos.iter().map(|utxo| utxo.txid).collect();
    assert_eq!(found, [confirmed, unconfirmed[0], unconfirmed[1]]);
    assert_eq!(utxos[0].value, Amount::from_sat(1_000_000));
    assert_eq!(utxos[0].status.block_height, Some(112));
    assert!(!utxos[1].status.confirmed);
    assert_eq!(client.get_scripthash_utxos(&story.to).unwrap(), utxos);

    // A long history, page by page, newest first.
    let anyone = ScriptBuf::from_bytes(vec![0x51]);
    let mut expected: Vec<Txid> = Vec::new();
    for block in story.blocks[4..].iter().rev() {
        let touching = block.txdata.iter().rev();
        let touching = touching.filter(|tx| tx.output[0].script_pubkey == anyone);
        expected.extend(touching.map(Transaction::compute_txid));
    }
    let mut found = Vec::new();
    let mut page = client.get_scripthash_txs(&anyone, None).unwrap();
    page.retain(|tx| tx.status.confirmed);
    loop {
        found.extend(ids(&page));
        if page.len() < 25 {
            break;
        }
        page = client
            .get_scripthash_txs(&anyone, found.last().copied())
            .unwrap();
    }
    assert_eq!(found, expected);
}

fn every_call(story: &Story, client: &impl Calls) {
    blocks_are_read(client, story);
    transactions_are_read(client, story);
    transactions_are_sent(client, story);
    scripts_are_read(client, story);
}

#[test]
fn every_call_of_the_blocking_client_has_its_answer() {
    let story = Story::new();
    let client = Builder::new(&story.scene.node.api_url()).build_blocking();
    every_call(&story, &client);
}

#[test]
fn every_call_of_the_asynchronous_client_has_its_answer() {
    let story = Story::new();
    let url = format!("http://{}", story.scene.node.http_addr());
    let client = Waiting {
        client: Builder::new(&url).build_async().unwrap(),
        runtime: tokio::runtime::Runtime::new().unwrap(),
    };
    every_call(&story, &client);
}
