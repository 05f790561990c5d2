//! Labels in sled: [`LabelStore`] for [`MetaStore`].
//!
//! ```text
//! tree "labels"
//! <kind> 0 <reference>   the label as JSON
//! ```
//!
//! # Correctness
//! What is set together is written in one batch. A row that does not read is damage, found
//! when the database is opened, which then is moved aside as a whole: labels are lost with it
//! unless they were exported.

use pulse_primitives::labels::{Label, LabelError, LabelKind, LabelStore, MAX_LABELS};
use sled::{Batch, Tree};

use crate::{MetaError, MetaStore};

pub(crate) const TREE: &[u8] = b"labels";

/// The tree, and how many labels it has.
#[derive(Debug)]
pub(crate) struct Labels {
    tree: Tree,
    count: parking_lot::Mutex<usize>,
}

impl Labels {
    /// Reads every label. `None` if one does not read.
    pub(crate) fn read(tree: Tree) -> Result<Option<Self>, sled::Error> {
        let mut count = 0;
        for row in &tree {
            let (_, value) = row?;
            if decode(&value).is_none() {
                return Ok(None);
            }
            count += 1;
        }
        Ok(Some(Self {
            tree,
            count: parking_lot::Mutex::new(count),
        }))
    }
}

fn key(kind: LabelKind, reference: &str) -> Vec<u8> {
    [kind.name().as_bytes(), &[0], reference.as_bytes()].concat()
}

fn decode(value: &[u8]) -> Option<Label> {
    serde_json::from_slice(value).ok()
}

fn store_error(err: MetaError) -> LabelError {
    LabelError::Store(Box::new(err))
}

impl LabelStore for MetaStore {
    fn label(&self, kind: LabelKind, reference: &str) -> Result<Option<Label>, LabelError> {
        let row = self.guarded(|| self.labels.tree.get(key(kind, reference)));
        Ok(row.map_err(store_error)?.and_then(|value| decode(&value)))
    }

    fn set_labels(&self, labels: &[Label]) -> Result<(), LabelError> {
        labels.iter().try_for_each(Label::check)?;
        let mut count = self.labels.count.lock();
        let mut batch = Batch::default();
        let mut added = std::collections::HashSet::new();
        let tree = &self.labels.tree;
        for label in labels {
            let key = key(label.kind, &label.reference);
            let is_there = self.guarded(|| tree.contains_key(&key));
            if !is_there.map_err(store_error)? {
                added.insert(key.clone());
            }
            let value = serde_json::to_vec(label).expect("a label has string keys and no I/O");
            batch.insert(key, value);
        }
        if *count + added.len() > MAX_LABELS {
            return Err(LabelError::TooMany);
        }
        let written = self.guarded(|| {
            tree.apply_batch(batch)?;
            tree.flush()
        });
        written.map_err(store_error)?;
        *count += added.len();
        Ok(())
    }

    fn remove_label(&self, kind: LabelKind, reference: &str) -> Result<bool, LabelError> {
        let mut count = self.labels.count.lock();
        let tree = &self.labels.tree;
        let removed = self.guarded(|| {
            let removed = tree.remove(key(kind, reference))?;
            tree.flush()?;
            Ok(removed.is_some())
        });
        let removed = removed.map_err(store_error)?;
        *count -= usize::from(removed);
        Ok(removed)
    }

    fn labels(
        &self,
        after: Option<(LabelKind, &str)>,
        limit: usize,
    ) -> Result<Vec<Label>, LabelError> {
        let tree = &self.labels.tree;
        let from = match after {
            None => Vec::new(),
            // The least key behind it.
            Some((kind, reference)) => [key(kind, reference), vec![0]].concat(),
        };
        let rows = self.guarded(|| {
            let rows = tree.range(from..).take(limit);
            rows.map(|row| Ok(decode(&row?.1)))
                .collect::<Result<Vec<_>, _>>()
        });
        Ok(rows.map_err(store_error)?.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(kind: LabelKind, reference: &str, label: &str) -> Label {
        Label {
            kind,
            reference: reference.to_owned(),
            label: label.to_owned(),
            origin: None,
            spendable: None,
        }
    }

    #[test]
    fn labels_are_kept_in_order_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = MetaStore::open(dir.path()).unwrap();
        let xpub = |name: &str| label(LabelKind::Xpub, name, name);
        let all = [
            label(LabelKind::Tx, &"ab".repeat(32), "rent"),
            xpub("a"),
            xpub("aa"),
            xpub("b"),
        ];
        store.set_labels(&all).unwrap();
        assert_eq!(store.labels(None, 10).unwrap(), all);
        assert_eq!(store.labels(None, 2).unwrap(), all[..2]);
        let after = Some((LabelKind::Xpub, "a"));
        assert_eq!(store.labels(after, 10).unwrap(), all[2..]);
        let renamed = label(LabelKind::Xpub, "a", "new");
        store.set_labels(std::slice::from_ref(&renamed)).unwrap();
        assert!(store.remove_label(LabelKind::Xpub, "b").unwrap());
        assert!(!store.remove_label(LabelKind::Xpub, "b").unwrap());
        drop(store);

        let (store, _) = MetaStore::open(dir.path()).unwrap();
        let wanted = [all[0].clone(), renamed.clone(), all[2].clone()];
        assert_eq!(store.labels(None, 10).unwrap(), wanted);
        assert_eq!(store.label(LabelKind::Xpub, "a").unwrap(), Some(renamed));
        assert_eq!(store.label(LabelKind::Xpub, "b").unwrap(), None);
        assert_eq!(*store.labels.count.lock(), 3);
    }

    #[test]
    fn labels_are_set_all_or_none_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = MetaStore::open(dir.path()).unwrap();
        let good = label(LabelKind::Xpub, "a", "x");
        let wrong = label(LabelKind::Tx, "a", "x");
        assert!(store.set_labels(&[good.clone(), wrong]).is_err());
        assert_eq!(store.labels(None, 10).unwrap(), []);
        *store.labels.count.lock() = MAX_LABELS - 1;
        // The same twice is one.
        store.set_labels(&[good.clone(), good.clone()]).unwrap();
        let other = label(LabelKind::Xpub, "b", "x");
        let refused = store.set_labels(&[other]);
        assert!(matches!(refused, Err(LabelError::TooMany)));
        store.set_labels(&[good]).unwrap();
    }
}
