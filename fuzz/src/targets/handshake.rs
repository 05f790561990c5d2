//! The version handshake: `kind of connection u8 | what the peer says`.

use pulse_p2p::{
    codec::encode_message,
    transport::Connection,
    version::{
        ConnectionKind, HandshakeError, LocalVersion, Nonces, USER_AGENT, handshake, local_services,
    },
};
use pulse_primitives::bitcoin::p2p::message::NetworkMessage;

use super::{against, block_on, error_kind, frames::with_checksums, outcome};
use crate::seeds::{self, MAGIC};

const KINDS: [ConnectionKind; 4] = [
    ConnectionKind::Inbound,
    ConnectionKind::FullRelay,
    ConnectionKind::BlockRelay,
    ConnectionKind::Feeler,
];

/// Shakes hands over v1 with a peer that says the input, with checksums that are right.
pub fn run(data: &[u8]) -> u64 {
    let Some((kind, data)) = data.split_first() else {
        return 0;
    };
    let kind = KINDS[usize::from(kind & 3)];
    let nonces = Nonces::default();
    let local = LocalVersion {
        services: local_services(true, true),
        user_agent: USER_AGENT,
        start_height: 100,
        time: 1_700_000_000,
        relay: true,
        limited_peers: kind == ConnectionKind::BlockRelay,
        nonces: &nonces,
    };
    let data = with_checksums(data);
    let shaken = block_on(against(&data, |stream| async {
        let mut connection = Connection::v1(stream, MAGIC);
        handshake(&mut connection, &local, kind).await
    }));
    match shaken {
        Ok(remote) => {
            let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
            assert!(remote.user_agent.len() <= 256 && remote.user_agent.bytes().all(printable));
            assert!(remote.time >= 0);
            if kind.must_serve_blocks() {
                assert!(remote.serves_recent_blocks());
            }
            outcome((kind, remote.wtxid_relay, remote.addr_v2, remote.relay))
        }
        Err(HandshakeError::Codec(err)) => outcome((kind, error_kind(&err))),
        Err(err) => outcome((kind, std::mem::discriminant(&err))),
    }
}

/// The handshake that most peers have, for each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let said: Vec<u8> = [
        NetworkMessage::Version(seeds::version()),
        NetworkMessage::WtxidRelay,
        NetworkMessage::SendAddrV2,
        NetworkMessage::Verack,
    ]
    .into_iter()
    .flat_map(|message| encode_message(message, MAGIC))
    .collect();
    (0..4)
        .map(|kind| [&[kind], said.as_slice()].concat())
        .collect()
}
