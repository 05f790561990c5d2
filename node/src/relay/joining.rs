//! How a node that joins its siblings gets the transactions that they have already.
//!
//! ```text
//! the one that joins     mempool            mempool                     mempool
//! its sibling                   inv (piece)        inv (piece)  ...            inv (empty: the end)
//!                                getdata, tx ...     getdata, tx ...
//! ```
//!
//! `mempool` is the message of BIP 35. The sibling goes through its mempool in the order in
//! which transactions arrived, so that parents come before their children; what arrives while it
//! does is announced anyway. Bodies are asked for and judged like any others.
//!
//! # Security
//! Between nodes of one operator only: to strangers a mempool tells who has heard of what.
//!
//! # Limits
//! A piece has [`PIECE`] transactions of [`PIECE_BYTES`] together, which is less than may wait
//! to be judged, and the next one is asked for when hardly anything of the last one is on its way.
//! [`MAX_PIECES`] pieces, each within [`ANSWER_LIMIT`].

use std::time::{Duration, Instant};

/// Most transactions of a piece.
pub const PIECE: usize = 250;
/// Most bytes of the transactions of a piece, unless it is a single one.
pub const PIECE_BYTES: usize = 1 << 19;
/// Most pieces of one sibling: a million transactions.
pub const MAX_PIECES: u32 = 4_000;
/// For a sibling to answer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Announcements of the sibling on their way with which the next piece is asked for.
const FEW: usize = PIECE / 10;

/// What is asked of one sibling.
#[derive(Debug, Default)]
pub struct Asking {
    /// When the last piece was asked for; `None` when it has come.
    waits_since: Option<Instant>,
    pieces: u32,
    is_over: bool,
}

impl Asking {
    /// Whether to ask now, with so many announcements of the sibling on their way. It then
    /// counts as asked.
    pub fn is_due(&mut self, now: Instant, on_their_way: usize) -> bool {
        if let Some(since) = self.waits_since {
            self.is_over |= now.duration_since(since) >= ANSWER_LIMIT;
        }
        if self.is_over || self.waits_since.is_some() || on_their_way > FEW {
            return false;
        }
        self.waits_since = Some(now);
        self.pieces += 1;
        self.is_over = self.pieces == MAX_PIECES;
        true
    }

    /// The sibling announced so many transactions; none at all is the end.
    pub fn heard(&mut self, count: usize) {
        self.waits_since = None;
        self.is_over |= count == 0;
    }

    /// Whether nothing more will be asked.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }
}

/// How much of the mempool one sibling was told of.
#[derive(Debug, Default)]
pub struct Telling {
    next: u64,
    /// What arrived since it first asked; it heard of that when it arrived.
    end: Option<u64>,
}

impl Telling {
    /// The next piece of `arrivals`, which begin at the given number: each with its number
    /// and its bytes. Empty at the end. The next transaction to arrive gets the number `now`.
    pub fn piece<T, I>(&mut self, now: u64, arrivals: impl FnOnce(u64) -> I) -> Vec<T>
    where
        I: Iterator<Item = (u64, usize, T)>,
    {
        let end = *self.end.get_or_insert(now);
        let (mut piece, mut size) = (Vec::new(), 0_usize);
        for (number, bytes, tx) in arrivals(self.next) {
            size = size.saturating_add(bytes);
            let is_full = piece.len() == PIECE || (size > PIECE_BYTES && !piece.is_empty());
            if number >= end || is_full {
                break;
            }
            self.next = number + 1;
            piece.push(tx);
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Transactions number 1, 3, 5, … of this many bytes.
    fn odd(bytes: usize) -> impl Fn(u64) -> Box<dyn Iterator<Item = (u64, usize, u64)>> {
        move |from| {
            let numbers = (from..1_001).filter(|number| number % 2 == 1);
            Box::new(numbers.map(move |number| (number, bytes, number)))
        }
    }

    #[test]
    fn pieces_follow_each_other_until_what_came_later() {
        let mut telling = Telling::default();
        assert_eq!(telling.piece(701, odd(1)).len(), PIECE);
        let rest = telling.piece(801, odd(1));
        assert_eq!(rest, (501..701).step_by(2).collect::<Vec<_>>());
        for _ in 0..2 {
            assert!(telling.piece(901, odd(1)).is_empty());
        }
    }

    #[test]
    fn a_piece_of_large_transactions_is_short_but_never_empty() {
        let mut telling = Telling::default();
        assert_eq!(telling.piece(1_001, odd(PIECE_BYTES / 3)), [1, 3, 5]);
        assert_eq!(telling.piece(1_001, odd(2 * PIECE_BYTES)), [7]);
    }

    #[test]
    fn the_next_piece_is_asked_for_when_the_last_one_is_nearly_here() {
        let (mut asking, now) = (Asking::default(), Instant::now());
        assert!(!asking.is_due(now, FEW + 1));
        assert!(asking.is_due(now, 0));
        assert!(!asking.is_due(now, 0), "it waits for the answer");
        asking.heard(PIECE);
        assert!(!asking.is_due(now, PIECE));
        assert!(asking.is_due(now, FEW));
        asking.heard(0);
        assert!(asking.is_over());
        assert!(!asking.is_due(now, 0));
    }

    #[test]
    fn neither_silence_nor_endless_pieces_keep_it_asking() {
        let (mut silent, mut now) = (Asking::default(), Instant::now());
        assert!(silent.is_due(now, 0));
        now += ANSWER_LIMIT;
        assert!(!silent.is_due(now, 0));
        assert!(silent.is_over());
        let mut endless = Asking::default();
        let mut pieces = 0;
        while endless.is_due(now, 0) {
            endless.heard(PIECE);
            pieces += 1;
        }
        assert_eq!(pieces, MAX_PIECES);
    }
}
