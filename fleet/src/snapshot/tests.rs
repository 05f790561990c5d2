//! Small snapshots among fleets of one process, over loopback.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use libp2p::{Stream, futures::StreamExt, identity::Keypair};
use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, Network, constants::genesis_block, hashes::Hash},
    fleet::{FleetSource, FleetStatus, OwnState},
    tip::ChainTip,
};
use pulse_snapshot::{
    BlockRef, CHUNK_LEN, ChunkHash, Draft, Manifest, ManifestHead, Origin, Progress, Snapshot,
    Staging,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::{
    compat::{Compat, FuturesAsyncReadCompatExt},
    sync::{CancellationToken, DropGuard},
};

use super::*;
use crate::{
    Fleet, FleetConfig, FleetHandle,
    snapshot::wire::{Answer, Offered, QUESTION_LEN, Question, encode_offers},
};

/// Longest that anything may take.
const DEADLINE: Duration = Duration::from_secs(60);
const NETWORK: [u8; 32] = [5; 32];

struct Still(watch::Sender<ChainTip>);

impl FleetSource for Still {
    fn own_state(&self) -> OwnState {
        OwnState {
            header: genesis_block(Network::Regtest).header,
            height: 0,
            indexed: None,
            load_percent: 0,
            is_draining: false,
        }
    }

    fn header_height(&self, _: &BlockHash) -> Option<Height> {
        None
    }

    fn tip(&self) -> watch::Receiver<ChainTip> {
        self.0.subscribe()
    }
}

/// A fleet's key, and folders.
struct Place(TempDir);

/// A node of the fleet, until it is dropped.
struct Node {
    handle: FleetHandle,
    client: SnapshotClient,
    _stop: DropGuard,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("key"), "11".repeat(32)).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn fleet(&self, seeds: Vec<String>) -> (Fleet, FleetHandle, Keypair) {
        let config = FleetConfig {
            listen: "127.0.0.1:0".to_owned(),
            lookup_secs: 1,
            key_file: self.path("key").display().to_string(),
            seeds,
            ..FleetConfig::default()
        };
        let key = Keypair::generate_ed25519();
        let tip = ChainTip {
            height: 0,
            hash: BlockHash::all_zeros(),
            time: 0,
        };
        let source = Arc::new(Still(watch::Sender::new(tip)));
        let identity = key.to_protobuf_encoding().unwrap();
        let (node, _) = mpsc::channel(1);
        let (fleet, handle) = Fleet::new(&config, &identity, NETWORK, source, node).unwrap();
        (fleet, handle, key)
    }

    /// A node that offers the snapshots in a folder, with so many MiB a second.
    fn server(&self, shelf: &str, rate: u32, allowed: &Arc<AtomicBool>) -> Node {
        let (mut fleet, handle, _) = self.fleet(Vec::new());
        let allowed = Arc::clone(allowed);
        fleet
            .serve_snapshots(self.path(shelf), rate, allowed)
            .unwrap();
        run(fleet, handle)
    }

    /// A node that knows the others.
    async fn client(&self, servers: &[&Node]) -> Node {
        let mut seeds = Vec::new();
        for server in servers {
            seeds.push(address(server).await);
        }
        let (fleet, handle, _) = self.fleet(seeds);
        let node = run(fleet, handle);
        until("connections", || {
            let report = node.handle.report();
            let connected = report.siblings.iter().filter(|sibling| sibling.connected);
            connected.count() == servers.len()
        })
        .await;
        node
    }

    /// Makes a snapshot with these chunks on a shelf.
    fn make(&self, shelf: &str, chunks: u8) -> Manifest {
        let dir = self.path(shelf);
        fs::create_dir_all(&dir).unwrap();
        let draft = Draft::begin(&dir.join("one")).unwrap();
        let len = usize::try_from(CHUNK_LEN).unwrap();
        let mut bytes: Vec<u8> = (0..chunks).flat_map(|chunk| vec![chunk; len]).collect();
        bytes.truncate(bytes.len() - 7);
        for (name, bytes) in [
            ("headers.dat", &b"headers"[..]),
            ("kernel/blocks/blk00000.dat", &bytes),
        ] {
            fs::write(draft.place(name).unwrap(), bytes).unwrap();
        }
        let block = BlockRef {
            height: 7,
            hash: BlockHash::all_zeros(),
        };
        let head = ManifestHead {
            program: "test".to_owned(),
            created: 1,
            origin: Origin {
                layout: 1,
                network: "regtest".to_owned(),
                genesis: BlockHash::all_zeros(),
                signet_challenge: None,
                simulated: false,
                seed: None,
            },
            tip: block,
            chain_work: "00".repeat(32),
            indexed: None,
            utxo_commitment: None,
        };
        draft.finish(head, &Progress::default()).unwrap().0
    }

    /// The same snapshot on another shelf.
    fn copy(&self, from: &str, to: &str) {
        let (from, to) = (self.path(from).join("one"), self.path(to).join("one"));
        for name in [
            "manifest.json",
            "manifest.b3",
            "headers.dat",
            "kernel/blocks/blk00000.dat",
        ] {
            let to = to.join(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from.join(name), to).unwrap();
        }
    }

    fn staging(&self, manifest: &Manifest) -> (Arc<Staging>, Vec<(usize, usize)>) {
        let target = self.path("target");
        fs::create_dir_all(&target).unwrap();
        let staging = Staging::open(&target, manifest.clone()).unwrap();
        let missing = staging.missing(&Progress::default()).unwrap();
        (Arc::new(staging), missing)
    }

    fn assert_placed(&self, staging: Arc<Staging>, shelf: &str) {
        Arc::into_inner(staging).unwrap().place().unwrap();
        for name in ["headers.dat", "kernel/blocks/blk00000.dat"] {
            let there = fs::read(self.path("target").join(name)).unwrap();
            assert!(there == fs::read(self.path(shelf).join("one").join(name)).unwrap());
        }
    }
}

