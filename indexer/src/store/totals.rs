//! Totals of scripts: the checkpoint of a busy script (`agg`) and the `hist` rows behind it.
//!
//! ```text
//! bulk load:  hist rows, no checkpoints       totals = all rows of the script
//! its end:    one scan gives each busy script a checkpoint
//! tip:        a block renews the checkpoints of the scripts whose turn it is
//! ```
//!
//! # Correctness
//! A checkpoint equals the sum of the rows up to its transaction, and is written under the
//! writing lock from the rows as they are then. New rows lie behind it. A block that is taken
//! back is subtracted from the checkpoints that count it. So totals are exact at any time,
//! whichever scripts have a checkpoint; checkpoints only bound how many rows are read.
//!
//! # Limits
//! Behind the checkpoint of a script lie at most [`Hot::block_rows`] rows of each of the blocks
//! since its last turn, which is [`Hot::renew_one_in`] blocks ago on average. A script
//! without a checkpoint has at most [`Hot::rows`] rows, and those of the
//! [`Hot::find_one_in`] blocks (on average) until it is found to be busy.

use pulse_primitives::Height;
use rocksdb::{ReadOptions, WriteBatch};

use super::{Family, Store, StoreError, reader::Reader};
use crate::{
    keys::ScriptKey,
    query::model::ScriptStats,
    rows::{
        TxNum,
        checkpoint::{self, Checkpoint, Sum, combine},
        meta::{self, Checkpoints},
        script,
    },
};

/// How far a scan of all rows reads ahead.
const SCAN_READAHEAD_BYTES: usize = 2 << 20;

/// Rows between two looks at whether a scan should pause.
const PAUSE_ROWS: u64 = 4096;

/// Most bytes of checkpoints that are written at once.
const SCAN_BATCH_BYTES: usize = 4 << 20;

/// When a script is given a checkpoint, and when that is renewed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hot {
    /// A script is busy from so many rows (or live outputs) on.
    pub rows: u64,
    /// A block that adds so many rows to a script renews its checkpoint.
    pub block_rows: u64,
    /// So many blocks that touch a script go by, on average, until one renews its checkpoint ...
    pub renew_one_in: u64,
    /// ... or counts its rows if it has none. A multiple of `renew_one_in`: it costs a read.
    pub find_one_in: u64,
}

impl Default for Hot {
    fn default() -> Self {
        Self {
            rows: 64,
            block_rows: 8,
            renew_one_in: 32,
            find_one_in: 256,
        }
    }
}

impl Hot {
    fn is_busy(&self, sum: &Sum) -> bool {
        sum.rows >= self.rows || sum.live() >= self.rows
    }

    /// Whether it is the script's turn. Script keys are random, so each has one.
    fn turn(script: ScriptKey, height: Height, one_in: u64) -> bool {
        script
            .wrapping_add(u64::from(height))
            .is_multiple_of(one_in)
    }
}

