//! A member that has gone bad: it has the fleet's key, joins as any other, and then serves what no
//! honest node serves. A node that hears it stays right and within its memory, and cuts it off.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use pulse_fleet::{FleetConfig, FleetHandle};
use pulse_meta::identity::Keypair;
use pulse_primitives::{
    Height,
    bitcoin::{
        Amount, BlockHash, Network, Txid,
        block::Header,
        consensus::serialize,
        constants::genesis_block,
        hashes::Hash,
        p2p::{
            Address, Magic, ServiceFlags,
            message::{NetworkMessage, RawNetworkMessage},
            message_blockdata::Inventory,
            message_network::VersionMessage,
        },
    },
    fleet::{FleetSource, FleetStatus, OwnState, SiblingStream},
    tip::ChainTip,
};
use pulse_testkit::{Behaviour, ChainBuilder, PulseNode, ScriptedPeer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
    runtime::Runtime,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{common::metric, memory::most_memory},
    DEADLINE, Fleet, address, params, peer_id, report, served, siblings,
};

/// What it says of itself.
struct Claims {
    header: Header,
    height: Height,
    tip: watch::Sender<ChainTip>,
}

impl Claims {
    fn new(header: Header, height: Height) -> Self {
        let tip = ChainTip {
            height,
            hash: header.block_hash(),
            time: header.time,
        };
        Self {
            header,
            height,
            tip: watch::Sender::new(tip),
        }
    }

    /// Nothing that a node would not say.
    fn modest() -> Self {
        Self::new(genesis_block(Network::Regtest).header, 0)
    }
}

impl FleetSource for Claims {
    fn own_state(&self) -> OwnState {
        OwnState {
            header: self.header,
            height: self.height,
            indexed: Some(self.height),
            load_percent: 0,
            is_draining: false,
        }
    }

    fn header_height(&self, _: &BlockHash) -> Option<Height> {
        None
    }

    fn tip(&self) -> watch::Receiver<ChainTip> {
        self.tip.subscribe()
    }
}

type Served = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

/// The bad member at work.
struct BadSibling {
    handle: FleetHandle,
    stop: CancellationToken,
    runtime: Option<Runtime>,
}

impl BadSibling {
    /// Joins `node`, claims this, and serves each stream so.
    fn join(
        fleet: &Fleet,
        node: &PulseNode,
        claims: Claims,
        serve: impl Fn(SiblingStream) -> Served + Send + 'static,
    ) -> Self {
        let node_id = peer_id(node);
        // Of two siblings the one with the lower id opens the stream and speaks first, as a
        // scripted peer wants it of others. Ids of one length are in the order of their texts.
        // Without an end, since a node whose id is near the highest needs thousands of tries.
        let identity = std::iter::repeat_with(Keypair::generate_ed25519)
            .find(|identity| identity.public().to_peer_id().to_string() > node_id)
            .unwrap();
        let identity = identity.to_protobuf_encoding().unwrap();
        let config = FleetConfig {
            listen: "127.0.0.1:0".to_owned(),
            seeds: vec![address(node)],
            lookup_secs: 1,
            key_file: fleet.path("key"),
            ..FleetConfig::default()
        };
        let network = params(Network::Regtest).genesis_hash().to_byte_array();
        let (streams, mut opened) = mpsc::channel(4);
        let runtime = Runtime::new().unwrap();
        let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
        let member = {
            let _within = runtime.enter();
            pulse_fleet::Fleet::new(&config, &identity, network, Arc::new(claims), streams)
        };
        let (member, handle) = member.unwrap();
        runtime.spawn(member.run(stop.clone()));
        runtime.spawn(async move {
            while let Some(stream) = opened.recv().await {
                let (served, stopped) = (serve(stream), stopped.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stopped.cancelled() => {}
                        _ = served => {}
                    }
                });
            }
        });
        Self {
            handle,
            stop,
            runtime: Some(runtime),
        }
    }

    fn id(&self) -> String {
        self.handle.report().peer_id
    }

    /// Waits until the node has cut it off and goes on refusing it.
    fn is_cut_off(&self, node: &mut PulseNode) {
        node.wait_until("the cut", DEADLINE, |node| {
            metric(node, "pulse_fleet_punished_total") > 0.0
        });
        let id = self.id();
        node.wait_until("the end of it", DEADLINE, |node| {
            !siblings(node, "connected").contains(&id)
        });
        let refused = "pulse_fleet_refused_total{reason=\"punished\"}";
        node.wait_until("a refusal", DEADLINE, |node| metric(node, refused) > 0.0);
    }
}

