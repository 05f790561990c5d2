//! Transactions good and bad by the thousand, to compare two nodes' verdicts.
//!
//! ```text
//! funding() -> outputs for the test's own chain -> fund() tells where they are
//! prelude() -> transactions for both mempools
//! case()    -> a transaction or package, and what it is about
//! ```
//!
//! Deterministic for a seed and a chain. Signs by itself, with keys that anyone can
//! have; knows nothing of either node's rules, so most of what is wrong with a case is
//! wrong on purpose but some by chance.

mod cases;
mod faults;
pub mod lock;
pub mod sign;

use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    absolute::LockTime, transaction::Version,
};
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use lock::{Keys, Lock};
use sign::{OpenFault, SigFault, sign};

/// An output that cases may spend.
#[derive(Debug, Clone)]
pub struct Coin {
    /// What locks it.
    pub lock: Lock,
    /// Where it is.
    pub outpoint: OutPoint,
    /// What it holds.
    pub value: Amount,
}

/// A transaction, or a package, to judge.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it is about, for reports.
    pub name: String,
    /// One transaction, or several that build upon each other.
    pub txs: Vec<Transaction>,
}

/// The generator.
#[derive(Debug, Clone)]
pub struct TxGen {
    keys: Keys,
    rng: ChaCha8Rng,
    /// Height of the chain's tip.
    height: u32,
    /// Median time of the tip's past.
    time: u32,
    usual: Vec<Coin>,
    unusual: Vec<Coin>,
    immature: Vec<Coin>,
    spent: Vec<OutPoint>,
    /// Outputs of transactions in the mempool that nothing spends.
    pool: Vec<Coin>,
    /// Coins that transactions in the mempool spend, and their fee rates.
    taken: Vec<(Coin, Txid, u64)>,
    /// Outputs of TRUC transactions in the mempool.
    truc: Vec<Coin>,
}

/// Value of each funded output.
pub const COIN: Amount = Amount::from_sat(200_000);

