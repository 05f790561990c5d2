//! Whole fleets in one process, over loopback.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{futures::StreamExt, identity::Keypair};
use parking_lot::Mutex;
use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, Network, block::Header, constants::genesis_block},
    fleet::{FleetReport, FleetSource, FleetStatus, OwnState, SiblingEnd, SiblingStream},
    tip::ChainTip,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{Fleet, FleetConfig, FleetHandle, members::Refusal};

/// Longest that anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A node that stands at a height and holds certain headers.
struct Standing {
    header: Header,
    height: Height,
    holds: Mutex<Vec<(BlockHash, Height)>>,
    tip: watch::Sender<ChainTip>,
}

impl Standing {
    fn at(height: Height, nonce: u32) -> Arc<Self> {
        let mut header = genesis_block(Network::Regtest).header;
        header.time += nonce;
        while header.validate_pow(header.target()).is_err() {
            header.nonce += 1;
        }
        let tip = ChainTip {
            height,
            hash: header.block_hash(),
            time: header.time,
        };
        Arc::new(Self {
            header,
            height,
            holds: Mutex::default(),
            tip: watch::Sender::new(tip),
        })
    }
}

impl FleetSource for Standing {
    fn own_state(&self) -> OwnState {
        OwnState {
            header: self.header,
            height: self.height,
            indexed: Some(self.height),
            load_percent: 1,
            is_draining: false,
        }
    }

    fn header_height(&self, hash: &BlockHash) -> Option<Height> {
        let holds = self.holds.lock();
        let found = holds.iter().find(|(held, _)| held == hash);
        found.map(|(_, height)| *height)
    }

    fn tip(&self) -> watch::Receiver<ChainTip> {
        self.tip.subscribe()
    }
}

