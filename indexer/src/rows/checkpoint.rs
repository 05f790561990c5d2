//! `agg`: totals of a busy script up to one of its transactions.
//!
//! Key: script key (8). Value, varints: the last of its transactions that is counted, transactions,
//! outputs funded, their sum, outputs spent, their sum. 16 to 25 bytes.
//!
//! # Correctness
//! A row says what the script's `hist` rows up to that transaction add up to. Rows behind it
//! are added by whoever reads, so the totals do not depend on how old it is, or whether there
//! is one. Blocks that are taken back are taken out of the rows that count them.

use super::{
    TxNum,
    codec::{BadRow, Reader, put_varint},
    script::Change,
};
use crate::{keys::ScriptKey, query::model::ScriptStats};

/// An `agg` row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The last transaction that is counted.
    pub through: TxNum,
    /// Totals up to and with it.
    pub totals: ScriptStats,
}

/// The key.
pub(crate) fn key(script: ScriptKey) -> [u8; 8] {
    script.to_be_bytes()
}

impl Checkpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        put_varint(&mut out, u64::from(self.through));
        put_varint(&mut out, self.totals.tx_count);
        put_varint(&mut out, self.totals.funded_txo_count);
        put_varint(&mut out, self.totals.funded_txo_sum);
        put_varint(&mut out, self.totals.spent_txo_count);
        put_varint(&mut out, self.totals.spent_txo_sum);
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, BadRow> {
        let mut reader = Reader::new(value);
        let checkpoint = Self {
            through: reader.varint_u32()?,
            totals: ScriptStats {
                tx_count: reader.varint()?,
                funded_txo_count: reader.varint()?,
                funded_txo_sum: reader.varint()?,
                spent_txo_count: reader.varint()?,
                spent_txo_sum: reader.varint()?,
            },
        };
        reader.end()?;
        Ok(checkpoint)
    }
}

/// Combines two totals number by number.
///
/// Sums wrap: a chain whose money passes one script 8,000 times over would exceed 64
/// bits, which no chain with Bitcoin's supply has come near; wrapping keeps addition
/// and subtraction exact inverses even then.
pub(crate) fn combine(a: &ScriptStats, b: &ScriptStats, f: fn(u64, u64) -> u64) -> ScriptStats {
    ScriptStats {
        tx_count: f(a.tx_count, b.tx_count),
        funded_txo_count: f(a.funded_txo_count, b.funded_txo_count),
        funded_txo_sum: f(a.funded_txo_sum, b.funded_txo_sum),
        spent_txo_count: f(a.spent_txo_count, b.spent_txo_count),
        spent_txo_sum: f(a.spent_txo_sum, b.spent_txo_sum),
    }
}

/// Adds up the `hist` rows of a script.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sum {
    /// The sum, except that the value of the spent outputs lacks what was not stated.
    stats: ScriptStats,
    /// Whether a row did not state the value of what it spent.
    unstated: bool,
    /// The last row.
    last: Option<TxNum>,
    /// Rows that were added.
    pub rows: u64,
}

impl Sum {
    /// Starts with what a checkpoint counts.
    pub(crate) fn from(checkpoint: Option<&Checkpoint>) -> Self {
        Self {
            stats: checkpoint.map_or_else(ScriptStats::default, |c| c.totals),
            unstated: false,
            last: checkpoint.map(|c| c.through),
            rows: 0,
        }
    }

    /// Adds the row of the next transaction.
    pub(crate) fn add(&mut self, txnum: TxNum, change: &Change) {
        let stats = &mut self.stats;
        stats.tx_count += 1;
        stats.funded_txo_count += u64::from(change.funded);
        stats.funded_txo_sum = stats.funded_txo_sum.wrapping_add(change.funded_sum);
        if change.spent > 0 {
            stats.spent_txo_count += u64::from(change.spent);
            match change.spent_sum {
                Some(sum) => stats.spent_txo_sum = stats.spent_txo_sum.wrapping_add(sum),
                None => self.unstated = true,
            }
        }
        self.last = Some(txnum);
        self.rows += 1;
    }

    /// Outputs that are not spent.
    pub(crate) fn live(&self) -> u64 {
        let stats = &self.stats;
        stats.funded_txo_count.saturating_sub(stats.spent_txo_count)
    }

    /// The last transaction that was counted.
    pub(crate) fn last(&self) -> Option<TxNum> {
        self.last
    }

    /// The totals, of rows that all state what they spent.
    pub(crate) fn stated(self) -> ScriptStats {
        self.stats
    }

    /// The totals. `unspent` gives the value of the script's live outputs, and is asked only
    /// if a row did not state what it spent: funded less unspent is spent.
    pub(crate) fn finish<E>(
        &self,
        unspent: impl FnOnce() -> Result<u64, E>,
    ) -> Result<ScriptStats, E> {
        let mut stats = self.stats;
        if self.unstated {
            let unspent = match self.live() {
                0 => 0,
                _ => unspent()?,
            };
            stats.spent_txo_sum = stats.funded_txo_sum.wrapping_sub(unspent);
        }
        Ok(stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_round_trip_and_additions_are_undone(through in any::<u32>(), n in any::<[u64; 5]>()) {
            let totals = ScriptStats {
                tx_count: n[0], funded_txo_count: n[1], funded_txo_sum: n[2], spent_txo_count: n[3], spent_txo_sum: n[4],
            };
            let checkpoint = Checkpoint { through, totals };
            prop_assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
            let twice = combine(&totals, &totals, u64::wrapping_add);
            prop_assert_eq!(combine(&twice, &totals, u64::wrapping_sub), totals);
        }
    }

    #[test]
    fn what_rows_leave_unstated_follows_from_the_live_outputs() {
        let fund = Change {
            funded: 2,
            funded_sum: 70,
            ..Change::default()
        };
        let spend = Change {
            spent: 1,
            ..Change::default()
        };
        let mut sum = Sum::from(None);
        sum.add(3, &fund);
        assert_eq!(sum.finish(|| Err("not asked")).unwrap().spent_txo_sum, 0);
        sum.add(4, &spend);
        let one = sum.finish(|| Ok::<_, ()>(30)).unwrap();
        assert_eq!((one.spent_txo_sum, one.tx_count), (40, 2));
        sum.add(5, &spend);
        assert_eq!(sum.finish(|| Err("not asked")).unwrap().spent_txo_sum, 70);
        assert_eq!(sum.last(), Some(5));
    }
}
