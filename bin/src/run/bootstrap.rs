//! `--bootstrap snapshot`: an empty data directory begins with a snapshot of a sibling.
//!
//! ```text
//! the fleet alone -> offers -> manifests -> the one of most work
//!   -> headers.dat: its work  -> everything else -> the index's state
//!   -> trust.json -> put in place -> the node opens as ever
//! ```
//!
//! # Correctness
//! Everything lies in `restore.partial` until it is whole, and goes on where it was after a
//! cut or a kill, by preference with the same snapshot. The stores are not opened before.
//!
//! # Security
//! What the headers prove is checked before anything large is fetched: the chain that they
//! make from genesis up to the snapshot's tip has the work that the manifest claims, and no
//! less than the network's minimum. The state is the sibling's word (see [`crate::trust`]).
//! Who offers what does not hold is cut off.
//!
//! # Limits
//! Free space is looked at before the first byte; [`MAX_MANIFESTS`] manifests are looked at
//! in a round. When there is room for none of those that are offered the start ends with a
//! message. Without an offer the node waits and says so: it does not begin with blocks by itself.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use pulse_api::Opening;
use pulse_fleet::{FetchError, Fleet, Offer, SnapshotClient};
use pulse_meta::{MetaStore, durable};
use pulse_node::headers::HeaderStore;
use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, Work, block::Header, constants::genesis_block, hashes::Hash},
    fleet::{FleetSource, OwnState},
    network::ChainParams,
    tip::ChainTip,
};
use pulse_snapshot::{
    ChunkHash, Manifest, ManifestHead, Progress, STAGING_FOLDER, SnapshotError, Staging, TOP_LEVEL,
};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::{Bootstrap, Config},
    data_dir::DataDir,
    snapshot::check_index,
    trust::{Record, Trust, Voucher},
};

use super::{blocking, replay};

/// Manifests that are looked at in a round.
const MAX_MANIFESTS: usize = 8;
/// Time between two rounds of asking.
const ROUND: Duration = Duration::from_secs(1);
/// The same after the first round, doubled with each up to [`ROUND`]: siblings are found in a
/// moment.
const FIRST_ROUND: Duration = Duration::from_millis(20);
/// How long other offers are waited for after the first one, while siblings are still being
/// connected.
const SETTLING: Duration = Duration::from_millis(200);
/// How long another offer is waited for after one that there is no room for, or after which a
/// fetch that was begun is given up for another snapshot.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two lines of log about the same.
const TELL_INTERVAL: Duration = Duration::from_secs(10);
/// File with the manifest of the snapshot that is being fetched.
const MANIFEST_FILE: &str = "restore.manifest";

/// Whether the node has to fetch a snapshot before it can open.
///
/// # Errors
/// When a fetch was begun and is not to be finished.
pub fn is_wanted(config: &Config, data_dir: &DataDir) -> anyhow::Result<bool> {
    let root = data_dir.root();
    let by_snapshot = config.bootstrap == Bootstrap::Snapshot;
    if Staging::is_under_way(root)? {
        if !by_snapshot {
            bail!(
                "data directory {} holds a snapshot that was not fetched to its end. Hint: go on with --bootstrap snapshot, or give another --data-dir",
                root.display()
            );
        }
        return Ok(true);
    }
    let is_filled = TOP_LEVEL.iter().any(|name| root.join(name).exists());
    if is_filled {
        // All is in its place, and the folder is empty.
        finish(root)?;
    }
    Ok(by_snapshot && !is_filled)
}

/// Removes what only a fetch needs.
fn finish(root: &Path) -> anyhow::Result<()> {
    if root.join(STAGING_FOLDER).exists() {
        Staging::clear(root)?;
    }
    match fs::remove_file(root.join(MANIFEST_FILE)) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(err).context(MANIFEST_FILE),
        _ => Ok(()),
    }
}

/// Fetches a snapshot into the data directory. Ends with the future: what is there is taken
/// up by the next start.
///
/// # Errors
/// When there is no room, or something cannot be written.
pub async fn run(config: &Config, data_dir: &DataDir, opening: &Opening) -> anyhow::Result<()> {
    let root = data_dir.root().to_owned();
    let identity = blocking({
        let root = root.clone();
        move || {
            Ok(MetaStore::open(&root)?
                .0
                .identity()
                .to_protobuf_encoding()?)
        }
    })
    .await?;
    let network = config.chain.genesis_hash().to_byte_array();
    // Nobody takes the streams of the Bitcoin protocol yet; siblings try again later.
    let (node, _) = mpsc::channel(1);
    let newcomer = Arc::new(Newcomer::new(&config.chain));
    let (fleet, _) = Fleet::new(&config.fleet, &identity, network, newcomer, node)?;
    let client = fleet.snapshots();
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let running = tokio::spawn(fleet.run(stop));
    let start = Start {
        client,
        config,
        data_dir,
        root,
        progress: Arc::new(Progress::default()),
    };
    start.any(opening).await?;
    drop(guard);
    running.await.context("the fleet panicked")
}

