//! Compact block filters as a light client gets them from a peer (BIP 157 and 158).

use std::{collections::HashMap, io::Write, net::TcpStream, time::Duration};

use pulse_primitives::bitcoin::{
    Block, Network, OutPoint, ScriptBuf,
    bip158::{BlockFilter, FilterHeader},
    hashes::Hash,
    p2p::{
        Address, ServiceFlags,
        message::NetworkMessage,
        message_filter::{GetCFCheckpt, GetCFHeaders, GetCFilters},
        message_network::VersionMessage,
    },
};
use pulse_testkit::{ChainData, ScriptedPeer, wire};

use super::common::{DEADLINE, options, params, served};

/// A light client.
struct Client {
    stream: TcpStream,
    magic: [u8; 4],
    services: ServiceFlags,
}

impl Client {
    fn connect(addr: std::net::SocketAddr, magic: [u8; 4]) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut client = Self {
            stream,
            magic,
            services: ServiceFlags::NONE,
        };
        let nobody = Address::new(&([0, 0, 0, 0], 0).into(), ServiceFlags::NONE);
        let mut version = VersionMessage::new(
            ServiceFlags::NONE,
            0,
            nobody.clone(),
            nobody,
            7,
            "/light:1/".to_owned(),
            0,
        );
        version.version = 70_016;
        client.send(NetworkMessage::Version(version));
        client.send(NetworkMessage::Verack);
        client.services = client.until(|message| match message {
            NetworkMessage::Version(version) => Some(version.services),
            _ => None,
        });
        client.until(|message| matches!(message, NetworkMessage::Verack).then_some(()));
        client
    }

    fn send(&mut self, message: NetworkMessage) {
        let frame = wire::encode(self.magic, message);
        self.stream.write_all(&frame).unwrap();
    }

    fn until<T>(&mut self, find: impl Fn(NetworkMessage) -> Option<T>) -> T {
        loop {
            let message = wire::read_message(&mut self.stream, self.magic).unwrap();
            if let Some(found) = find(message) {
                return found;
            }
        }
    }
}

/// The filter of each block, made anew.
fn filters(blocks: &[Block]) -> Vec<BlockFilter> {
    let mut scripts: HashMap<OutPoint, ScriptBuf> = HashMap::new();
    for tx in blocks.iter().flat_map(|block| &block.txdata) {
        let txid = tx.compute_txid();
        for (vout, output) in (0..).zip(&tx.output) {
            scripts.insert(OutPoint::new(txid, vout), output.script_pubkey.clone());
        }
    }
    let filter =
        |block| BlockFilter::new_script_filter(block, |outpoint| Ok(scripts[outpoint].as_script()));
    blocks.iter().map(|block| filter(block).unwrap()).collect()
}

#[test]
fn a_light_client_gets_the_filters_of_bip_158_and_the_chain_of_their_headers() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let blocks = data.regtest_kernel();
    let expected = filters(&blocks);
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks));
    let mut node = options("regtest")
        .connect(peer.addr())
        .args(["--listen", "127.0.0.1:0"])
        .env("PULSE_INDEX__BLOCK_FILTERS", "true")
        .start();
    node.wait_synced_to(206, DEADLINE);
    let magic = params(Network::Regtest).magic;
    let mut client = Client::connect(node.p2p_addr().unwrap(), magic);
    assert!(client.services.has(ServiceFlags::COMPACT_FILTERS));
    let stop_hash = blocks[206].block_hash();

    client.send(NetworkMessage::GetCFilters(GetCFilters {
        filter_type: 0,
        start_height: 0,
        stop_hash,
    }));
    for (block, expected) in blocks.iter().zip(&expected) {
        let filter = client.until(|message| match message {
            NetworkMessage::CFilter(filter) => Some(filter),
            _ => None,
        });
        assert_eq!(filter.block_hash, block.block_hash());
        assert_eq!(filter.filter, expected.content);
    }
    // The filter of regtest's genesis block, as every implementation has it.
    assert_eq!(hex(&expected[0].content), "014756c0");

    let headers: Vec<_> = expected
        .iter()
        .scan(FilterHeader::all_zeros(), |header, filter| {
            *header = filter.filter_header(header);
            Some(*header)
        })
        .collect();
    client.send(NetworkMessage::GetCFHeaders(GetCFHeaders {
        filter_type: 0,
        start_height: 100,
        stop_hash,
    }));
    let answer = client.until(|message| match message {
        NetworkMessage::CFHeaders(answer) => Some(answer),
        _ => None,
    });
    assert_eq!(answer.previous_filter_header, headers[99]);
    let chained = answer
        .filter_hashes
        .iter()
        .fold(answer.previous_filter_header, |header, hash| {
            hash.filter_header(&header)
        });
    assert_eq!(chained, headers[206]);
    assert_eq!(answer.filter_hashes.len(), 107);

    client.send(NetworkMessage::GetCFCheckpt(GetCFCheckpt {
        filter_type: 0,
        stop_hash,
    }));
    let checkpoints = client.until(|message| match message {
        NetworkMessage::CFCheckpt(answer) => Some(answer.filter_headers),
        _ => None,
    });
    assert_eq!(checkpoints, []);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
