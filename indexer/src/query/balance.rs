//! What a script was worth, block by block.
//!
//! The totals say what it is worth now. From there the rows lead back: each says what its
//! transaction added, and most that spend leave out how much, which the spent outputs
//! themselves then tell.
//!
//! # Correctness
//! A balance is a sum over the rows of one view. A place to go on from ([`BalancePlace`]) names
//! its block and holds the balance below it, which depends on the chain up to there only: it
//! holds in every view that has the block.
//!
//! # Limits
//! [`MOST_READS`] transactions are read for one answer, and [`MOST_ROWS`] rows: a page ends
//! before, and a balance that would take more is refused.

use pulse_primitives::Height;
pub use pulse_primitives::page::BalancePlace;

use super::{
    Heights, QueryError, ScriptHash, View,
    model::{BalanceChange, BlockRef},
    read::is_of,
};
use crate::{
    keys::ScriptKey,
    rows::{TxNum, script::Change},
    store::reader::TxPositions,
};

/// Transactions that are read for one answer.
const MOST_READS: usize = 10_000;
/// Rows that are looked at for one answer.
const MOST_ROWS: usize = 1_000_000;

/// Balances of a script, newest first.
#[derive(Debug)]
pub struct BalancePage {
    /// One entry per block that touches the script.
    pub changes: Vec<BalanceChange>,
    /// Where the next page begins, if blocks below touch it, too.
    pub next: Option<BalancePlace>,
}

/// What a balance or a page of them could not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoBalance {
    /// The block of the place to go on from is not in this view.
    Gone,
    /// It would take more than [`MOST_READS`] or [`MOST_ROWS`].
    TooMany,
}

/// A balance with the block that it holds at, or why there is none.
pub type BalanceAt = Result<(BlockRef, u64), NoBalance>;

/// Goes through the rows of a script.
struct Walk<'a, 'v> {
    view: &'a View<'v>,
    script: &'a ScriptHash,
    key: ScriptKey,
    positions: TxPositions<'a>,
    /// Whether rows may be another script's.
    is_shared: bool,
    reads: usize,
    rows: usize,
}

/// What a row says of the script.
enum Row {
    /// What its transaction adds, in satoshis, wrapping.
    Adds(u64),
    /// It is another script's, which nobody knew yet.
    FirstForeign,
    /// It is another script's.
    Foreign,
}

impl<'v> View<'v> {
    /// What a script was worth, in satoshis, with the block at `height` and before the next.
    /// `None` above the tip.
    ///
    /// # Errors
    /// [`QueryError::PositionRenewing`] if a transaction is not where the index says, or a
    /// failed read.
    pub fn balance_at(
        &self,
        script: &ScriptHash,
        height: Height,
    ) -> Result<Option<BalanceAt>, QueryError> {
        if self.reader.block(height)?.is_none() {
            return Ok(None);
        }
        let block = self.block_ref(height)?;
        let end = self.first_txnum_behind(height)?;
        loop {
            let mut walk = self.walk(script)?;
            // From the tip down, or if that takes too long, from the height down to nothing.
            let balance = match walk.sum(None, end)? {
                Some(Ok(above)) => {
                    let now = self.script_stats(script)?;
                    let now = now.funded_txo_sum.wrapping_sub(now.spent_txo_sum);
                    Some(Ok(now.wrapping_sub(above)))
                }
                Some(Err(_)) => {
                    (walk.reads, walk.rows) = (0, 0);
                    walk.sum(Some(end), 0)?
                }
                None => None,
            };
            // Again, once it is known that another script has its key.
            if let Some(balance) = balance {
                return Ok(Some(balance.map(|balance| (block, balance))));
            }
        }
    }

    /// Balances of a script in the blocks of `heights` that touch it, newest first, below
    /// `place` if there is one; at most `limit`.
    ///
    /// # Errors
    /// As [`View::balance_at`].
    pub fn balance_page(
        &self,
        script: &ScriptHash,
        heights: Heights,
        place: Option<&BalancePlace>,
        limit: usize,
    ) -> Result<Result<BalancePage, NoBalance>, QueryError> {
        let empty = BalancePage {
            changes: Vec::new(),
            next: None,
        };
        let Some(range) = self.txnums(heights)? else {
            return Ok(Ok(empty));
        };
        let (before, balance) = match (place, heights.to) {
            (Some(place), _) => match self.at_cursor(&place.cursor)? {
                Some(txnum) => (txnum, place.balance),
                None => return Ok(Err(NoBalance::Gone)),
            },
            (None, Some(to)) if range.end < TxNum::MAX => match self.balance_at(script, to)? {
                None => return Ok(Ok(empty)),
                Some(Err(err)) => return Ok(Err(err)),
                Some(Ok((_, balance))) => (range.end, balance),
            },
            (None, _) => {
                let now = self.script_stats(script)?;
                let now = now.funded_txo_sum.wrapping_sub(now.spent_txo_sum);
                (TxNum::MAX, now)
            }
        };
        loop {
            let mut walk = self.walk(script)?;
            if let Some(page) = walk.page((range.start, before), balance, limit)? {
                return Ok(page);
            }
        }
    }

