//! A [`BlockSource`] over blocks kept in memory, with an undo encoding of its own,
//! and a generator of chains for it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::atomic::{AtomicU32, Ordering},
};

use parking_lot::Mutex;
use pulse_primitives::{
    Height,
    bitcoin::{
        Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
        TxOut, Txid, Witness, absolute,
        block::{Header, Version},
        consensus::{Decodable, deserialize, serialize},
        hashes::Hash,
        transaction,
    },
    block::{BlockPosition, ConnectedBlock, SpentOutput},
    network::ChainParams,
    ports::{BlockSource, BlockSourceError},
    tip::ChainTip,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::watch;

/// Outputs that may be spent.
pub(super) type Coins = BTreeMap<OutPoint, SpentOutput>;

pub(super) struct MemChain {
    state: Mutex<State>,
    tip: watch::Sender<ChainTip>,
    /// The next so many loads fail as they do while the chain moves.
    failing_loads: AtomicU32,
    pub loads: AtomicU32,
    /// Pieces of blocks that were read.
    pub reads: AtomicU32,
}

struct State {
    blocks: HashMap<BlockHash, Stored>,
    /// Hashes of the active chain, by height.
    active: Vec<BlockHash>,
    /// The node shows only this many blocks of it.
    shown: usize,
    best_header: Height,
    files: Vec<File>,
    lost: HashSet<BlockHash>,
    damaged: HashSet<BlockHash>,
}

#[derive(Default)]
struct File {
    blocks: Vec<u8>,
    undo: Vec<u8>,
}

struct Stored {
    height: Height,
    block: Block,
    spent: Vec<Vec<SpentOutput>>,
    position: BlockPosition,
}

impl MemChain {
    pub(super) fn new(params: &ChainParams) -> Self {
        let genesis = params.genesis();
        let tip = ChainTip {
            height: 0,
            hash: genesis.block_hash(),
            time: genesis.header.time,
        };
        let chain = Self {
            state: Mutex::new(State {
                blocks: HashMap::new(),
                active: Vec::new(),
                shown: 0,
                best_header: 0,
                files: vec![File::default()],
                lost: HashSet::new(),
                damaged: HashSet::new(),
            }),
            tip: watch::Sender::new(tip),
            failing_loads: AtomicU32::new(0),
            loads: AtomicU32::new(0),
            reads: AtomicU32::new(0),
        };
        chain.connect(genesis, Vec::new());
        chain
    }

    /// Adds a block to the active chain.
    pub(super) fn connect(&self, block: Block, spent: Vec<Vec<SpentOutput>>) {
        let mut state = self.state.lock();
        let hash = block.block_hash();
        let height = state.active.len() as Height;
        let position = state.files.last_mut().unwrap().append(&block, &spent);
        let file = state.files.len() as u32 - 1;
        let stored = Stored {
            height,
            block,
            spent,
            position: BlockPosition { file, ..position },
        };
        state.blocks.insert(hash, stored);
        state.active.push(hash);
        state.shown = state.active.len();
        state.best_header = state.best_header.max(height);
        self.publish(&state);
    }

    /// The chain that ends with a stored block.
    pub(super) fn up_to(&self, params: &ChainParams, hash: BlockHash) -> Self {
        let state = self.state.lock();
        let mut path = vec![&state.blocks[&hash]];
        while path[path.len() - 1].height > 0 {
            let previous = path[path.len() - 1].block.header.prev_blockhash;
            path.push(&state.blocks[&previous]);
        }
        let chain = Self::new(params);
        for stored in path.iter().rev().skip(1) {
            chain.connect(stored.block.clone(), stored.spent.clone());
        }
        chain
    }

    /// Takes blocks off the active chain. They stay stored.
    pub(super) fn disconnect(&self, count: usize) {
        let mut state = self.state.lock();
        let len = state.active.len() - count;
        state.active.truncate(len);
        state.shown = len;
    }

    /// Makes another stored chain the active one.
    pub(super) fn activate(&self, hashes: Vec<BlockHash>) {
        let mut state = self.state.lock();
        state.shown = hashes.len();
        state.active = hashes;
        self.publish(&state);
    }

    /// Shows only the blocks up to `height`, like a node that was killed.
    pub(super) fn show(&self, height: Height) {
        let mut state = self.state.lock();
        state.shown = (height as usize + 1).min(state.active.len());
        self.publish(&state);
    }

    /// Claims to know headers up to this height.
    pub(super) fn set_best_header(&self, height: Height) {
        self.state.lock().best_header = height;
    }

    /// Puts all blocks elsewhere; old positions then hold other bytes or none.
    pub(super) fn move_blocks(&self, rng: &mut StdRng) {
        let mut state = self.state.lock();
        let mut hashes = state.blocks.keys().copied().collect::<Vec<_>>();
        hashes.sort_by_key(|hash| (state.blocks[hash].height, *hash));
        for i in (1..hashes.len()).rev() {
            hashes.swap(i, rng.gen_range(0..=i));
        }
        let mut files = vec![File::default()];
        for hash in hashes {
            if rng.gen_bool(0.2) {
                files.push(File::default());
            }
            let file = files.len() as u32 - 1;
            let stored = state.blocks.get_mut(&hash).unwrap();
            let position = files
                .last_mut()
                .unwrap()
                .append(&stored.block, &stored.spent);
            stored.position = BlockPosition { file, ..position };
        }
        state.files = files;
    }

    /// Forgets a stored block.
    pub(super) fn lose(&self, hash: BlockHash) {
        self.state.lock().lost.insert(hash);
    }

    /// Finds it again.
    pub(super) fn find_again(&self) {
        self.state.lock().lost.clear();
    }

    /// Flips a bit in the middle of a stored block or of its undo data, or back.
    pub(super) fn flip(&self, hash: BlockHash, in_undo: bool) {
        let mut state = self.state.lock();
        let at = state.blocks[&hash].position;
        let file = &mut state.files[at.file as usize];
        match in_undo {
            false => file.blocks[(at.block_offset + 100) as usize] ^= 1,
            true => file.undo[(at.undo_offset + at.undo_len - 1) as usize] ^= 1,
        }
        if !state.damaged.remove(&hash) {
            state.damaged.insert(hash);
        }
    }

    /// Lets the next `count` loads fail.
    pub(super) fn fail_loads(&self, count: u32) {
        self.failing_loads.store(count, Ordering::SeqCst);
    }

    /// Hashes of the active chain.
    pub(super) fn active(&self) -> Vec<BlockHash> {
        self.state.lock().active.clone()
    }

    /// Blocks of the active chain with what they spend.
    pub(super) fn blocks(&self) -> Vec<(Block, Vec<Vec<SpentOutput>>)> {
        let state = self.state.lock();
        let active = state.active.iter();
        active
            .map(|hash| {
                (
                    state.blocks[hash].block.clone(),
                    state.blocks[hash].spent.clone(),
                )
            })
            .collect()
    }

    /// The stored chain that ends with that block, with what its blocks spend.
    pub(super) fn stored_chain(&self, tip: BlockHash) -> Vec<(Block, Vec<Vec<SpentOutput>>)> {
        let state = self.state.lock();
        let mut chain = Vec::new();
        let mut hash = tip;
        while let Some(stored) = state.blocks.get(&hash) {
            chain.push((stored.block.clone(), stored.spent.clone()));
            hash = stored.block.header.prev_blockhash;
        }
        chain.reverse();
        chain
    }

    /// Outputs of the active chain that may be spent.
    pub(super) fn coins(&self) -> Coins {
        let mut coins = Coins::new();
        for (height, (block, _)) in self.blocks().iter().enumerate() {
            update_coins(&mut coins, block, height as Height);
        }
        coins
    }

    fn publish(&self, state: &State) {
        let height = state.shown - 1;
        let hash = state.active[height];
        self.tip.send_replace(ChainTip {
            height: height as Height,
            hash,
            time: state.blocks[&hash].block.header.time,
        });
    }
}

impl File {
    fn append(&mut self, block: &Block, spent: &[Vec<SpentOutput>]) -> BlockPosition {
        let (bytes, undo) = (serialize(block), encode_undo(spent));
        // Frame headers that no read may reach into.
        self.blocks.extend_from_slice(&[0xee; 8]);
        self.undo.extend_from_slice(&[0xee; 8]);
        let position = BlockPosition {
            file: 0,
            block_offset: self.blocks.len() as u32,
            block_len: bytes.len() as u32,
            undo_offset: self.undo.len() as u32,
            undo_len: undo.len() as u32,
        };
        self.blocks.extend_from_slice(&bytes);
        self.undo.extend_from_slice(&undo);
        position
    }
}

fn encode_undo(spent: &[Vec<SpentOutput>]) -> Vec<u8> {
    if spent.is_empty() {
        return Vec::new();
    }
    let mut out = (spent.len() as u32).to_le_bytes().to_vec();
    for entry in spent {
        out.extend_from_slice(&encode_entry(entry));
    }
    out
}

fn encode_entry(entry: &[SpentOutput]) -> Vec<u8> {
    let mut out = (entry.len() as u32).to_le_bytes().to_vec();
    for spent in entry {
        out.extend_from_slice(&spent.height.to_le_bytes());
        out.push(u8::from(spent.is_coinbase));
        out.extend_from_slice(&serialize(&spent.output));
    }
    out
}

impl BlockSource for MemChain {
    fn tip(&self) -> watch::Receiver<ChainTip> {
        self.tip.subscribe()
    }

    fn hash_at(&self, height: Height) -> Option<BlockHash> {
        let state = self.state.lock();
        state.active[..state.shown].get(height as usize).copied()
    }

    fn header_height(&self, hash: &BlockHash) -> Option<Height> {
        self.state
            .lock()
            .blocks
            .get(hash)
            .map(|stored| stored.height)
    }

    fn best_header_height(&self) -> Height {
        self.state.lock().best_header
    }

    fn load(&self, hash: &BlockHash, _: Height) -> Result<ConnectedBlock, BlockSourceError> {
        let not_stored = BlockSourceError::NotStored { hash: *hash };
        self.loads.fetch_add(1, Ordering::SeqCst);
        let failing = |left: u32| left.checked_sub(1);
        let order = Ordering::SeqCst;
        if self
            .failing_loads
            .fetch_update(order, order, failing)
            .is_ok()
        {
            return Err(not_stored);
        }
        let state = self.state.lock();
        let stored = state
            .blocks
            .get(hash)
            .filter(|_| !state.lost.contains(hash) && !state.damaged.contains(hash));
        let stored = stored.ok_or(not_stored)?;
        let undo = encode_undo(&stored.spent);
        Ok(ConnectedBlock {
            height: stored.height,
            tx_lens: stored
                .block
                .txdata
                .iter()
                .map(|tx| tx.total_size() as u32)
                .collect(),
            first_tx_offset: 80 + serialize(&transaction_count(&stored.block)).len() as u32,
            txids: stored
                .block
                .txdata
                .iter()
                .map(|tx| tx.compute_txid())
                .collect(),
            block: stored.block.clone(),
            spent: stored.spent.clone(),
            first_undo_offset: if undo.is_empty() { 0 } else { 4 },
            undo_lens: stored
                .spent
                .iter()
                .map(|entry| encode_entry(entry).len() as u32)
                .collect(),
            undo,
            position: stored.position,
        })
    }

    fn locate(&self, hash: &BlockHash, _: Height) -> Result<BlockPosition, BlockSourceError> {
        let state = self.state.lock();
        let stored = state
            .blocks
            .get(hash)
            .filter(|_| !state.lost.contains(hash));
        let stored = stored.ok_or(BlockSourceError::NotStored { hash: *hash })?;
        Ok(stored.position)
    }

    fn read_block(
        &self,
        position: &BlockPosition,
        offset: u32,
        len: u32,
    ) -> Result<Vec<u8>, BlockSourceError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let state = self.state.lock();
        let file = state.files.get(position.file as usize);
        read(
            file.map(|file| &file.blocks),
            position,
            position.block_offset + offset,
            len,
        )
    }

    fn read_undo(
        &self,
        position: &BlockPosition,
        offset: u32,
        len: u32,
    ) -> Result<Vec<u8>, BlockSourceError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let state = self.state.lock();
        let file = state.files.get(position.file as usize);
        read(
            file.map(|file| &file.undo),
            position,
            position.undo_offset + offset,
            len,
        )
    }

    fn decode_undo(&self, bytes: &[u8]) -> Result<Vec<SpentOutput>, BlockSourceError> {
        let malformed = |_| BlockSourceError::Malformed { what: "undo" };
        let mut bytes = bytes;
        let count = u32::consensus_decode(&mut bytes).map_err(malformed)?;
        let mut spent = Vec::new();
        for _ in 0..count {
            spent.push(SpentOutput {
                height: u32::consensus_decode(&mut bytes).map_err(malformed)?,
                is_coinbase: u8::consensus_decode(&mut bytes).map_err(malformed)? != 0,
                output: TxOut::consensus_decode(&mut bytes).map_err(malformed)?,
            });
        }
        assert!(bytes.is_empty(), "the caller gave exactly one entry");
        Ok(spent)
    }
}

