//! Snapshots: made beside a running node or without one, proven, restored.
//!
//! ```text
//! settled block files linked -> index checkpoint -> kernel closed: the rest of its files
//!   -> kernel opened again -> headers -> all hashed -> manifest -> renamed
//! ```
//!
//! # Correctness
//! The checkpoint of the index is taken before the kernel is closed, and its newest block
//! must be of the chain at which the kernel was closed; else both are tried again. So a
//! restored index is at or behind the restored kernel, whose blocks are all there.
//!
//! Only files that nobody will ever write again get second names: settled block files
//! (`Chain::settled_files`) and table files of the databases. Closing the kernel flushes it,
//! which is what makes a block file settled for good; a snapshot that a kill cuts short
//! before is none. All other files are copied while the kernel is closed.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use pulse_indexer::{Index, UtxoSummary};
use pulse_node::{
    chain::{Chain, ChainConfig},
    headers::HeaderStore,
};
use pulse_primitives::{ports::BlockSource, tip::ChainTip};
use pulse_snapshot::{
    BlockRef, Draft, ManifestHead, Origin, Progress, Snapshot, SnapshotError, Staging,
    available_bytes, same_file_system,
};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::{
    cli::{COMMIT, VERSION},
    config::Config,
    data_dir::DataDir,
    run::script_threads,
    trust,
};

/// Bytes that are left free beside a snapshot.
const SPARE_BYTES: u64 = 256 << 20;
/// How long the index of a running node may take to follow the chain.
pub const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// What a snapshot is made of.
#[derive(Clone)]
pub struct Source {
    /// The data directory.
    pub root: PathBuf,
    /// What it is bound to.
    pub origin: Origin,
    /// The validated chain.
    pub chain: Chain,
    /// Headers of all chains.
    pub headers: Arc<HeaderStore>,
    /// The index, if there is one.
    pub index: Option<Index>,
}

/// A snapshot in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Where it is.
    pub dir: PathBuf,
    /// BLAKE3 hash of its manifest, which stands for all of it.
    pub hash: String,
    /// Tip of the chain.
    pub tip: BlockRef,
    /// Number of its files.
    pub files: usize,
    /// Bytes in them.
    pub bytes: u64,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{}: block {} ({}), {} files, {} bytes, manifest {}",
            self.dir.display(),
            self.tip.height,
            self.tip.hash,
            self.files,
            self.bytes,
            self.hash
        )
    }
}

/// Makes the snapshot `dir`. Blocks the caller. The index gets `patience` to follow the
/// chain, where it is ahead of it or on another branch.
///
/// # Errors
/// What is in the way; nothing is left behind then, and the source is unharmed.
pub fn create(
    source: &Source,
    dir: &Path,
    patience: Duration,
    progress: &Arc<Progress>,
) -> anyhow::Result<Summary> {
    let started = Instant::now();
    trust::refuse_foreign(&source.root)?;
    let dir = allowed_place(&source.root, dir)?;
    let draft = Arc::new(Draft::begin(&dir)?);
    let kernel = source.root.join("kernel");
    progress.begin("looking for settled block files", 0);
    let settled: HashSet<String> = source
        .chain
        .settled_files()
        .into_iter()
        .flat_map(|file| ["blk", "rev"].map(|kind| format!("{kind}{file:05}.dat")))
        .collect();
    check_space(&source.root, draft.root(), &settled)?;
    progress.begin("linking settled block files", 0);
    for name in &settled {
        let from = kernel.join("blocks").join(name);
        if from.is_file() {
            draft.link(&from, &format!("kernel/blocks/{name}"), progress)?;
        }
    }

    let deadline = Instant::now() + patience;
    let settled = Arc::new(settled);
    let (tip, indexed) = loop {
        let indexed = copy_index(source, &draft, deadline, progress)?;
        progress.begin("copying beside the closed kernel", 0);
        let newest = indexed.map(|(tip, _)| tip);
        let closed = copy_kernel_closed(source, &draft, &settled, newest, progress)?;
        match closed {
            Some(tip) => break (tip, indexed),
            // A reorganisation came between.
            None if Instant::now() < deadline => {}
            None => bail!("the chain changes too quickly; try again"),
        }
    };
    source.headers.copy_to(&draft.place("headers.dat")?)?;
    let work = source.headers.work_of(&tip.hash);
    let work = work.context("the header of the tip is not known")?;
    let draft = Arc::into_inner(draft).expect("the other owner was the work that is done");
    let (manifest, hash) = draft.finish(
        ManifestHead {
            program: format!("{VERSION} ({COMMIT})"),
            created: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            origin: source.origin.clone(),
            tip: block_ref(&tip),
            chain_work: hex::encode(work.to_be_bytes()),
            indexed: indexed.as_ref().map(|(tip, _)| block_ref(tip)),
            utxo_commitment: indexed
                .as_ref()
                .map(|(_, utxos)| hex::encode(utxos.commitment())),
        },
        progress,
    )?;
    let summary = Summary {
        dir,
        hash: hash.to_string(),
        tip: block_ref(&tip),
        files: manifest.files.len(),
        bytes: manifest.total_bytes(),
    };
    info!(
        height = tip.height,
        hash = %tip.hash,
        count = summary.files,
        bytes = summary.bytes,
        elapsed_ms = started.elapsed().as_millis(),
        "snapshot made"
    );
    Ok(summary)
}

