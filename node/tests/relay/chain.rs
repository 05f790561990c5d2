//! A chain in memory: blocks and unspent outputs, as the kernel and the index show them.
//!
//! Coinbases pay to anchors, which anyone may spend without a signature.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use pulse_primitives::{
    Height,
    bitcoin::{
        Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
        Witness, Work, absolute::LockTime, transaction::Version,
    },
    block::{BlockPosition, ConnectedBlock, SpentOutput},
    coins::{CoinError, CoinSource, CoinView},
    network::{ChainParams, network_by_name},
    ports::{BlockSource, BlockSourceError, NodeStatus},
    status::NodeReport,
    tip::ChainTip,
};
use pulse_simulator::mine::{BlockParts, mine_block, subsidy};
use tokio::{sync::watch, time::timeout};

use crate::common::PATIENCE;

type Coins = HashMap<OutPoint, SpentOutput>;

struct State {
    blocks: HashMap<BlockHash, Arc<ConnectedBlock>>,
    active: Vec<BlockHash>,
    coins: Arc<Coins>,
    /// Makes blocks at one height differ.
    salt: u8,
}

/// The chain. Cheap to share.
pub struct MemChain {
    params: ChainParams,
    state: Mutex<State>,
    chain_tip: watch::Sender<ChainTip>,
    index_tip: watch::Sender<Option<ChainTip>>,
    /// Whether a peer has answered for headers.
    pub answered: watch::Sender<bool>,
    reports: watch::Sender<u64>,
}

/// The script of an anchor (P2A).
pub fn anchor() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51, 0x02, 0x4e, 0x73])
}

/// A transaction that spends anchors and pays to `outputs` anchors what is left after
/// `fee`.
pub fn spend(coins: &[(OutPoint, Amount)], outputs: u64, fee: u64) -> Transaction {
    let total: Amount = coins.iter().map(|(_, value)| *value).sum();
    let input = coins
        .iter()
        .map(|(previous_output, _)| TxIn {
            previous_output: *previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        })
        .collect();
    let value = (total - Amount::from_sat(fee)) / outputs;
    let output = (0..outputs)
        .map(|_| TxOut {
            value,
            script_pubkey: anchor(),
        })
        .collect();
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input,
        output,
    }
}

/// An output of a transaction, to be spent.
pub fn coin_of(tx: &Transaction, vout: u32) -> (OutPoint, Amount) {
    let value = tx.output[vout as usize].value;
    (OutPoint::new(tx.compute_txid(), vout), value)
}

impl MemChain {
    /// A chain of that many blocks.
    pub fn new(blocks: Height) -> Arc<Self> {
        let params = ChainParams::new(network_by_name("regtest").unwrap(), None);
        let genesis = params.genesis();
        let tip = tip_of(&genesis, 0);
        let hash = genesis.block_hash();
        let connected = Arc::new(connect(genesis, 0, &Coins::new()));
        let chain = Self {
            params,
            state: Mutex::new(State {
                blocks: HashMap::from([(hash, connected)]),
                active: vec![hash],
                coins: Arc::default(),
                salt: 0,
            }),
            chain_tip: watch::Sender::new(tip),
            index_tip: watch::Sender::new(Some(tip)),
            answered: watch::Sender::new(true),
            reports: watch::Sender::new(0),
        };
        for _ in 0..blocks {
            chain.mine(Vec::new());
        }
        Arc::new(chain)
    }

    /// Mines a block with these transactions, and indexes it.
    pub fn mine(&self, txs: Vec<Transaction>) -> ChainTip {
        let tip = self.append(txs);
        self.chain_tip.send_replace(tip);
        self.index_tip.send_replace(Some(tip));
        tip
    }

    /// Replaces the last `depth` blocks by blocks with these transactions.
    pub fn reorganise(&self, depth: usize, blocks: Vec<Vec<Transaction>>) -> ChainTip {
        self.truncate(depth);
        let mut tip = None;
        for txs in blocks {
            tip = Some(self.append(txs));
        }
        let tip = tip.expect("a reorganisation has blocks");
        self.chain_tip.send_replace(tip);
        self.index_tip.send_replace(Some(tip));
        tip
    }

