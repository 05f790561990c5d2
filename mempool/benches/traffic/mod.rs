//! Transactions as the network has them, fast: payments, consolidations and batches, some of
//! them in chains and fan-outs, over coins that are made up when they are asked for.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shared by several benches; numbers are far within range"
)]

use std::{collections::HashMap, sync::Arc};

use pulse_mempool::{AcceptOptions, Mempool, MempoolConfig, ScriptFailure, TxJudge};
use pulse_primitives::{
    bitcoin::{
        Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
        TxMerkleNode, TxOut, Txid, Witness, absolute::LockTime, block, hashes::Hash,
        transaction::Version,
    },
    block::SpentOutput,
    coins::{CoinError, CoinView},
    tip::ChainTip,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Time of everything, in seconds since 1970.
pub const NOW: u64 = 1_700_000_000;
/// Height of the first tip.
const HEIGHT: u32 = 800_000;
/// Value of each made-up coin.
const COIN: Amount = Amount::from_sat(100_000_000);
/// End of the ids of transactions that made-up coins are from.
const MADE_UP: [u8; 8] = *b"made up!";

/// Passes everything.
pub struct Lenient;

impl TxJudge for Lenient {
    fn check(&self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn verify(&self, _: &[u8], _: &[TxOut]) -> Result<(), ScriptFailure> {
        Ok(())
    }
}

/// Outputs of blocks of the bench, and made-up ones.
pub struct Coins {
    pub tip: ChainTip,
    confirmed: HashMap<OutPoint, TxOut>,
}

impl CoinView for Coins {
    fn tip(&self) -> ChainTip {
        self.tip
    }

    fn coin(&self, outpoint: &OutPoint) -> Result<Option<SpentOutput>, CoinError> {
        let id = outpoint.txid.to_byte_array();
        let output = if id[24..] == MADE_UP {
            let number = u64::from_le_bytes(id[..8].try_into().unwrap());
            Some(TxOut {
                value: COIN,
                script_pubkey: script(number),
            })
        } else {
            self.confirmed.get(outpoint).cloned()
        };
        Ok(output.map(|output| SpentOutput {
            output,
            height: HEIGHT - 100,
            is_coinbase: false,
        }))
    }

    fn has_unspent(&self, _: &Txid) -> Result<bool, CoinError> {
        Ok(false)
    }

    fn median_time_past(&self, _: u32) -> Result<u32, CoinError> {
        Ok(NOW as u32)
    }
}

/// P2TR for each fifth number, P2WPKH for the others.
fn script(number: u64) -> ScriptBuf {
    let (version, len) = if number.is_multiple_of(5) {
        (0x51, 32_u8)
    } else {
        (0, 20)
    };
    let mut bytes = vec![version, len];
    bytes.extend(number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    bytes.resize(2 + usize::from(len), 3);
    ScriptBuf::from_bytes(bytes)
}

/// A signature as to its form (DER, low S, all is signed).
fn signature() -> [u8; 71] {
    let mut bytes = [7; 71];
    bytes[..4].copy_from_slice(&[0x30, 68, 2, 32]);
    bytes[36..38].copy_from_slice(&[2, 32]);
    bytes[70] = 1;
    bytes
}

fn tip(height: u32) -> ChainTip {
    let hash = BlockHash::hash(&height.to_le_bytes());
    ChainTip {
        height,
        hash,
        time: NOW as u32,
    }
}

/// An output that nothing spends yet.
#[derive(Clone)]
pub struct Spendable {
    pub outpoint: OutPoint,
    pub output: TxOut,
    /// The cluster it is in: index in [`Traffic::clusters`].
    pub cluster: Option<usize>,
}

/// Makes transactions.
pub struct Traffic {
    rng: ChaCha8Rng,
    number: u64,
    /// Unconfirmed outputs to spend.
    open: Vec<Spendable>,
    /// Transactions and vsize of each cluster made so far.
    clusters: Vec<(u32, u64)>,
    /// Lowest fee rate, in sat per 1000 vB.
    pub least_rate: u64,
}

impl Traffic {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            number: seed << 40,
            open: Vec::new(),
            clusters: Vec::new(),
            least_rate: 150,
        }
    }

    /// A confirmed output.
    pub fn coin(&mut self) -> Spendable {
        self.number += 1;
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.number.to_le_bytes());
        id[24..].copy_from_slice(&MADE_UP);
        Spendable {
            outpoint: OutPoint::new(Txid::from_byte_array(id), 0),
            output: TxOut {
                value: COIN,
                script_pubkey: script(self.number),
            },
            cluster: None,
        }
    }

    /// A fee rate in sat per 1000 vB: mostly some sat/vB.
    fn rate(&mut self) -> u64 {
        let normal: f64 = (0..12).map(|_| self.rng.r#gen::<f64>()).sum::<f64>() - 6.0;
        self.least_rate + (3_000.0 * normal.exp()) as u64
    }

    /// A transaction that spends `inputs` into `outputs` equal outputs.
    pub fn spend(&mut self, inputs: &[Spendable], outputs: u64, rate: u64) -> Arc<Transaction> {
        let input = inputs
            .iter()
            .map(|spent| TxIn {
                previous_output: spent.outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: if spent.output.script_pubkey.is_p2tr() {
                    Witness::from_slice(&[[7; 64]])
                } else {
                    Witness::from_slice(&[&signature()[..], &[2; 33]])
                },
            })
            .collect();
        let output = (0..outputs)
            .map(|_| {
                self.number += 1;
                TxOut {
                    value: Amount::ZERO,
                    script_pubkey: script(self.number),
                }
            })
            .collect();
        let mut tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input,
            output,
        };
        let fee = Amount::from_sat(rate * tx.vsize() as u64 / 1000 + 1);
        let value: Amount = inputs.iter().map(|spent| spent.output.value).sum();
        let share = (value - fee) / outputs;
        tx.output.iter_mut().for_each(|output| output.value = share);
        Arc::new(tx)
    }

    /// The next transaction: in three of ten cases it spends an unconfirmed output.
    pub fn next(&mut self) -> Arc<Transaction> {
        let (inputs, outputs) = match self.rng.gen_range(0..100) {
            0..70 => (1, 2),
            70..85 => (self.rng.gen_range(2..4), 2),
            85..90 => (self.rng.gen_range(5..40), 1),
            _ => (1, self.rng.gen_range(5..50)),
        };
        let mut spent: Vec<Spendable> = (0..inputs).map(|_| self.coin()).collect();
        if self.rng.gen_ratio(3, 10) && !self.open.is_empty() {
            let at = self.rng.gen_range(0..self.open.len());
            spent[0] = self.open.swap_remove(at);
        }
        let rate = self.rate();
        let tx = self.spend(&spent, outputs, rate);
        self.note(&spent[0], &tx);
        tx
    }

    /// Keeps some outputs of `tx`, which spends `first`, to be spent, while its cluster is
    /// small enough.
    fn note(&mut self, first: &Spendable, tx: &Transaction) {
        let cluster = first.cluster.unwrap_or_else(|| {
            self.clusters.push((0, 0));
            self.clusters.len() - 1
        });
        let (count, vsize) = &mut self.clusters[cluster];
        *count += 1;
        *vsize += tx.vsize() as u64;
        if *count > 20 || *vsize > 40_000 {
            self.open
                .retain(|spendable| spendable.cluster != Some(cluster));
            return;
        }
        let txid = tx.compute_txid();
        for (vout, output) in (0..).zip(tx.output.iter().take(3)) {
            if output.value.to_sat() > 1_000_000 && self.open.len() < 5_000 {
                self.open.push(Spendable {
                    outpoint: OutPoint::new(txid, vout),
                    output: output.clone(),
                    cluster: Some(cluster),
                });
            }
        }
    }
}

