//! The serving side.
//!
//! # Limits
//! [`MAX_STREAMS_PER_SIBLING`] and [`MAX_STREAMS`] streams, one question at a time on each;
//! what is more is closed at once. All bytes together keep to a rate, and a question
//! costs at least [`LEAST_COST`] of it. A stream holds one piece of [`PIECE`] bytes in
//! memory and ends when nothing is asked or taken for [`PATIENCE`].

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use libp2p::{PeerId, Stream, futures::StreamExt, identity::Keypair};
use libp2p_stream::IncomingStreams;
use parking_lot::Mutex;
use pulse_snapshot::ChunkHash;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use tracing::{debug, warn};

use super::{
    rate::Rate,
    shelf::Shelf,
    sign,
    wire::{Answer, Offered, QUESTION_LEN, Question, encode_offers},
};
use crate::metrics;

/// Streams that one sibling may have opened.
pub const MAX_STREAMS_PER_SIBLING: usize = 4;
/// Streams of all siblings together.
pub const MAX_STREAMS: usize = 16;

/// Bytes that are read and sent at a time.
const PIECE: u32 = 1 << 20;
/// What a question costs at least, in bytes.
const LEAST_COST: u32 = 64 << 10;
/// For a sibling to ask the next question, and to take a piece.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers siblings.
pub(crate) struct Server {
    incoming: IncomingStreams,
    shared: Arc<Shared>,
}

struct Shared {
    key: Keypair,
    network: [u8; 32],
    shelf: Shelf,
    rate: Rate,
    /// Whether this node may vouch for anything.
    allowed: Arc<AtomicBool>,
    open: Mutex<HashMap<PeerId, usize>>,
}

/// A place among the streams, free again when it is dropped.
struct Slot {
    shared: Arc<Shared>,
    peer: PeerId,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock();
        if let Some(streams) = open.get_mut(&self.peer) {
            *streams -= 1;
            if *streams == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

impl Server {
    /// Offers the snapshots in `dir` while `allowed` is set.
    pub(crate) fn new(
        incoming: IncomingStreams,
        key: Keypair,
        network: [u8; 32],
        dir: PathBuf,
        mib_per_second: u32,
        allowed: Arc<AtomicBool>,
    ) -> Self {
        let shared = Shared {
            key,
            network,
            shelf: Shelf::new(dir),
            rate: Rate::new(mib_per_second),
            allowed,
            open: Mutex::default(),
        };
        Self {
            incoming,
            shared: Arc::new(shared),
        }
    }

    /// Works until the swarm has gone.
    pub(crate) async fn run(mut self) {
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = streams.join_next() => {}
                incoming = self.incoming.next() => {
                    let Some((peer, stream)) = incoming else { return };
                    // Dropped without a slot, which closes it.
                    if let Some(slot) = Shared::slot(&self.shared, peer) {
                        streams.spawn(async move {
                            if let Err(err) = slot.shared.answer(stream).await {
                                debug!(%peer, %err, "a stream about snapshots ended");
                            }
                            drop(slot);
                        });
                    }
                }
            }
        }
    }
}

impl Shared {
    fn slot(shared: &Arc<Self>, peer: PeerId) -> Option<Slot> {
        let mut open = shared.open.lock();
        let all: usize = open.values().sum();
        let streams = open.get(&peer).copied().unwrap_or(0);
        if all >= MAX_STREAMS || streams >= MAX_STREAMS_PER_SIBLING {
            return None;
        }
        open.insert(peer, streams + 1);
        drop(open);
        Some(Slot {
            shared: Arc::clone(shared),
            peer,
        })
    }

