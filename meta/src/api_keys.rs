//! API keys in sled: [`ApiKeyStore`] for [`MetaStore`].
//!
//! ```text
//! tree "api_keys"
//! <id>   what is kept of the key, as JSON
//! key:   pulse_ <id, 8 hex digits> _ <24 random bytes as hex>
//! ```
//!
//! # Security
//! A key is kept as its SHA-256 alone. That is enough, since a key is 192 random bits and no
//! word that anybody thought of. All of them are in memory too, so that a request costs no
//! look at the disk.

use std::collections::HashMap;

use parking_lot::RwLock;
use pulse_primitives::{
    api_keys::{ApiKey, ApiKeyError, ApiKeyStore, MAX_API_KEYS, MAX_KEY_NAME_LEN, NewApiKey},
    bitcoin::hashes::{Hash, sha256},
};
use rand::{RngCore, rngs::OsRng};
use sled::{Batch, Tree};

use crate::{MetaError, MetaStore};

pub(crate) const TREE: &[u8] = b"api_keys";
const PREFIX: &str = "pulse_";
const ID_LEN: usize = 8;
const SECRET_BYTES: usize = 24;

/// The tree and what it holds.
#[derive(Debug)]
pub(crate) struct Keys {
    tree: Tree,
    by_id: RwLock<HashMap<String, ApiKey>>,
}

impl Keys {
    /// Reads every key. `None` if one does not read.
    pub(crate) fn read(tree: Tree) -> Result<Option<Self>, sled::Error> {
        let mut by_id = HashMap::new();
        for row in &tree {
            let (_, value) = row?;
            let Ok(key) = serde_json::from_slice::<ApiKey>(&value) else {
                return Ok(None);
            };
            by_id.insert(key.id.clone(), key);
        }
        Ok(Some(Self {
            tree,
            by_id: RwLock::new(by_id),
        }))
    }
}

fn digest(key: &str) -> String {
    hex::encode(sha256::Hash::hash(key.as_bytes()).to_byte_array())
}

