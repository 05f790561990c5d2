//! Snapshots among siblings: kept on a [`shelf`], [served](serve) chunk by chunk, and
//! [fetched](fetch) from several siblings at the same time.
//!
//! ```text
//! folder of snapshots -> shelf -> offers, manifests, chunks   over streams of PROTOCOL
//! offers -> manifest (hash signed by whoever offers it) -> chunks (hash in the manifest)
//!   -> pulse_snapshot::Staging
//! ```
//!
//! # Security
//! A sibling signs the hash of the manifest that it offers with the key of its identity, so
//! that it can be told afterwards who has vouched for what. The hashes prove that what came
//! is what was offered, not that it is true: headers have proof of work, but the state of
//! the chain is the sibling's word until it has been computed anew. That is judged where
//! the snapshot is put to use.
//!
//! # Limits
//! Serving: so many streams per sibling and in all ([`serve`]), a rate in bytes for all
//! together, a piece of a chunk in memory per stream. Fetching: streams and siblings at a
//! time ([`fetch`]), two chunks in memory per stream; sizes are known before a byte is read.

mod fetch;
mod rate;
mod serve;
mod shelf;
#[cfg(test)]
mod tests;
pub mod wire;

use libp2p::{
    PeerId, StreamProtocol,
    identity::{Keypair, PublicKey, SigningError},
};
use pulse_snapshot::ChunkHash;

pub use fetch::{FetchError, Offer, SnapshotClient};
pub(crate) use serve::Server;
pub use serve::{MAX_STREAMS, MAX_STREAMS_PER_SIBLING};

/// Snapshots, over a stream of its own. The number is the major version of
/// [`crate::hello::VERSION`].
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/pulse/snapshot/1");

/// What is signed begins with this, so that it is no signature of anything else.
const DOMAIN: &[u8] = b"pulse-node snapshot manifest 1\0";

fn signed_text(network: &[u8; 32], manifest: ChunkHash) -> Vec<u8> {
    [DOMAIN, network, &manifest.to_bytes()].concat()
}

/// Vouches for a manifest on a network that its genesis block names.
fn sign(key: &Keypair, network: &[u8; 32], manifest: ChunkHash) -> Result<Vec<u8>, SigningError> {
    key.sign(&signed_text(network, manifest))
}

/// Whether `peer` has vouched for a manifest. An Ed25519 key is spelled out in its peer id.
fn has_signed(peer: &PeerId, network: &[u8; 32], manifest: ChunkHash, signature: &[u8]) -> bool {
    PublicKey::try_decode_protobuf(peer.as_ref().digest())
        .is_ok_and(|key| key.verify(&signed_text(network, manifest), signature))
}