/// A snapshot that siblings offer.
struct Candidate {
    manifest: Manifest,
    bytes: Vec<u8>,
    hash: ChunkHash,
    offers: Vec<Offer>,
}

/// What came of trying one.
enum Outcome {
    /// It is in its place.
    Done,
    /// It is not what its offer says.
    Refused(anyhow::Error),
    /// There is no room for it here.
    TooLarge(SnapshotError),
    /// No sibling has it any more.
    Gone,
}

struct Start<'a> {
    client: SnapshotClient,
    config: &'a Config,
    data_dir: &'a DataDir,
    root: PathBuf,
    progress: Arc<Progress>,
}

impl Start<'_> {
    /// Tries what is offered until one is in its place.
    async fn any(&self, opening: &Opening) -> anyhow::Result<()> {
        let mut refused = HashSet::new();
        let mut too_large = None::<(Instant, anyhow::Error)>;
        let mut told = None::<Instant>;
        let mut offered = None::<Instant>;
        let mut pause = FIRST_ROUND;
        loop {
            opening.doing("the node is starting: looking for a sibling that offers a snapshot");
            let is_settled = self.client.is_settled();
            let Some(candidate) = self.choose(&mut refused).await else {
                if let Some((_, err)) = too_large.take_if(|(at, _)| at.elapsed() >= PATIENCE) {
                    return Err(err);
                }
                let is_due = told.is_none_or(|told| told.elapsed() >= TELL_INTERVAL);
                if pause >= ROUND && is_due {
                    told = Some(Instant::now());
                    warn!(
                        "no sibling offers a snapshot that fits. Hint: set fleet.snapshots_dir on one and make a snapshot there, or start with --bootstrap blocks"
                    );
                }
                sleep(pause).await;
                pause = (2 * pause).min(ROUND);
                continue;
            };
            let waits = match self.begun() {
                Some(begun) if begun != candidate.hash => PATIENCE,
                _ if is_settled => Duration::ZERO,
                _ => SETTLING,
            };
            let waited = offered.get_or_insert_with(Instant::now).elapsed();
            if waited < waits {
                sleep((waits - waited).min(ROUND)).await;
                continue;
            }
            opening.doing("the node is starting: fetching a snapshot from its siblings");
            match self.take(&candidate).await? {
                Outcome::Done => return Ok(()),
                Outcome::Gone => {
                    warn!(manifest = %candidate.hash, "no sibling has the snapshot any more")
                }
                // Its size is the sibling's word, and another's may fit.
                Outcome::TooLarge(err) => {
                    warn!(manifest = %candidate.hash, %err, "no room for a snapshot");
                    refused.insert(candidate.hash);
                    too_large = Some((Instant::now(), err.into()));
                }
                Outcome::Refused(err) => {
                    warn!(manifest = %candidate.hash, err = format!("{err:#}"), "snapshot refused");
                    refused.insert(candidate.hash);
                    for offer in &candidate.offers {
                        self.client
                            .punish(offer.peer, "offered a snapshot that is not what it says")
                            .await;
                    }
                }
            }
        }
    }

    /// The snapshot that a fetch was begun of.
    fn begun(&self) -> Option<ChunkHash> {
        let bytes = fs::read(self.root.join(MANIFEST_FILE)).ok()?;
        Some(ChunkHash::of(&bytes))
    }

    /// The offered snapshot that is to be fetched: the one that was begun, else that of most
    /// work, of those the one that most siblings have.
    async fn choose(&self, refused: &mut HashSet<ChunkHash>) -> Option<Candidate> {
        let mut offers = BTreeMap::<ChunkHash, Vec<Offer>>::new();
        for offer in self.client.offers().await {
            if !refused.contains(&offer.manifest) {
                offers.entry(offer.manifest).or_default().push(offer);
            }
        }
        let mut offers: Vec<_> = offers.into_iter().collect();
        offers.sort_by_key(|(_, offers)| std::cmp::Reverse(offers.len()));
        offers.truncate(MAX_MANIFESTS);
        let begun = self.begun();
        let mut best = None;
        for (hash, offers) in offers {
            let Some(candidate) = self.look_at(hash, offers, refused).await else {
                continue;
            };
            let rank = (
                begun == Some(hash),
                work(&candidate.manifest.snapshot),
                candidate.offers.len(),
            );
            if best.as_ref().is_none_or(|(other, _)| rank > *other) {
                best = Some((rank, candidate));
            }
        }
        Some(best?.1)
    }

    /// Gets the manifest and looks at whether it is of this chain.
    async fn look_at(
        &self,
        hash: ChunkHash,
        offers: Vec<Offer>,
        refused: &mut HashSet<ChunkHash>,
    ) -> Option<Candidate> {
        let mut bytes = None;
        for offer in &offers {
            match self.client.manifest(offer).await {
                Ok(got) => {
                    bytes = Some(got);
                    break;
                }
                Err(err) => warn!(peer = %offer.peer, %err, "no manifest of a snapshot"),
            }
        }
        let bytes = bytes?;
        let manifest = match Manifest::decode(&bytes) {
            Ok(manifest) => manifest,
            Err(err) => {
                // Of another version, perhaps: of no use, and no misdeed.
                warn!(manifest = %hash, %err, "snapshot of no use");
                refused.insert(hash);
                return None;
            }
        };
        if let Err(err) = self.data_dir.accepts(&manifest.snapshot.origin) {
            warn!(manifest = %hash, %err, "snapshot of no use");
            refused.insert(hash);
            return None;
        }
        Some(Candidate {
            manifest,
            bytes,
            hash,
            offers,
        })
    }

    /// Fetches one and puts it in its place.
    async fn take(&self, candidate: &Candidate) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let head = &candidate.manifest.snapshot;
        info!(
            manifest = %candidate.hash,
            height = head.tip.height,
            hash = %head.tip.hash,
            siblings = candidate.offers.len(),
            bytes = candidate.manifest.total_bytes(),
            "fetching a snapshot"
        );
        self.progress.begin("looking at what is there", 0);
        let opened = blocking({
            let (root, manifest) = (self.root.clone(), candidate.manifest.clone());
            let (bytes, progress) = (candidate.bytes.clone(), Arc::clone(&self.progress));
            move || {
                let staging = match Staging::open(&root, manifest) {
                    Err(err @ SnapshotError::NoSpace { .. }) => return Ok(Err(err)),
                    opened => opened?,
                };
                durable::write(&root.join(MANIFEST_FILE), &bytes, 0o600)?;
                let missing = staging.missing(&progress)?;
                Ok(Ok((Arc::new(staging), missing)))
            }
        });
        let (staging, missing) = match opened.await? {
            Ok(opened) => opened,
            Err(err) => return Ok(Outcome::TooLarge(err)),
        };
        let files = &candidate.manifest.files;
        let (headers, rest): (Vec<_>, Vec<_>) = missing
            .into_iter()
            .partition(|(file, _)| files[*file].path == "headers.dat");
        if !self.fetch(&staging, candidate, headers).await? {
            return Ok(Outcome::Gone);
        }
        let proven = blocking({
            let (path, chain) = (staging.path_of("headers.dat"), self.config.chain.clone());
            let head = head.clone();
            move || Ok(check_headers(&path, &chain, &head))
        });
        if let Err(err) = proven.await? {
            return Ok(Outcome::Refused(err));
        }
        if !self.fetch(&staging, candidate, rest).await? {
            return Ok(Outcome::Gone);
        }
        let indexed = blocking({
            let (path, head) = (staging.path_of("index"), head.clone());
            move || Ok(check_index(&head, &path))
        });
        if let Err(err) = indexed.await? {
            return Ok(Outcome::Refused(err));
        }
        self.place(staging, candidate).await?;
        info!(
            height = head.tip.height,
            elapsed_ms = started.elapsed().as_millis(),
            "snapshot fetched"
        );
        Ok(Outcome::Done)
    }

    /// Writes down whose word it is, and puts everything in its place.
    async fn place(&self, staging: Arc<Staging>, candidate: &Candidate) -> anyhow::Result<()> {
        let vouchers = candidate.offers.iter().map(|offer| Voucher {
            peer_id: offer.peer.to_string(),
            signature: hex::encode(&offer.signature),
        });
        let record = Record {
            trust: Trust::Sibling,
            manifest: candidate.hash.to_string(),
            tip: candidate.manifest.snapshot.tip,
            vouchers: vouchers.collect(),
            coins: None,
            reason: None,
        };
        let root = self.root.clone();
        blocking(move || {
            record.write(&root)?;
            replay::keep_base(&root, &staging.path_of("kernel/chainstate"))?;
            let staging = Arc::into_inner(staging).context("a chunk is still being written")?;
            staging.place()?;
            finish(&root)
        })
        .await
    }

    /// Fetches chunks, and tells how far that has come. `false` when nobody has them.
    async fn fetch(
        &self,
        staging: &Arc<Staging>,
        candidate: &Candidate,
        chunks: Vec<(usize, usize)>,
    ) -> anyhow::Result<bool> {
        let files = &candidate.manifest.files;
        let bytes = |(file, chunk): &(usize, usize)| files[*file].chunk_range(*chunk).1 as u64;
        let total = chunks.iter().map(bytes).sum();
        self.progress.begin("fetching", total);
        let fetched = self
            .client
            .fetch(staging, candidate.hash, chunks, &self.progress);
        let fetched = tokio::select! {
            fetched = fetched => fetched,
            () = self.tell() => Ok(()),
        };
        pulse_fleet::metrics::snapshot_left(0);
        match fetched {
            Ok(()) => Ok(true),
            Err(FetchError::NoSource) => Ok(false),
            Err(err) => Err(err.into()),
        }
    }

    /// Tells how far a fetch has come, for ever.
    async fn tell(&self) {
        let mut tick = interval(ROUND);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Instant::now();
        loop {
            tick.tick().await;
            let (_, done, total) = self.progress.now();
            pulse_fleet::metrics::snapshot_left(total.saturating_sub(done));
            if told.elapsed() >= TELL_INTERVAL {
                told = Instant::now();
                info!(
                    done_mib = done >> 20,
                    total_mib = total >> 20,
                    "fetching a snapshot"
                );
            }
        }
    }
}

