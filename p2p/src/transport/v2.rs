//! Handshake of the encrypted transport (BIP 324).
//!
//! ```text
//! initiator   key 64 | garbage ...............> terminator 16 | version packet
//! responder   key 64 | garbage | terminator 16 | version packet
//! ```
//!
//! # Security
//! Garbage is bounded by BIP 324, decoys before the version packet by what they weigh
//! together. The caller limits the time.

use bip324::{
    GarbageResult, Handshake, InboundCipher, Initialized, NUM_LENGTH_BYTES, OutboundCipher,
    ReceivedKey, Role, VersionResult,
};
use rand::{Rng, RngCore};

use super::{TransportError, V1_COMMAND, reader::Source, writer::Sink};

/// Most garbage before its terminator, in bytes (BIP 324).
const MAX_GARBAGE: usize = 4095;
/// Length of the terminator of garbage, in bytes.
const TERMINATOR_LEN: usize = 16;
/// Most bytes of decoys and of the version packet together.
const MAX_BEFORE_VERSION: usize = 1 << 20;

/// Shakes hands. `answered` is set when the peer has sent its key.
pub(super) async fn shake(
    role: Role,
    magic: [u8; 4],
    source: &mut Source,
    sink: &mut Sink,
    answered: &mut bool,
) -> Result<(InboundCipher, OutboundCipher), TransportError> {
    let garbage = random_garbage();
    let handshake = Handshake::<Initialized>::new(magic, role).map_err(cipher)?;
    let mut ours = vec![0; Handshake::<Initialized>::send_key_len(Some(&garbage))];
    let handshake = handshake
        .send_key(Some(&garbage), &mut ours)
        .map_err(cipher)?;
    sink.write(&ours).await?;

    let key = source.array::<64>().await?;
    refuse_v1(role, magic, &key)?;
    *answered = true;
    let handshake = handshake.receive_key(key).map_err(cipher)?;
    let mut ours = vec![0; Handshake::<ReceivedKey>::send_version_len(None)];
    let mut handshake = handshake.send_version(&mut ours, None).map_err(cipher)?;
    sink.write(&ours).await?;

    // The terminator, wherever it is.
    source.fill(TERMINATOR_LEN).await?;
    let mut garbage = source.take(source.buffered().len());
    let mut handshake = loop {
        match handshake.receive_garbage(&garbage) {
            Ok(GarbageResult::FoundGarbage {
                handshake,
                consumed_bytes,
            }) => {
                source.put_back(&garbage[consumed_bytes..]);
                break handshake;
            }
            Ok(GarbageResult::NeedMoreData(same)) => {
                handshake = same;
                source
                    .read_up_to(MAX_GARBAGE + TERMINATOR_LEN - garbage.len())
                    .await?;
                garbage.extend(source.take(source.buffered().len()));
            }
            Err(_) => return Err(TransportError::TooMuchGarbage),
        }
    };

    let mut left = MAX_BEFORE_VERSION;
    loop {
        let len = source.array::<NUM_LENGTH_BYTES>().await?;
        let len = handshake.decrypt_packet_len(len).map_err(cipher)?;
        left = left.checked_sub(len).ok_or(TransportError::TooManyDecoys)?;
        source.fill(len).await?;
        let mut packet = source.take(len);
        match handshake.receive_version(&mut packet).map_err(cipher)? {
            VersionResult::Complete { cipher } => return Ok(cipher.into_split()),
            VersionResult::Decoy(next) => handshake = next,
        }
    }
}

/// Makes the length of what is sent say nothing.
fn random_garbage() -> Vec<u8> {
    let mut rng = rand::thread_rng();
    let mut garbage = vec![0; rng.gen_range(0..=MAX_GARBAGE)];
    rng.fill_bytes(&mut garbage);
    garbage
}

/// A key looks random; the start of a `version` message is none.
fn refuse_v1(role: Role, magic: [u8; 4], key: &[u8; 64]) -> Result<(), TransportError> {
    let found = [key[0], key[1], key[2], key[3]];
    match role {
        Role::Initiator if found == magic => Err(TransportError::NotV2),
        Role::Responder if key[4..16] == *V1_COMMAND => Err(TransportError::WrongMagic { found }),
        _ => Ok(()),
    }
}

fn cipher(_: bip324::Error) -> TransportError {
    TransportError::Cipher
}
