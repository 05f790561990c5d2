//! The scripted peer against a minimal client.

#![allow(clippy::unwrap_used)]

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use bitcoin::{
    Block, BlockHash, Network,
    hashes::Hash,
    p2p::{
        Address, ServiceFlags,
        message::NetworkMessage,
        message_blockdata::{GetHeadersMessage, Inventory},
        message_network::VersionMessage,
    },
};
use pulse_primitives::network::ChainParams;
use pulse_testkit::{
    AnswerOrder, Behaviour, ChainBuilder, ScriptedPeer, ServedChain,
    wire::{encode, read_message},
};

fn params() -> ChainParams {
    ChainParams::new(Network::Regtest, None)
}

fn chain(len: u32) -> ChainBuilder {
    let mut chain = ChainBuilder::new(params());
    chain.mine_empty_blocks(len);
    chain
}

fn peer(chain: &ChainBuilder, behaviours: &[Behaviour]) -> ScriptedPeer {
    let served = ServedChain::from_blocks(&params(), chain.blocks());
    ScriptedPeer::start(served, behaviours)
}

struct Client {
    stream: TcpStream,
}

impl Client {
    fn connect(peer: &ScriptedPeer) -> Self {
        let stream = TcpStream::connect(peer.addr()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Self { stream }
    }

    /// Connects and shakes hands.
    fn new(peer: &ScriptedPeer) -> Self {
        let mut client = Self::connect(peer);
        client.say_hello();
        assert!(matches!(client.read(), NetworkMessage::Version(_)));
        assert_eq!(client.read(), NetworkMessage::Verack);
        client.send(NetworkMessage::Verack);
        client
    }

    fn say_hello(&mut self) {
        let nobody = Address::new(&([127, 0, 0, 1], 0).into(), ServiceFlags::NONE);
        self.send(NetworkMessage::Version(VersionMessage::new(
            ServiceFlags::NONE,
            0,
            nobody.clone(),
            nobody,
            1,
            "/client/".to_owned(),
            0,
        )));
    }

    fn send(&mut self, message: NetworkMessage) {
        self.stream
            .write_all(&encode(params().magic, message))
            .unwrap();
    }

    fn try_read(&mut self) -> io::Result<NetworkMessage> {
        read_message(&mut self.stream, params().magic)
    }

    fn read(&mut self) -> NetworkMessage {
        self.try_read().unwrap()
    }

    fn get_headers(&mut self, locator: Vec<BlockHash>) {
        self.send(NetworkMessage::GetHeaders(GetHeadersMessage::new(
            locator,
            BlockHash::all_zeros(),
        )));
    }

    fn headers(&mut self, locator: Vec<BlockHash>) -> Vec<BlockHash> {
        self.get_headers(locator);
        match self.read() {
            NetworkMessage::Headers(headers) => {
                headers.iter().map(|header| header.block_hash()).collect()
            }
            other => panic!("{}", other.cmd()),
        }
    }

    fn get_blocks(&mut self, blocks: &[Block]) {
        let items = blocks
            .iter()
            .map(|block| Inventory::WitnessBlock(block.block_hash()));
        self.send(NetworkMessage::GetData(items.collect()));
    }

    fn read_block(&mut self) -> Block {
        match self.read() {
            NetworkMessage::Block(block) => block,
            other => panic!("{}", other.cmd()),
        }
    }

    /// Whether the peer answers a ping although it owes a block.
    fn is_stalled(&mut self) -> bool {
        self.send(NetworkMessage::Ping(9));
        self.read() == NetworkMessage::Pong(9)
    }
}

fn hashes(blocks: &[Block]) -> Vec<BlockHash> {
    blocks.iter().map(Block::block_hash).collect()
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn honest_peer_serves_headers_and_blocks_and_keeps_count() {
    let chain = chain(12);
    let peer = peer(&chain, &[]);
    let mut client = Client::new(&peer);
    assert_eq!(client.headers(vec![]), hashes(&chain.blocks()[1..]));
    let known = chain.blocks()[8].block_hash();
    assert_eq!(client.headers(vec![known]), hashes(&chain.blocks()[9..]));
    assert_eq!(client.headers(vec![chain.tip_hash()]), []);
    client.get_blocks(&chain.blocks()[1..]);
    for block in &chain.blocks()[1..] {
        assert_eq!(&client.read_block(), block);
    }
    let log = peer.log();
    assert_eq!((log.connections, log.handshakes), (1, 1));
    assert_eq!((log.getheaders, log.getdata), (3, 1));
    assert_eq!(log.max_in_flight, 12);
    assert_eq!(log.requested[&known], 1);
    eventually("all blocks are counted", || peer.log().blocks_served == 12);
    drop(client);
    eventually("the connection is gone", || {
        peer.open_connections() == 0 && peer.log().closed_by_client == 1
    });
}

#[test]
fn new_tips_are_announced_as_the_client_likes_it() {
    let mut chain = chain(3);
    let peer = peer(&chain, &[]);
    let mut plain = Client::new(&peer);
    let mut modern = Client::new(&peer);
    modern.send(NetworkMessage::SendHeaders);
    assert!(plain.is_stalled() && modern.is_stalled(), "both are ready");
    peer.push_block(chain.mine_empty());
    let expected = NetworkMessage::Inv(vec![Inventory::Block(chain.tip_hash())]);
    assert_eq!(plain.read(), expected);
    assert_eq!(
        modern.read(),
        NetworkMessage::Headers(vec![chain.tip().header])
    );

    let mut branch = chain.branch_at(2);
    branch.mine_empty_blocks(4);
    peer.push_blocks(branch.blocks());
    let headers = branch.blocks()[3..].iter().map(|block| block.header);
    assert_eq!(modern.read(), NetworkMessage::Headers(headers.collect()));
    let expected = NetworkMessage::Inv(vec![Inventory::Block(branch.tip_hash())]);
    assert_eq!(plain.read(), expected);
    assert_eq!(
        plain.headers(vec![chain.tip_hash()]).len(),
        6,
        "a locator off the active chain leads back to genesis"
    );
}

#[test]
fn bad_headers_and_blocks_are_bad() {
    let chain = chain(6);
    let behaviours = [
        Behaviour::BadPowHeader { height: 4 },
        Behaviour::BadMerkleRoot { height: 2 },
        Behaviour::UnrequestedBlock(2),
    ];
    let peer = peer(&chain, &behaviours);
    let mut client = Client::new(&peer);
    client.get_headers(vec![]);
    let NetworkMessage::Headers(headers) = client.read() else {
        panic!("no headers");
    };
    assert_eq!(headers.len(), 4);
    assert_eq!(headers[2], chain.blocks()[3].header);
    assert!(headers[3].validate_pow(headers[3].target()).is_err());
    client.get_blocks(&chain.blocks()[1..4]);
    assert_eq!(client.read_block(), chain.blocks()[1]);
    let bad = client.read_block();
    assert_eq!(bad.header, chain.blocks()[2].header);
    assert!(!bad.check_merkle_root());
    let stranger = client.read_block();
    assert!(!hashes(chain.blocks()).contains(&stranger.block_hash()));
    assert_eq!(client.read_block(), chain.blocks()[3]);
}

#[test]
fn stalling_peer_answers_everything_but_blocks() {
    let chain = chain(5);
    let peer = peer(&chain, &[Behaviour::StallAfter(2)]);
    let mut client = Client::new(&peer);
    client.get_blocks(&chain.blocks()[1..]);
    client.read_block();
    client.read_block();
    assert!(client.is_stalled());
    peer.set_behaviours(&[]);
    client.read_block();
}

#[test]
fn broken_frames_break_the_stream() {
    let chain = chain(5);
    for behaviour in [
        Behaviour::HangUpMidBlock(1),
        Behaviour::TruncatedFrame(1),
        Behaviour::HugeMessage(1),
        Behaviour::Garbage(1),
    ] {
        let peer = peer(&chain, &[behaviour]);
        let mut client = Client::new(&peer);
        client.get_blocks(&chain.blocks()[1..]);
        assert_eq!(client.read_block(), chain.blocks()[1]);
        let err = client.try_read().unwrap_err();
        let expected = match behaviour {
            Behaviour::HangUpMidBlock(_) => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        assert_eq!(err.kind(), expected, "{behaviour:?}: {err}");
    }
}

#[test]
fn silent_and_foreign_peers_do_not_shake_hands() {
    let chain = chain(1);
    let silent = peer(&chain, &[Behaviour::Silent]);
    let mut client = Client::connect(&silent);
    client
        .stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    client.say_hello();
    let err = client.stream.read(&mut [0]).unwrap_err();
    assert_eq!(err.kind(), io::ErrorKind::WouldBlock);

    let foreign = peer(&chain, &[Behaviour::WrongMagic]);
    let mut client = Client::connect(&foreign);
    client.say_hello();
    assert_eq!(
        client.try_read().unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );

    let headerless = peer(&chain, &[Behaviour::NoHeaders, Behaviour::NotFound]);
    let mut client = Client::new(&headerless);
    client.get_headers(vec![]);
    client.get_blocks(&chain.blocks()[1..]);
    assert!(matches!(client.read(), NetworkMessage::NotFound(_)));
}

#[test]
fn order_and_pace_of_answers_can_be_set() {
    let chain = chain(20);
    let asked = &chain.blocks()[1..];
    let answers = |behaviours: &[Behaviour]| {
        let peer = peer(&chain, behaviours);
        let mut client = Client::new(&peer);
        client.get_blocks(asked);
        let blocks: Vec<_> = asked.iter().map(|_| client.read_block()).collect();
        hashes(&blocks)
    };
    let mut reversed = hashes(asked);
    reversed.reverse();
    assert_eq!(
        answers(&[Behaviour::Order(AnswerOrder::Reversed)]),
        reversed
    );
    let shuffled = [Behaviour::Order(AnswerOrder::Shuffled(3))];
    let order = answers(&shuffled);
    assert_ne!(order, hashes(asked));
    assert_eq!(order, answers(&shuffled));

    let started = Instant::now();
    answers(&[Behaviour::Delay(Duration::from_millis(10))]);
    assert!(started.elapsed() >= Duration::from_millis(200));
    let started = Instant::now();
    answers(&[Behaviour::SlowDrip {
        bytes_per_second: 20_000,
    }]);
    assert!(started.elapsed() >= Duration::from_millis(200));
}