struct Node {
    handle: FleetHandle,
    source: Arc<Standing>,
    streams: mpsc::Receiver<SiblingStream>,
    stop: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn prepare(
    dir: &TempDir,
    seeds: Vec<String>,
    source: &Arc<Standing>,
) -> (Fleet, FleetHandle, mpsc::Receiver<SiblingStream>) {
    let key = dir.path().join("key");
    fs::write(&key, "11".repeat(32)).unwrap();
    let config = FleetConfig {
        listen: "127.0.0.1:0".to_owned(),
        lookup_secs: 1,
        key_file: key.display().to_string(),
        seeds,
        ..FleetConfig::default()
    };
    let identity = Keypair::generate_ed25519().to_protobuf_encoding().unwrap();
    let (node, streams) = mpsc::channel(4);
    let source = Arc::clone(source) as Arc<dyn FleetSource>;
    let (fleet, handle) = Fleet::new(&config, &identity, [5; 32], source, node).unwrap();
    (fleet, handle, streams)
}

fn start(dir: &TempDir, seeds: Vec<String>, source: Arc<Standing>) -> Node {
    let (fleet, handle, streams) = prepare(dir, seeds, &source);
    run(fleet, handle, streams, source)
}

fn run(
    fleet: Fleet,
    handle: FleetHandle,
    streams: mpsc::Receiver<SiblingStream>,
    source: Arc<Standing>,
) -> Node {
    let stop = CancellationToken::new();
    tokio::spawn(fleet.run(stop.clone()));
    Node {
        handle,
        source,
        streams,
        stop,
    }
}

async fn wait(handle: &FleetHandle, what: &str, is_so: impl Fn(&FleetReport) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so(&handle.report()) {
        let report = handle.report();
        assert!(Instant::now() < deadline, "{what}: not so: {report:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn address(node: &Node, transport: &str) -> Vec<String> {
    let is_it = |addr: &&String| addr.contains(transport);
    wait(&node.handle, "listening", |report| {
        report.listen.iter().any(|addr| is_it(&addr))
    })
    .await;
    let report = node.handle.report();
    report.listen.iter().filter(is_it).cloned().collect()
}

async fn stream(node: &mut Node) -> SiblingStream {
    let stream = timeout(DEADLINE, node.streams.recv()).await;
    stream.expect("a stream in time").expect("the fleet runs")
}

fn connected(report: &FleetReport) -> usize {
    let siblings = report.siblings.iter();
    siblings.filter(|sibling| sibling.connected).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_has_one_stream_and_who_misbehaves_on_it_is_cut_off() {
    for transport in ["/tcp/", "/quic-v1"] {
        let dir = tempfile::tempdir().unwrap();
        let mut one = start(&dir, Vec::new(), Standing::at(7, 1));
        let seeds = address(&one, transport).await;
        let mut other = start(&dir, seeds, Standing::at(9, 2));
        let (mut here, mut there) = (stream(&mut one).await, stream(&mut other).await);
        assert_ne!(here.dialed, there.dialed);
        assert_eq!(here.peer_id, other.handle.report().peer_id);
        assert_eq!(there.peer_id, one.handle.report().peer_id);
        let (sent, mut received) = (vec![3; 3_000_000], vec![0; 3_000_000]);
        let write = async {
            // What a stream says first is said by who has opened it.
            here.stream.write_all(&sent).await.unwrap();
            here.stream.flush().await.unwrap();
        };
        let read = there.stream.read_exact(&mut received);
        let both = async { tokio::join!(write, read).1.unwrap() };
        assert_eq!(timeout(DEADLINE, both).await.unwrap(), sent.len());
        assert_eq!(sent, received);

        here.ended.send(SiblingEnd::Misbehaved).unwrap();
        wait(&other.handle, "alone", |report| connected(report) == 0).await;
        // It keeps trying, and is refused.
        wait(&one.handle, "refusal", |report| report.refused > 0).await;
        assert_eq!(connected(&one.handle.report()), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siblings_tip_counts_once_its_header_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let one = start(&dir, Vec::new(), Standing::at(7, 1));
    let other = start(&dir, address(&one, "/tcp/").await, Standing::at(9, 2));
    wait(&one.handle, "the other's tip", |report| {
        let mut told = report
            .siblings
            .iter()
            .filter_map(|sibling| sibling.told.as_ref());
        told.any(|told| told.tip_height == 9 && !told.tip_checked)
    })
    .await;
    assert_eq!(one.handle.report().best_height, None);
    // What counts is the height that this node knows it at.
    let hash = other.source.header.block_hash();
    one.source.holds.lock().push((hash, 8));
    assert_eq!(one.handle.report().best_height, Some(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_that_no_honest_node_sends_gets_its_sender_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (fleet, handle, streams) = prepare(&dir, Vec::new(), &Standing::at(7, 1));
    let gate = Arc::clone(&fleet.gate);
    let one = run(fleet, handle, streams, Standing::at(7, 1));
    let seeds = address(&one, "/tcp/").await;
    // A member with a program of its own.
    let source = Standing::at(9, 2);
    let (mut bad, handle, _streams) = prepare(&dir, Vec::new(), &source);
    let seed: libp2p::Multiaddr = seeds[0].parse().unwrap();
    bad.swarm.dial(seed).unwrap();
    let hostile = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        for count in 0_u32.. {
            tokio::select! {
                _ = bad.swarm.select_next_some() => {}
                _ = tick.tick() => {
                    let topic = bad.topic.clone();
                    let junk = count.to_le_bytes().to_vec();
                    let gossip = &mut bad.swarm.behaviour_mut().gossip;
                    // Nobody listens before the subscription has come, and after the end.
                    let _ = gossip.publish(topic, junk);
                }
            }
        }
    });
    let deadline = Instant::now() + DEADLINE;
    let mut was_there = false;
    loop {
        let there = connected(&one.handle.report()) > 0;
        if was_there && !there {
            break;
        }
        was_there |= there;
        assert!(Instant::now() < deadline, "the sender is still there");
        sleep(Duration::from_millis(5)).await;
    }
    hostile.abort();
    assert_eq!(gate.check_id(&handle.own), Err(Refusal::Punished));
}

/// Bytes of a second of one core's work at both ends together, on loopback: by hand.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, reason = "what it is for")]
async fn bulk_over_a_stream() {
    const MIB: usize = 2048;
    for transport in ["/tcp/", "/quic-v1"] {
        let dir = tempfile::tempdir().unwrap();
        let mut one = start(&dir, Vec::new(), Standing::at(7, 1));
        let seeds = address(&one, transport).await;
        let mut other = start(&dir, seeds, Standing::at(9, 2));
        let (mut here, mut there) = (stream(&mut one).await, stream(&mut other).await);
        let before = (Instant::now(), cpu_seconds());
        let write = tokio::spawn(async move {
            let chunk = vec![3; 1 << 20];
            for _ in 0..MIB {
                here.stream.write_all(&chunk).await.unwrap();
            }
            here.stream.flush().await.unwrap();
            here
        });
        let mut chunk = vec![0; 1 << 20];
        for _ in 0..MIB {
            there.stream.read_exact(&mut chunk).await.unwrap();
        }
        let (wall, cpu) = (before.0.elapsed(), cpu_seconds() - before.1);
        drop(write.await.unwrap());
        println!("{transport} {MIB} MiB: {wall:?}, {cpu:.2} CPU seconds of both ends");
    }
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap();
    let rest = text.rsplit_once(") ").unwrap().1;
    let mut fields = rest.split(' ').skip(11);
    let mut ticks = || fields.next().unwrap().parse::<f64>().unwrap();
    (ticks() + ticks()) / 100.0
}
