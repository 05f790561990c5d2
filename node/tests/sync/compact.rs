//! Compact blocks received: asked for and unasked, whole, with gaps, and false.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use pulse_node::p2p::{codec::Message, compact::CompactSource};
use pulse_primitives::{
    bitcoin::{
        Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
        Wtxid,
        absolute::LockTime,
        bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds},
        p2p::{
            message::NetworkMessage,
            message_blockdata::Inventory,
            message_compact_blocks::{BlockTxn, CmpctBlock},
        },
        transaction::Version,
    },
    ports::NodeStatus,
};
use tokio::net::TcpListener;

use crate::common::{
    Node, branch, config, mine, mine_paying, regtest, remine, tip_hash, tip_header, wait_until,
    wire::Wire,
};

/// Transactions that the node has seen.
#[derive(Default)]
pub struct Seen(pub Mutex<Vec<Arc<Transaction>>>);

impl CompactSource for Seen {
    fn visit(&self, see: &mut dyn FnMut(&Wtxid, &Arc<Transaction>) -> ControlFlow<()>) {
        for tx in self.0.lock().iter() {
            if see(&tx.compute_wtxid(), tx).is_break() {
                return;
            }
        }
    }
}

/// Now, in seconds since 1970.
pub fn now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u32::try_from(now.as_secs()).unwrap()
}

/// 106 blocks, the last of them a minute old.
fn chain() -> Vec<Block> {
    let mut blocks = branch(&[], 0, 105, 1);
    let next = mine(&tip_header(&blocks), 106, 1);
    blocks.push(remine(next, Vec::new(), now() - 60));
    blocks
}

/// A transaction that spends the coinbase of a block.
pub fn spend(block: &Block) -> Transaction {
    let coinbase = &block.txdata[0];
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::new(coinbase.compute_txid(), 0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: coinbase.output[0].value - Amount::from_sat(1000),
            // Long enough for Bitcoin Core's policy.
            script_pubkey: ScriptBuf::from_bytes(vec![0x51; 10]),
        }],
    }
}

/// The next block of `blocks`, with four transactions that spend the first coinbases.
fn next_block(blocks: &[Block]) -> Block {
    let height = u32::try_from(blocks.len()).unwrap() + 1;
    let next = mine(&tip_header(blocks), height, 1);
    let txs = blocks[..4].iter().map(spend).collect();
    remine(next, txs, now() - 30)
}

fn compact(block: &Block) -> NetworkMessage {
    let compact_block = HeaderAndShortIds::from_block(block, 7, 2, &[]).unwrap();
    NetworkMessage::CmpctBlock(CmpctBlock { compact_block })
}

fn block_txn(block: &Block, request: &BlockTransactionsRequest) -> NetworkMessage {
    let transactions = BlockTransactions::from_request(request, block).unwrap();
    NetworkMessage::BlockTxn(BlockTxn { transactions })
}

fn headers(message: &Message) -> Option<()> {
    matches!(message, Message::GetHeaders(_)).then_some(())
}

fn wanted(message: &Message) -> Option<Vec<Inventory>> {
    match message {
        Message::GetData(entries) => Some(entries.clone()),
        _ => None,
    }
}

fn wanted_txs(message: &Message) -> Option<BlockTransactionsRequest> {
    match message {
        Message::GetBlockTxn(request) => Some(request.clone()),
        _ => None,
    }
}

/// A node with one scripted peer from which it has got `blocks`.
struct Scene {
    node: Node,
    seen: Arc<Seen>,
    peer: Wire,
    _listener: TcpListener,
}