/// A mempool with traffic.
pub struct Scene {
    pub pool: Mempool,
    pub coins: Coins,
    pub traffic: Traffic,
}

impl Scene {
    pub fn new(max_mib: u32) -> Self {
        let config = MempoolConfig {
            max_mib,
            ..MempoolConfig::default()
        };
        let mut pool = Mempool::new(config);
        pool.set_tip(Some(tip(HEIGHT)), NOW);
        let coins = Coins {
            tip: tip(HEIGHT),
            confirmed: HashMap::new(),
        };
        Self {
            pool,
            coins,
            traffic: Traffic::new(1),
        }
    }

    /// With `count` transactions.
    pub fn with(max_mib: u32, count: usize) -> Self {
        let mut scene = Self::new(max_mib);
        scene.fill(count);
        scene
    }

    /// Lets transactions come until the memory is full.
    pub fn fill_up(&mut self) {
        while self.pool.rolling_min_fee_rate(NOW) == 0 {
            self.fill(self.pool.len() + 1_000);
        }
    }

    fn fill(&mut self, count: usize) {
        let mut tries = 0;
        while self.pool.len() < count {
            assert!(tries < 2 * count, "most transactions are refused");
            let tx = self.traffic.next();
            self.accept(&tx);
            tries += 1;
        }
        self.pool.take_events();
    }

    /// Whether `tx` was accepted.
    pub fn accept(&mut self, tx: &Arc<Transaction>) -> bool {
        self.pool
            .accept(tx, &self.coins, &Lenient, NOW, AcceptOptions::default())
            .is_ok()
    }

    /// A block of the first `count` transactions in mining order.
    pub fn block(&mut self, count: usize) -> (Block, Vec<Txid>, ChainTip) {
        let mut txdata: Vec<Transaction> = Vec::new();
        for chunk in self.pool.chunks() {
            if txdata.len() >= count {
                break;
            }
            txdata.extend(chunk.entries.map(|entry| Transaction::clone(&entry.tx)));
        }
        let txids: Vec<Txid> = txdata.iter().map(Transaction::compute_txid).collect();
        let header = block::Header {
            version: block::Version::TWO,
            prev_blockhash: self.coins.tip.hash,
            merkle_root: TxMerkleNode::all_zeros(),
            time: NOW as u32,
            bits: CompactTarget::from_consensus(0),
            nonce: 0,
        };
        (
            Block { header, txdata },
            txids,
            tip(self.coins.tip.height + 1),
        )
    }

    /// After `block` was connected: its outputs are coins.
    pub fn settle(&mut self, block: &Block, txids: &[Txid], tip: ChainTip) {
        for (tx, &txid) in block.txdata.iter().zip(txids) {
            for (vout, output) in (0..).zip(&tx.output) {
                self.coins
                    .confirmed
                    .insert(OutPoint::new(txid, vout), output.clone());
            }
        }
        self.coins.tip = tip;
        self.pool.take_events();
    }

    /// Blocks and transactions come until there are `count`, roughly.
    pub fn level(&mut self, count: usize) {
        while self.pool.len() > count {
            let (block, txids, tip) = self.block(self.pool.len() - count);
            self.pool.connect_block(&block, &txids, tip, NOW).unwrap();
            self.settle(&block, &txids, tip);
        }
        self.fill(count);
    }
}