impl TxGen {
    /// A generator for a chain whose tip will stand at `height`, with median time past
    /// `time`.
    #[must_use]
    pub fn new(seed: u64, height: u32, time: u32) -> Self {
        Self {
            keys: Keys::default(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            height,
            time,
            usual: Vec::new(),
            unusual: Vec::new(),
            immature: Vec::new(),
            spent: Vec::new(),
            pool: Vec::new(),
            taken: Vec::new(),
            truc: Vec::new(),
        }
    }

    /// Outputs that the chain should hold: `copies` of every usual lock and a few of
    /// every unusual one.
    #[must_use]
    pub fn funding(&self, copies: usize) -> Vec<(Lock, TxOut)> {
        let usual = lock::usual(&self.keys, self.height);
        let unusual = lock::unusual(&self.keys);
        let all = (0..copies)
            .flat_map(|_| usual.clone())
            .chain((0..3).flat_map(|_| unusual.clone()));
        all.map(|lock| {
            let script_pubkey = lock.script_pubkey(&self.keys);
            (
                lock,
                TxOut {
                    value: COIN,
                    script_pubkey,
                },
            )
        })
        .collect()
    }

    /// Says where a funded output is.
    pub fn fund(&mut self, lock: Lock, outpoint: OutPoint, value: Amount) {
        let is_usual = lock::usual(&self.keys, self.height)
            .iter()
            .any(|usual| usual.name == lock.name);
        let coin = Coin {
            lock,
            outpoint,
            value,
        };
        if is_usual {
            &mut self.usual
        } else {
            &mut self.unusual
        }
        .push(coin);
    }

    /// A coinbase output of the key hash of key 0 that is too young to be spent.
    pub fn fund_immature(&mut self, outpoint: OutPoint, value: Amount) {
        let lock = self.lock_named("p2wpkh");
        self.immature.push(Coin {
            lock,
            outpoint,
            value,
        });
    }

    /// An output of the chain that was spent there.
    pub fn add_spent(&mut self, outpoint: OutPoint) {
        self.spent.push(outpoint);
    }

    /// The witness program of key 0, for coinbases.
    #[must_use]
    pub fn coinbase_script(&self) -> ScriptBuf {
        Lock::wpkh(&self.keys)
    }

    /// A case of any sort.
    pub fn case(&mut self) -> Case {
        cases::next(self)
    }

    /// Transactions for the mempool that later cases build upon and replace. Each
    /// spends coins of its own or outputs of earlier ones.
    pub fn prelude(&mut self) -> Vec<Transaction> {
        cases::prelude(self)
    }

    fn lock_named(&self, name: &str) -> Lock {
        let mut locks = lock::usual(&self.keys, self.height);
        locks.extend(lock::unusual(&self.keys));
        locks
            .into_iter()
            .find(|lock| lock.name == name)
            .expect("a lock of this name")
    }

    fn any_usual_lock(&mut self) -> Lock {
        let locks = lock::usual(&self.keys, self.height);
        locks.choose(&mut self.rng).expect("there are some").clone()
    }

    fn usual_coin(&mut self) -> Coin {
        self.usual.choose(&mut self.rng).expect("funded").clone()
    }

    /// Distinct usual coins.
    fn usual_coins(&mut self, count: usize) -> Vec<Coin> {
        self.usual
            .choose_multiple(&mut self.rng, count)
            .cloned()
            .collect()
    }

    /// Takes a coin that later plain cases should not spend.
    fn take_usual(&mut self) -> Coin {
        let index = self.rng.gen_range(0..self.usual.len());
        self.usual.swap_remove(index)
    }

    fn draft(&self, version: i32, coins: Vec<Coin>) -> Draft {
        let height = coins.iter().filter_map(|coin| coin.lock.lock_height).max();
        let tx = Transaction {
            version: Version(version),
            lock_time: LockTime::from_consensus(height.unwrap_or(0)),
            input: coins
                .iter()
                .map(|coin| TxIn {
                    previous_output: coin.outpoint,
                    script_sig: ScriptBuf::new(),
                    sequence: match coin.lock.lock_blocks {
                        Some(blocks) => Sequence::from_height(blocks),
                        None if height.is_some() => Sequence::ENABLE_LOCKTIME_NO_RBF,
                        None => Sequence::MAX,
                    },
                    witness: Witness::new(),
                })
                .collect(),
            output: Vec::new(),
        };
        Draft {
            tx,
            coins,
            change: None,
            sig: SigFault::None,
            open: OpenFault::None,
        }
    }
}

/// A transaction with one input, which is still to be signed.
#[must_use]
pub fn unsigned(previous_output: OutPoint, output: Vec<TxOut>) -> Transaction {
    Transaction {
        version: Version(2),
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output,
    }
}

/// A transaction in the making.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    tx: Transaction,
    coins: Vec<Coin>,
    /// Output that takes what is left.
    change: Option<usize>,
    sig: SigFault,
    open: OpenFault,
}

impl Draft {
    fn input_sum(&self) -> u64 {
        self.coins.iter().map(|coin| coin.value.to_sat()).sum()
    }

    fn pay(&mut self, script_pubkey: ScriptBuf, sat: u64) {
        self.tx.output.push(TxOut {
            value: Amount::from_sat(sat),
            script_pubkey,
        });
    }

    /// Adds the output that takes what is left.
    fn change_to(&mut self, script_pubkey: ScriptBuf) {
        self.change = Some(self.tx.output.len());
        self.pay(script_pubkey, 0);
    }

    /// Signs, and sets the change so that the fee rate is about `sat_kvb`.
    fn finish(mut self, keys: &Keys, sat_kvb: u64) -> Transaction {
        self.sign(keys);
        let fee = (self.tx.vsize() as u64 * sat_kvb).div_ceil(1000);
        self.set_fee(fee);
        self.sign(keys);
        self.tx
    }

    fn set_fee(&mut self, fee: u64) {
        let Some(change) = self.change else { return };
        let others: u64 = self
            .tx
            .output
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != change)
            .map(|(_, output)| output.value.to_sat())
            .fold(0, u64::saturating_add);
        let left = self.input_sum().saturating_sub(others).saturating_sub(fee);
        self.tx.output[change].value = Amount::from_sat(left);
    }

    fn sign(&mut self, keys: &Keys) {
        let spent: Vec<_> = self
            .coins
            .iter()
            .map(|coin| (coin.lock.clone(), coin.value))
            .collect();
        sign(keys, &mut self.tx, &spent, self.sig, self.open);
    }
}