impl Drop for BadSibling {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Serves a stream as a scripted peer serves a connection.
fn as_peer(peer: &ScriptedPeer) -> impl Fn(SiblingStream) -> Served + Send + 'static {
    let addr = peer.addr();
    move |mut sibling| {
        Box::pin(async move {
            let mut peer = TcpStream::connect(addr).await?;
            copy_bidirectional(&mut sibling.stream, &mut peer).await?;
            Ok(())
        })
    }
}

/// A node that has a bad sibling with all blocks, and then an honest peer as well.
fn completes_beside(behaviour: Behaviour, is_punished: bool) {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    let start = chain.blocks().to_vec();
    chain.mine_empty_blocks(60);
    let honest = ScriptedPeer::honest(served(Network::Regtest, &start));
    let bad = ScriptedPeer::start(served(Network::Regtest, chain.blocks()), &[behaviour]);
    let fleet = Fleet::new("cc");
    let mut node = fleet
        .node(&[])
        .connect(honest.addr())
        .env("PULSE_P2P__STALL_TIMEOUT_SECS", "1")
        .env("PULSE_P2P__HANDSHAKE_TIMEOUT_SECS", "3")
        .env("PULSE_P2P__BLOCK_TIMEOUT_SECS", "3")
        .env("PULSE_P2P__HEADERS_TIMEOUT_SECS", "3")
        .start();
    let sibling = BadSibling::join(&fleet, &node, Claims::modest(), as_peer(&bad));
    if is_punished {
        sibling.is_cut_off(&mut node);
    } else {
        node.wait_until("the stream", DEADLINE, |_| bad.log().handshakes > 0);
    }
    honest.push_blocks(&chain.blocks()[1..]);
    node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
}

macro_rules! scenes {
    ($($name:ident: $behaviour:expr, $punished:expr;)*) => {
        $(#[test]
        fn $name() {
            completes_beside($behaviour, $punished);
        })*
    };
}

scenes! {
    a_sibling_whose_headers_lack_work: Behaviour::BadPowHeader { height: 30 }, true;
    a_sibling_that_announces_80_mb: Behaviour::HugeMessage(2), true;
    a_sibling_that_sends_noise: Behaviour::Garbage(2), true;
    a_sibling_that_truncates_a_frame: Behaviour::TruncatedFrame(2), true;
    a_sibling_of_which_a_block_drips: Behaviour::SlowDrip { bytes_per_second: 20 }, false;
    a_sibling_that_stalls: Behaviour::StallAfter(3), false;
    a_sibling_with_a_stale_tip: Behaviour::NoHeaders, false;
}

#[test]
fn a_sibling_with_a_block_that_breaks_a_rule_is_cut_off_and_the_block_with_it() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(20);
    let honest = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    // Its miner takes a fee that nobody paid.
    let mut wrong = chain.branch_at(20);
    let script = pulse_primitives::bitcoin::ScriptBuf::new();
    wrong.mine(&script, Amount::from_sat(1), Vec::new());
    wrong.mine_empty_blocks(3);
    let bad = ScriptedPeer::honest(served(Network::Regtest, wrong.blocks()));
    let fleet = Fleet::new("dd");
    let mut node = fleet.node(&[]).connect(honest.addr()).start();
    node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    let sibling = BadSibling::join(&fleet, &node, Claims::modest(), as_peer(&bad));
    sibling.is_cut_off(&mut node);
    chain.mine_empty_blocks(1);
    honest.push_blocks(&chain.blocks()[21..]);
    node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
}

