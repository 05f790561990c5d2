//! Errors of the index for the operator: each is counted, and each place is told of once,
//! however often clients come across it.
//!
//! # Limits
//! [`MAX_TOLD`] places for the life of the process; further ones are only counted.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use rocksdb::ErrorKind;

use super::{Family, StoreError};
use crate::metrics;

/// Places that the log tells of.
const MAX_TOLD: usize = 64;

/// What was told of. One for the process, as the log and the metrics are.
static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// RocksDB refused a read or a write. Its text names the file and the place in it.
pub(super) fn refused(err: &rocksdb::Error) {
    let kind = match err.kind() {
        ErrorKind::Corruption => "damaged",
        ErrorKind::IOError => "io",
        _ => "other",
    };
    metrics::store_error(kind);
    if kind != "other" {
        tell(err.to_string());
    }
}

/// A row does not decode, or contradicts another.
pub(crate) fn row(family: Family, what: &'static str) -> StoreError {
    let err = StoreError::Damaged {
        family: family.name(),
        what,
    };
    metrics::store_error("row");
    tell(format!("row of column family {}: {what}", family.name()));
    err
}

fn tell(err: String) {
    if is_news(&mut TOLD.lock(), &err) {
        tracing::error!(
            err,
            "the index is damaged and does not answer from that place. Stop the node and run `pulse-node reindex`, which builds it anew from the blocks on disk"
        );
    }
}

fn is_news(told: &mut BTreeSet<String>, err: &str) -> bool {
    told.len() < MAX_TOLD && told.insert(err.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_of_once_and_not_too_many_places() {
        let mut told = BTreeSet::new();
        assert!(is_news(&mut told, "a"));
        assert!(!is_news(&mut told, "a"));
        let news = (0..1000).filter(|n| is_news(&mut told, &n.to_string()));
        assert_eq!(news.count(), MAX_TOLD - 1);
    }
}