/// A second index in the draft. Gives its newest block, which is of the active chain, and
/// what it holds unspent.
fn copy_index(
    source: &Source,
    draft: &Draft,
    deadline: Instant,
    progress: &Progress,
) -> anyhow::Result<Option<(ChainTip, UtxoSummary)>> {
    let Some(index) = &source.index else {
        return Ok(None);
    };
    progress.begin("waiting for the index to follow the chain", 0);
    loop {
        progress.check()?;
        let tip = *index.tip().borrow();
        if is_active(&source.chain, tip.as_ref()) {
            break;
        }
        if Instant::now() >= deadline {
            bail!(
                "the index is ahead of the validated chain, as after an unclean stop, or follows a reorganisation. Hint: try again when /health says that the node is synced"
            );
        }
        thread::sleep(PAUSE);
    }
    progress.begin("copying the index", 0);
    let path = draft.root().join("index");
    if path.exists() {
        fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
    }
    Ok(index.checkpoint(&path)?)
}

/// Closes the kernel and copies what it may write to. `None` when the index is not of the
/// chain any more. A stop ends the copying, and the kernel is opened again.
fn copy_kernel_closed(
    source: &Source,
    draft: &Arc<Draft>,
    settled: &Arc<HashSet<String>>,
    indexed: Option<ChainTip>,
    progress: &Arc<Progress>,
) -> anyhow::Result<Option<ChainTip>> {
    let (draft, settled) = (Arc::clone(draft), Arc::clone(settled));
    let progress = Arc::clone(progress);
    let kernel = source.root.join("kernel");
    let chain = source.chain.clone();
    source.chain.while_closed(move |tip| {
        if !is_active(&chain, indexed.as_ref()) {
            return Ok(None);
        }
        copy_kernel(&kernel, &draft, &settled, &progress)?;
        Ok::<_, anyhow::Error>(Some(tip))
    })?
}

/// Copies the files of the closed kernel but the settled ones.
fn copy_kernel(
    kernel: &Path,
    draft: &Draft,
    settled: &HashSet<String>,
    progress: &Progress,
) -> anyhow::Result<()> {
    let each = |folder: &str, take: &dyn Fn(&str) -> Option<Take>| -> anyhow::Result<()> {
        let dir = kernel.join(folder);
        let entries = fs::read_dir(&dir).with_context(|| dir.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !entry.file_type()?.is_file() {
                continue;
            }
            let path = format!("kernel/{folder}/{name}");
            match take(&name) {
                Some(Take::Link) => draft.link(&entry.path(), &path, progress)?,
                Some(Take::Copy) => draft.copy(&entry.path(), &path, progress)?,
                None => {}
            }
        }
        Ok(())
    };
    each("blocks", &|name| {
        let is_block_file =
            (name.starts_with("blk") || name.starts_with("rev")) && name.ends_with(".dat");
        ((is_block_file && !settled.contains(name)) || name == "xor.dat").then_some(Take::Copy)
    })?;
    // LevelDB writes a table file once and never again; everything else it may go on with.
    let of_leveldb = |name: &str| match name {
        "LOCK" | "LOG" | "LOG.old" => None,
        name if name.ends_with(".ldb") => Some(Take::Link),
        _ => Some(Take::Copy),
    };
    each("blocks/index", &of_leveldb)?;
    each("chainstate", &of_leveldb)
}

enum Take {
    Link,
    Copy,
}

fn is_active(chain: &Chain, tip: Option<&ChainTip>) -> bool {
    tip.is_none_or(|tip| chain.hash_at(tip.height) == Some(tip.hash))
}

fn block_ref(tip: &ChainTip) -> BlockRef {
    BlockRef {
        height: tip.height,
        hash: tip.hash,
    }
}

/// The place with its real name. Not among the files that it is to be a copy of.
fn allowed_place(root: &Path, dir: &Path) -> anyhow::Result<PathBuf> {
    let name = dir.file_name().context("the snapshot needs a name")?;
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let real = |path: &Path| {
        path.canonicalize()
            .with_context(|| path.display().to_string())
    };
    let place = real(parent)?.join(name);
    let root = real(root)?;
    for folder in ["kernel", "index", "meta"] {
        if place.starts_with(root.join(folder)) {
            bail!(
                "{} is in a folder of the node's own. Hint: give another place",
                place.display()
            );
        }
    }
    Ok(place)
}