    fn walk<'a>(&'a self, script: &'a ScriptHash) -> Result<Walk<'a, 'v>, QueryError> {
        let key = self.reader.keys.script_hash(script);
        Ok(Walk {
            view: self,
            script,
            key,
            positions: self.reader.tx_positions(),
            is_shared: self.query.shared.store.collides(key),
            reads: 0,
            rows: 0,
        })
    }
}

impl Walk<'_, '_> {
    /// What the rows from transaction `from` to before `end` add. `None` if it has to be
    /// done again.
    fn sum(
        &mut self,
        end: Option<TxNum>,
        from: TxNum,
    ) -> Result<Option<Result<u64, NoBalance>>, QueryError> {
        let mut sum = 0_u64;
        for row in self.view.reader.changes(self.key, end) {
            let (txnum, change) = row?;
            if txnum < from {
                break;
            }
            match self.row(txnum, &change)? {
                Row::Adds(added) => sum = sum.wrapping_add(added),
                Row::FirstForeign => return Ok(None),
                Row::Foreign => {}
            }
            if self.is_over() {
                return Ok(Some(Err(NoBalance::TooMany)));
            }
        }
        Ok(Some(Ok(sum)))
    }

    /// The balances from `before` down to `from`; `balance` is that before `before`. `None` if
    /// it has to be done again.
    fn page(
        &mut self,
        (from, before): (TxNum, TxNum),
        balance: u64,
        limit: usize,
    ) -> Result<Option<Result<BalancePage, NoBalance>>, QueryError> {
        let view = self.view;
        let mut page = BalancePage {
            changes: Vec::<BalanceChange>::new(),
            next: None,
        };
        let mut balance = balance;
        // The first transaction of the block that the last entry is about.
        let mut first = TxNum::MAX;
        let before = Some(before).filter(|before| *before < TxNum::MAX);
        for row in view.reader.changes(self.key, before) {
            let (txnum, change) = row?;
            if txnum < from {
                break;
            }
            let is_next = txnum < first;
            if page.changes.is_empty() && self.is_over() {
                return Ok(Some(Err(NoBalance::TooMany)));
            }
            if is_next && (page.changes.len() == limit || self.is_over()) {
                let cursor = view.cursor_of(first, u32::MAX)?;
                page.next = Some(BalancePlace { cursor, balance });
                break;
            }
            let added = match self.row(txnum, &change)? {
                Row::Adds(added) => added,
                Row::FirstForeign => return Ok(None),
                Row::Foreign => continue,
            };
            if is_next {
                let height = view.tx_pos(&self.positions, txnum)?.height;
                first = view.row(height)?.first_txnum;
                page.changes.push(BalanceChange {
                    block: view.block_ref(height)?,
                    tx_count: 0,
                    change: 0,
                    balance,
                });
            }
            if let Some(entry) = page.changes.last_mut() {
                entry.tx_count += 1;
                entry.change = entry.change.wrapping_add(added.cast_signed());
            }
            balance = balance.wrapping_sub(added);
        }
        Ok(Some(Ok(page)))
    }

    fn is_over(&self) -> bool {
        self.reads > MOST_READS || self.rows > MOST_ROWS
    }

    fn row(&mut self, txnum: TxNum, change: &Change) -> Result<Row, QueryError> {
        self.rows += 1;
        let spent = match change.spent {
            0 => Some(0),
            _ => change.spent_sum,
        };
        if let Some(spent) = spent.filter(|_| !self.is_shared) {
            return Ok(Row::Adds(change.funded_sum.wrapping_sub(spent)));
        }
        self.reads += 1;
        let view = self.view;
        let tx = view.read_tx(view.tx_pos(&self.positions, txnum)?)?;
        let prevouts = view.read_prevouts(&tx)?;
        let (mut added, mut is_own) = (0_u64, false);
        for output in tx.tx.output.iter().filter(|o| is_of(o, self.script)) {
            is_own = true;
            added = added.wrapping_add(output.value.to_sat());
        }
        for output in prevouts.iter().filter(|o| is_of(o, self.script)) {
            is_own = true;
            added = added.wrapping_sub(output.value.to_sat());
        }
        if is_own {
            return Ok(Row::Adds(added));
        }
        if self.is_shared {
            return Ok(Row::Foreign);
        }
        view.note_collision(self.script)?;
        Ok(Row::FirstForeign)
    }
}
