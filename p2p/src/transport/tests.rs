use std::{future::Future, pin::pin, task::Poll};

use bip324::PacketType;
use pulse_primitives::bitcoin::{
    Network,
    consensus::serialize,
    constants::genesis_block,
    p2p::{message::NetworkMessage, message_blockdata::Inventory},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::{codec::encode_message, message::MAX_PAYLOAD};

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
const LIMIT: Duration = Duration::from_secs(20);
const PIPE: usize = 1 << 16;

/// The other end of an encrypted connection, made with nothing but the library.
struct Scripted {
    cipher: OutboundCipher,
    stream: DuplexStream,
}

impl Scripted {
    fn packet(&mut self, contents: &[u8], kind: PacketType) -> Vec<u8> {
        let mut packet = vec![0; OutboundCipher::encryption_buffer_len(contents.len())];
        self.cipher
            .encrypt(contents, &mut packet, kind, None)
            .unwrap();
        packet
    }

    async fn send(&mut self, contents: &[u8]) {
        let packet = self.packet(contents, PacketType::Genuine);
        self.stream.write_all(&packet).await.unwrap();
    }
}

async fn scripted_handshake(
    stream: DuplexStream,
    role: Role,
    decoys: Option<Vec<Vec<u8>>>,
) -> Result<Scripted, bip324::io::ProtocolError> {
    let (reader, mut writer) = tokio::io::split(stream);
    let shake = bip324::futures::handshake(MAGIC, role, None, decoys, reader, &mut writer);
    let (_, cipher, _reader) = shake.await?;
    // What the other end says is not read any more; the write half keeps it open.
    let (ours, mut pipe) = duplex(PIPE);
    tokio::spawn(async move { tokio::io::copy(&mut pipe, &mut writer).await });
    Ok(Scripted {
        cipher,
        stream: ours,
    })
}

/// Our inbound end, and the scripted one that called.
async fn scripted() -> (Connection, Scripted) {
    let (ours, theirs) = duplex(PIPE);
    let (connection, scripted) = tokio::join!(
        Connection::accept(ours, MAGIC, true, LIMIT),
        scripted_handshake(theirs, Role::Initiator, None),
    );
    (connection.unwrap(), scripted.unwrap())
}

async fn v2_pair() -> (Connection, Connection) {
    let (a, b) = duplex(PIPE);
    let (a, b) = tokio::join!(
        Connection::connect_v2(a, MAGIC, LIMIT),
        Connection::accept(b, MAGIC, true, LIMIT),
    );
    (a.unwrap(), b.unwrap())
}

fn messages() -> Vec<(Outgoing, Message)> {
    let genesis = genesis_block(Network::Regtest);
    let entries = vec![Inventory::Block(genesis.block_hash()); 50_000];
    let block = [serialize(&genesis), vec![0x5a; MAX_PAYLOAD - 285]].concat();
    assert_eq!(block.len(), MAX_PAYLOAD);
    let raw_block = crate::message::RawBlock {
        hash: genesis.block_hash(),
        bytes: block.clone(),
    };
    vec![
        (NetworkMessage::Ping(7).into(), Message::Ping(7)),
        // A command without a short id.
        (NetworkMessage::SendHeaders.into(), Message::SendHeaders),
        (
            NetworkMessage::Inv(entries.clone()).into(),
            Message::Inv(entries),
        ),
        (Outgoing::raw("block", block), Message::Block(raw_block)),
        (NetworkMessage::GetAddr.into(), Message::GetAddr),
    ]
}

#[tokio::test]
async fn messages_go_both_ways_over_either_transport() {
    let (a, b) = duplex(PIPE);
    let v1 = (Connection::v1(a, MAGIC), Connection::v1(b, MAGIC));
    for (mut a, mut b) in [v1, v2_pair().await] {
        for turn in 0..2 {
            for (sent, expected) in messages() {
                let (written, read) = tokio::join!(a.write(&sent), b.read());
                let (message, len) = read.unwrap();
                assert_eq!(message, expected);
                assert_eq!(written.unwrap(), len, "turn {turn}");
            }
            std::mem::swap(&mut a, &mut b);
        }
        assert_eq!(a.kind(), b.kind());
    }
}

#[tokio::test]
async fn more_packets_than_one_key_is_used_for_go_through() {
    let (mut a, mut b) = v2_pair().await;
    for nonce in 0..1000 {
        let sent = Outgoing::from(NetworkMessage::Ping(nonce));
        let (written, read) = tokio::join!(a.write(&sent), b.read());
        // length 3, header 1, id 1, nonce 8, tag 16
        assert_eq!(written.unwrap(), 29);
        assert_eq!(read.unwrap().0, Message::Ping(nonce));
    }
}

#[tokio::test]
async fn reading_goes_on_where_it_was_dropped() {
    let (a, mut a_other) = duplex(PIPE);
    let v1 = Connection::v1(a, MAGIC);
    let frame = encode_message(NetworkMessage::Ping(7), MAGIC);
    let (v2, mut other) = scripted().await;
    // ping has id 18
    let mut packet = other.packet(&[1; 9], PacketType::Decoy);
    packet.extend(other.packet(&[18, 7, 0, 0, 0, 0, 0, 0, 0], PacketType::Genuine));

    for (mut connection, bytes, stream) in
        [(v1, frame, &mut a_other), (v2, packet, &mut other.stream)]
    {
        let (last, first) = bytes.split_last().unwrap();
        for byte in first {
            stream.write_all(&[*byte]).await.unwrap();
            // Polled until what was written has arrived, and dropped.
            for _ in 0..4 {
                tokio::task::yield_now().await;
                let mut read = pin!(connection.read());
                let polled = std::future::poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await;
                assert!(polled.is_pending());
            }
        }
        stream.write_all(&[*last]).await.unwrap();
        let (message, len) = connection.read().await.unwrap();
        assert_eq!(message, Message::Ping(7));
        assert_eq!(len, bytes.len() as u64);
    }
}

#[tokio::test]
async fn an_inbound_peer_may_speak_either_transport() {
    let (ours, mut theirs) = duplex(PIPE);
    let start = encode_message(NetworkMessage::Verack, MAGIC);
    let version =
        crate::codec::encode_frame("version", &crate::version::tests::version_payload(), MAGIC);
    theirs.write_all(&version).await.unwrap();
    theirs.write_all(&start).await.unwrap();
    let mut connection = Connection::accept(ours, MAGIC, true, LIMIT).await.unwrap();
    assert_eq!(connection.kind(), TransportKind::V1);
    let (message, len) = connection.read().await.unwrap();
    assert!(matches!(message, Message::Version(_)));
    assert_eq!(len, version.len() as u64);
    assert_eq!(connection.read().await.unwrap().0, Message::Verack);

    let (connection, _other) = scripted().await;
    assert_eq!(connection.kind(), TransportKind::V2);
}

#[tokio::test]
async fn nothing_is_sent_to_an_inbound_peer_before_its_transport_is_known() {
    let (ours, mut theirs) = duplex(PIPE);
    theirs.write_all(&MAGIC).await.unwrap();
    theirs.write_all(b"versio").await.unwrap();
    let limit = Duration::from_millis(50);
    let accepted = Connection::accept(ours, MAGIC, true, limit).await;
    assert!(matches!(accepted, Err(TransportError::Timeout)));
    let mut heard = Vec::new();
    theirs.read_to_end(&mut heard).await.unwrap();
    assert!(heard.is_empty());
}

#[tokio::test]
async fn an_inbound_peer_of_another_network_is_refused() {
    let (ours, mut theirs) = duplex(PIPE);
    let frame = crate::codec::encode_frame("version", &[0; 100], [1, 2, 3, 4]);
    theirs.write_all(&frame).await.unwrap();
    let refused = Connection::accept(ours, MAGIC, true, LIMIT)
        .await
        .unwrap_err();
    assert!(refused.is_misbehaviour());
    assert!(matches!(
        refused,
        TransportError::WrongMagic {
            found: [1, 2, 3, 4]
        }
    ));
}

#[tokio::test]
async fn a_peer_that_answers_as_v1_or_not_at_all_suggests_v1() {
    // It hangs up, with and without a part of a key.
    for answer in [&[][..], &[7; 63]] {
        let (ours, mut theirs) = duplex(PIPE);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let shaken = Connection::connect_v2(ours, MAGIC, LIMIT).await;
        assert!(shaken.unwrap_err().suggests_v1());
    }
    // It stays silent.
    let (ours, _theirs) = duplex(PIPE);
    let shaken = Connection::connect_v2(ours, MAGIC, Duration::from_millis(50)).await;
    assert!(shaken.unwrap_err().suggests_v1());
    // It answers with a version message.
    let (ours, mut theirs) = duplex(PIPE);
    let version = crate::codec::encode_frame("version", &[0; 100], MAGIC);
    theirs.write_all(&version).await.unwrap();
    let shaken = Connection::connect_v2(ours, MAGIC, LIMIT).await;
    assert!(shaken.unwrap_err().suggests_v1());
    // One that has sent its key speaks v2, whatever happens then.
    for hangs_up in [true, false] {
        let (ours, mut theirs) = duplex(PIPE);
        theirs.write_all(&[7; 64]).await.unwrap();
        if hangs_up {
            theirs.shutdown().await.unwrap();
        }
        let shaken = Connection::connect_v2(ours, MAGIC, Duration::from_millis(50)).await;
        assert!(!shaken.unwrap_err().suggests_v1());
    }
}

#[tokio::test]
async fn garbage_is_bounded_and_may_be_as_long_as_the_standard_says() {
    for (len, too_much) in [(4095, false), (4096, true), (60_000, true)] {
        let (ours, theirs) = duplex(PIPE);
        let (mut reader, mut writer) = tokio::io::split(theirs);
        let garbage = vec![0x55; len];
        let accept = Connection::accept(ours, MAGIC, true, LIMIT);
        let call = async {
            let handshake =
                bip324::Handshake::<bip324::Initialized>::new(MAGIC, Role::Initiator).unwrap();
            let mut key = vec![0; 64];
            let handshake = handshake.send_key(None, &mut key).unwrap();
            writer.write_all(&key).await.unwrap();
            let mut theirs = [0; 64];
            reader.read_exact(&mut theirs).await.unwrap();
            let handshake = handshake.receive_key(theirs).unwrap();
            let len = bip324::Handshake::<bip324::ReceivedKey>::send_version_len(None);
            let mut version = vec![0; len];
            handshake.send_version(&mut version, None).unwrap();
            // It may hang up in the middle of it.
            let _ = writer.write_all(&garbage).await;
            let _ = writer.write_all(&version).await;
        };
        let (accepted, ()) = tokio::join!(accept, call);
        match accepted {
            Err(TransportError::TooMuchGarbage) => assert!(too_much),
            // The version packet does not vouch for this garbage.
            Err(TransportError::Cipher) => assert!(!too_much),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn decoys_before_the_version_packet_are_bounded() {
    for (decoys, fits) in [
        (vec![vec![0; 100_000]; 10], true),
        (vec![vec![0; 100_000]; 11], false),
    ] {
        let (ours, theirs) = duplex(PIPE);
        let accept = async { Connection::accept(ours, MAGIC, true, LIMIT).await };
        let call = tokio::spawn(scripted_handshake(theirs, Role::Initiator, Some(decoys)));
        match accept.await {
            Ok(_) => assert!(fits),
            Err(TransportError::TooManyDecoys) => assert!(!fits),
            other => panic!("{other:?}"),
        }
        let _ = call.await.unwrap();
    }
}

#[tokio::test]
async fn decoys_between_messages_are_bounded_and_counted() {
    for (decoys, fits) in [(1000, true), (1001, false)] {
        let (mut connection, mut other) = scripted().await;
        let mut packets = Vec::new();
        for _ in 0..decoys {
            packets.extend(other.packet(&[], PacketType::Decoy));
        }
        packets.extend(other.packet(&[18, 7, 0, 0, 0, 0, 0, 0, 0], PacketType::Genuine));
        other.stream.write_all(&packets).await.unwrap();
        match connection.read().await {
            Ok((message, len)) => {
                assert!(fits);
                assert_eq!(message, Message::Ping(7));
                assert_eq!(len, packets.len() as u64);
            }
            Err(CodecError::TooManyDecoys) => assert!(!fits),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_packet_that_claims_16_mb_is_refused_without_waiting_for_it() {
    let (mut connection, mut other) = scripted().await;
    let packet = other.packet(&vec![0; (1 << 24) - 1], PacketType::Genuine);
    // The other end stays open and silent: only a refusal from the length alone returns.
    other.stream.write_all(&packet[..3]).await.unwrap();
    assert!(matches!(
        connection.read().await,
        Err(CodecError::Oversized { .. })
    ));
}

#[tokio::test]
async fn each_command_keeps_its_limit_when_encrypted() {
    for (contents, command) in [
        ([&[18][..], &[0; 65]].concat(), "ping"),
        (
            [&b"\0version\0\0\0\0\0"[..], &[0; 1025]].concat(),
            "version",
        ),
    ] {
        let (mut connection, mut other) = scripted().await;
        other.send(&contents).await;
        match connection.read().await {
            Err(CodecError::Oversized { command: found, .. }) => assert_eq!(found, command),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn commands_come_with_ids_or_in_full_and_unknown_ones_are_passed_on() {
    let (mut connection, mut other) = scripted().await;
    for (contents, expected) in [
        (&b"\0verack\0\0\0\0\0\0"[..], Message::Verack),
        (b"\0mempool\0\0\0\0\0", Message::Mempool),
        (&[15], Message::Mempool),
        (b"\0twelve_chars", Message::Other("twelve_chars".to_owned())),
        (&[29], Message::Other("short id 29".to_owned())),
        (&[], Message::Other(String::new())),
    ] {
        other.send(contents).await;
        assert_eq!(connection.read().await.unwrap().0, expected);
    }
    for contents in [&b"\0verack"[..], b"\0ver\0ack\0\0\0\0\0"] {
        let (mut connection, mut other) = scripted().await;
        other.send(contents).await;
        assert!(matches!(
            connection.read().await,
            Err(CodecError::BadCommand)
        ));
    }
}

#[tokio::test]
async fn a_packet_that_was_changed_is_refused() {
    let len = {
        let (_, mut other) = scripted().await;
        other.packet(&[18; 9], PacketType::Genuine).len()
    };
    // The length is not authenticated by itself: changed, it leads to another end.
    for at in 3..len {
        let (mut connection, mut other) = scripted().await;
        let mut packet = other.packet(&[18; 9], PacketType::Genuine);
        packet[at] ^= 1;
        other.stream.write_all(&packet).await.unwrap();
        assert!(matches!(connection.read().await, Err(CodecError::Cipher)));
    }
}

/// The bytes of a caller that are let through before the line is cut.
async fn call_cut_after(bytes: usize) -> Result<Connection, TransportError> {
    let (ours, line) = duplex(PIPE);
    let (theirs, line_end) = duplex(PIPE);
    let (mut from_us, mut to_us) = tokio::io::split(line);
    let (from_them, mut to_them) = tokio::io::split(line_end);
    let cut = async move {
        let mut some = from_them.take(bytes as u64);
        let _ = tokio::io::copy(&mut some, &mut to_us).await;
        let _ = to_us.shutdown().await;
    };
    let answers = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_us, &mut to_them).await;
    });
    let call = tokio::spawn(scripted_handshake(theirs, Role::Initiator, None));
    let (accepted, ()) = tokio::join!(Connection::accept(ours, MAGIC, true, LIMIT), cut);
    answers.abort();
    call.abort();
    accepted
}

#[tokio::test]
async fn a_handshake_that_is_cut_off_anywhere_is_an_end_of_the_connection() {
    // Key, terminator, version packet.
    let whole = 64 + 16 + 20;
    for bytes in 0..whole {
        match call_cut_after(bytes).await {
            Err(TransportError::Io(err)) => {
                assert_eq!(err.kind(), io::ErrorKind::UnexpectedEof, "{bytes}");
            }
            other => panic!("{bytes}: {other:?}"),
        }
    }
    assert_eq!(
        call_cut_after(whole).await.unwrap().kind(),
        TransportKind::V2
    );
}

#[tokio::test]
async fn a_packet_that_is_cut_off_anywhere_is_an_end_of_the_connection() {
    let whole = 3 + 1 + 9 + 16;
    for len in 0..whole {
        let (mut connection, mut other) = scripted().await;
        let packet = other.packet(&[18, 7, 0, 0, 0, 0, 0, 0, 0], PacketType::Genuine);
        assert_eq!(packet.len(), whole);
        other.stream.write_all(&packet[..len]).await.unwrap();
        other.stream.shutdown().await.unwrap();
        drop(other);
        match connection.read().await {
            Err(CodecError::Io(err)) => assert_eq!(err.kind(), io::ErrorKind::UnexpectedEof),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_slow_handshake_ends_at_its_limit() {
    let (ours, mut theirs) = duplex(PIPE);
    theirs.write_all(&[7; 64]).await.unwrap();
    let limit = Duration::from_millis(50);
    let accepted = Connection::accept(ours, MAGIC, true, limit).await;
    assert!(matches!(accepted, Err(TransportError::Timeout)));
}

#[tokio::test]
async fn a_peer_that_does_not_read_fails_the_write_at_the_stall_limit() {
    let (ours, _theirs) = duplex(1024);
    let (_, mut writer) = Connection::v1(ours, MAGIC).into_split();
    writer.set_stall_limit(Duration::from_millis(50));
    let block = Outgoing::raw("block", vec![0; 100_000]);
    let err = writer.write(&block).await.unwrap_err();
    assert_eq!(err.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_message_that_no_length_can_tell_is_not_sent() {
    let (mut a, _b) = v2_pair().await;
    let long = Outgoing::raw("block", vec![0; 1 << 24]);
    let err = a.write(&long).await.unwrap_err();
    assert_eq!(err.kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn keys_are_not_shown() {
    let (a, _b) = v2_pair().await;
    let (reader, writer) = a.into_split();
    assert!(format!("{reader:?}").contains("state: V2,"));
    assert!(format!("{writer:?}").contains("framing: V2 }"));
}