fn transaction_count(block: &Block) -> pulse_primitives::bitcoin::VarInt {
    pulse_primitives::bitcoin::VarInt(block.txdata.len() as u64)
}

fn read(
    file: Option<&Vec<u8>>,
    position: &BlockPosition,
    offset: u32,
    len: u32,
) -> Result<Vec<u8>, BlockSourceError> {
    let bytes = file.and_then(|bytes| bytes.get(offset as usize..(offset + len) as usize));
    let stale = BlockSourceError::Stale {
        position: *position,
    };
    bytes.map(<[u8]>::to_vec).ok_or(stale)
}

/// Whether a coin database would keep an output with this script.
pub(super) fn spendable(script: &ScriptBuf) -> bool {
    script.as_bytes().first() != Some(&0x6a) && script.len() <= 10_000
}

/// Applies a block to the outputs that may be spent, and returns those it spends.
pub(super) fn update_coins(
    coins: &mut Coins,
    block: &Block,
    height: Height,
) -> Vec<Vec<SpentOutput>> {
    let mut spent = Vec::new();
    for tx in &block.txdata {
        if !tx.is_coinbase() {
            let inputs = tx.input.iter();
            spent.push(
                inputs
                    .map(|i| coins.remove(&i.previous_output).unwrap())
                    .collect(),
            );
        }
        add_coins(coins, tx, height);
    }
    spent
}

