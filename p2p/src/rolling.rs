//! A set that forgets its oldest members.

use std::{collections::HashSet, hash::Hash, mem};

/// Remembers at least the last `size` different values that were put in, and at most
/// twice as many: two generations, the older of which goes when the newer is full.
#[derive(Debug, Clone)]
pub struct RollingSet<T> {
    size: usize,
    newer: HashSet<T>,
    older: HashSet<T>,
}

impl<T: Hash + Eq> RollingSet<T> {
    /// An empty set that will remember the last `size` values.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self {
            size,
            newer: HashSet::new(),
            older: HashSet::new(),
        }
    }

    /// Whether `value` is remembered.
    #[must_use]
    pub fn contains(&self, value: &T) -> bool {
        self.newer.contains(value) || self.older.contains(value)
    }

    /// Puts `value` in; true if it was not remembered.
    pub fn insert(&mut self, value: T) -> bool {
        let is_unknown = !self.contains(&value);
        self.newer.insert(value);
        if self.newer.len() >= self.size {
            self.older = mem::take(&mut self.newer);
        }
        is_unknown
    }

    /// Takes `value` out; true if it was remembered.
    pub fn remove(&mut self, value: &T) -> bool {
        let was_newer = self.newer.remove(value);
        self.older.remove(value) || was_newer
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.newer.clear();
        self.older.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_values_are_remembered_and_never_more_than_twice_as_many() {
        let mut set = RollingSet::new(10);
        for value in 0..1000 {
            assert!(set.insert(value));
            for recent in (0..=value).rev().take(10) {
                assert!(set.contains(&recent), "{recent} of {value}");
            }
            let remembered = (0..=value).filter(|value| set.contains(value)).count();
            assert!(remembered <= 20, "{remembered}");
        }
    }

    #[test]
    fn a_value_put_in_again_is_remembered_anew() {
        let mut set = RollingSet::new(3);
        set.insert(0);
        for value in 1..100 {
            set.insert(value);
            assert!(!set.insert(0));
        }
        assert!(set.remove(&0));
        assert!(!set.contains(&0));
        set.clear();
        assert!(!set.contains(&99));
    }
}