    /// Takes the last `depth` blocks back, as an index does on its way to another branch.
    pub fn roll_back(&self, depth: usize) -> ChainTip {
        let tip = self.truncate(depth);
        self.chain_tip.send_replace(tip);
        self.index_tip.send_replace(Some(tip));
        tip
    }

    fn truncate(&self, depth: usize) -> ChainTip {
        let mut state = self.state.lock().unwrap();
        let left = state.active.len() - depth;
        state.active.truncate(left);
        state.salt += 1;
        let mut coins = Coins::new();
        for hash in &state.active {
            apply(&state.blocks[hash], &mut coins);
        }
        state.coins = Arc::new(coins);
        let tip = &state.blocks[state.active.last().unwrap()];
        tip_of(&tip.block, tip.height)
    }

    fn append(&self, txs: Vec<Transaction>) -> ChainTip {
        let mut state = self.state.lock().unwrap();
        let prev = Arc::clone(&state.blocks[state.active.last().unwrap()]);
        let height = prev.height + 1;
        let network = self.params.network;
        let block = mine_block(BlockParts {
            height,
            prev: prev.block.block_hash(),
            time: prev.block.header.time + 600,
            bits: prev.block.header.bits,
            extra: vec![state.salt],
            outputs: vec![TxOut {
                value: subsidy(network, height),
                script_pubkey: anchor(),
            }],
            txs,
        });
        let tip = tip_of(&block, height);
        let connected = connect(block, height, &state.coins);
        let mut coins = Coins::clone(&state.coins);
        apply(&connected, &mut coins);
        state.coins = Arc::new(coins);
        state.active.push(tip.hash);
        state.blocks.insert(tip.hash, Arc::new(connected));
        tip
    }

    /// The output of the coinbase at `height`.
    pub fn coinbase(&self, height: Height) -> (OutPoint, Amount) {
        let state = self.state.lock().unwrap();
        let block = &state.blocks[&state.active[height as usize]];
        coin_of(&block.block.txdata[0], 0)
    }

    pub fn tip(&self) -> ChainTip {
        *self.chain_tip.borrow()
    }

    /// Waits until somebody has asked for a report.
    pub async fn first_report(&self) {
        let mut reports = self.reports.subscribe();
        let first = reports.wait_for(|count| *count > 0);
        timeout(PATIENCE, first).await.unwrap().unwrap();
    }
}

fn tip_of(block: &Block, height: Height) -> ChainTip {
    ChainTip {
        height,
        hash: block.block_hash(),
        time: block.header.time,
    }
}

fn connect(block: Block, height: Height, coins: &Coins) -> ConnectedBlock {
    let txids: Vec<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
    let mut coins = coins.clone();
    let mut spent = Vec::new();
    for (n, (tx, txid)) in block.txdata.iter().zip(&txids).enumerate() {
        if n > 0 {
            let outputs = tx.input.iter().map(|input| {
                coins
                    .remove(&input.previous_output)
                    .expect("a block spends coins that there are")
            });
            spent.push(outputs.collect());
        }
        make(&mut coins, tx, *txid, height, n == 0);
    }
    ConnectedBlock {
        height,
        block,
        txids,
        tx_lens: Vec::new(),
        first_tx_offset: 0,
        spent,
        undo: Vec::new(),
        undo_lens: Vec::new(),
        first_undo_offset: 0,
        position: BlockPosition {
            file: 0,
            block_offset: 0,
            block_len: 0,
            undo_offset: 0,
            undo_len: 0,
        },
    }
}

fn apply(block: &ConnectedBlock, coins: &mut Coins) {
    for (n, (tx, txid)) in block.block.txdata.iter().zip(&block.txids).enumerate() {
        for input in &tx.input {
            coins.remove(&input.previous_output);
        }
        make(coins, tx, *txid, block.height, n == 0);
    }
}

fn make(coins: &mut Coins, tx: &Transaction, txid: Txid, height: Height, is_coinbase: bool) {
    for (output, vout) in tx.output.iter().zip(0..) {
        let coin = SpentOutput {
            output: output.clone(),
            height,
            is_coinbase,
        };
        coins.insert(OutPoint::new(txid, vout), coin);
    }
}

