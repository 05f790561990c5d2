//! What the tests of this crate share: coins in memory, a judge that passes everything, and
//! transactions that are standard as to their form.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bitcoin::{
    Amount, Block, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode,
    TxOut, Txid, Witness, absolute::LockTime, block, hashes::Hash, transaction::Version,
};
use pulse_primitives::{
    Height, bitcoin,
    block::SpentOutput,
    coins::{CoinError, CoinView},
    tip::ChainTip,
};

use crate::{
    AcceptError, AcceptOptions, Accepted, Mempool, MempoolConfig, PackageResult, Rejected,
    ScriptFailure, TxJudge,
};

/// Virtual size of a transaction of [`Lab::spend`] with one input and one output.
pub const ONE_ONE: u64 = 82;
pub const NOW: u64 = 1_700_000_000;
pub const TIP: Height = 1_000;

/// Passes everything but transactions whose first input's sequence is [`BAD_SCRIPT`].
#[derive(Debug)]
pub struct Lenient;

pub const BAD_SCRIPT: Sequence = Sequence(0xdead_beef);

impl TxJudge for Lenient {
    fn check(&self, _raw: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn verify(&self, raw: &[u8], spent: &[TxOut]) -> Result<(), ScriptFailure> {
        let tx: Transaction = bitcoin::consensus::deserialize(raw).unwrap();
        assert_eq!(tx.input.len(), spent.len());
        if tx.input[0].sequence == BAD_SCRIPT {
            return Err(ScriptFailure {
                input: 0,
                detail: "told to".to_owned(),
            });
        }
        Ok(())
    }
}

/// Coins in memory. The median time past of height `h` is `600 * h`.
#[derive(Debug, Clone)]
pub struct MemCoins {
    pub tip: ChainTip,
    pub coins: HashMap<OutPoint, SpentOutput>,
}

impl CoinView for MemCoins {
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
        assert!(height <= self.tip.height);
        Ok(height * 600)
    }
}

/// P2WPKH of the `n`th key.
pub fn script(n: u32) -> ScriptBuf {
    let mut bytes = vec![0, 20];
    bytes.extend(n.to_le_bytes());
    bytes.resize(22, 7);
    ScriptBuf::from_bytes(bytes)
}

pub fn input(outpoint: OutPoint) -> TxIn {
    TxIn {
        previous_output: outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    }
}

pub fn output(sat: u64, script_pubkey: ScriptBuf) -> TxOut {
    TxOut {
        value: Amount::from_sat(sat),
        script_pubkey,
    }
}

pub fn tip(height: Height, branch: u8) -> ChainTip {
    let mut hash = [branch; 32];
    hash[..4].copy_from_slice(&height.to_le_bytes());
    ChainTip {
        height,
        hash: BlockHash::from_byte_array(hash),
        time: height * 600,
    }
}

/// A mempool with coins to spend.
#[derive(Debug)]
pub struct Lab {
    pub pool: Mempool,
    pub coins: MemCoins,
    pub now: u64,
    known: HashMap<OutPoint, u64>,
    next: u32,
}

impl Lab {
    pub fn new() -> Self {
        Self::with(MempoolConfig::default())
    }

    pub fn with(config: MempoolConfig) -> Self {
        let mut pool = Mempool::new(config);
        pool.set_tip(Some(tip(TIP, 0)), NOW);
        let coins = MemCoins {
            tip: tip(TIP, 0),
            coins: HashMap::new(),
        };
        Self {
            pool,
            coins,
            now: NOW,
            known: HashMap::new(),
            next: 1,
        }
    }

    /// A new confirmed output, ten blocks old.
    pub fn coin(&mut self, sat: u64) -> OutPoint {
        self.coin_of(sat, script(self.next), TIP - 10, false)
    }

    pub fn coin_of(
        &mut self,
        sat: u64,
        script_pubkey: ScriptBuf,
        height: Height,
        is_coinbase: bool,
    ) -> OutPoint {
        let mut bytes = [0xcc; 32];
        bytes[..4].copy_from_slice(&self.next.to_le_bytes());
        self.next += 1;
        let outpoint = OutPoint::new(Txid::from_byte_array(bytes), 0);
        let coin = SpentOutput {
            output: output(sat, script_pubkey),
            height,
            is_coinbase,
        };
        self.known.insert(outpoint, sat);
        self.coins.coins.insert(outpoint, coin);
        outpoint
    }

    /// Spends `inputs` to `outputs` equal new outputs, less `fee`.
    pub fn spend(&mut self, inputs: &[OutPoint], outputs: u64, fee: u64) -> Arc<Transaction> {
        self.build(inputs, outputs, fee, |_| {})
    }

    /// As [`Lab::spend`], in version 3.
    pub fn spend_v3(&mut self, inputs: &[OutPoint], outputs: u64, fee: u64) -> Arc<Transaction> {
        self.build(inputs, outputs, fee, |tx| tx.version = Version(3))
    }