    async fn answer(self: &Arc<Self>, stream: Stream) -> io::Result<()> {
        let mut stream = stream.compat();
        loop {
            let mut question = [0; QUESTION_LEN];
            match timeout(PATIENCE, stream.read_exact(&mut question)).await? {
                Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            };
            self.rate.take(LEAST_COST).await;
            if !self.allowed.load(Ordering::Acquire) {
                say(&mut stream, Answer::Gone).await?;
                continue;
            }
            match Question::decode(&question) {
                Some(Question::Offers) => {
                    let shared = Arc::clone(self);
                    let offers = spawn_blocking(move || shared.offers()).await?;
                    self.send(&mut stream, &encode_offers(&offers)).await?;
                }
                Some(Question::Manifest(manifest)) => {
                    let shared = Arc::clone(self);
                    match spawn_blocking(move || shared.manifest(manifest)).await? {
                        Some(bytes) => self.send(&mut stream, &bytes).await?,
                        None => say(&mut stream, Answer::Gone).await?,
                    }
                }
                Some(Question::Chunk {
                    manifest,
                    file,
                    chunk,
                }) => {
                    let shared = Arc::clone(self);
                    let found = spawn_blocking(move || shared.chunk(manifest, file, chunk)).await?;
                    match found {
                        Some(chunk) => self.send_chunk(&mut stream, chunk).await?,
                        None => say(&mut stream, Answer::Gone).await?,
                    }
                }
                None => say(&mut stream, Answer::Gone).await?,
            }
        }
    }

    fn offers(&self) -> Vec<Offered> {
        let kept = self.shelf.kept();
        let offers = kept.iter().filter_map(|kept| {
            let manifest = kept.snapshot.hash();
            let signature = sign(&self.key, &self.network, manifest);
            Some(Offered {
                manifest,
                height: kept.snapshot.manifest().snapshot.tip.height,
                signature: signature.inspect_err(|err| warn!(%err, "signing")).ok()?,
            })
        });
        offers.collect()
    }

    fn manifest(&self, manifest: ChunkHash) -> Option<Vec<u8>> {
        let kept = self.shelf.get(manifest)?;
        let bytes = kept.snapshot.manifest_bytes();
        bytes
            .inspect_err(|err| warn!(%err, "a manifest that is offered cannot be read"))
            .ok()
    }

    /// The open file of a chunk, where it starts, and its length.
    fn chunk(&self, manifest: ChunkHash, file: u32, chunk: u32) -> Option<(File, u64, u32)> {
        let kept = self.shelf.get(manifest)?;
        let file = usize::try_from(file).ok()?;
        let chunk = usize::try_from(chunk).ok()?;
        let entry = kept.snapshot.manifest().files.get(file)?;
        entry.chunks.get(chunk)?;
        let (start, len) = entry.chunk_range(chunk);
        let path = kept.snapshot.file_path(file)?;
        let open = File::open(&path)
            .inspect_err(|err| warn!(path = %path.display(), %err, "a snapshot's file"))
            .ok()?;
        Some((open, start, u32::try_from(len).ok()?))
    }

    async fn send(&self, stream: &mut Compat<Stream>, bytes: &[u8]) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        say(stream, Answer::Here(len)).await?;
        for piece in bytes.chunks(PIECE as usize) {
            self.rate
                .take(u32::try_from(piece.len()).unwrap_or(PIECE))
                .await;
            timeout(PATIENCE, stream.write_all(piece)).await??;
        }
        timeout(PATIENCE, stream.flush()).await?
    }

    async fn send_chunk(
        &self,
        stream: &mut Compat<Stream>,
        (file, start, len): (File, u64, u32),
    ) -> io::Result<()> {
        say(stream, Answer::Here(len)).await?;
        let (mut file, mut piece) = (file, Vec::new());
        let mut sent = 0;
        while sent < len {
            let now = PIECE.min(len - sent);
            self.rate.take(now).await;
            let read = spawn_blocking(move || {
                piece.resize(now as usize, 0);
                file.read_exact_at(&mut piece, start + u64::from(sent))?;
                Ok::<_, io::Error>((file, piece))
            });
            (file, piece) = read.await??;
            timeout(PATIENCE, stream.write_all(&piece)).await??;
            metrics::snapshot_sent(now);
            sent += now;
        }
        timeout(PATIENCE, stream.flush()).await?
    }
}

async fn say(stream: &mut Compat<Stream>, answer: Answer) -> io::Result<()> {
    timeout(PATIENCE, stream.write_all(&answer.encode())).await??;
    timeout(PATIENCE, stream.flush()).await?
}