/// Refuses when what has to be copied does not fit. On the same file system that is little.
fn check_space(root: &Path, target: &Path, settled: &HashSet<String>) -> anyhow::Result<()> {
    let linked = same_file_system(root, target)?;
    let mut needed = SPARE_BYTES;
    for (folder, counts) in [
        ("kernel/blocks", true),
        ("kernel/blocks/index", !linked),
        ("kernel/chainstate", !linked),
        ("index", !linked),
    ] {
        let dir = root.join(folder);
        if !counts || !dir.is_dir() {
            continue;
        }
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if !(linked && settled.contains(&*name.to_string_lossy())) {
                // A table file can have been merged into another since.
                needed += entry.metadata().map_or(0, |meta| meta.len());
            }
        }
    }
    let available = available_bytes(target)?;
    if available < needed {
        return Err(SnapshotError::NoSpace {
            dir: target.to_owned(),
            available,
            needed,
        }
        .into());
    }
    Ok(())
}

/// Makes a snapshot of a data directory that no node runs in.
///
/// # Errors
/// As [`create`]; when the data directory is in use or not there.
pub fn create_offline(
    config: &Config,
    dir: &Path,
    progress: &Arc<Progress>,
) -> anyhow::Result<Summary> {
    if !DataDir::exists(&config.data_dir) {
        bail!(
            "there is no data directory of a node in {}. Hint: give --data-dir",
            config.data_dir.display()
        );
    }
    let seed = config.simulate.map(|simulate| simulate.seed);
    let data_dir = DataDir::open(&config.data_dir, &config.chain, seed)
        .context("no node answers in the data directory, and it cannot be used directly either")?;
    progress.begin("opening the stores", 0);
    let headers = Arc::new(HeaderStore::open(&data_dir.headers(), &config.chain)?);
    let index = match config.index.enabled {
        true => Some(Index::open(
            &data_dir.index(),
            &config.index,
            &config.chain,
        )?),
        false => None,
    };
    let chain_config = ChainConfig {
        dir: data_dir.kernel(),
        params: config.chain.clone(),
        script_threads: script_threads(),
        is_second: false,
    };
    let chain = Chain::open(&chain_config, Arc::clone(&headers))?;
    let source = Source {
        root: data_dir.root().to_owned(),
        origin: data_dir.origin(),
        chain: chain.clone(),
        headers,
        index,
    };
    let made = create(&source, dir, Duration::ZERO, progress);
    chain.close();
    made
}

/// Makes a data directory of a snapshot.
///
/// # Errors
/// When the snapshot is damaged, of another chain, or the data directory is not empty.
/// Nothing can be started from the data directory then; the same command goes on.
pub fn restore(config: &Config, dir: &Path, progress: &Progress) -> anyhow::Result<Summary> {
    let snapshot = Snapshot::open(dir)?;
    let seed = config.simulate.map(|simulate| simulate.seed);
    let origin = &snapshot.manifest().snapshot.origin;
    let target = DataDir::for_restore(&config.data_dir, &config.chain, seed, origin)?;
    snapshot.restore_into(target.root(), progress)?;
    let head = &snapshot.manifest().snapshot;
    check_index(head, &target.root().join("index"))?;
    target.bind()?;
    Staging::clear(&config.data_dir)?;
    Ok(summary_of(&snapshot, &config.data_dir))
}

/// The restored index in `path` opens and is what the manifest says.
///
/// # Errors
/// When it is not.
pub fn check_index(head: &ManifestHead, path: &Path) -> anyhow::Result<()> {
    let Some(expected) = head.indexed else {
        return Ok(());
    };
    let found = Index::read_state(path).with_context(|| path.display().to_string())?;
    let (tip, utxos) = found.context("the restored index is empty, against the manifest")?;
    let commitment = hex::encode(utxos.commitment());
    if block_ref(&tip) != expected
        || head
            .utxo_commitment
            .as_ref()
            .is_some_and(|stated| *stated != commitment)
    {
        bail!("the restored index is another than the manifest says");
    }
    Ok(())
}

/// Reads and hashes a whole snapshot.
///
/// # Errors
/// What is wrong with it.
pub fn verify(dir: &Path, progress: &Progress) -> anyhow::Result<Summary> {
    let snapshot = Snapshot::open(dir)?;
    snapshot.verify(progress)?;
    Ok(summary_of(&snapshot, dir))
}

fn summary_of(snapshot: &Snapshot, dir: &Path) -> Summary {
    let manifest = snapshot.manifest();
    Summary {
        dir: dir.to_owned(),
        hash: snapshot.hash().to_string(),
        tip: manifest.snapshot.tip,
        files: manifest.files.len(),
        bytes: manifest.total_bytes(),
    }
}
