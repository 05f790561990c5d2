//! The chain generator: plans, signs and mines one block after another.

use std::collections::{HashMap, HashSet, VecDeque};

use bitcoin::{
    Amount, Block, BlockHash, Network, OutPoint, ScriptBuf, Transaction, TxOut, Txid, Wtxid,
    block::Header,
    hashes::{Hash, HashEngine, sha256},
};
use pulse_primitives::{Height, mempool::MempoolTx, network::ChainParams};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::{
    address::{ANCHOR, AddressBook, AddressId, Owner, ScriptKind, anchor_script},
    coins::{Coin, CoinPool},
    config::GeneratorConfig,
    foreign::merge,
    hd::HdWallet,
    ledger::Ledger,
    mine::{BlockParts, mine_with_ids, next_bits, subsidy},
    plan::{Payee, PlannedTx, Planner, Uneven},
    sign::{SignedTx, build},
};

/// Blocks before a coinbase may be spent.
const COINBASE_MATURITY: Height = 100;
/// Addresses looked up at once, and ahead of those used so far, when a chain is read.
const LOOKUP_CHUNK: AddressId = 2_048;

/// Why a chain cannot be continued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// A block does not follow the one before it.
    #[error("block {hash} does not follow height {height} of the chain")]
    NotConnected {
        /// Height of the last block that did.
        height: Height,
        /// Hash of the block that does not.
        hash: BlockHash,
    },
}

/// Generates a valid chain, block by block. See the [crate's documentation](crate).
///
/// A clone continues the same chain independently, so a clone of an earlier moment can
/// build a competing branch ([`Generator::branch`]).
#[derive(Debug, Clone)]
pub struct Generator {
    config: GeneratorConfig,
    book: AddressBook,
    pool: CoinPool,
    next_address: AddressId,
    height: Height,
    tip: Header,
    /// Times of the last eleven blocks, newest last.
    recent_times: VecDeque<u32>,
    /// Time of the first block of the current difficulty period.
    period_start: u32,
    salt: u64,
    ledger: Option<Ledger>,
    uneven: Option<Uneven>,
}

impl Generator {
    /// A generator at genesis.
    ///
    /// # Panics
    /// If the network is neither regtest nor a signet with the challenge `51`.
    #[must_use]
    pub fn new(config: GeneratorConfig) -> Self {
        assert!(
            is_minable(&config.params),
            "only regtest and signets with the challenge 51 can be simulated"
        );
        let genesis = config.params.genesis();
        let ledger = config.ledger.then(|| {
            let mut ledger = Ledger::default();
            ledger.connect(0, &genesis);
            ledger
        });
        let book = AddressBook::new(config.seed, config.wallets);
        Self {
            uneven: config.uneven.then(|| Uneven::of(&book)),
            book,
            pool: CoinPool::default(),
            next_address: 0,
            height: 0,
            tip: genesis.header,
            recent_times: VecDeque::from([genesis.header.time]),
            period_start: genesis.header.time,
            salt: 0,
            ledger,
            config,
        }
    }

    /// A generator at the tip of a chain that one with the same `config` has made.
    /// `blocks` are those from height 1 on (a genesis block in front is skipped).
    ///
    /// Taking only the first blocks of a chain gives a generator at an earlier height,
    /// which [`Generator::branch`] can lead elsewhere.
    ///
    /// # Errors
    /// [`ResumeError::NotConnected`] if the blocks are not a chain from genesis.
    ///
    /// # Panics
    /// As [`Generator::new`].
    pub fn resume(
        config: GeneratorConfig,
        blocks: impl IntoIterator<Item = Block>,
    ) -> Result<Self, ResumeError> {
        let mut generator = Self::new(config);
        generator.pool = CoinPool::with_lookup();
        let genesis = generator.tip_hash();
        let mut scripts = ScriptTable::default();
        for block in blocks {
            let hash = block.block_hash();
            if generator.height == 0 && hash == genesis {
                continue;
            }
            if block.header.prev_blockhash != generator.tip_hash() {
                return Err(ResumeError::NotConnected {
                    height: generator.height,
                    hash,
                });
            }
            generator.read(&block, &mut scripts);
        }
        generator.pool.drop_lookup();
        Ok(generator)
    }

    /// A generator at the same tip whose next block differs. The blocks behind it
    /// follow from their parents as always, so the branch can be resumed like any chain.
    #[must_use]
    pub fn branch(&self, salt: u64) -> Self {
        Self {
            salt,
            ..self.clone()
        }
    }