impl Scene {
    async fn set(blocks: &[Block]) -> Self {
        let (listener, addr) = Wire::listen().await;
        let mut config = config(&[]);
        config.connect.push(addr);
        config.headers_timeout_secs = 60;
        config.stall_timeout_secs = 60;
        let seen = Arc::new(Seen::default());
        let dir = tempfile::tempdir().unwrap();
        let source = Arc::clone(&seen) as Arc<dyn CompactSource>;
        let (own, _) = Wire::listen().await;
        let node = Node::start_with(dir, config, regtest(), Some(own), source).await;
        let mut peer = Wire::accept(&listener).await;
        peer.send_cmpct(false).await;
        peer.until(headers).await;
        let all = blocks.iter().map(|block| block.header).collect();
        peer.send(NetworkMessage::Headers(all)).await;
        while node.chain.active_tip().hash != tip_hash(blocks) {
            let entries = peer.until(wanted).await;
            for entry in &entries {
                let Inventory::WitnessBlock(hash) = entry else {
                    panic!("asked for {entry:?}");
                };
                let block = blocks.iter().find(|block| block.block_hash() == *hash);
                let block = block.unwrap().clone();
                peer.send(NetworkMessage::Block(block)).await;
            }
            if entries.contains(&Inventory::WitnessBlock(tip_hash(blocks))) {
                node.wait_for_tip(tip_hash(blocks)).await;
            }
        }
        Self {
            node,
            seen,
            peer,
            _listener: listener,
        }
    }

    fn has_seen(&self, txs: &[Transaction]) {
        *self.seen.0.lock() = txs.iter().cloned().map(Arc::new).collect();
    }