/// Work that a manifest claims; it has been found to be a number.
fn work(head: &ManifestHead) -> Work {
    let mut bytes = [0; 32];
    // Zero, if it were none, is less than any chain has.
    let _ = hex::decode_to_slice(&head.chain_work, &mut bytes);
    Work::from_be_bytes(bytes)
}

/// The headers in the file at `path` make the chain that the manifest speaks of, and that
/// has work enough.
fn check_headers(path: &Path, chain: &ChainParams, head: &ManifestHead) -> anyhow::Result<()> {
    // Each one has its proof of work and stands behind its parent.
    let headers = HeaderStore::open(path, chain)?;
    let tip = head.tip;
    if headers.height_of(&tip.hash) != Some(tip.height) {
        bail!(
            "its headers do not lead to its tip {} at {}",
            tip.hash,
            tip.height
        );
    }
    let proven = headers.work_of(&tip.hash).context("no work")?;
    if proven != work(head) {
        bail!("its headers have another work than it claims");
    }
    if proven < chain.min_chain_work {
        bail!("its chain has less than the minimum chain work");
    }
    Ok(())
}

/// A node that has nothing yet, as its siblings are told.
struct Newcomer {
    header: Header,
    tip: watch::Sender<ChainTip>,
}

impl Newcomer {
    fn new(chain: &ChainParams) -> Self {
        let header = genesis_block(chain.network).header;
        let tip = ChainTip {
            height: 0,
            hash: header.block_hash(),
            time: header.time,
        };
        Self {
            header,
            tip: watch::Sender::new(tip),
        }
    }
}

