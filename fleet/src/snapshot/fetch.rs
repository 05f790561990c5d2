//! The fetching side.
//!
//! ```text
//! connected siblings -> offers -> manifest -> a queue of chunks
//!   -> streams of several siblings, each with a chunk at a time -> Staging (hash, disk)
//! ```
//!
//! # Correctness
//! A chunk leaves the queue for good only when it has met its hash and is on the disk; whatever
//! else happens to it, it goes back. What comes over a stream is of exactly the length that
//! the manifest says, or it is not read. A fetch after which another one may be tried ends only
//! when its last write has, however long that hangs: it must not reach a file of the next try,
//! which may be of another snapshot.
//!
//! # Security
//! A sibling that sends bytes which do not meet their hash, or another number of them, is
//! cut off, and the chunk is fetched elsewhere. One that is slow or gone rests for
//! [`REST`].
//!
//! # Limits
//! [`MAX_SOURCES`] siblings with [`STREAMS_PER_SOURCE`] streams each, two chunks of 16 MiB in
//! memory for each stream: one that comes, and one that goes to the disk.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::pending,
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use libp2p::{PeerId, Stream, futures::future::join_all};
use libp2p_stream::{Control, OpenStreamError};
use parking_lot::Mutex;
use pulse_primitives::Height;
use pulse_snapshot::{
    ChunkBuffer, ChunkHash, MAX_MANIFEST_BYTES, Progress, SnapshotError, Staging,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{
    compat::{Compat, FuturesAsyncReadCompatExt},
    sync::CancellationToken,
    task::TaskTracker,
};
use tracing::{debug, info, warn};

use super::{
    PROTOCOL, has_signed,
    wire::{ANSWER_LEN, Answer, MAX_OFFERS_LEN, Question, decode_offers},
};
use crate::{links::LinkEvent, metrics, report::View};

/// Siblings that are fetched from at the same time.
pub const MAX_SOURCES: usize = 4;
/// Streams with each: one brings bytes while the other asks.
pub const STREAMS_PER_SOURCE: usize = 2;
/// Until a sibling that failed is asked again.
pub const REST: Duration = Duration::from_secs(5);

/// For a sibling to accept a stream and to begin an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// For the bytes of a chunk or of a manifest: 140 kB a second.
const BYTES_LIMIT: Duration = Duration::from_secs(120);
/// For the next bytes of a chunk.
const SILENCE: Duration = Duration::from_secs(10);
/// Time between two looks at who could be asked.
const TICK: Duration = Duration::from_millis(250);
/// Time between two rounds of asking who has it.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How long is waited for a sibling that has it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a fetch may bring nothing, whoever has it: longer than the slowest chunk takes.
const STALLED: Duration = Duration::from_secs(180);
/// For a sibling to say what snapshots it has.
const OFFERS_LIMIT: Duration = Duration::from_secs(10);

/// Why a snapshot was not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No connected sibling has had it for a while.
    #[error("no sibling has it")]
    NoSource,
    /// Its bytes are not what was offered.
    #[error("{0}")]
    Misbehaved(&'static str),
    /// The connection broke, or was too slow.
    #[error("the connection ended")]
    Io(#[from] io::Error),
    /// It cannot be written here.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// A snapshot that a sibling offers and vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The sibling.
    pub peer: PeerId,
    /// Hash of the manifest.
    pub manifest: ChunkHash,
    /// Height of the tip, as the sibling says.
    pub height: Height,
    /// The sibling's signature over the manifest, which has been checked.
    pub signature: Vec<u8>,
}

/// Asks siblings for snapshots. Cheap to clone; of use while the fleet runs.
#[derive(Clone)]
pub struct SnapshotClient {
    control: Control,
    network: [u8; 32],
    view: Arc<Mutex<View>>,
    events: mpsc::Sender<LinkEvent>,
    /// [`STALLED`], or less in tests.
    pub(super) stalled: Duration,
}

/// What is to be fetched.
struct Job {
    staging: Arc<Staging>,
    manifest: ChunkHash,
    queue: Mutex<VecDeque<(usize, usize)>>,
    /// Chunks that are not on the disk in their place.
    left: AtomicUsize,
    progress: Arc<Progress>,
    /// Chunks that are being hashed and written.
    placing: TaskTracker,
}

/// A sibling that has what is to be fetched.
#[derive(Default)]
struct Source {
    streams: usize,
    rests_until: Option<Instant>,
    /// Of all its streams, whose chunks go to others.
    cut_off: CancellationToken,
}

/// Why a stream fetches no more.
enum End {
    /// Nothing is left to ask for.
    Done,
    /// It broke, or was too slow.
    Lost(io::Error),
    /// The sibling does not have the snapshot any more.
    Gone,
    Misbehaved(&'static str),
    /// Not the sibling's fault.
    Failed(SnapshotError),
}

impl From<io::Error> for End {
    fn from(err: io::Error) -> Self {
        Self::Lost(err)
    }
}

impl SnapshotClient {
    pub(crate) fn new(
        control: Control,
        network: [u8; 32],
        view: Arc<Mutex<View>>,
        events: mpsc::Sender<LinkEvent>,
    ) -> Self {
        Self {
            control,
            network,
            view,
            events,
            stalled: STALLED,
        }
    }

    /// What the connected siblings offer.
    pub async fn offers(&self) -> Vec<Offer> {
        self.offers_of(self.connected()).await
    }

    /// Whether no seed is being connected: each one that was found is there, or could not be
    /// reached at the last attempt. Others may come later.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.view.lock().is_settled
    }

    /// The bytes of the manifest of an offer, which meet its hash.
    ///
    /// # Errors
    /// [`FetchError`]; a sibling that sent something else has been cut off.
    pub async fn manifest(&self, offer: &Offer) -> Result<Vec<u8>, FetchError> {
        let longest = u32::try_from(MAX_MANIFEST_BYTES).unwrap_or(u32::MAX);
        let question = Question::Manifest(offer.manifest);
        let asked = async {
            let mut stream = self.open(offer.peer).await?;
            let bytes = ask(&mut stream, question, longest).await?;
            let bytes = bytes.ok_or(FetchError::NoSource)?;
            match ChunkHash::of(&bytes) == offer.manifest {
                true => Ok(bytes),
                false => Err(FetchError::Misbehaved("another manifest than offered")),
            }
        };
        let answer = asked.await;
        if let Err(FetchError::Misbehaved(reason)) = answer {
            self.punish(offer.peer, reason).await;
        }
        answer
    }

    /// Fetches chunks of the snapshot with this manifest, as (file, chunk), from all siblings
    /// that have it. Ends with the future: what is there stays.
    ///
    /// # Errors
    /// [`FetchError::NoSource`] after a while without one, but not while a write hangs;
    /// [`FetchError::Snapshot`] when nothing can be written.
    pub async fn fetch(
        &self,
        staging: &Arc<Staging>,
        manifest: ChunkHash,
        chunks: Vec<(usize, usize)>,
        progress: &Arc<Progress>,
    ) -> Result<(), FetchError> {
        let job = Arc::new(Job {
            staging: Arc::clone(staging),
            manifest,
            left: AtomicUsize::new(chunks.len()),
            queue: Mutex::new(chunks.into()),
            progress: Arc::clone(progress),
            placing: TaskTracker::new(),
        });
        let mut streams = JoinSet::new();
        let fetched = self.fetch_all(&job, &mut streams).await;
        if let Err(FetchError::Snapshot(_)) = fetched {
            // The node ends with it, and must not wait for a disk that fails.
            return fetched;
        }
        // None of them holds on to the staging any more.
        streams.shutdown().await;
        job.placing.close();
        if !job.placing.is_empty() {
            info!("waiting for the disk to take what was fetched");
        }
        job.placing.wait().await;
        fetched
    }

    async fn fetch_all(
        &self,
        job: &Arc<Job>,
        streams: &mut JoinSet<(PeerId, End)>,
    ) -> Result<(), FetchError> {
        let mut sources = HashMap::<PeerId, Source>::new();
        let mut refused = HashSet::new();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut looked, mut busy) = (None::<Instant>, Instant::now());
        let (mut received, mut moved) = (job.progress.now().1, Instant::now());
        while job.left.load(Ordering::Acquire) > 0 {
            tokio::select! {
                Some(ended) = streams.join_next() => {
                    let (peer, end) = ended.map_err(io::Error::from)?;
                    // Nowhere else can it be written either.
                    if let End::Failed(err) = end {
                        return Err(err.into());
                    }
                    let Some(source) = sources.get_mut(&peer) else { continue };
                    source.streams -= 1;
                    match end {
                        End::Done | End::Failed(_) => {}
                        End::Lost(err) => {
                            debug!(%peer, %err, "a stream about snapshots ended");
                            source.rests_until = Some(Instant::now() + REST);
                        }
                        End::Gone => {
                            info!(%peer, "sibling does not have the snapshot any more");
                            sources.remove(&peer);
                            // Its other stream may go on, so that it must not be one anew.
                            refused.insert(peer);
                        }
                        End::Misbehaved(reason) => {
                            source.cut_off.cancel();
                            sources.remove(&peer);
                            refused.insert(peer);
                            self.punish(peer, reason).await;
                        }
                    }
                }
                _ = tick.tick() => {
                    let is_due = looked.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL);
                    if is_due && sources.len() < MAX_SOURCES {
                        self.look(job.manifest, &mut sources, &refused).await;
                        looked = Some(Instant::now());
                    }
                    self.employ(job, &mut sources, streams);
                    // Whoever takes streams and gives nothing is no source.
                    if job.progress.now().1 != received {
                        (received, moved) = (job.progress.now().1, Instant::now());
                    } else if moved.elapsed() >= self.stalled {
                        return Err(FetchError::NoSource);
                    }
                    if !streams.is_empty() {
                        busy = Instant::now();
                    } else if busy.elapsed() >= PATIENCE {
                        return Err(FetchError::NoSource);
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks for more siblings that have the snapshot, and forgets those that are gone.
    async fn look(
        &self,
        manifest: ChunkHash,
        sources: &mut HashMap<PeerId, Source>,
        refused: &HashSet<PeerId>,
    ) {
        let connected = self.connected();
        sources.retain(|peer, source| source.streams > 0 || connected.contains(peer));
        let others = connected
            .into_iter()
            .filter(|peer| !sources.contains_key(peer) && !refused.contains(peer));
        for offer in self.offers_of(others.collect()).await {
            if offer.manifest == manifest && sources.len() < MAX_SOURCES {
                sources.entry(offer.peer).or_default();
            }
        }
    }

    /// Gives each sibling its streams, as long as there is something to ask for.
    fn employ(
        &self,
        job: &Arc<Job>,
        sources: &mut HashMap<PeerId, Source>,
        streams: &mut JoinSet<(PeerId, End)>,
    ) {
        let now = Instant::now();
        for (peer, source) in sources {
            if source.rests_until.is_some_and(|until| until > now) {
                continue;
            }
            let waiting = job.queue.lock().len();
            for _ in source.streams..STREAMS_PER_SOURCE.min(source.streams + waiting) {
                source.streams += 1;
                let (client, job, peer) = (self.clone(), Arc::clone(job), *peer);
                let cut_off = source.cut_off.clone();
                streams.spawn(async move { (peer, client.work(peer, &job, &cut_off).await) });
            }
        }
    }

    /// Fetches chunks over one stream until none is left.
    async fn work(&self, peer: PeerId, job: &Job, cut_off: &CancellationToken) -> End {
        let mut stream = match self.open(peer).await {
            Ok(stream) => stream,
            Err(err) => return End::Lost(err),
        };
        let mut free = ChunkBuffer::default();
        let mut placing = Placing::default();
        loop {
            let Some(chunk) = job.queue.lock().pop_front() else {
                return match placing.placed(job).await {
                    Ok(()) => End::Done,
                    Err(end) => end,
                };
            };
            let receive = receive_chunk(&mut stream, job, chunk, free);
            // One chunk is hashed and written while the next one comes.
            let received = tokio::select! {
                received = cut_off.run_until_cancelled(receive) => received.unwrap_or_else(|| {
                    Err(End::Lost(io::ErrorKind::ConnectionAborted.into()))
                }),
                end = placing.failure(job) => Err(end),
            };
            let end = match (placing.placed(job).await, received) {
                (Ok(()), Ok(bytes)) => {
                    free = placing.begin(job, chunk, bytes);
                    continue;
                }
                (Err(end), _) | (Ok(()), Err(end)) => end,
            };
            job.queue.lock().push_front(chunk);
            return end;
        }
    }

    fn connected(&self) -> Vec<PeerId> {
        let view = self.view.lock();
        let siblings = view.siblings.iter();
        siblings
            .filter(|(_, sibling)| sibling.connections > 0)
            .map(|(peer, _)| *peer)
            .collect()
    }

    async fn offers_of(&self, peers: Vec<PeerId>) -> Vec<Offer> {
        let asked = peers.into_iter().map(|peer| async move {
            let asked = timeout(OFFERS_LIMIT, self.ask_offers(peer)).await;
            let Ok(offers) = asked else {
                debug!(%peer, "no answer about snapshots");
                return Vec::new();
            };
            match offers {
                Ok(offers) => offers,
                Err(FetchError::Misbehaved(reason)) => {
                    self.punish(peer, reason).await;
                    Vec::new()
                }
                // Most likely it does not speak of snapshots at all.
                Err(err) => {
                    debug!(%peer, %err, "no offers of snapshots");
                    Vec::new()
                }
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn ask_offers(&self, peer: PeerId) -> Result<Vec<Offer>, FetchError> {
        const MALFORMED: FetchError = FetchError::Misbehaved("malformed offers of snapshots");
        let mut stream = self.open(peer).await?;
        let Some(bytes) = ask(&mut stream, Question::Offers, MAX_OFFERS_LEN).await? else {
            return Ok(Vec::new());
        };
        let offered = decode_offers(&bytes).ok_or(MALFORMED)?;
        let offers = offered.into_iter().map(|offered| {
            let signature = &offered.signature;
            has_signed(&peer, &self.network, offered.manifest, signature)
                .then_some(Offer {
                    peer,
                    manifest: offered.manifest,
                    height: offered.height,
                    signature: offered.signature.clone(),
                })
                .ok_or(FetchError::Misbehaved("a bad signature over a manifest"))
        });
        offers.collect()
    }

    async fn open(&self, peer: PeerId) -> io::Result<Compat<Stream>> {
        let mut control = self.control.clone();
        let opened = timeout(ANSWER_LIMIT, control.open_stream(peer, PROTOCOL)).await?;
        match opened {
            Ok(stream) => Ok(stream.compat()),
            Err(OpenStreamError::Io(err)) => Err(err),
            Err(err) => Err(io::Error::other(err)),
        }
    }

    /// Has a sibling cut off that did what no honest node does.
    pub async fn punish(&self, peer: PeerId, reason: &'static str) {
        warn!(%peer, reason, "a sibling's snapshot is refused");
        // The swarm's task is gone only when everything ends.
        let _ = self
            .events
            .send(LinkEvent::Misbehaved { peer, reason })
            .await;
    }
}

/// The chunk of a stream that is being hashed and written.
#[derive(Default)]
struct Placing {
    task: Option<PlacingTask>,
    /// That of the chunk before, to be used again.
    buffer: ChunkBuffer,
}

struct PlacingTask {
    chunk: (usize, usize),
    result: JoinHandle<Result<ChunkBuffer, SnapshotError>>,
}

impl Placing {
    /// A chunk has come. Returns a buffer for the next one.
    fn begin(&mut self, job: &Job, chunk: (usize, usize), bytes: ChunkBuffer) -> ChunkBuffer {
        let (staging, progress) = (Arc::clone(&job.staging), Arc::clone(&job.progress));
        let result = job.placing.spawn_blocking(move || {
            staging.put_chunk(chunk.0, chunk.1, &bytes)?;
            // In place: what a kill leaves behind from now on is not fetched again.
            metrics::snapshot_received(bytes.len() as u64);
            progress.add(bytes.len() as u64);
            staging.sync(chunk.0)?;
            Ok(bytes)
        });
        self.task = Some(PlacingTask { chunk, result });
        mem::take(&mut self.buffer)
    }

    /// Waits until it is on the disk, and counts it. Goes on where it was if it is dropped.
    async fn placed(&mut self, job: &Job) -> Result<(), End> {
        let Some(task) = &mut self.task else {
            return Ok(());
        };
        let (result, chunk) = ((&mut task.result).await, task.chunk);
        self.task = None;
        let end = match result {
            Ok(Ok(buffer)) => {
                self.buffer = buffer;
                job.left.fetch_sub(1, Ordering::AcqRel);
                return Ok(());
            }
            Ok(Err(SnapshotError::File { .. })) => {
                End::Misbehaved("a chunk that does not meet its hash")
            }
            Ok(Err(err)) => End::Failed(err),
            Err(err) => End::Lost(err.into()),
        };
        job.queue.lock().push_front(chunk);
        Err(end)
    }

    /// Why it could not be put in its place; for ever waiting if it can.
    async fn failure(&mut self, job: &Job) -> End {
        match self.placed(job).await {
            Err(end) => end,
            Ok(()) => pending().await,
        }
    }
}

/// Asks for a chunk, and reads it into the buffer.
async fn receive_chunk(
    stream: &mut Compat<Stream>,
    job: &Job,
    (file, chunk): (usize, usize),
    mut buffer: ChunkBuffer,
) -> Result<ChunkBuffer, End> {
    let place = |place| u32::try_from(place).map_err(io::Error::other);
    let question = Question::Chunk {
        manifest: job.manifest,
        file: place(file)?,
        chunk: place(chunk)?,
    };
    let wanted = job.staging.manifest().files[file].chunk_range(chunk).1;
    let len = match put_question(stream, question).await? {
        Some(Answer::Here(len)) => len,
        Some(Answer::Gone) => return Err(End::Gone),
        Some(Answer::Later) => return Err(End::Lost(io::ErrorKind::WouldBlock.into())),
        None => return Err(End::Misbehaved("no answer to a question about a chunk")),
    };
    if usize::try_from(len).ok() != Some(wanted) {
        return Err(End::Misbehaved("a chunk of another length"));
    }
    buffer.resize(wanted);
    let read = timeout(BYTES_LIMIT, read_steadily(stream, &mut buffer)).await;
    read.map_err(io::Error::from)??;
    Ok(buffer)
}

/// Fills `buffer`. A sibling that sends nothing for [`SILENCE`] is given up, so that somebody else
/// is asked for the chunk.
async fn read_steadily(stream: &mut Compat<Stream>, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match timeout(SILENCE, stream.read(&mut buffer[filled..])).await?? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => filled += more,
        }
    }
    Ok(())
}

/// Asks, and reads the whole answer; `None` if there is none.
async fn ask(
    stream: &mut Compat<Stream>,
    question: Question,
    longest: u32,
) -> Result<Option<Vec<u8>>, FetchError> {
    let answer = put_question(stream, question).await?;
    let len = match answer.ok_or(FetchError::Misbehaved("no answer to a question"))? {
        Answer::Here(len) if len <= longest => u64::from(len),
        Answer::Here(_) => return Err(FetchError::Misbehaved("an answer that is too long")),
        Answer::Gone | Answer::Later => return Ok(None),
    };
    // Memory grows with what comes, not with what is promised.
    let mut bytes = Vec::new();
    let read = timeout(BYTES_LIMIT, stream.take(len).read_to_end(&mut bytes)).await;
    read.map_err(io::Error::from)??;
    match bytes.len() as u64 == len {
        true => Ok(Some(bytes)),
        false => Err(FetchError::Io(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Asks, and reads how the answer begins; `None` if that is no answer.
async fn put_question(
    stream: &mut Compat<Stream>,
    question: Question,
) -> io::Result<Option<Answer>> {
    let talk = async {
        stream.write_all(&question.encode()).await?;
        stream.flush().await?;
        let mut answer = [0; ANSWER_LEN];
        stream.read_exact(&mut answer).await?;
        Ok(Answer::decode(answer))
    };
    timeout(ANSWER_LIMIT, talk).await?
}