impl BlockSource for MemChain {
    fn tip(&self) -> watch::Receiver<ChainTip> {
        self.chain_tip.subscribe()
    }

    fn hash_at(&self, height: Height) -> Option<BlockHash> {
        self.state
            .lock()
            .unwrap()
            .active
            .get(height as usize)
            .copied()
    }

    fn header_height(&self, hash: &BlockHash) -> Option<Height> {
        let state = self.state.lock().unwrap();
        state.blocks.get(hash).map(|block| block.height)
    }

    fn best_header_height(&self) -> Height {
        self.chain_tip.borrow().height
    }

    fn load(&self, hash: &BlockHash, _: Height) -> Result<ConnectedBlock, BlockSourceError> {
        let state = self.state.lock().unwrap();
        let block = state.blocks.get(hash);
        block
            .map(|block| ConnectedBlock::clone(block))
            .ok_or(BlockSourceError::NotStored { hash: *hash })
    }

    fn locate(&self, hash: &BlockHash, _: Height) -> Result<BlockPosition, BlockSourceError> {
        Err(BlockSourceError::NotStored { hash: *hash })
    }

    fn read_block(
        &self,
        position: &BlockPosition,
        _: u32,
        _: u32,
    ) -> Result<Vec<u8>, BlockSourceError> {
        Err(BlockSourceError::Stale {
            position: *position,
        })
    }

    fn read_undo(
        &self,
        position: &BlockPosition,
        _: u32,
        _: u32,
    ) -> Result<Vec<u8>, BlockSourceError> {
        Err(BlockSourceError::Stale {
            position: *position,
        })
    }

    fn decode_undo(&self, _: &[u8]) -> Result<Vec<SpentOutput>, BlockSourceError> {
        Err(BlockSourceError::Malformed { what: "undo data" })
    }
}

struct View {
    tip: ChainTip,
    coins: Arc<Coins>,
    times: Vec<u32>,
}

impl CoinView for View {
    fn tip(&self) -> ChainTip {
        self.tip
    }

    fn coin(&self, outpoint: &OutPoint) -> Result<Option<SpentOutput>, CoinError> {
        Ok(self.coins.get(outpoint).cloned())
    }

    fn has_unspent(&self, txid: &Txid) -> Result<bool, CoinError> {
        Ok(self.coins.keys().any(|outpoint| outpoint.txid == *txid))
    }

    fn median_time_past(&self, height: Height) -> Result<u32, CoinError> {
        let end = height as usize + 1;
        let mut times = self.times[end.saturating_sub(11)..end].to_vec();
        times.sort_unstable();
        Ok(times[times.len() / 2])
    }
}

impl CoinSource for MemChain {
    fn coins(&self) -> Result<Option<Box<dyn CoinView + '_>>, CoinError> {
        let state = self.state.lock().unwrap();
        let times = state
            .active
            .iter()
            .map(|hash| state.blocks[hash].block.header.time);
        let tip = &state.blocks[state.active.last().unwrap()];
        Ok(Some(Box::new(View {
            tip: tip_of(&tip.block, tip.height),
            coins: Arc::clone(&state.coins),
            times: times.collect(),
        })))
    }

    fn tip(&self) -> watch::Receiver<Option<ChainTip>> {
        self.index_tip.subscribe()
    }
}

impl NodeStatus for MemChain {
    fn report(&self) -> NodeReport {
        let tip = *self.chain_tip.borrow();
        let headers_answered = *self.answered.borrow();
        self.reports.send_modify(|count| *count += 1);
        NodeReport {
            best_header: tip,
            best_hashes: vec![tip.hash],
            best_header_work: Work::from_be_bytes([0; 32]),
            min_chain_work: Work::from_be_bytes([0; 32]),
            headers_answered,
            active_tip: tip,
            peers: Vec::new(),
            blocks_in_flight: 0,
            blocks_received: 0,
            bytes_received: 0,
            peers_dropped: 0,
        }
    }

    fn headers_answered(&self) -> watch::Receiver<bool> {
        self.answered.subscribe()
    }
}
