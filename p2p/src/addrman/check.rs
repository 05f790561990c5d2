//! That the tables are as they must be.

use std::collections::HashMap;

use super::{
    AddrMan, NEW_PLACES_PER_ADDRESS,
    key::{Place, Table},
    tables::{EntryId, Tables},
};
use crate::netaddr::NetKind;

impl AddrMan {
    /// Whether all invariants hold; if not, which one does not. Takes time: for loaded
    /// data, and for tests.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        check(&self.tables)
    }
}

fn check(tables: &Tables) -> Result<(), &'static str> {
    let ensure = |holds: bool, what| if holds { Ok(()) } else { Err(what) };
    let new = places(tables, Table::New);
    let tried = places(tables, Table::Tried);
    let mut counts: HashMap<(Table, NetKind), usize> = HashMap::new();
    let mut len = 0;
    for (id, entry) in tables.iter() {
        len += 1;
        let address = &entry.record.address;
        let new = new.get(&id).map_or(&[][..], Vec::as_slice);
        let tried = tried.get(&id).map_or(&[][..], Vec::as_slice);
        ensure(tables.find(address) == Some(id), "an address is not found")?;
        ensure(
            usize::from(entry.places) == new.len(),
            "places in new are miscounted",
        )?;
        let table = if entry.in_tried {
            ensure(entry.last_success != 0, "in tried without a success")?;
            ensure(new.is_empty(), "in both tables")?;
            ensure(
                tried == [tables.tried_place(address)],
                "not in its place in tried",
            )?;
            Table::Tried
        } else {
            ensure(tried.is_empty(), "in tried unawares")?;
            ensure(
                (1..=usize::from(NEW_PLACES_PER_ADDRESS)).contains(&new.len()),
                "too few or many places in new",
            )?;
            let is_right =
                |place: &Place| tables.key.place(Table::New, place.bucket, address) == *place;
            ensure(new.iter().all(is_right), "in a wrong place in new")?;
            Table::New
        };
        *counts.entry((table, address.addr.kind())).or_default() += 1;
    }
    ensure(tables.len() == len, "an address leads nowhere")?;
    for network in NetKind::ALL {
        for table in [Table::New, Table::Tried] {
            let count = counts.get(&(table, network)).copied().unwrap_or(0);
            ensure(
                tables.count(table, network) == count,
                "a network is miscounted",
            )?;
        }
    }
    Ok(())
}

/// Places of each entry. Panics in [`Tables::entry`] are out of the question here: ids
/// are only compared.
fn places(tables: &Tables, table: Table) -> HashMap<EntryId, Vec<Place>> {
    let mut places: HashMap<EntryId, Vec<Place>> = HashMap::new();
    for (bucket, slots) in tables.buckets(table).iter().enumerate() {
        for (slot, id) in slots.iter().enumerate() {
            if let Some(id) = id {
                places.entry(*id).or_default().push(Place {
                    table,
                    bucket,
                    slot,
                });
            }
        }
    }
    places
}