#[test]
fn a_siblings_claim_of_a_tip_that_nobody_has_makes_no_node_sick() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(20);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let fleet = Fleet::new("ee");
    let mut node = fleet.node(&[]).connect(peer.addr()).start();
    node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    // With the work that it claims, for want of which nobody would hear of it.
    let mut header = chain.blocks()[20].header;
    header.prev_blockhash = BlockHash::from_byte_array([7; 32]);
    while header.validate_pow(header.target()).is_err() {
        header.nonce += 1;
    }
    let claims = Claims::new(header, 1_000_000);
    let _sibling = BadSibling::join(&fleet, &node, claims, as_peer(&peer));
    node.wait_until("the claim", DEADLINE, |node| {
        report(node)["siblings"][0]["told"]["tip_height"] == 1_000_000
    });
    let seen = report(&node);
    assert_eq!(seen["siblings"][0]["told"]["tip_checked"], false);
    assert!(seen["best_height"].is_null(), "{seen}");
    assert_eq!(node.get("/health").status, 200);
}

#[test]
fn a_sibling_that_never_ends_its_sentence_costs_bounded_memory() {
    /// What an endless answer may cost beside what the node has anyway.
    const SPARE: u64 = 150 << 20;
    /// More than that.
    const SENT: u64 = 300 << 20;
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(20);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let fleet = Fleet::new("ff");
    let mut node = fleet.node(&[]).connect(peer.addr()).start();
    node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    let before = most_memory(&node);
    let (sent, told) = watch::channel(0_u64);
    let sent = Arc::new(sent);
    let _sibling = BadSibling::join(&fleet, &node, Claims::modest(), move |stream| {
        Box::pin(endless(stream, Arc::clone(&sent)))
    });
    node.wait_until("much of it", DEADLINE, |_| *told.borrow() > SENT);
    let more = most_memory(&node).saturating_sub(before);
    assert!(more < SPARE, "{} MiB more", more >> 20);
    // It goes on answering, and following the chain.
    chain.mine_empty_blocks(1);
    peer.push_blocks(&chain.blocks()[21..]);
    node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
}

/// Shakes hands, and then announces transactions that nobody has, as fast as they are taken.
async fn endless(sibling: SiblingStream, sent: Arc<watch::Sender<u64>>) -> std::io::Result<()> {
    let magic = Magic::from_bytes(params(Network::Regtest).magic);
    let encode = |message| serialize(&RawNetworkMessage::new(magic, message));
    let (mut from, mut to) = tokio::io::split(sibling.stream);
    let mut first = [0; 24];
    from.read_exact(&mut first).await?;
    tokio::spawn(async move {
        let mut taken = vec![0; 1 << 16];
        while from.read(&mut taken).await.is_ok_and(|len| len > 0) {}
    });
    let nobody = Address::new(&([0, 0, 0, 0], 0).into(), ServiceFlags::NONE);
    let version = VersionMessage {
        version: 70_016,
        services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
        timestamp: 0,
        receiver: nobody.clone(),
        sender: nobody,
        nonce: 1,
        user_agent: "/endless/".to_owned(),
        start_height: 0,
        relay: true,
    };
    to.write_all(&encode(NetworkMessage::Version(version)))
        .await?;
    to.write_all(&encode(NetworkMessage::Verack)).await?;
    for number in 0_u64.. {
        let ids = (0..1_000_u64).map(|id| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            hash[8..16].copy_from_slice(&id.to_le_bytes());
            Inventory::Transaction(Txid::from_byte_array(hash))
        });
        let frame = encode(NetworkMessage::Inv(ids.collect()));
        to.write_all(&frame).await?;
        sent.send_modify(|sent| *sent += frame.len() as u64);
        if number % 64 == 0 {
            to.flush().await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(())
}
