//! Decides what the transactions of a block do: which coins go where.
//!
//! A plan names coins, values and addresses but holds no scripts, signatures or txids,
//! so that the expensive rest can be done in parallel.

use bitcoin::{OutPoint, Sequence};
use pulse_primitives::Height;
use rand::{Rng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    address::{ANCHOR, AddressBook, AddressId, ScriptKind},
    coins::{Coin, CoinPool},
};

/// Weight that all transactions of a block may have together.
const WEIGHT_BUDGET: u64 = 3_900_000;
/// Signature operations that they may count (the limit is 80,000).
const SIGOP_BUDGET: u64 = 75_000;
/// Longest chain of unconfirmed parents within a block, less one.
const MAX_LEVEL: u32 = 8;
/// Least value of an output, in satoshi, so that it can pay for its own spending.
const LEAST_OUTPUT: u64 = 1_000;
/// Value of a coin from a fan-out, in satoshi.
const FAN_OUT_COIN: u64 = 5_000_000;
/// Most outputs of a fan-out.
const FAN_OUT_WIDTH: u64 = 600;
/// Addresses with far more traffic than others: the first ones.
const HOT_ADDRESSES: AddressId = 12;

/// Of a hundred payments to the first addresses of an uneven chain, those to the busiest.
const BUSIEST_PERCENT: u32 = 35;
/// And those to the one that never spends.
const HOARD_PERCENT: u32 = 6;

/// The two addresses that stand out when traffic is uneven
/// ([`GeneratorConfig::uneven`](crate::GeneratorConfig::uneven)).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Uneven {
    /// In about a twelfth of all transactions.
    busiest: AddressId,
    /// Receives and never spends.
    pub(crate) hoard: AddressId,
}

impl Uneven {
    /// The first two addresses whose scripts every wallet knows.
    pub(crate) fn of(book: &AddressBook) -> Self {
        let mut plain = (0..HOT_ADDRESSES).filter(|id| {
            matches!(
                book.kind(*id),
                ScriptKind::P2pkh { .. } | ScriptKind::P2wpkh | ScriptKind::P2trKey
            )
        });
        let mut next = |or| plain.next().unwrap_or(or);
        Self {
            busiest: next(0),
            hoard: next(1),
        }
    }
}

/// Where the coin of an input comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    /// An output in an earlier block.
    Chain(OutPoint),
    /// An output of an earlier transaction of this block: index in the plan, and vout.
    Block { tx: usize, vout: u32 },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct PlannedInput {
    pub(crate) source: Source,
    /// Satoshi.
    pub(crate) value: u64,
    pub(crate) address: AddressId,
    pub(crate) sequence: Sequence,
}

#[derive(Debug, Clone)]
pub(crate) enum Payee {
    /// A wallet's address, or [`ANCHOR`].
    Address(AddressId),
    /// OP_RETURN with these bytes.
    Data(Vec<u8>),
}

#[derive(Debug, Clone)]
pub(crate) struct PlannedOutput {
    /// Satoshi.
    pub(crate) value: u64,
    pub(crate) payee: Payee,
    /// Whether a later transaction of the block spends it.
    pub(crate) spent_in_block: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct PlannedTx {
    pub(crate) version: i32,
    pub(crate) lock_time: u32,
    pub(crate) inputs: Vec<PlannedInput>,
    pub(crate) outputs: Vec<PlannedOutput>,
    /// 0 if all inputs come from earlier blocks, else one more than the highest parent.
    pub(crate) level: u32,
    /// Satoshi.
    pub(crate) fee: u64,
}

/// An output of this block that later transactions of it may spend.
struct FreshCoin {
    tx: usize,
    vout: u32,
    value: u64,
    address: AddressId,
    level: u32,
}

pub(crate) struct Planner<'a> {
    book: &'a mut AddressBook,
    pool: &'a mut CoinPool,
    next_address: &'a mut AddressId,
    rng: &'a mut ChaCha8Rng,
    height: Height,
    uneven: Option<Uneven>,
    fresh: Vec<FreshCoin>,
    txs: Vec<PlannedTx>,
    /// Number of coins below which the pool grows, and above which it shrinks.
    pool_bounds: (usize, usize),
}

impl<'a> Planner<'a> {
    pub(crate) fn new(
        book: &'a mut AddressBook,
        pool: &'a mut CoinPool,
        next_address: &'a mut AddressId,
        rng: &'a mut ChaCha8Rng,
        height: Height,
        txs_per_block: u32,
        uneven: Option<Uneven>,
    ) -> Self {
        let txs = usize::try_from(txs_per_block).expect("fits");
        Self {
            book,
            pool,
            next_address,
            rng,
            height,
            uneven,
            fresh: Vec::new(),
            txs: Vec::new(),
            pool_bounds: (25 * txs, (250 * txs).max(2_000)),
        }
    }

    /// One to three addresses for the coinbase. To be called before [`Planner::plan`].
    pub(crate) fn coinbase_addresses(&mut self) -> Vec<AddressId> {
        let count = *[1, 1, 1, 2, 3].choose(self.rng).expect("not empty");
        (0..count).map(|_| self.fresh_address()).collect()
    }