fn check(key: &ApiKey) -> Result<(), ApiKeyError> {
    let wrong = |what| Err(ApiKeyError::Invalid { what });
    let is_hex = |text: &str, len| {
        text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    if key.name.is_empty() || key.name.len() > MAX_KEY_NAME_LEN {
        return wrong("the name must have 1 to 100 bytes");
    }
    if key.requests_per_second == Some(0) {
        return wrong("requests_per_second must not be 0");
    }
    if !is_hex(&key.id, ID_LEN) || !is_hex(&key.sha256, 64) {
        return wrong("id or sha256 is not what was exported");
    }
    Ok(())
}

fn store_error(err: MetaError) -> ApiKeyError {
    ApiKeyError::Store(Box::new(err))
}

impl ApiKeyStore for MetaStore {
    fn find_key(&self, key: &str) -> Option<ApiKey> {
        let id = key.strip_prefix(PREFIX)?.get(..ID_LEN)?;
        let found = self.keys.by_id.read().get(id).cloned()?;
        (found.sha256 == digest(key)).then_some(found)
    }

    fn api_keys(&self) -> Vec<ApiKey> {
        let mut keys: Vec<_> = self.keys.by_id.read().values().cloned().collect();
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        keys
    }

    fn create_key(
        &self,
        name: &str,
        requests_per_second: Option<u32>,
        now: u64,
    ) -> Result<NewApiKey, ApiKeyError> {
        let mut random = [0; ID_LEN / 2 + SECRET_BYTES];
        let (id, key) = loop {
            OsRng.fill_bytes(&mut random);
            let (id, secret) = random.split_at(ID_LEN / 2);
            let id = hex::encode(id);
            if !self.keys.by_id.read().contains_key(&id) {
                let key = format!("{PREFIX}{id}_{}", hex::encode(secret));
                break (id, key);
            }
        };
        let kept = ApiKey {
            id,
            name: name.to_owned(),
            created: now,
            requests_per_second,
            sha256: digest(&key),
        };
        self.import_keys(std::slice::from_ref(&kept))?;
        Ok(NewApiKey { kept, key })
    }

    fn revoke_key(&self, id: &str) -> Result<bool, ApiKeyError> {
        let mut by_id = self.keys.by_id.write();
        if !by_id.contains_key(id) {
            return Ok(false);
        }
        let removed = self.guarded(|| {
            self.keys.tree.remove(id)?;
            self.keys.tree.flush()
        });
        removed.map_err(store_error)?;
        by_id.remove(id);
        Ok(true)
    }

    fn import_keys(&self, keys: &[ApiKey]) -> Result<(), ApiKeyError> {
        keys.iter().try_for_each(check)?;
        let mut by_id = self.keys.by_id.write();
        let mut merged = by_id.clone();
        let mut batch = Batch::default();
        for key in keys {
            let value = serde_json::to_vec(key).expect("a key has string keys and no I/O");
            batch.insert(key.id.as_bytes(), value);
            merged.insert(key.id.clone(), key.clone());
        }
        if merged.len() > MAX_API_KEYS {
            return Err(ApiKeyError::TooMany);
        }
        let written = self.guarded(|| {
            self.keys.tree.apply_batch(batch)?;
            self.keys.tree.flush()
        });
        written.map_err(store_error)?;
        *by_id = merged;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_itself_alone_and_kept_hashed() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = MetaStore::open(dir.path()).unwrap();
        let made = store.create_key("shop", Some(7), 1_700_000_000).unwrap();
        let other = store.create_key("other", None, 1_700_000_001).unwrap();
        assert_eq!(store.find_key(&made.key), Some(made.kept.clone()));
        let half = &made.key[..made.key.len() - 1];
        let mixed = format!("{}{}", &made.key[..14], &other.key[14..]);
        for wrong in [
            "",
            "pulse_",
            "pulse_é0000000",
            half,
            &format!("{half}x"),
            &mixed,
        ] {
            assert_eq!(store.find_key(wrong), None, "{wrong}");
        }
        let kept = serde_json::to_string(&store.api_keys()).unwrap();
        assert!(!kept.contains(&made.key[15..]), "{kept}");
        drop(store);

        let (store, _) = MetaStore::open(dir.path()).unwrap();
        assert_eq!(store.find_key(&made.key), Some(made.kept.clone()));
        assert!(store.revoke_key(&made.kept.id).unwrap());
        assert!(!store.revoke_key(&made.kept.id).unwrap());
        assert_eq!(store.find_key(&made.key), None);
        // What was exported brings it back, elsewhere too.
        store.import_keys(std::slice::from_ref(&made.kept)).unwrap();
        assert_eq!(store.find_key(&made.key), Some(made.kept));
        drop(store);
        let (store, _) = MetaStore::open(dir.path()).unwrap();
        assert_eq!(store.api_keys().len(), 2);
    }

    #[test]
    fn keys_are_checked_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = MetaStore::open(dir.path()).unwrap();
        assert!(store.create_key("", None, 0).is_err());
        assert!(store.create_key(&"x".repeat(101), None, 0).is_err());
        assert!(store.create_key("x", Some(0), 0).is_err());
        let key = |n: usize| ApiKey {
            id: format!("{n:08x}"),
            name: "x".to_owned(),
            created: 0,
            requests_per_second: None,
            sha256: "0".repeat(64),
        };
        let many: Vec<_> = (0..MAX_API_KEYS).map(key).collect();
        store.import_keys(&many).unwrap();
        let more = store.import_keys(&[key(MAX_API_KEYS)]);
        assert!(matches!(more, Err(ApiKeyError::TooMany)));
        let wrong = ApiKey {
            id: "zz".to_owned(),
            ..key(1)
        };
        assert!(store.import_keys(&[wrong]).is_err());
        assert_eq!(store.api_keys().len(), MAX_API_KEYS);
    }
}
