//! Peers to return to after a restart.
//!
//! An attacker who has filled the address manager waits for a restart, to be the only
//! one who is dialled. So the peers of the connections that relay blocks only, of
//! which nobody is told, are saved at a clean stop and dialled first at the next
//! start.
//!
//! # Correctness
//! They are deleted when they are loaded: if one of them makes the node crash, the
//! next start is without it.

use pulse_primitives::{
    bitcoin::p2p::address::AddrV2,
    ports::{PeerStore, StoreKey},
};

use crate::{
    netaddr::{NetAddr, NetAddress},
    saved::{self, Kind, SavedError},
};

/// Anchors at most, as Bitcoin Core has it: one for each connection that relays blocks
/// only.
pub const MAX_ANCHORS: usize = 2;

const KIND: Kind = Kind {
    name: *b"panc",
    version: 1,
    max_len: 256,
};
const ANCHOR: &str = "an anchor";

/// Saves the first [`MAX_ANCHORS`] of `peers`.
pub fn save(store: &dyn PeerStore, peers: &[NetAddress]) {
    store.save(StoreKey::Anchors, &encode(peers));
}

/// Loads the anchors and deletes them in the store. None if there are none.
///
/// # Errors
/// [`SavedError`] if what was saved is damaged; it is deleted all the same.
pub fn take(store: &dyn PeerStore) -> Result<Vec<NetAddress>, SavedError> {
    let saved = store.load(StoreKey::Anchors);
    store.remove(StoreKey::Anchors);
    saved.map_or(Ok(Vec::new()), |bytes| decode(&bytes))
}

/// As bytes: `count: u8 | each: address as in addrv2 (BIP 155) | port: u16`.
#[must_use]
pub fn encode(peers: &[NetAddress]) -> Vec<u8> {
    let peers = &peers[..peers.len().min(MAX_ANCHORS)];
    let mut bytes = Vec::new();
    let count = u8::try_from(peers.len()).expect("at most MAX_ANCHORS");
    saved::put(&mut bytes, &count);
    for peer in peers {
        saved::put(&mut bytes, &peer.addr.to_addr_v2());
        saved::put(&mut bytes, &peer.port);
    }
    KIND.seal(&bytes)
}

/// From the bytes of [`encode`].
///
/// # Errors
/// [`SavedError`] if anything is wrong with them.
pub fn decode(bytes: &[u8]) -> Result<Vec<NetAddress>, SavedError> {
    let malformed = SavedError::Malformed { what: ANCHOR };
    let mut bytes = KIND.open(bytes)?;
    let bytes = &mut bytes;
    let count: u8 = saved::take(bytes, ANCHOR)?;
    if usize::from(count) > MAX_ANCHORS {
        return Err(malformed);
    }
    let mut peers = Vec::new();
    for _ in 0..count {
        let addr: AddrV2 = saved::take(bytes, ANCHOR)?;
        let addr = NetAddr::from_addr_v2(&addr).ok_or(malformed.clone())?;
        let port = saved::take(bytes, ANCHOR)?;
        peers.push(NetAddress { addr, port });
    }
    saved::finish(bytes, ANCHOR)?;
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Mutex};

    use super::*;

    #[derive(Default)]
    struct MemStore(Mutex<HashMap<StoreKey, Vec<u8>>>);

    impl PeerStore for MemStore {
        fn load(&self, key: StoreKey) -> Option<Vec<u8>> {
            self.0.lock().unwrap().get(&key).cloned()
        }

        fn save(&self, key: StoreKey, bytes: &[u8]) {
            self.0.lock().unwrap().insert(key, bytes.to_vec());
        }

        fn remove(&self, key: StoreKey) {
            self.0.lock().unwrap().remove(&key);
        }
    }

    fn peers() -> Vec<NetAddress> {
        let texts = [
            "1.2.3.4:8333",
            "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333",
            "[2a00::1]:9",
        ];
        texts.map(|text| text.parse().unwrap()).to_vec()
    }

    #[test]
    fn two_anchors_are_saved_and_gone_once_loaded() {
        let store = MemStore::default();
        assert_eq!(take(&store), Ok(Vec::new()));
        save(&store, &peers());
        assert_eq!(take(&store), Ok(peers()[..2].to_vec()));
        assert_eq!(take(&store), Ok(Vec::new()));
    }

    #[test]
    fn damaged_anchors_are_an_error_once() {
        let store = MemStore::default();
        let mut bytes = encode(&peers());
        bytes[6] ^= 1;
        store.save(StoreKey::Anchors, &bytes);
        assert_eq!(take(&store), Err(SavedError::Checksum));
        assert_eq!(take(&store), Ok(Vec::new()));
    }

    #[test]
    fn too_many_anchors_are_refused() {
        let bytes = KIND.seal(&[3]);
        assert_eq!(decode(&bytes), Err(SavedError::Malformed { what: ANCHOR }));
    }
}