    /// Up to `count` transactions, fewer while coins are few.
    pub(crate) fn plan(mut self, count: u32) -> Vec<PlannedTx> {
        let count = usize::try_from(count).expect("fits");
        let affordable = self.pool.len().div_ceil(8);
        let (mut weight, mut sigops) = (0, 0);
        for _ in 0..count.min(affordable) {
            let (tx_weight, tx_sigops) = self.plan_tx();
            weight += tx_weight;
            sigops += tx_sigops;
            // A fan-out is the biggest single transaction.
            let reserve = FAN_OUT_WIDTH * 200;
            if weight + reserve > WEIGHT_BUDGET || sigops + 10_000 > SIGOP_BUDGET {
                break;
            }
        }
        self.txs
    }

    /// Plans one transaction and returns bounds of its weight and signature operations.
    fn plan_tx(&mut self) -> (u64, u64) {
        let mut inputs = Vec::new();
        let mut level = 0;
        let short_of_coins = self.pool.len() < self.pool_bounds.0;
        if short_of_coins && let Some(coin) = self.pool.take_newest_above(20 * FAN_OUT_COIN) {
            inputs.push(self.input(&coin));
        } else {
            for _ in 0..self.input_count() {
                if let Some((input, parent_level)) = self.pick_input() {
                    inputs.push(input);
                    level = level.max(parent_level);
                }
            }
        }
        let sum: u64 = inputs.iter().map(|input| input.value).sum();
        let outputs = self.outputs(sum, short_of_coins);
        self.finish_tx(inputs, outputs, sum, level)
    }

    fn finish_tx(
        &mut self,
        inputs: Vec<PlannedInput>,
        mut outputs: Vec<PlannedOutput>,
        sum: u64,
        level: u32,
    ) -> (u64, u64) {
        let (weight, sigops) = self.cost(&inputs, &outputs);
        let rate = if self.rng.gen_ratio(1, 50) {
            self.rng.gen_range(50..200)
        } else {
            self.rng.gen_range(1..12)
        };
        let wanted_fee = weight.div_ceil(4) * rate;
        let fee = wanted_fee.min(sum / 4);
        self.share_out(sum - fee, &mut outputs);
        let (version, lock_time) = self.locks(&inputs);
        let tx = self.txs.len();
        for (vout, output) in (0..).zip(&outputs) {
            if let Payee::Address(address) = output.payee
                && level < MAX_LEVEL
                && self.uneven.is_none_or(|uneven| address != uneven.hoard)
                && !matches!(self.book.kind(address), ScriptKind::P2wshCsv { .. })
            {
                self.fresh.push(FreshCoin {
                    tx,
                    vout,
                    value: output.value,
                    address,
                    level: level + 1,
                });
            }
        }
        let paid: u64 = outputs.iter().map(|output| output.value).sum();
        self.txs.push(PlannedTx {
            version,
            lock_time,
            inputs,
            outputs,
            level,
            fee: sum - paid,
        });
        (weight, sigops)
    }

    fn input_count(&mut self) -> usize {
        let count = pick(
            self.rng,
            &[
                (46, 1),
                (28, 2),
                (10, 3),
                (6, 4),
                (4, 5),
                (2, 6),
                (3, 8),
                (1, 10),
            ],
        );
        let crowded = self.pool.len() > self.pool_bounds.1;
        count + usize::from(crowded)
    }

    fn output_count(&mut self) -> u64 {
        pick(
            self.rng,
            &[(15, 1), (69, 2), (7, 3), (4, 4), (2, 5), (1, 6), (2, 8)],
        )
    }

    fn pick_input(&mut self) -> Option<(PlannedInput, u32)> {
        let from_block = !self.fresh.is_empty() && self.rng.gen_ratio(1, 12);
        if !from_block {
            let coin = self.pool.take_any(self.rng)?;
            return Some((self.input(&coin), 0));
        }
        let index = self.rng.gen_range(0..self.fresh.len());
        let coin = self.fresh.swap_remove(index);
        let vout = usize::try_from(coin.vout).expect("an index");
        self.txs[coin.tx].outputs[vout].spent_in_block = true;
        let input = PlannedInput {
            source: Source::Block {
                tx: coin.tx,
                vout: coin.vout,
            },
            value: coin.value,
            address: coin.address,
            sequence: self.sequence(coin.address),
        };
        Some((input, coin.level))
    }

    fn input(&mut self, coin: &Coin) -> PlannedInput {
        PlannedInput {
            source: Source::Chain(coin.outpoint),
            value: coin.value,
            address: coin.address,
            sequence: self.sequence(coin.address),
        }
    }

    fn sequence(&mut self, address: AddressId) -> Sequence {
        if let ScriptKind::P2wshCsv { blocks } = self.book.kind(address) {
            return Sequence::from_height(blocks);
        }
        let draw = self.rng.gen_range(0..4);
        match draw {
            0 if !matches!(self.book.kind(address), ScriptKind::P2wshCltv { .. }) => Sequence::MAX,
            1 => Sequence::ENABLE_LOCKTIME_NO_RBF,
            _ => Sequence::ENABLE_RBF_NO_LOCKTIME,
        }
    }