impl Reader<'_> {
    /// Totals of a script; zeros if it never occurred.
    pub(crate) fn totals(&self, script: ScriptKey) -> Result<ScriptStats, StoreError> {
        let checkpoint = self.checkpoint(script)?;
        self.sum(script, checkpoint.as_ref())?
            .finish(|| self.unspent_value(script))
    }

    /// The checkpoint of a script, if it has one.
    pub(crate) fn checkpoint(&self, script: ScriptKey) -> Result<Option<Checkpoint>, StoreError> {
        self.get(Family::Agg, checkpoint::key(script), Checkpoint::decode)
    }

    /// A checkpoint and the rows behind it.
    fn sum(&self, script: ScriptKey, from: Option<&Checkpoint>) -> Result<Sum, StoreError> {
        let mut sum = Sum::from(from);
        let Some(first) = from.map_or(Some(0), |from| from.through.checked_add(1)) else {
            return Ok(sum);
        };
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(true);
        let mut iter = self.iter(Family::Hist, options);
        let prefix = script.to_be_bytes();
        iter.seek(script::hist_key(script, first));
        while let Some((key, value)) = iter.item() {
            if !key.starts_with(&prefix) {
                break;
            }
            let row = script::hist_txnum(key)
                .and_then(|txnum| Ok((txnum, script::Change::decode(value)?)));
            let (txnum, change) = row.map_err(|row| Family::Hist.damaged(row))?;
            sum.add(txnum, &change);
            iter.next();
        }
        iter.status()?;
        Ok(sum)
    }

    /// Value of a script's live outputs.
    fn unspent_value(&self, script: ScriptKey) -> Result<u64, StoreError> {
        let mut sum = 0u64;
        self.for_each_utxo(script, |_, _, amount| {
            sum = sum.wrapping_add(amount);
            true
        })?;
        Ok(sum)
    }

    /// How far the busy scripts have checkpoints.
    pub(crate) fn checkpoints(&self) -> Result<Checkpoints, StoreError> {
        let made = self.get(Family::Meta, meta::CHECKPOINTS, Checkpoints::decode)?;
        Ok(made.unwrap_or(Checkpoints::None))
    }
}

/// See [`Store::taken_back`].
pub(super) enum TakenBack {
    /// It does not count the block.
    Unchanged,
    /// What it counts without the block.
    Less(Checkpoint),
    /// It counted nothing else.
    Gone,
}

/// What a group of blocks adds to a script.
pub(crate) struct ScriptTotals {
    pub script: ScriptKey,
    /// The last transaction of the group that touches it.
    pub last: TxNum,
    pub totals: ScriptStats,
}

impl Store {
    /// The new checkpoint of a script that a group of blocks touches, if this block is one
    /// that renews it. `made` and `reader` are from before the group, `height` is its last.
    pub(super) fn renewed(
        &self,
        reader: &Reader<'_>,
        made: Checkpoints,
        height: Height,
        added: &ScriptTotals,
    ) -> Result<Option<Checkpoint>, StoreError> {
        let (hot, script) = (&self.hot, added.script);
        let often = added.totals.tx_count >= hot.block_rows;
        if !made.cover(script) || !(often || Hot::turn(script, height, hot.renew_one_in)) {
            return Ok(None);
        }
        // A filter in memory answers this for nearly all scripts that are not busy.
        let checkpoint = reader.checkpoint(script)?;
        if checkpoint.is_none() && !(often || Hot::turn(script, height, hot.find_one_in)) {
            return Ok(None);
        }
        let sum = reader.sum(script, checkpoint.as_ref())?;
        if checkpoint.is_none() && !hot.is_busy(&sum) {
            return Ok(None);
        }
        let before = sum.finish(|| reader.unspent_value(script))?;
        Ok(Some(Checkpoint {
            through: added.last,
            totals: combine(&before, &added.totals, u64::wrapping_add),
        }))
    }

    /// What becomes of the checkpoint of a script when a block is taken back: nothing, if it
    /// does not count the block. `first_txnum` is the block's first, `taken` what it did to the
    /// script, `reader` from before.
    pub(super) fn taken_back(
        reader: &Reader<'_>,
        first_txnum: TxNum,
        taken: &ScriptTotals,
    ) -> Result<TakenBack, StoreError> {
        let checkpoint = reader.checkpoint(taken.script)?;
        let Some(checkpoint) = checkpoint.filter(|c| c.through >= first_txnum) else {
            return Ok(TakenBack::Unchanged);
        };
        if checkpoint.totals.tx_count < taken.totals.tx_count {
            return Err(StoreError::Damaged {
                family: Family::Agg.name(),
                what: "fewer transactions than the block takes back",
            });
        }
        // It has to name a transaction of the script: numbers in between are given anew to
        // transactions of other blocks.
        let last = reader.history(taken.script, Some(first_txnum)).next();
        Ok(match last.transpose()? {
            Some(through) => TakenBack::Less(Checkpoint {
                through,
                totals: combine(&checkpoint.totals, &taken.totals, u64::wrapping_sub),
            }),
            None => TakenBack::Gone,
        })
    }

