//! Places in the chain that a client can go on from.
//!
//! # Correctness
//! A cursor names a transaction by the height of its block and its position there, and the
//! block by a part of its hash. While that block is in the chain, so is everything below it,
//! and the cursor means the same place, whatever blocks have come on top. Once the block is
//! gone, the cursor means nothing: what stood before it may be gone, too.

use std::ops::Range;

pub use pulse_primitives::page::{Cursor, Heights};
use pulse_primitives::{Height, bitcoin::hashes::Hash};

use super::{QueryError, View};
use crate::rows::TxNum;

impl View<'_> {
    /// Numbers of the transactions of these blocks, `None` if there is none. The end is
    /// `TxNum::MAX` if no block follows.
    pub(super) fn txnums(&self, heights: Heights) -> Result<Option<Range<TxNum>>, QueryError> {
        if heights.to.is_some_and(|to| to < heights.from) {
            return Ok(None);
        }
        let Some(first) = self.reader.block(heights.from)? else {
            return Ok(None);
        };
        let end = match heights.to {
            Some(to) => self.first_txnum_behind(to)?,
            None => TxNum::MAX,
        };
        Ok(Some(first.first_txnum..end))
    }

    /// Number of the first transaction above `height`; `TxNum::MAX` if there is none.
    pub(super) fn first_txnum_behind(&self, height: Height) -> Result<TxNum, QueryError> {
        let above = match height.checked_add(1) {
            Some(above) => self.reader.block(above)?,
            None => None,
        };
        Ok(above.map_or(TxNum::MAX, |row| row.first_txnum))
    }

    /// The place of an output of a transaction of this view.
    pub(super) fn cursor_of(&self, txnum: TxNum, vout: u32) -> Result<Cursor, QueryError> {
        let height = self.tx_pos(&self.reader.tx_positions(), txnum)?.height;
        let row = self.row(height)?;
        Ok(Cursor {
            height,
            check: check(&row.hash()),
            index: txnum.saturating_sub(row.first_txnum),
            vout,
        })
    }

    /// The transaction at a place, `None` if its block is not in this view.
    pub(super) fn at_cursor(&self, cursor: &Cursor) -> Result<Option<TxNum>, QueryError> {
        let row = self.reader.block(cursor.height)?;
        let row = row.filter(|row| check(&row.hash()) == cursor.check);
        let row = row.filter(|row| cursor.index < row.tx_count);
        Ok(row.map(|row| row.first_txnum + cursor.index))
    }
}

/// The part of a hash that differs even between blocks with much work.
fn check(hash: &pulse_primitives::bitcoin::BlockHash) -> [u8; 8] {
    let mut check = [0; 8];
    check.copy_from_slice(&hash.as_byte_array()[..8]);
    check
}