    /// Payees of a transaction that has `sum` to spend; values are set later.
    fn outputs(&mut self, sum: u64, short_of_coins: bool) -> Vec<PlannedOutput> {
        let mut count = self.output_count();
        if short_of_coins {
            let missing = (self.pool_bounds.0 / 10) as u64;
            let width = FAN_OUT_WIDTH.min(missing.max(4));
            count = count.max(width.min(sum / FAN_OUT_COIN));
        }
        count = count.clamp(1, (sum / (4 * LEAST_OUTPUT)).max(1));
        let mut payees: Vec<_> = (0..count).map(|_| Payee::Address(self.address())).collect();
        if self.rng.gen_ratio(1, 20) {
            let len = self.rng.gen_range(4..=80);
            payees.push(Payee::Data((0..len).map(|_| self.rng.r#gen()).collect()));
        }
        if self.rng.gen_ratio(1, 100) {
            payees.push(Payee::Address(ANCHOR));
        }
        if payees.len() < 10 {
            payees.shuffle(self.rng);
        }
        payees
            .into_iter()
            .map(|payee| PlannedOutput {
                value: 0,
                payee,
                spent_in_block: false,
            })
            .collect()
    }

    /// Shares `total` out among the outputs. Nothing is lost: what the last one does
    /// not take was taken by those before.
    fn share_out(&mut self, total: u64, outputs: &mut [PlannedOutput]) {
        let is_payment =
            |output: &PlannedOutput| matches!(output.payee, Payee::Address(id) if id != ANCHOR);
        let mut left = total;
        for output in outputs.iter_mut() {
            if matches!(output.payee, Payee::Address(ANCHOR)) && left > 10 * LEAST_OUTPUT {
                output.value = 240;
                left -= 240;
            }
        }
        let mut payments = outputs.iter().filter(|output| is_payment(output)).count() as u64;
        let even = payments > 9;
        for output in outputs.iter_mut().filter(|output| is_payment(output)) {
            payments -= 1;
            let spare = left.saturating_sub(payments * LEAST_OUTPUT);
            output.value = if payments == 0 {
                left
            } else if even {
                let share = left / (payments + 1);
                self.rng.gen_range(share / 2..=share).min(spare)
            } else {
                let percent = self.rng.gen_range(5..80);
                let mut value = (left / 100 * percent).clamp(LEAST_OUTPUT.min(spare), spare);
                if value > 100_000 && self.rng.gen_ratio(1, 3) {
                    value -= value % 10_000;
                }
                value
            };
            left -= output.value;
        }
    }

    fn locks(&mut self, inputs: &[PlannedInput]) -> (i32, u32) {
        let mut version = if self.rng.gen_ratio(1, 5) { 1 } else { 2 };
        let mut lock_time = if self.rng.gen_ratio(1, 4) {
            self.height - 1
        } else {
            0
        };
        for input in inputs {
            match self.book.kind(input.address) {
                ScriptKind::P2wshCltv { height } => lock_time = lock_time.max(height),
                ScriptKind::P2wshCsv { .. } => version = 2,
                _ => {}
            }
        }
        (version, lock_time)
    }

    fn cost(&self, inputs: &[PlannedInput], outputs: &[PlannedOutput]) -> (u64, u64) {
        // Version, lock time, both counts, marker and flag.
        let (mut weight, mut sigops) = (4 * 14 + 2, 0);
        for input in inputs {
            let kind = self.book.kind(input.address);
            weight += kind.input_weight();
            sigops += kind.input_sigops();
        }
        for output in outputs {
            match &output.payee {
                Payee::Address(address) => {
                    let kind = self.book.kind(*address);
                    weight += kind.output_weight();
                    sigops += kind.output_sigops();
                }
                Payee::Data(data) => weight += 4 * (12 + data.len() as u64),
            }
        }
        (weight, sigops)
    }

    fn address(&mut self) -> AddressId {
        let used = *self.next_address;
        match self.rng.gen_range(0..100) {
            0..5 => self.hot_address(used),
            5..13 => self.rng.gen_range(used - used.min(500)..used),
            13..25 => self.rng.gen_range(0..used),
            _ => self.fresh_address(),
        }
    }

    fn hot_address(&mut self, used: AddressId) -> AddressId {
        if let Some(uneven) = self.uneven
            && used > HOT_ADDRESSES
        {
            let draw = self.rng.gen_range(0..100);
            if draw < BUSIEST_PERCENT {
                return uneven.busiest;
            }
            if draw < BUSIEST_PERCENT + HOARD_PERCENT {
                return uneven.hoard;
            }
        }
        self.rng.gen_range(0..HOT_ADDRESSES.min(used))
    }

    fn fresh_address(&mut self) -> AddressId {
        let id = *self.next_address;
        self.book.extend_to(id);
        *self.next_address += 1;
        id
    }
}

/// Draws from values with weights in percent.
fn pick<T: Copy>(rng: &mut ChaCha8Rng, choices: &[(u32, T)]) -> T {
    choices
        .choose_weighted(rng, |choice| choice.0)
        .expect("weights are positive")
        .1
}