fn run(fleet: Fleet, handle: FleetHandle) -> Node {
    let stop = CancellationToken::new();
    let client = fleet.snapshots();
    tokio::spawn(fleet.run(stop.clone()));
    Node {
        handle,
        client,
        _stop: stop.drop_guard(),
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn address(node: &Node) -> String {
    let listens = || {
        let listen = node.handle.report().listen;
        listen.into_iter().find(|addr| addr.contains("/tcp/"))
    };
    until("listening", || listens().is_some()).await;
    listens().unwrap()
}

fn hash_in(shelf: &Path) -> ChunkHash {
    Snapshot::open(&shelf.join("one")).unwrap().hash()
}

fn is_connected(node: &Node, other: &Node) -> bool {
    let id = other.handle.report().peer_id;
    let report = node.handle.report();
    let mut siblings = report.siblings.iter();
    siblings.any(|sibling| sibling.peer_id == id && sibling.connected)
}

fn allowed() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(true))
}

async fn fetch(
    node: &Node,
    staging: &Arc<Staging>,
    hash: ChunkHash,
    missing: Vec<(usize, usize)>,
) -> Result<(), FetchError> {
    let progress = Arc::new(Progress::default());
    let fetch = node.client.fetch(staging, hash, missing, &progress);
    tokio::time::timeout(DEADLINE, fetch).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_offered_with_a_signature_and_fetched_and_what_was_there_is_not_again() {
    let place = Place::new();
    let manifest = place.make("shelf", 3);
    let hash = hash_in(&place.path("shelf"));
    let allowed = allowed();
    let server = place.server("shelf", 1000, &allowed);
    let client = place.client(&[&server]).await;
    let offers = client.client.offers().await;
    assert_eq!(offers.len(), 1);
    assert_eq!((offers[0].manifest, offers[0].height), (hash, 7));
    assert!(has_signed(
        &offers[0].peer,
        &NETWORK,
        hash,
        &offers[0].signature
    ));
    assert!(!has_signed(
        &offers[0].peer,
        &[6; 32],
        hash,
        &offers[0].signature
    ));
    let bytes = client.client.manifest(&offers[0]).await.unwrap();
    assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);

    let (staging, missing) = place.staging(&manifest);
    assert_eq!(missing.len(), 4);
    fetch(&client, &staging, hash, missing[..2].to_vec())
        .await
        .unwrap();
    drop(staging);
    // As after a kill.
    let (staging, missing) = place.staging(&manifest);
    assert_eq!(missing.len(), 2);
    fetch(&client, &staging, hash, missing).await.unwrap();
    place.assert_placed(staging, "shelf");

    // A node that must not vouch for anything offers nothing.
    allowed.store(false, Ordering::Release);
    assert!(client.client.offers().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_with_a_bad_chunk_is_cut_off_and_the_chunk_comes_from_another() {
    let place = Place::new();
    let manifest = place.make("good", 6);
    let hash = hash_in(&place.path("good"));
    place.copy("good", "bad");
    // Each of its chunks has a wrong byte.
    let file = place.path("bad").join("one/kernel/blocks/blk00000.dat");
    let mut bytes = fs::read(&file).unwrap();
    for chunk in bytes.chunks_mut(usize::try_from(CHUNK_LEN).unwrap()) {
        chunk[9] ^= 1;
    }
    fs::write(&file, bytes).unwrap();
    let allowed = allowed();
    // So slow that the other one is asked as well.
    let good = place.server("good", 60, &allowed);
    let bad = place.server("bad", 1000, &allowed);
    let client = place.client(&[&good, &bad]).await;
    assert_eq!(client.client.offers().await.len(), 2);
    let (staging, missing) = place.staging(&manifest);
    fetch(&client, &staging, hash, missing).await.unwrap();
    place.assert_placed(staging, "good");
    until("the end of the bad one", || !is_connected(&client, &bad)).await;
    assert!(is_connected(&client, &good));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_gives_up_waits_for_a_write_that_hangs() {
    let place = Place::new();
    let manifest = place.make("shelf", 1);
    let hash = hash_in(&place.path("shelf"));
    let server = place.server("shelf", 1000, &allowed());
    let mut client = place.client(&[&server]).await;
    client.client.stalled = Duration::from_secs(5);
    let (staging, missing) = place.staging(&manifest);
    // To open it for writing waits until somebody reads it.
    let hanging = staging.path_of("kernel/blocks/blk00000.dat");
    fs::remove_file(&hanging).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&hanging).status();
    assert!(made.unwrap().success());
    let mut fetch = Box::pin(fetch(&client, &staging, hash, missing));
    let early = tokio::time::timeout(Duration::from_secs(10), fetch.as_mut()).await;
    let reader = fs::OpenOptions::new().read(true).write(true).open(hanging);
    assert!(early.is_err(), "{early:?}");
    let ended = fetch.as_mut().await;
    drop((fetch, reader));
    assert!(matches!(ended, Err(FetchError::NoSource)), "{ended:?}");
    Arc::into_inner(staging).unwrap();
}

/// What a hostile member does when it is asked for a chunk.
#[derive(Clone, Copy)]
enum Trick {
    /// Says that it is longer, and sends for ever.
    Endless,
    /// Offers with a signature of nobody.
    Unsigned,
    /// Says that it does not have it, to the second who asks only after a while, and offers it
    /// again and again.
    Fickle,
}

/// A member with a program of its own.
async fn hostile(
    place: &Place,
    trick: Trick,
    hash: ChunkHash,
) -> (Node, tokio::task::JoinHandle<()>) {
    let (fleet, handle, key) = place.fleet(Vec::new());
    let mut incoming = fleet.accept_for_tests(PROTOCOL);
    let node = run(fleet, handle);
    let signature = match trick {
        Trick::Endless | Trick::Fickle => sign(&key, &NETWORK, hash).unwrap(),
        Trick::Unsigned => vec![1; 64],
    };
    let offers = encode_offers(&[Offered {
        manifest: hash,
        height: 7,
        signature,
    }]);
    let asked = Arc::new(AtomicUsize::new(0));
    let task = tokio::spawn(async move {
        while let Some((_, stream)) = incoming.next().await {
            let (offers, asked) = (offers.clone(), Arc::clone(&asked));
            tokio::spawn(async move {
                // Whoever asked has gone, as it should.
                let _ = play(stream.compat(), trick, &offers, &asked).await;
            });
        }
    });
    (node, task)
}

async fn play(
    mut stream: Compat<Stream>,
    trick: Trick,
    offers: &[u8],
    asked: &AtomicUsize,
) -> std::io::Result<()> {
    loop {
        let mut question = [0; QUESTION_LEN];
        stream.read_exact(&mut question).await?;
        if Question::decode(&question) == Some(Question::Offers) {
            let len = u32::try_from(offers.len()).unwrap();
            stream.write_all(&Answer::Here(len).encode()).await?;
            stream.write_all(offers).await?;
            stream.flush().await?;
            continue;
        }
        if matches!(trick, Trick::Fickle) {
            if asked.fetch_add(1, Ordering::AcqRel) == 1 {
                sleep(Duration::from_millis(8_500)).await;
            }
            stream.write_all(&Answer::Gone.encode()).await?;
            stream.flush().await?;
            continue;
        }
        stream.write_all(&Answer::Here(u32::MAX).encode()).await?;
        loop {
            stream.write_all(&[0; 4096]).await?;
            stream.flush().await?;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_answer_and_a_forged_offer_get_their_senders_cut_off() {
    let place = Place::new();
    let manifest = place.make("good", 2);
    let hash = hash_in(&place.path("good"));
    let allowed = Arc::new(AtomicBool::new(false));
    let good = place.server("good", 60, &allowed);
    for trick in [Trick::Endless, Trick::Unsigned] {
        // The bad one is the only one that has it, until it is found out.
        allowed.store(false, Ordering::Release);
        let (bad, task) = hostile(&place, trick, hash).await;
        let client = place.client(&[&good, &bad]).await;
        let (staging, missing) = place.staging(&manifest);
        let found_out = async {
            until("the end of the bad one", || !is_connected(&client, &bad)).await;
            allowed.store(true, Ordering::Release);
        };
        let (fetched, ()) = tokio::join!(fetch(&client, &staging, hash, missing), found_out);
        fetched.unwrap();
        assert!(is_connected(&client, &good));
        task.abort();
        drop(staging);
        fs::remove_dir_all(place.path("target")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_offers_what_it_says_not_to_have_is_asked_no_more_and_harms_nobody() {
    let place = Place::new();
    let manifest = place.make("good", 4);
    let hash = hash_in(&place.path("good"));
    // With its two streams it has all chunks under way when the other one says its last Gone.
    let good = place.server("good", 6, &allowed());
    let (fickle, task) = hostile(&place, Trick::Fickle, hash).await;
    let client = place.client(&[&good, &fickle]).await;
    assert_eq!(client.client.offers().await.len(), 2);
    let (staging, missing) = place.staging(&manifest);
    fetch(&client, &staging, hash, missing).await.unwrap();
    place.assert_placed(staging, "good");
    task.abort();
}