    /// Gives busy scripts their checkpoints, in the order of their keys, until all have one or
    /// `pause` says so. The next call goes on there, also after a restart. To be called under
    /// the writing lock, and as long as it does not return [`Checkpoints::All`].
    pub(crate) fn make_checkpoints(
        &self,
        mut pause: impl FnMut() -> bool,
    ) -> Result<Checkpoints, StoreError> {
        let reader = self.reader();
        let mut made = reader.checkpoints()?;
        let first = match made {
            Checkpoints::All => return Ok(made),
            Checkpoints::None => 0,
            Checkpoints::Below(script) => script,
        };
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        options.fill_cache(false);
        options.set_readahead_size(SCAN_READAHEAD_BYTES);
        let mut iter = reader.iter(Family::Hist, options);
        let mut batch = WriteBatch::default();
        let mut current = (first, Sum::from(None));
        let mut rows = 0u64;
        iter.seek(checkpoint::key(first));
        loop {
            let row = iter.item().map(|(key, value)| {
                script::hist_parts(key)
                    .and_then(|parts| Ok((parts, script::Change::decode(value)?)))
            });
            let row = row.transpose().map_err(|row| Family::Hist.damaged(row))?;
            let next = row.map(|((script, _), _)| script);
            if next != Some(current.0) {
                let (script, sum) = &current;
                if let Some(through) = sum.last().filter(|_| self.hot.is_busy(sum)) {
                    let totals = sum.finish(|| reader.unspent_value(*script))?;
                    let value = Checkpoint { through, totals }.encode();
                    batch.put_cf(self.cf(Family::Agg), checkpoint::key(*script), value);
                }
                made = next.map_or(Checkpoints::All, Checkpoints::Below);
                let due = rows >= PAUSE_ROWS && std::mem::take(&mut rows) > 0 && pause();
                if next.is_none() || due || batch.size_in_bytes() >= SCAN_BATCH_BYTES {
                    break;
                }
                current = (next.unwrap_or_default(), Sum::from(None));
            }
            let Some(((_, txnum), change)) = row else {
                break;
            };
            current.1.add(txnum, &change);
            rows += 1;
            iter.next();
        }
        iter.status()?;
        if let Some(value) = made.encode() {
            batch.put_cf(self.cf(Family::Meta), meta::CHECKPOINTS, value);
        }
        self.write(batch, false)?;
        Ok(made)
    }
}

#[cfg(test)]
impl Store {
    /// As before the first scan: rows leave sums out, and checkpoints have to be made again.
    pub(crate) fn forget_checkpoints(&self) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        batch.delete_cf(self.cf(Family::Meta), meta::CHECKPOINTS);
        self.write(batch, false)
    }

    /// Gives the key of each script that has a history to `visit`.
    pub(crate) fn for_each_script(&self, mut visit: impl FnMut(ScriptKey)) {
        let mut last = None;
        super::reader::for_each_row(&self.db, self.cf(Family::Hist), |key, _| {
            let (script, _) = script::hist_parts(key).unwrap();
            if last.replace(script) != Some(script) {
                visit(script);
            }
        })
        .unwrap();
    }

    /// Compares each checkpoint with the rows that it stands for.
    pub(crate) fn check_checkpoints(&self) {
        let reader = self.reader();
        super::reader::for_each_row(&self.db, self.cf(Family::Agg), |key, value| {
            let script = ScriptKey::from_be_bytes(key.try_into().unwrap());
            Checkpoint::decode(value).unwrap();
            let sum = reader.sum(script, None).unwrap();
            let all = sum.finish(|| reader.unspent_value(script)).unwrap();
            assert_eq!(reader.totals(script).unwrap(), all, "{script:016x}");
        })
        .unwrap();
    }
}