    /// The next block, [`GeneratorConfig::block_interval`] after the last one.
    pub fn next_block(&mut self) -> Block {
        let time = if self.height == 0 {
            self.config.start_time
        } else {
            self.tip.time.saturating_add(self.config.block_interval)
        };
        self.next_block_at(time)
    }

    /// The next block with the given time, or with the least time that is valid
    /// (median of the last eleven plus one) if that is later.
    pub fn next_block_at(&mut self, time: u32) -> Block {
        let height = self.height + 1;
        let Draft {
            coinbase_addresses,
            plan,
            signed,
        } = self.draft();
        let fees = plan.iter().map(|tx| tx.fee).sum();
        let (block, txids) = self.mine(time, &coinbase_addresses, fees, signed);
        let made = made_coins(
            &self.book,
            &block,
            &txids,
            &coinbase_addresses,
            &plan,
            height,
        );
        self.close_block(height, made);
        self.advance(&block);
        block
    }

    /// As [`Generator::next_block_at`], with transactions of others in the block as far as
    /// there is room. Its own that conflict with them are left out, and what they pay to
    /// wallets is taken over.
    ///
    /// `foreign` are valid in a block at this height, parents first; the generator's own
    /// may be among them.
    pub fn next_block_with(&mut self, time: u32, foreign: Vec<MempoolTx>) -> Block {
        let mut ahead = self.clone();
        let draft = ahead.draft();
        let own: HashSet<Txid> = draft.signed.iter().map(|tx| tx.txid).collect();
        if foreign.iter().all(|tx| own.contains(&tx.txid)) {
            return self.next_block_at(time);
        }
        let (fees, txs) = merge(&draft.plan, draft.signed, foreign);
        let (block, _) = ahead.mine(time, &draft.coinbase_addresses, fees, txs);
        // The plan did not come true: what is left of it is in the block.
        self.pool.start_lookup();
        self.read(&block, &mut ScriptTable::default());
        self.pool.drop_lookup();
        block
    }

    /// Height of the tip.
    #[must_use]
    pub fn height(&self) -> Height {
        self.height
    }

    /// Header of the tip.
    #[must_use]
    pub fn tip(&self) -> &Header {
        &self.tip
    }

    /// Hash of the tip.
    #[must_use]
    pub fn tip_hash(&self) -> BlockHash {
        self.tip.block_hash()
    }

    /// The first block, which every chain of this generator starts with.
    #[must_use]
    pub fn genesis(&self) -> Block {
        self.config.params.genesis()
    }

    /// Parameters of the chain.
    #[must_use]
    pub fn config(&self) -> &GeneratorConfig {
        &self.config
    }

    /// Changes the number of transactions of the blocks to come. The chain then no
    /// longer follows from the configuration it started with.
    pub fn set_txs_per_block(&mut self, txs_per_block: u32) {
        self.config.txs_per_block = txs_per_block;
    }