impl FleetSource for Newcomer {
    fn own_state(&self) -> OwnState {
        OwnState {
            header: self.header,
            height: 0,
            indexed: None,
            load_percent: 0,
            // It wants no clients, and this fleet ends before it does.
            is_draining: true,
        }
    }

    fn header_height(&self, _: &BlockHash) -> Option<Height> {
        None
    }

    fn tip(&self) -> watch::Receiver<ChainTip> {
        self.tip.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::Network;
    use pulse_snapshot::{BlockRef, Origin};
    use pulse_testkit::ChainBuilder;

    use super::*;

    fn head(tip: BlockRef, work: Work) -> ManifestHead {
        ManifestHead {
            program: String::new(),
            created: 0,
            origin: Origin {
                layout: 1,
                network: "regtest".to_owned(),
                genesis: BlockHash::all_zeros(),
                signet_challenge: None,
                simulated: false,
                seed: None,
            },
            tip,
            chain_work: hex::encode(work.to_be_bytes()),
            indexed: None,
            utxo_commitment: None,
        }
    }

    #[test]
    fn headers_have_to_lead_to_the_tip_with_the_work_that_is_claimed_and_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("headers.dat");
        let mut params = ChainParams::new(Network::Regtest, None);
        let mut chain = ChainBuilder::new(params.clone());
        chain.mine_empty_blocks(20);
        let headers: Vec<_> = chain.blocks()[1..]
            .iter()
            .map(|block| block.header)
            .collect();
        let store = HeaderStore::open(&path, &params).unwrap();
        store.insert(&headers).unwrap();
        store.flush().unwrap();
        let tip = BlockRef {
            height: 20,
            hash: chain.tip_hash(),
        };
        let true_work = store.best().work;
        drop(store);
        let error = |params: &ChainParams, head: &ManifestHead| {
            check_headers(&path, params, head).unwrap_err().to_string()
        };
        check_headers(&path, &params, &head(tip, true_work)).unwrap();
        let more = true_work + true_work;
        assert!(error(&params, &head(tip, more)).contains("another work"));
        let higher = BlockRef { height: 21, ..tip };
        assert!(error(&params, &head(higher, true_work)).contains("do not lead"));
        params.min_chain_work = more;
        assert!(error(&params, &head(tip, true_work)).contains("minimum"));
    }
}