    /// Announces a block by its header, and waits to be asked for it in compact form.
    async fn announce(&mut self, block: &Block) {
        self.peer
            .send(NetworkMessage::Headers(vec![block.header]))
            .await;
        let entries = self.peer.until(wanted).await;
        assert_eq!(entries, [Inventory::CompactBlock(block.block_hash())]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_whose_transactions_are_at_hand_takes_one_message() {
    let mut blocks = chain();
    let mut scene = Scene::set(&blocks).await;
    for _ in 0..2 {
        let height = u32::try_from(blocks.len()).unwrap() + 1;
        let next = if height == 107 {
            next_block(&blocks)
        } else {
            let plain = mine(&tip_header(&blocks), height, 1);
            remine(plain, Vec::new(), now() - 20)
        };
        scene.has_seen(&next.txdata[1..]);
        scene.announce(&next).await;
        scene.peer.send(compact(&next)).await;
        scene.node.wait_for_tip(next.block_hash()).await;
        blocks.push(next);
    }
    assert!(scene.peer.silent(wanted_txs).await);
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_transactions_that_are_missing_are_asked_for() {
    for (seen, missing) in [(1..5, vec![]), (2..4, vec![1, 4]), (0..0, vec![1, 2, 3, 4])] {
        let blocks = chain();
        let next = next_block(&blocks);
        let mut scene = Scene::set(&blocks).await;
        scene.has_seen(&next.txdata[seen]);
        scene.announce(&next).await;
        scene.peer.send(compact(&next)).await;
        if !missing.is_empty() {
            let request = scene.peer.until(wanted_txs).await;
            assert_eq!(request.block_hash, next.block_hash());
            assert_eq!(request.indexes, missing);
            scene.peer.send(block_txn(&next, &request)).await;
        }
        scene.node.wait_for_tip(next.block_hash()).await;
        assert_eq!(scene.node.handle.report().peers_dropped, 0);
        scene.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_delivers_a_new_block_is_asked_to_announce_at_once_and_then_is_believed() {
    let mut blocks = chain();
    let mut scene = Scene::set(&blocks).await;
    let next = next_block(&blocks);
    scene.has_seen(&next.txdata[1..]);
    scene.announce(&next).await;
    scene.peer.send(compact(&next)).await;
    scene.node.wait_for_tip(next.block_hash()).await;
    blocks.push(next);

    let plain = mine(&tip_header(&blocks), 108, 1);
    let unasked = remine(plain, vec![spend(&blocks[4])], now() - 10);
    scene.peer.send(compact(&unasked)).await;
    let request = scene.peer.until(wanted_txs).await;
    assert_eq!(request.indexes, [1]);
    assert!(scene.peer.is_to_announce);
    scene.peer.send(block_txn(&unasked, &request)).await;
    scene.node.wait_for_tip(unasked.block_hash()).await;
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_tells_of_a_block_by_a_compact_one_need_not_know_that_it_is_invalid() {
    let blocks = chain();
    let mut scene = Scene::set(&blocks).await;
    let claim = Amount::from_sat(50 * 100_000_000 + 1);
    let greedy = mine_paying(&tip_header(&blocks), 107, 1, claim);
    let greedy = remine(greedy, Vec::new(), now() - 20);
    let bytes = pulse_primitives::bitcoin::consensus::serialize(&greedy);
    // Told before it is refused, and after.
    scene
        .peer
        .send(NetworkMessage::Headers(vec![greedy.header]))
        .await;
    scene.peer.until(wanted).await;
    scene.peer.send(compact(&greedy)).await;
    let refused = async || scene.node.handle.submit_local(bytes.clone()).await.is_err();
    while !refused().await {}
    for _ in 0..2 {
        scene.peer.send(compact(&greedy)).await;
    }
    // Judged after them, and asked for, whole or compact.
    let good = remine(mine(&tip_header(&blocks), 107, 1), Vec::new(), now() - 15);
    let headers = NetworkMessage::Headers(vec![good.header]);
    scene.peer.send(headers).await;
    let entries = scene.peer.until(wanted).await;
    let hash = good.block_hash();
    let is_good = |entry: &Inventory| {
        *entry == Inventory::WitnessBlock(hash) || *entry == Inventory::CompactBlock(hash)
    };
    assert!(entries.iter().all(is_good), "{entries:?}");
    assert_eq!(scene.node.handle.report().peers_dropped, 0);
    // Who builds on it is told apart.
    let behind = remine(mine(&greedy.header, 108, 1), Vec::new(), now() - 10);
    scene.peer.send(compact(&behind)).await;
    scene.peer.until_closed().await;
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compact_block_that_nobody_asked_for_counts_as_a_header() {
    let blocks = chain();
    let next = next_block(&blocks);
    let (listener, addr) = Wire::listen().await;
    let mut config = config(&[]);
    config.connect.push(addr);
    config.headers_timeout_secs = 60;
    let node = Node::start(config, regtest()).await;
    for block in &blocks {
        let bytes = pulse_primitives::bitcoin::consensus::serialize(block);
        node.handle.submit_local(bytes).await.unwrap();
    }
    let mut peer = Wire::accept(&listener).await;
    peer.send_cmpct(false).await;
    peer.until(headers).await;
    peer.send(NetworkMessage::Headers(vec![tip_header(&blocks)]))
        .await;
    peer.send(compact(&next)).await;
    let entries = peer.until(wanted).await;
    assert_eq!(entries, [Inventory::CompactBlock(next.block_hash())]);
    assert_eq!(node.handle.report().peers_dropped, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_do_not_fit_lead_to_the_whole_block() {
    let blocks = chain();
    let next = next_block(&blocks);
    let mut scene = Scene::set(&blocks).await;
    scene.announce(&next).await;
    scene.peer.send(compact(&next)).await;
    let request = scene.peer.until(wanted_txs).await;
    let mut swapped = BlockTransactions::from_request(&request, &next).unwrap();
    swapped.transactions.swap(0, 1);
    let answer = BlockTxn {
        transactions: swapped,
    };
    scene.peer.send(NetworkMessage::BlockTxn(answer)).await;
    let entries = scene.peer.until(wanted).await;
    assert_eq!(entries, [Inventory::WitnessBlock(next.block_hash())]);
    scene.peer.send(NetworkMessage::Block(next.clone())).await;
    scene.node.wait_for_tip(next.block_hash()).await;
    assert_eq!(scene.node.handle.report().peers_dropped, 0);
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compact_block_that_no_honest_peer_sends_costs_the_connection() {
    let blocks = chain();
    let next = next_block(&blocks);
    let false_index = {
        let mut compact_block = HeaderAndShortIds::from_block(&next, 7, 2, &[]).unwrap();
        compact_block.prefilled_txs[0].idx = 9;
        NetworkMessage::CmpctBlock(CmpctBlock { compact_block })
    };
    let mut scene = Scene::set(&blocks).await;
    scene.announce(&next).await;
    scene.peer.send(false_index).await;
    scene.peer.until_closed().await;
    scene.node.stop().await;

    let mut scene = Scene::set(&blocks).await;
    scene.announce(&next).await;
    scene.peer.send(compact(&next)).await;
    let mut request = scene.peer.until(wanted_txs).await;
    request.indexes.pop();
    scene.peer.send(block_txn(&next, &request)).await;
    scene.peer.until_closed().await;
    wait_until("the drop", || scene.node.handle.report().peers_dropped == 1).await;
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_block_in_compact_form_is_refused_and_its_sender_is_kept() {
    let blocks = chain();
    let claim = Amount::from_int_btc(51);
    let greedy = mine_paying(&tip_header(&blocks), 107, 1, claim);
    let greedy = remine(greedy, Vec::new(), now() - 30);
    let mut scene = Scene::set(&blocks).await;
    scene.announce(&greedy).await;
    scene.peer.send(compact(&greedy)).await;
    let store = Arc::clone(&scene.node.store);
    let hash: BlockHash = greedy.block_hash();
    wait_until("the verdict", || store.is_invalid(&hash)).await;
    assert_eq!(scene.node.chain.active_tip().hash, tip_hash(&blocks));
    // The peer goes on with a good one.
    let next = next_block(&blocks);
    scene.has_seen(&next.txdata[1..]);
    scene.announce(&next).await;
    scene.peer.send(compact(&next)).await;
    scene.node.wait_for_tip(next.block_hash()).await;
    assert_eq!(scene.node.handle.report().peers_dropped, 0);
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_keeps_back_transactions_does_not_hold_up_the_block() {
    let mut blocks = chain();
    let mut scene = Scene::set(&blocks).await;
    // Another one connects to the node and earns its place as an announcer too.
    let mut second = Wire::connect(scene.node.addr.unwrap()).await;
    second.send_cmpct(false).await;
    second.until(headers).await;
    second
        .send(NetworkMessage::Headers(vec![tip_header(&blocks)]))
        .await;
    for _ in 0..2 {
        let height = u32::try_from(blocks.len()).unwrap() + 1;
        let next = remine(
            mine(&tip_header(&blocks), height, 1),
            Vec::new(),
            now() - 40,
        );
        let hash = next.block_hash();
        if scene.peer.is_to_announce {
            second
                .send(NetworkMessage::Headers(vec![next.header]))
                .await;
            let entries = second.until(wanted).await;
            assert_eq!(entries, [Inventory::CompactBlock(hash)]);
            second.send(compact(&next)).await;
        } else {
            scene.announce(&next).await;
            scene.peer.send(compact(&next)).await;
        }
        scene.node.wait_for_tip(hash).await;
        blocks.push(next);
    }
    let next = next_block(&blocks);
    scene.peer.send(compact(&next)).await;
    let request = scene.peer.until(wanted_txs).await;
    assert_eq!(request.indexes, [1, 2, 3, 4]);
    second.send(compact(&next)).await;
    assert_eq!(second.until(wanted_txs).await, request);
    second.send(block_txn(&next, &request)).await;
    scene.node.wait_for_tip(next.block_hash()).await;
    // The late answer is no fault.
    scene.peer.send(block_txn(&next, &request)).await;
    assert!(scene.peer.silent(wanted).await);
    assert_eq!(scene.node.handle.report().peers.len(), 2);
    assert_eq!(scene.node.handle.report().peers_dropped, 0);
    scene.node.stop().await;
}