    /// Median of the times of the last eleven blocks (BIP 113).
    #[must_use]
    pub fn median_time_past(&self) -> u32 {
        let mut times: Vec<_> = self.recent_times.iter().copied().collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    /// What every script should show, if the configuration asks for it.
    #[must_use]
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// Number of coins that the next block may spend.
    #[must_use]
    pub fn spendable_coins(&self) -> usize {
        self.pool.len()
    }

    /// Scripts of the wallet with this number that were used so far, in order of first use.
    #[must_use]
    pub fn wallet_scripts(&self, wallet: u32) -> Vec<ScriptBuf> {
        (0..self.next_address)
            .filter(|id| self.book.owner(*id) == Owner::Wallet(wallet))
            .map(|id| self.book.script_pubkey(id))
            .collect()
    }

    /// The wallets that other software can open by descriptor.
    #[must_use]
    pub fn hd_wallets(&self) -> &[HdWallet] {
        self.book.hd_wallets()
    }

    /// Scripts of the descriptor wallet at this index of [`Generator::hd_wallets`] that
    /// were used so far, in order of first use.
    #[must_use]
    pub fn hd_wallet_scripts(&self, index: usize) -> Vec<ScriptBuf> {
        (0..self.next_address)
            .filter(|id| {
                matches!(self.book.owner(*id), Owner::Hd { wallet, .. }
                    if usize::try_from(wallet).is_ok_and(|wallet| wallet == index))
            })
            .map(|id| self.book.script_pubkey(id))
            .collect()
    }

    /// All addresses used so far with the type of their script, in order of first use.
    pub fn iter_scripts(&self) -> impl Iterator<Item = (ScriptKind, ScriptBuf)> {
        (0..self.next_address).map(|id| (self.book.kind(id), self.book.script_pubkey(id)))
    }

    /// Each type of script used so far, P2A included, with the first script that has it.
    #[must_use]
    pub fn script_kinds(&self) -> HashMap<ScriptKind, ScriptBuf> {
        let mut kinds = HashMap::from([(ScriptKind::P2a, anchor_script())]);
        for (kind, script) in self.iter_scripts() {
            kinds.entry(kind).or_insert(script);
        }
        kinds
    }

    fn rng(&self) -> ChaCha8Rng {
        let mut engine = sha256::Hash::engine();
        engine.input(b"pulse simulator block");
        engine.input(&self.config.seed.to_le_bytes());
        engine.input(&self.salt.to_le_bytes());
        engine.input(&self.height.to_le_bytes());
        engine.input(self.tip_hash().as_byte_array());
        ChaCha8Rng::from_seed(sha256::Hash::from_engine(engine).to_byte_array())
    }

    /// Plans and signs the next block, taking the coins that it spends.
    fn draft(&mut self) -> Draft {
        let mut rng = self.rng();
        let mut planner = Planner::new(
            &mut self.book,
            &mut self.pool,
            &mut self.next_address,
            &mut rng,
            self.height + 1,
            self.config.txs_per_block,
            self.uneven,
        );
        let coinbase_addresses = planner.coinbase_addresses();
        let plan = planner.plan(self.config.txs_per_block);
        let signed = sign_all(&self.book, &plan);
        Draft {
            coinbase_addresses,
            plan,
            signed,
        }
    }

    /// Mines the block and returns it with all txids, the coinbase first.
    fn mine(
        &self,
        time: u32,
        coinbase_addresses: &[AddressId],
        fees: u64,
        signed: Vec<SignedTx>,
    ) -> (Block, Vec<Txid>) {
        let height = self.height + 1;
        let reward = subsidy(self.config.params.network, height) + Amount::from_sat(fees);
        let share = reward / coinbase_addresses.len() as u64;
        let rest = reward - share * (coinbase_addresses.len() as u64 - 1);
        let outputs = coinbase_addresses
            .iter()
            .enumerate()
            .map(|(n, id)| TxOut {
                value: if n == 0 { rest } else { share },
                script_pubkey: self.book.script_pubkey(*id),
            })
            .collect();
        let mut txids = Vec::with_capacity(signed.len() + 1);
        let mut wtxids: Vec<Wtxid> = Vec::with_capacity(signed.len());
        let mut txs: Vec<Transaction> = Vec::with_capacity(signed.len());
        for tx in signed {
            txids.push(tx.txid);
            wtxids.push(tx.wtxid);
            txs.push(tx.tx);
        }
        let mut extra = b"/pulse/".to_vec();
        extra.extend_from_slice(&self.salt.to_le_bytes());
        let parts = BlockParts {
            height,
            prev: self.tip_hash(),
            time: time.max(self.median_time_past() + 1),
            bits: next_bits(&self.config.params, height, &self.tip, self.period_start),
            extra,
            outputs,
            txs,
        };
        let block = mine_with_ids(parts, &txids, &wtxids);
        txids.insert(0, block.txdata[0].compute_txid());
        (block, txids)
    }

    /// Takes over a block that is not known by its plan.
    fn read(&mut self, block: &Block, scripts: &mut ScriptTable) {
        let height = self.height + 1;
        let spent: HashSet<OutPoint> = block.txdata[1..]
            .iter()
            .flat_map(|tx| tx.input.iter().map(|input| input.previous_output))
            .collect();
        for outpoint in &spent {
            self.pool.take(outpoint);
        }
        let mut made = Vec::new();
        for (position, tx) in block.txdata.iter().enumerate() {
            let txid = tx.compute_txid();
            for (vout, output) in (0..).zip(&tx.output) {
                scripts.extend_beyond(self.next_address, &mut self.book);
                let Some(address) = scripts.find(&output.script_pubkey) else {
                    continue;
                };
                if address != ANCHOR {
                    self.next_address = self.next_address.max(address + 1);
                }
                let coin = Coin {
                    outpoint: OutPoint { txid, vout },
                    value: output.value.to_sat(),
                    address,
                };
                if !spent.contains(&coin.outpoint) {
                    made.push((
                        coin,
                        spendable_at(&self.book, address, height, position == 0),
                    ));
                }
            }
        }
        self.book.extend_to(self.next_address);
        self.close_block(height, made);
        self.advance(block);
    }

    /// Puts the new coins into the pool, those that are never spent aside.
    fn close_block(&mut self, height: Height, made: Vec<(Coin, Height)>) {
        let hoard = self.uneven.map(|uneven| uneven.hoard);
        let made = made.into_iter();
        self.pool
            .close_block(height, made.filter(|(coin, _)| Some(coin.address) != hoard));
    }

    /// Moves the tip to `block`.
    fn advance(&mut self, block: &Block) {
        self.height += 1;
        self.tip = block.header;
        self.salt = 0;
        self.recent_times.push_back(block.header.time);
        if self.recent_times.len() > 11 {
            self.recent_times.pop_front();
        }
        let period = self
            .config
            .params
            .consensus
            .difficulty_adjustment_interval();
        if u64::from(self.height).is_multiple_of(period) {
            self.period_start = block.header.time;
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.connect(self.height, block);
        }
    }
}

/// What a block is made of before it is put together.
struct Draft {
    coinbase_addresses: Vec<AddressId>,
    plan: Vec<PlannedTx>,
    /// In the order of the plan.
    signed: Vec<SignedTx>,
}

/// Addresses by script, for reading a chain.
#[derive(Default)]
struct ScriptTable {
    addresses: HashMap<ScriptBuf, AddressId>,
    known: AddressId,
}

impl ScriptTable {
    /// Makes sure that the addresses after `next` can be found.
    fn extend_beyond(&mut self, next: AddressId, book: &mut AddressBook) {
        while self.known < next + LOOKUP_CHUNK / 2 {
            let end = self.known + LOOKUP_CHUNK;
            book.extend_to(end);
            let scripts: Vec<_> = (self.known..end)
                .into_par_iter()
                .map(|id| (book.script_pubkey(id), id))
                .collect();
            self.addresses.extend(scripts);
            self.addresses.insert(anchor_script(), ANCHOR);
            self.known = end;
        }
    }

