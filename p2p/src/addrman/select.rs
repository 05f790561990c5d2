//! Which addresses are dialled, and which are told to others.

use rand::{Rng, seq::SliceRandom};

use super::{
    AddrMan, BUCKET_SIZE,
    entry::{AddrRecord, Entry},
    key::Table,
};
use crate::netaddr::NetKind;

/// What to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Select<'a> {
    /// Only addresses that were never reached, for feelers.
    pub new_only: bool,
    /// Only addresses of these networks; all if it is empty.
    pub networks: &'a [NetKind],
}

/// A choice of [`AddrMan::select`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selected {
    /// The address.
    pub record: AddrRecord,
    /// When it was dialled last, in seconds since 1970; 0 for not in this run.
    pub last_try: u64,
}

impl AddrMan {
    /// An address to dial: from tried and from new with the same chance, from each of
    /// the buckets with the same chance, and rather one that was not dialled just now
    /// and has not failed. `None` if there is none of the kind.
    ///
    /// Whether it suits (group, services, last dial) is for the caller to see, and to
    /// ask again.
    #[must_use]
    pub fn select(&self, from: Select<'_>, now: u64, rng: &mut impl Rng) -> Option<Selected> {
        let count = |table| {
            let networks = NetKind::ALL.into_iter();
            let wanted = networks.filter(|network| from.wants(*network));
            wanted
                .map(|network| self.count(table, network))
                .sum::<usize>()
        };
        let new = count(Table::New);
        let tried = if from.new_only {
            0
        } else {
            count(Table::Tried)
        };
        let table = match (new, tried) {
            (0, 0) => return None,
            (_, 0) => Table::New,
            (0, _) => Table::Tried,
            _ if rng.r#gen() => Table::Tried,
            _ => Table::New,
        };
        let buckets = self.tables.buckets(table);
        // Grows, so that the search ends where all addresses are bad.
        let mut factor = 1.0;
        loop {
            let bucket = &buckets[rng.gen_range(0..buckets.len())];
            let start = rng.gen_range(0..BUCKET_SIZE);
            let mut entries = (0..BUCKET_SIZE)
                .filter_map(|step| bucket[(start + step) % BUCKET_SIZE])
                .map(|id| self.tables.entry(id));
            let Some(entry) = entries.find(|entry| from.takes(entry)) else {
                continue;
            };
            if rng.r#gen::<f64>() < factor * entry.chance(now) {
                return Some(entry.selected());
            }
            factor *= 1.2;
        }
    }

    /// Random addresses to tell others: at most `max`, and at most `max_percent` of
    /// all. Those not worth dialling are left out. With a `network`, only what is
    /// reached through it.
    #[must_use]
    pub fn get_addr(
        &self,
        max: usize,
        max_percent: usize,
        network: Option<NetKind>,
        now: u64,
        rng: &mut impl Rng,
    ) -> Vec<AddrRecord> {
        let max = max.min(self.tables.len() * max_percent.min(100) / 100);
        let mut entries: Vec<&Entry> = self.tables.iter().map(|(_, entry)| entry).collect();
        entries.shuffle(rng);
        entries
            .into_iter()
            .filter(|entry| network.is_none() || entry.record.address.addr.net_class() == network)
            .filter(|entry| !entry.is_terrible(now))
            .take(max)
            .map(|entry| entry.record)
            .collect()
    }
}

impl Select<'_> {
    fn wants(&self, network: NetKind) -> bool {
        self.networks.is_empty() || self.networks.contains(&network)
    }

    fn takes(&self, entry: &Entry) -> bool {
        self.wants(entry.record.address.addr.kind())
    }
}
