//! Whole fleets in one process, over loopback.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    futures::{AsyncWriteExt as _, StreamExt},
    identity::Keypair,
};
use parking_lot::Mutex;
use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, Network, block::Header, constants::genesis_block},
    fleet::{Duplex, FleetReport, FleetSource, FleetStatus, OwnState, SiblingEnd, SiblingStream},
    tip::ChainTip,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Fleet, FleetConfig, FleetHandle,
    hello::{VERSION, Version},
    members::Refusal,
    status::Status,
};

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

type Prepared = (Fleet, FleetHandle, mpsc::Receiver<SiblingStream>);

fn prepare(dir: &TempDir, seeds: Vec<String>, source: &Arc<Standing>) -> Prepared {
    prepare_as(&Keypair::generate_ed25519(), VERSION, dir, seeds, source)
}

fn prepare_as(
    key: &Keypair,
    version: Version,
    dir: &TempDir,
    seeds: Vec<String>,
    source: &Arc<Standing>,
) -> Prepared {
    let identity = key.to_protobuf_encoding().unwrap();
    let key = dir.path().join("key");
    fs::write(&key, "11".repeat(32)).unwrap();
    let config = FleetConfig {
        listen: "127.0.0.1:0".to_owned(),
        lookup_secs: 1,
        key_file: key.display().to_string(),
        seeds,
        ..FleetConfig::default()
    };
    let (node, streams) = mpsc::channel(4);
    let source = Arc::clone(source) as Arc<dyn FleetSource>;
    let fleet = Fleet::speaking(version, &config, &identity, [5; 32], source, node);
    let (fleet, handle) = fleet.unwrap();
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
    let seed: Multiaddr = seeds[0].parse().unwrap();
    bad.swarm.dial(seed).unwrap();
    let hostile = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        for count in 0_u32.. {
            tokio::select! {
                _ = bad.swarm.select_next_some() => {}
                _ = tick.tick() => {
                    let junk = count.to_le_bytes().to_vec();
                    let gossip = &mut bad.swarm.behaviour_mut().gossip;
                    // Nobody listens before the subscription has come, and after the end.
                    let _ = gossip.publish(&bad.topic, junk);
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

#[tokio::test(flavor = "multi_thread")]
async fn nodes_one_minor_version_apart_work_together_and_others_do_not() {
    let of = |major, minor| Version { major, minor };
    let dir = tempfile::tempdir().unwrap();
    let source = Standing::at(7, 1);
    let key = Keypair::generate_ed25519();
    let (fleet, handle, streams) = prepare_as(&key, of(1, 4), &dir, Vec::new(), &source);
    let mut one = run(fleet, handle, streams, source);
    for (version, works) in [
        (of(1, 3), true),
        (of(1, 5), true),
        (of(1, 2), false),
        (of(1, 6), false),
        (of(2, 4), false),
        (of(0, 4), false),
    ] {
        let (source, key) = (Standing::at(9, 2), Keypair::generate_ed25519());
        let refused = one.handle.report().refused;
        let seeds = address(&one, "/tcp/").await;
        let (fleet, handle, streams) = prepare_as(&key, version, &dir, seeds, &source);
        let mut other = run(fleet, handle, streams, source);
        if works {
            let (here, there) = (stream(&mut one).await, stream(&mut other).await);
            assert_ne!(here.dialed, there.dialed);
            // Each understands what the other tells.
            for (node, height) in [(&one, 9), (&other, 7)] {
                let tells = |report: &FleetReport| {
                    let mut told = report.siblings.iter().flat_map(|sibling| &sibling.told);
                    told.any(|told| told.tip_height == height)
                };
                wait(&node.handle, "the other's tip", tells).await;
            }
        } else {
            let is_refused = |report: &FleetReport| report.refused > refused;
            wait(&one.handle, "a refusal", is_refused).await;
            assert_eq!(connected(&other.handle.report()), 0, "{version:?}");
        }
        drop(other);
        wait(&one.handle, "alone", |report| connected(report) == 0).await;
    }
}

/// A member that writes these bytes to streams of gossip, again and again, until it is cut off.
async fn is_cut_off_for(frame: impl Fn(&Keypair, &str) -> Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let source = Standing::at(7, 1);
    let (fleet, handle, streams) = prepare(&dir, Vec::new(), &source);
    let gate = Arc::clone(&fleet.gate);
    let one = run(fleet, handle, streams, source);
    let to: PeerId = one.handle.report().peer_id.parse().unwrap();
    let seed: Multiaddr = address(&one, "/tcp/").await[0].parse().unwrap();
    let (key, source) = (Keypair::generate_ed25519(), Standing::at(9, 2));
    let (mut bad, handle, _streams) = prepare_as(&key, VERSION, &dir, Vec::new(), &source);
    let frame = frame(&key, &bad.topic.to_string());
    let mut control = bad.swarm.behaviour().streams.new_control();
    bad.swarm.dial(seed).unwrap();
    let connecting = tokio::spawn(async move {
        loop {
            bad.swarm.select_next_some().await;
        }
    });
    let sending = tokio::spawn(async move {
        let protocol = StreamProtocol::new("/meshsub/1.1.0");
        loop {
            if let Ok(mut stream) = control.open_stream(to, protocol.clone()).await {
                // The node's own gossip may open a stream, and nobody reads this one then.
                let mut write = async || {
                    stream.write_all(&frame).await?;
                    stream.flush().await
                };
                while let Ok(Ok(())) = timeout(Duration::from_millis(500), write()).await {
                    sleep(Duration::from_millis(1)).await;
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    let deadline = Instant::now() + DEADLINE;
    while gate.check_id(&handle.own) != Err(Refusal::Punished) {
        assert!(Instant::now() < deadline, "the sender is still there");
        sleep(Duration::from_millis(5)).await;
    }
    wait(&one.handle, "the cut", |report| connected(report) == 0).await;
    sending.abort();
    connecting.abort();
}

/// The frame of an RPC of gossipsub with one signed message, as its specification has it.
fn gossip_frame(key: &Keypair, topic: &str, data: &[u8], is_forged: bool) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        let mut field = vec![number << 3 | 2];
        field.extend(varint(bytes.len()));
        field.extend(bytes);
        field
    };
    let author = key.public().to_peer_id().to_bytes();
    let mut message = field(1, &author);
    message.extend(field(2, data));
    message.extend(field(3, &1_u64.to_be_bytes()));
    message.extend(field(4, topic.as_bytes()));
    let signed = [b"libp2p-pubsub:", message.as_slice()].concat();
    let mut signature = key.sign(&signed).unwrap();
    signature[0] ^= u8::from(is_forged);
    message.extend(field(5, &signature));
    let rpc = field(2, &message);
    [varint(rpc.len()), rpc].concat()
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

/// A status that is nothing but true.
fn honest_status() -> Vec<u8> {
    let own = Standing::at(9, 2).own_state();
    let status = Status {
        header: own.header,
        height: own.height,
        indexed: own.indexed,
        load_percent: own.load_percent,
        is_draining: own.is_draining,
        version: "1".to_owned(),
        ticket: Vec::new(),
        addrs: Vec::new(),
    };
    status.encode()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_one_message_again_and_again_is_cut_off() {
    is_cut_off_for(|key, topic| {
        let frame = gossip_frame(key, topic, &honest_status(), false);
        frame.repeat(4)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_messages_with_a_wrong_signature_is_cut_off() {
    is_cut_off_for(|key, topic| gossip_frame(key, topic, &honest_status(), true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_tells_of_messages_without_end_is_cut_off() {
    is_cut_off_for(|_, topic| {
        // RPC.control.ihave of an id that nobody has.
        let ihave = [
            vec![10, u8::try_from(topic.len()).unwrap()],
            topic.into(),
            vec![18, 1, 7],
        ];
        let ihave = ihave.concat();
        let control = [vec![10], varint(ihave.len()), ihave].concat();
        let rpc = [vec![26], varint(control.len()), control].concat();
        [varint(rpc.len()), rpc].concat().repeat(4)
    })
    .await;
}

/// Bytes over streams of one and of three siblings on loopback, and the processors' time on both
/// sides, which have threads of their own. The same over TCP alone, to compare: by hand.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, reason = "what it is for")]
fn bulk_over_a_stream() {
    println!("| over | from | MB/s | cores sending | cores receiving |");
    for count in [1, 3] {
        for transport in ["/tcp/", "/quic-v1"] {
            bulk(transport, count);
        }
        bulk_plain(count);
    }
}

const MIB: usize = 3 * 1024;

struct Sides {
    sending: Runtime,
    receiving: Runtime,
}

impl Sides {
    fn new() -> Self {
        let runtime = |name: &str| {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(2).thread_name(name).enable_all();
            builder.build().unwrap()
        };
        Self {
            sending: runtime("sending"),
            receiving: runtime("receiving"),
        }
    }

    /// Moves the bytes, and prints what it took.
    #[allow(clippy::print_stdout, reason = "what it is for")]
    fn measure(&self, over: &str, given: Vec<Box<dyn Duplex>>, taken: Vec<Box<dyn Duplex>>) {
        let count = given.len();
        let before = (Instant::now(), cpu_of("sending"), cpu_of("receiving"));
        let share = MIB / count;
        let giving: Vec<_> = given
            .into_iter()
            .map(|mut stream| {
                self.sending.spawn(async move {
                    let chunk = vec![3; 1 << 20];
                    for _ in 0..share {
                        stream.write_all(&chunk).await.unwrap();
                    }
                    stream.flush().await.unwrap();
                    stream
                })
            })
            .collect();
        let taking: Vec<_> = taken
            .into_iter()
            .map(|mut stream| {
                self.receiving.spawn(async move {
                    let mut chunk = vec![0; 1 << 20];
                    for _ in 0..share {
                        stream.read_exact(&mut chunk).await.unwrap();
                    }
                })
            })
            .collect();
        for task in taking {
            self.receiving.block_on(task).unwrap();
        }
        let seconds = before.0.elapsed().as_secs_f64();
        let cores = [
            (cpu_of("sending") - before.1) / seconds,
            (cpu_of("receiving") - before.2) / seconds,
        ];
        for task in giving {
            drop(self.sending.block_on(task).unwrap());
        }
        let mb = f64::from(u32::try_from(share * count).unwrap()) * 1.048_576;
        let [sending, receiving] = cores;
        println!(
            "| {over} | {count} | {:.0} | {sending:.2} | {receiving:.2} |",
            mb / seconds
        );
    }
}

fn bulk(transport: &str, count: u32) {
    let sides = Sides::new();
    let dir = tempfile::tempdir().unwrap();
    let receiving = &sides.receiving;
    let mut one = receiving.block_on(async { start(&dir, Vec::new(), Standing::at(7, 1)) });
    let own = one.handle.report().peer_id;
    let seeds = receiving.block_on(address(&one, transport));
    let (mut given, mut taken, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        let source = Standing::at(9, 2 + number);
        let start = async { start(&dir, seeds.clone(), source) };
        let mut other = sides.sending.block_on(start);
        taken.push(receiving.block_on(stream(&mut one)).stream);
        // The others have streams among each other as well.
        let to_one = async {
            loop {
                let stream = stream(&mut other).await;
                if stream.peer_id == own {
                    return stream.stream;
                }
            }
        };
        given.push(sides.sending.block_on(to_one));
        others.push(other);
    }
    sides.measure(transport, given, taken);
}

fn bulk_plain(count: u32) {
    let sides = Sides::new();
    let listener = sides.receiving.block_on(TcpListener::bind("127.0.0.1:0"));
    let listener = listener.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut given: Vec<Box<dyn Duplex>> = Vec::new();
    let mut taken: Vec<Box<dyn Duplex>> = Vec::new();
    for _ in 0..count {
        given.push(Box::new(
            sides.sending.block_on(TcpStream::connect(addr)).unwrap(),
        ));
        taken.push(Box::new(
            sides.receiving.block_on(listener.accept()).unwrap().0,
        ));
    }
    sides.measure("plain TCP", given, taken);
}

/// User and system time of the threads of this name.
fn cpu_of(name: &str) -> f64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let ticks: f64 = stats
        .filter(|stat| stat.contains(&format!("({name})")))
        .map(|stat| {
            let rest = stat.rsplit_once(") ").unwrap().1;
            let fields = rest.split(' ').skip(11).take(2);
            fields
                .map(|field| field.parse::<f64>().unwrap())
                .sum::<f64>()
        })
        .sum();
    ticks / 100.0
}