    fn find(&self, script: &ScriptBuf) -> Option<AddressId> {
        self.addresses.get(script).copied()
    }
}

/// First height of a block that may spend an output made at `height`.
fn spendable_at(
    book: &AddressBook,
    address: AddressId,
    height: Height,
    is_coinbase: bool,
) -> Height {
    let mut wait = if is_coinbase { COINBASE_MATURITY } else { 0 };
    if let ScriptKind::P2wshCsv { blocks } = book.kind(address) {
        wait = wait.max(Height::from(blocks));
    }
    height + wait
}

/// Signs all transactions in parallel, parents before children.
fn sign_all(book: &AddressBook, plan: &[PlannedTx]) -> Vec<SignedTx> {
    let mut signed: Vec<Option<SignedTx>> = vec![None; plan.len()];
    let levels = plan.iter().map(|tx| tx.level).max().unwrap_or_default();
    for level in 0..=levels {
        let done: Vec<_> = plan
            .par_iter()
            .enumerate()
            .filter(|(_, tx)| tx.level == level)
            .map(|(index, tx)| {
                let parent = |parent: usize| {
                    let parent: &Option<SignedTx> = &signed[parent];
                    parent.as_ref().expect("parents have lower levels").txid
                };
                (index, build(book, tx, parent))
            })
            .collect();
        for (index, tx) in done {
            signed[index] = Some(tx);
        }
    }
    signed
        .into_iter()
        .map(|tx| tx.expect("every transaction has a level"))
        .collect()
}

/// The outputs that a new block leaves to spend, in chain order.
fn made_coins(
    book: &AddressBook,
    block: &Block,
    txids: &[Txid],
    coinbase_addresses: &[AddressId],
    plan: &[PlannedTx],
    height: Height,
) -> Vec<(Coin, Height)> {
    let coin = |position: usize, vout: usize, address: AddressId| {
        let coin = Coin {
            outpoint: OutPoint::new(txids[position], u32::try_from(vout).expect("an index")),
            value: block.txdata[position].output[vout].value.to_sat(),
            address,
        };
        (coin, spendable_at(book, address, height, position == 0))
    };
    let mut made: Vec<_> = coinbase_addresses
        .iter()
        .enumerate()
        .map(|(vout, address)| coin(0, vout, *address))
        .collect();
    for (position, tx) in (1..).zip(plan) {
        for (vout, output) in tx.outputs.iter().enumerate() {
            if let Payee::Address(address) = output.payee
                && !output.spent_in_block
            {
                made.push(coin(position, vout, address));
            }
        }
    }
    made
}

fn is_minable(params: &ChainParams) -> bool {
    match params.network {
        Network::Regtest => true,
        Network::Signet => params.signet_challenge.as_deref() == Some(&[0x51]),
        _ => false,
    }
}
