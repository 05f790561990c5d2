//! The coins that the simulation can spend.

use std::collections::{BTreeMap, HashMap};

use bitcoin::OutPoint;
use pulse_primitives::Height;
use rand::Rng;

use crate::address::AddressId;

/// An unspent output of a wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coin {
    pub(crate) outpoint: OutPoint,
    /// Satoshi.
    pub(crate) value: u64,
    pub(crate) address: AddressId,
}

/// Coins in the order in which they became spendable, with gaps where some were taken.
///
/// # Correctness
/// The state after a block depends on the set of coins that it took and the order of
/// those that it made, but not on the order of taking, so that a chain that is read
/// leads to the same state as one that is generated. Everything is O(1) per coin.
#[derive(Debug, Clone, Default)]
pub(crate) struct CoinPool {
    slots: Vec<Option<Coin>>,
    alive: usize,
    /// Coins that wait for a height: coinbases and relative time locks.
    locked: BTreeMap<Height, Vec<Coin>>,
    /// Where each coin lies; only while a chain is read.
    places: Option<HashMap<OutPoint, usize>>,
}

impl CoinPool {
    /// A pool from which coins can be taken by outpoint.
    pub(crate) fn with_lookup() -> Self {
        Self {
            places: Some(HashMap::new()),
            ..Self::default()
        }
    }

    /// Lets coins be taken by outpoint from now on.
    pub(crate) fn start_lookup(&mut self) {
        self.places = Some(places(&self.slots));
    }

    /// Gives up taking by outpoint, and the memory for it.
    pub(crate) fn drop_lookup(&mut self) {
        self.places = None;
    }

    /// Number of coins that can be spent now.
    pub(crate) fn len(&self) -> usize {
        self.alive
    }

    /// Takes a coin: mostly a recent one, one in four of any age.
    pub(crate) fn take_any(&mut self, rng: &mut impl Rng) -> Option<Coin> {
        if self.alive == 0 {
            return None;
        }
        let mut place = 0;
        for _ in 0..64 {
            place = self.draw_place(rng);
            if self.slots[place].is_some() {
                break;
            }
        }
        while self.slots[place].is_none() {
            place = if place == 0 {
                self.slots.len() - 1
            } else {
                place - 1
            };
        }
        self.take_at(place)
    }

    /// Takes the newest coin if it is worth at least `value`.
    pub(crate) fn take_newest_above(&mut self, value: u64) -> Option<Coin> {
        let place = self.slots.len().checked_sub(1)?;
        self.slots[place].filter(|coin| coin.value >= value)?;
        self.take_at(place)
    }

    /// Takes the coin at `outpoint`, if it is in the pool.
    ///
    /// # Panics
    /// If the pool was made without lookup.
    pub(crate) fn take(&mut self, outpoint: &OutPoint) -> Option<Coin> {
        let places = self.places.as_ref().expect("the pool has a lookup");
        let place = *places.get(outpoint)?;
        self.take_at(place)
    }

    /// Adds the coins that the block at `height` made and left unspent, each with the
    /// first height of a block that may spend it, and closes the block.
    pub(crate) fn close_block(
        &mut self,
        height: Height,
        made: impl Iterator<Item = (Coin, Height)>,
    ) {
        for (coin, spendable_at) in made {
            if spendable_at <= height {
                self.push(coin);
            } else {
                self.locked.entry(spendable_at).or_default().push(coin);
            }
        }
        while let Some(entry) = self.locked.first_entry() {
            if *entry.key() > height + 1 {
                break;
            }
            for coin in entry.remove() {
                self.push(coin);
            }
        }
        if self.slots.len() > 1024 && self.alive * 2 < self.slots.len() {
            self.slots.retain(Option::is_some);
            if let Some(found) = &mut self.places {
                *found = places(&self.slots);
            }
        }
    }

    fn draw_place(&self, rng: &mut impl Rng) -> usize {
        let len = self.slots.len();
        if rng.gen_ratio(1, 4) {
            return rng.gen_range(0..len);
        }
        // The smallest of three draws leans towards the newest.
        let age = (0..3)
            .map(|_| rng.gen_range(0..len))
            .min()
            .unwrap_or_default();
        len - 1 - age
    }

    fn take_at(&mut self, place: usize) -> Option<Coin> {
        let coin = self.slots[place].take()?;
        self.alive -= 1;
        if let Some(places) = &mut self.places {
            places.remove(&coin.outpoint);
        }
        Some(coin)
    }

    fn push(&mut self, coin: Coin) {
        if let Some(places) = &mut self.places {
            places.insert(coin.outpoint, self.slots.len());
        }
        self.slots.push(Some(coin));
        self.alive += 1;
    }
}

/// Where each coin lies.
fn places(slots: &[Option<Coin>]) -> HashMap<OutPoint, usize> {
    slots
        .iter()
        .enumerate()
        .filter_map(|(place, coin)| Some((coin.as_ref()?.outpoint, place)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::{Txid, hashes::Hash};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn coin(n: u32) -> Coin {
        Coin {
            outpoint: OutPoint::new(Txid::all_zeros(), n),
            value: u64::from(n),
            address: n,
        }
    }

    #[test]
    fn coins_wait_for_their_height() {
        let mut pool = CoinPool::default();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        pool.close_block(5, [(coin(1), 5), (coin(2), 8)].into_iter());
        assert_eq!(pool.take_any(&mut rng), Some(coin(1)));
        pool.close_block(6, std::iter::empty());
        assert_eq!(pool.take_any(&mut rng), None);
        pool.close_block(7, std::iter::empty());
        assert_eq!(
            pool.take_any(&mut rng),
            Some(coin(2)),
            "the next block is 8"
        );
    }

    #[test]
    fn order_of_taking_leaves_no_trace() {
        let coins = || (0..5_000).map(|n| (coin(n), 0));
        let mut a = CoinPool::with_lookup();
        let mut b = CoinPool::with_lookup();
        a.close_block(1, coins());
        b.close_block(1, coins());
        for n in 0..3_000 {
            a.take(&coin(n).outpoint).unwrap();
            b.take(&coin(2_999 - n).outpoint).unwrap();
        }
        a.close_block(2, std::iter::empty());
        b.close_block(2, std::iter::empty());
        assert_eq!(a.slots, b.slots);
        assert_eq!(a.slots.len(), 2_000, "gaps were closed");
        assert_eq!(a.take(&coin(4_000).outpoint), Some(coin(4_000)));
    }
}