fn add_coins(coins: &mut Coins, tx: &Transaction, height: Height) {
    let txid = tx.compute_txid();
    for (vout, output) in (0..).zip(&tx.output) {
        // The output of genesis cannot be spent.
        if height > 0 && spendable(&output.script_pubkey) {
            let coin = SpentOutput {
                output: output.clone(),
                height,
                is_coinbase: tx.is_coinbase(),
            };
            coins.insert(OutPoint { txid, vout }, coin);
        }
    }
}

/// Some scripts, among them every kind that the index treats in its own way.
pub(super) fn script(index: usize) -> ScriptBuf {
    ScriptBuf::from_bytes(match index {
        0 => vec![],
        1 => vec![0x6a, 1, 7],
        2 => vec![0x6a],
        3 => vec![0x51; 10_001],
        4 => vec![0x51; 10_000],
        _ => {
            let mut bytes = vec![0x00, 0x14];
            bytes.extend_from_slice(&[index as u8; 20]);
            bytes
        }
    })
}

pub(super) const SCRIPTS: usize = 14;

/// A random block on top of the active chain, with what it spends.
pub(super) fn random_block(
    chain: &MemChain,
    coins: &mut Coins,
    txs: usize,
    rng: &mut StdRng,
) -> (Block, Vec<Vec<SpentOutput>>) {
    let active = chain.active();
    let height = active.len() as Height;
    let outputs = |rng: &mut StdRng, most: usize| {
        (0..rng.gen_range(1..=most))
            .map(|_| TxOut {
                value: Amount::from_sat(rng.gen_range(0..10_000_000)),
                script_pubkey: match rng.gen_range(0..60) {
                    3 | 4 if rng.gen_bool(0.8) => script(5),
                    index if index < SCRIPTS => script(index),
                    index => script(5 + index % (SCRIPTS - 5)),
                },
            })
            .collect::<Vec<_>>()
    };
    let mut coinbase_sig = height.to_le_bytes().to_vec();
    coinbase_sig.extend_from_slice(&rng.r#gen::<[u8; 8]>());
    let input = |previous_output, script_sig| TxIn {
        previous_output,
        script_sig,
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let coinbase_input = input(OutPoint::null(), ScriptBuf::from_bytes(coinbase_sig));
    let mut txdata = vec![transaction(vec![coinbase_input], outputs(rng, 5))];
    add_coins(coins, &txdata[0], height);
    let mut spent = Vec::new();
    for _ in 0..txs {
        let mut inputs = Vec::new();
        let mut entry = Vec::new();
        for _ in 0..rng.gen_range(1..=3) {
            // Newest coins are likely, so that same-block spends are frequent.
            let from = OutPoint {
                txid: Txid::from_byte_array(rng.r#gen()),
                vout: 0,
            };
            let Some(outpoint) = coins.range(from..).chain(coins.iter()).next().map(|c| *c.0)
            else {
                break;
            };
            entry.push(coins.remove(&outpoint).unwrap());
            inputs.push(input(outpoint, ScriptBuf::new()));
        }
        if inputs.is_empty() {
            break;
        }
        let tx = transaction(inputs, outputs(rng, 4));
        add_coins(coins, &tx, height);
        txdata.push(tx);
        spent.push(entry);
    }
    let previous = *active.last().unwrap();
    (block(previous, height, txdata, rng.r#gen()), spent)
}

fn transaction(input: Vec<TxIn>, output: Vec<TxOut>) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input,
        output,
    }
}

/// A block of these transactions.
pub(super) fn block(
    previous: BlockHash,
    height: Height,
    txdata: Vec<Transaction>,
    nonce: u32,
) -> Block {
    let header = Header {
        version: Version::TWO,
        prev_blockhash: previous,
        merkle_root: TxMerkleNode::all_zeros(),
        time: 1_300_000_000 + height * 600 + nonce % 7_000,
        bits: pulse_primitives::bitcoin::CompactTarget::from_consensus(0x207f_ffff),
        nonce,
    };
    let mut block = Block { header, txdata };
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    block
}

/// Adds random blocks with up to `txs` transactions each.
pub(super) fn mine(chain: &MemChain, blocks: usize, txs: usize, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut coins = chain.coins();
    for _ in 0..blocks {
        let txs = rng.gen_range(0..=txs);
        let (block, spent) = random_block(chain, &mut coins, txs, &mut rng);
        chain.connect(block, spent);
    }
}

/// Adds a block given as bytes, looking up what it spends.
pub(super) fn connect_raw(chain: &MemChain, coins: &mut Coins, bytes: &[u8]) {
    let block = deserialize::<Block>(bytes).unwrap();
    let height = chain.active().len() as Height;
    let spent = update_coins(coins, &block, height);
    chain.connect(block, spent);
}