    pub fn build(
        &mut self,
        inputs: &[OutPoint],
        outputs: u64,
        fee: u64,
        change: impl FnOnce(&mut Transaction),
    ) -> Arc<Transaction> {
        let total: u64 = inputs.iter().map(|i| self.known[i]).sum();
        let each = (total - fee) / outputs;
        let first = total - fee - each * (outputs - 1);
        let outputs = (0..outputs).map(|i| {
            self.next += 1;
            output(if i == 0 { first } else { each }, script(self.next))
        });
        let mut tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            output: outputs.collect(),
            input: inputs.iter().map(|outpoint| input(*outpoint)).collect(),
        };
        change(&mut tx);
        self.learn(&tx);
        Arc::new(tx)
    }

    /// Makes the outputs of `tx` known to [`Lab::spend`].
    pub fn learn(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        for (output, vout) in tx.output.iter().zip(0..) {
            self.known
                .insert(OutPoint::new(txid, vout), output.value.to_sat());
        }
    }

    pub fn try_accept(
        &mut self,
        tx: &Arc<Transaction>,
        options: AcceptOptions,
    ) -> Result<Accepted, AcceptError> {
        let result = self
            .pool
            .accept(tx, &self.coins, &Lenient, self.now, options);
        self.pool.assert_consistent();
        result
    }

    pub fn accept(&mut self, tx: &Arc<Transaction>) -> Accepted {
        self.try_accept(tx, AcceptOptions::default()).unwrap()
    }

    pub fn refuse(&mut self, tx: &Arc<Transaction>) -> Rejected {
        match self.try_accept(tx, AcceptOptions::default()) {
            Err(AcceptError::Rejected(rejected)) => rejected,
            other => panic!("expected a rejection, not {other:?}"),
        }
    }

    /// The reason and the detail of a refusal.
    pub fn reason(&mut self, tx: &Arc<Transaction>) -> (String, String) {
        let rejected = self.refuse(tx);
        (rejected.reason.into_owned(), rejected.debug)
    }

    pub fn package(&mut self, txs: &[Arc<Transaction>]) -> PackageResult {
        let options = AcceptOptions::default();
        let result = self
            .pool
            .accept_package(txs, &self.coins, &Lenient, self.now, options);
        self.pool.assert_consistent();
        result.unwrap()
    }

    /// A new unconfirmed transaction with one input and one output that pays `fee`.
    pub fn single(&mut self, fee: u64) -> Arc<Transaction> {
        let coin = self.coin(1_000_000);
        let tx = self.spend(&[coin], 1, fee);
        self.accept(&tx);
        tx
    }

    pub fn txids(&self) -> HashSet<Txid> {
        self.pool.iter().map(|entry| entry.txid).collect()
    }

    /// A block of `txs` behind a coinbase, on the tip, and its transactions' ids.
    pub fn block(&self, txs: &[&Arc<Transaction>], branch: u8) -> TestBlock {
        let height = self.coins.tip.height + 1;
        let coinbase = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                script_sig: ScriptBuf::from_bytes(vec![branch, 1, 2]),
                sequence: Sequence(height),
                ..input(OutPoint::null())
            }],
            output: vec![output(50, script(0))],
        };
        let mut txdata = vec![coinbase];
        txdata.extend(txs.iter().map(|tx| (***tx).clone()));
        let block = Block {
            header: block::Header {
                version: block::Version::TWO,
                prev_blockhash: self.coins.tip.hash,
                merkle_root: TxMerkleNode::from_byte_array([branch; 32]),
                time: height * 600,
                bits: bitcoin::CompactTarget::from_consensus(0x207f_ffff),
                nonce: height,
            },
            txdata,
        };
        let tip = ChainTip {
            height,
            hash: block.block_hash(),
            time: block.header.time,
        };
        TestBlock {
            txids: block.txdata.iter().map(Transaction::compute_txid).collect(),
            block,
            tip,
            parent: self.coins.tip,
            spent: Vec::new(),
        }
    }

    /// Connects a block to the coins and to the mempool.
    pub fn connect(&mut self, block: &mut TestBlock) {
        for (tx, txid) in block.block.txdata.iter().zip(&block.txids) {
            for input in &tx.input {
                if let Some(coin) = self.coins.coins.remove(&input.previous_output) {
                    block.spent.push((input.previous_output, coin));
                }
            }
            for (output, vout) in tx.output.iter().zip(0..) {
                let coin = SpentOutput {
                    output: output.clone(),
                    height: block.tip.height,
                    is_coinbase: tx.is_coinbase(),
                };
                let outpoint = OutPoint::new(*txid, vout);
                self.known.insert(outpoint, output.value.to_sat());
                self.coins.coins.insert(outpoint, coin);
            }
        }
        self.coins.tip = block.tip;
        self.pool
            .connect_block(&block.block, &block.txids, block.tip, self.now)
            .unwrap();
        self.pool.assert_consistent();
    }

    /// Disconnects the tip.
    pub fn disconnect(&mut self, block: &TestBlock) {
        let created: HashSet<&Txid> = block.txids.iter().collect();
        self.coins.coins.retain(|o, _| !created.contains(&o.txid));
        let spent = block.spent.iter().cloned();
        // What the block made and spent again is gone with it.
        self.coins
            .coins
            .extend(spent.filter(|(o, _)| !created.contains(&o.txid)));
        self.coins.tip = block.parent;
        self.pool
            .disconnect_block(&block.block, &block.txids, block.parent)
            .unwrap();
    }
}

#[derive(Debug)]
pub struct TestBlock {
    pub block: Block,
    pub txids: Vec<Txid>,
    pub tip: ChainTip,
    pub parent: ChainTip,
    spent: Vec<(OutPoint, SpentOutput)>,
}

/// The `vout`th output of `tx`.
pub fn out(tx: &Transaction, vout: u32) -> OutPoint {
    OutPoint::new(tx.compute_txid(), vout)
}
