//! Packets of the encrypted transport, from a peer that holds the keys.
//!
//! The peer is made with nothing but the library, so that it can encrypt what our own
//! side would not.

use std::time::Duration;

use bip324::{OutboundCipher, PacketType, Role, futures::handshake};
use pulse_p2p::transport::{Connection, TransportKind};
use tokio::io::{AsyncWriteExt, copy, duplex, sink, split};

use super::{block_on, outcome, read_all};
use crate::seeds::{self, MAGIC};

const LIMIT: Duration = Duration::from_secs(60);

/// Contents that are encrypted as they should be:
/// `decoy if odd u8 | length u16 LE | contents`, repeated.
pub fn run(data: &[u8]) -> u64 {
    receive(|cipher| {
        let (mut rest, mut packets) = (data, Vec::new());
        while let Some((head, after)) = rest.split_first_chunk::<3>() {
            let len = usize::from(u16::from_le_bytes([head[1], head[2]])).min(after.len());
            let (contents, after) = after.split_at(len);
            let kind = [PacketType::Genuine, PacketType::Decoy][usize::from(head[0] & 1)];
            packets.extend(encrypt(cipher, contents, kind));
            rest = after;
        }
        packets
    })
}

/// A good packet, and then bytes that were never encrypted.
pub fn run_ciphertext(data: &[u8]) -> u64 {
    receive(|cipher| {
        let ping = [18, 1, 2, 3, 4, 5, 6, 7, 8];
        let mut packets = encrypt(cipher, &ping, PacketType::Genuine);
        packets.extend_from_slice(data);
        packets
    })
}

fn encrypt(cipher: &mut OutboundCipher, contents: &[u8], kind: PacketType) -> Vec<u8> {
    let mut packet = vec![0; OutboundCipher::encryption_buffer_len(contents.len())];
    cipher
        .encrypt(contents, &mut packet, kind, None)
        .expect("the packet has the right length");
    packet
}

/// Reads all messages of a peer that says what `says` makes with its cipher.
fn receive(says: impl FnOnce(&mut OutboundCipher) -> Vec<u8>) -> u64 {
    block_on(async {
        let (ours, theirs) = duplex(1 << 16);
        let peer = async {
            let (reader, mut writer) = split(theirs);
            let shaken = handshake(MAGIC, Role::Initiator, None, None, reader, &mut writer).await;
            let (_, mut cipher, mut reader) = shaken.expect("both sides are well");
            let bytes = says(&mut cipher);
            // Our side may end the connection before all is said.
            if writer.write_all(&bytes).await.is_ok() {
                let _ = writer.shutdown().await;
            }
            let _ = copy(&mut reader, &mut sink()).await;
            bytes.len() as u64
        };
        let us = async {
            let accepted = Connection::accept(ours, MAGIC, true, LIMIT).await;
            let mut connection = accepted.expect("both sides are well");
            assert_eq!(connection.kind(), TransportKind::V2);
            read_all(&mut connection).await
        };
        let ((what, bytes), said) = tokio::join!(us, peer);
        assert!(bytes <= said, "more than there was");
        outcome(what)
    })
}

/// Every message with its command in full, some with an id, and decoys between.
pub fn seeds() -> Vec<Vec<u8>> {
    let packet = |kind: u8, contents: &[u8]| {
        let len = u16::try_from(contents.len()).expect("seeds are short");
        [&[kind], &len.to_le_bytes()[..], contents].concat()
    };
    let mut seeds: Vec<_> = seeds::messages()
        .into_iter()
        .map(|message| {
            let mut command = [0; 13];
            command[1..=message.command().len()].copy_from_slice(message.command().as_bytes());
            packet(0, &[&command, &message.payload()[..]].concat())
        })
        .collect();
    seeds.push(
        [
            packet(1, b"decoy"),
            packet(0, &[18, 1, 2, 3, 4, 5, 6, 7, 8]),
            packet(0, &[15]),
            packet(0, &[99, 1]),
        ]
        .concat(),
    );
    seeds
}
