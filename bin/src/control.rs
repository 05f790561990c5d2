//! How commands reach a running node: `control.sock` in the data directory.
//!
//! A client sends one line of JSON with its request and gets lines back: progress, and at
//! last the outcome. When it goes away, what it asked for is stopped.
//!
//! # Security
//! A socket in the file system, of mode 0600 in a directory of mode 0700, from which only
//! the user of the node and the superuser are heard. It has no address, so that it can be
//! reached neither from the network nor through a proxy before the API.
//!
//! # Limits
//! Eight clients at a time, of which one can have work done; a request has ten seconds and
//! 64 KiB.

use std::{
    fs,
    io::{self, BufRead, Write},
    os::{
        fd::AsRawFd,
        unix::{fs::PermissionsExt, net::UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use pulse_meta::MetaStore;
use pulse_snapshot::Progress;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    archive::{self, Archived},
    cli::{ArchiveArgs, VerifyArgs},
    export::Books,
    run::offline::verify::{self, Checked},
    snapshot::{self, Source, Summary},
};

const SOCKET_FILE: &str = "control.sock";
const CLIENTS: usize = 8;
const REQUEST_BYTES: u64 = 64 << 10;
const REQUEST_TIME: Duration = Duration::from_secs(10);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    /// A snapshot in the folder of that absolute path.
    SnapshotCreate { dir: PathBuf },
    /// A check of the index against the blocks from that height on.
    Verify { from: u32, hash_serialized: bool },
    /// An archive in the folder of that absolute path.
    Archive(ArchiveArgs),
    /// What the operator has written into the node.
    Books,
}

impl Request {
    /// Whether no other work may be done meanwhile.
    fn is_alone(&self) -> bool {
        match self {
            Self::SnapshotCreate { .. } | Self::Verify { .. } | Self::Archive(_) => true,
            Self::Books => false,
        }
    }
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Snapshot(Summary),
    Checked(Checked),
    Archived(Archived),
    Books(Books),
}

/// What the node answers, line by line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Progress { step: String, done: u64, total: u64 },
    Done(Outcome),
    Failed(String),
}

/// What commands are about.
#[derive(Clone)]
pub struct Node {
    /// Chain and index.
    pub source: Source,
    /// Identity, labels and API keys.
    pub meta: Arc<MetaStore>,
}

/// What is done for a client. Blocks its thread.
type Work = Box<dyn FnOnce(&Node, &Arc<Progress>) -> anyhow::Result<Outcome> + Send>;

/// Listens in the data directory, which this process has locked.
///
/// # Errors
/// Whatever the operating system says.
pub fn bind(root: &Path) -> io::Result<UnixListener> {
    let path = root.join(SOCKET_FILE);
    match fs::remove_file(&path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let listener = through_short_path(root, |path| UnixListener::bind(path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A socket's path must be shorter than 108 bytes; that of a data directory need not be.
fn through_short_path<T>(root: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let dir = fs::File::open(root)?;
    let path = format!("/proc/self/fd/{}/{SOCKET_FILE}", dir.as_raw_fd());
    work(Path::new(&path))
}

/// Answers commands until `stop`.
///
/// # Errors
/// None; a client that misbehaves is its own trouble.
pub async fn run(
    listener: UnixListener,
    node: Node,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let slots = Arc::new(Semaphore::new(CLIENTS));
    let working = Arc::new(Mutex::new(()));
    let mut clients = JoinSet::new();
    loop {
        while clients.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(err) => {
                warn!(%err, "command not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            continue;
        };
        let (node, working, stop) = (node.clone(), Arc::clone(&working), stop.clone());
        clients.spawn(async move {
            // The client has gone if it cannot be told.
            let _ = serve(stream, node, &working, &stop).await;
            drop(slot);
        });
    }
    // Each has been told to stop as well.
    while clients.join_next().await.is_some() {}
    Ok(())
}

async fn serve(
    stream: UnixStream,
    node: Node,
    working: &Mutex<()>,
    stop: &CancellationToken,
) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(read.take(REQUEST_BYTES));
    let request = timeout(REQUEST_TIME, reader.read_until(b'\n', &mut line));
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        read = request => { read??; }
    }
    let request: Request = match serde_json::from_slice(&line) {
        Ok(request) => request,
        Err(err) => return fail(&mut write, &format!("not understood: {err}")).await,
    };
    let _only = match (request.is_alone(), working.try_lock()) {
        (false, _) => None,
        (true, Ok(only)) => Some(only),
        (true, Err(_)) => {
            const BUSY: &str =
                "a snapshot or an archive is being made already, or the index is being checked";
            return fail(&mut write, BUSY).await;
        }
    };
    let work = work_of(request);
    let progress = Arc::new(Progress::default());
    let mut job = tokio::task::spawn_blocking({
        let progress = Arc::clone(&progress);
        move || work(&node, &progress)
    });
    let mut ticks = interval(PROGRESS_INTERVAL);
    let mut rest = [0; 1];
    let mut cancelled = false;
    let outcome = loop {
        tokio::select! {
            ended = &mut job => break ended,
            () = stop.cancelled(), if !cancelled => cancelled = true,
            // The client says nothing more; this is its end.
            _ = reader.read(&mut rest), if !cancelled => cancelled = true,
            _ = ticks.tick(), if !cancelled => {
                let (step, done, total) = progress.now();
                let step = step.to_owned();
                let message = Message::Progress { step, done, total };
                cancelled = send(&mut write, &message).await.is_err();
            }
        }
        if cancelled {
            progress.cancel();
        }
    };
    let message = match outcome {
        Ok(Ok(outcome)) => Message::Done(outcome),
        Ok(Err(err)) => {
            warn!(err = format!("{err:#}"), "what was asked for was not done");
            Message::Failed(format!("{err:#}"))
        }
        Err(_) => Message::Failed("a thread of the node panicked".to_owned()),
    };
    send(&mut write, &message).await
}

fn work_of(request: Request) -> Work {
    match request {
        Request::SnapshotCreate { dir } => Box::new(move |node, progress| {
            anyhow::ensure!(dir.is_absolute(), "the place is no absolute path");
            info!(dir = %dir.display(), "snapshot asked for");
            let made = snapshot::create(&node.source, &dir, snapshot::PATIENCE, progress)?;
            Ok(Outcome::Snapshot(made))
        }),
        Request::Verify {
            from,
            hash_serialized,
        } => Box::new(move |node, progress| {
            info!(height = from, "check of the index asked for");
            let args = VerifyArgs {
                from,
                hash_serialized,
            };
            let checked = verify::beside_node(&node.source, &args, progress)?;
            info!(wrong = checked.wrong, "index checked");
            Ok(Outcome::Checked(checked))
        }),
        Request::Archive(args) => Box::new(move |node, progress| {
            anyhow::ensure!(args.dir.is_absolute(), "the place is no absolute path");
            info!(dir = %args.dir.display(), "archive asked for");
            let archived = archive::beside_node(&node.source, &args, progress)?;
            Ok(Outcome::Archived(archived))
        }),
        Request::Books => Box::new(|node, _| {
            info!("labels and API keys asked for");
            Ok(Outcome::Books(Books::of(&node.meta)?))
        }),
    }
}

async fn fail(write: &mut (impl AsyncWriteExt + Unpin), reason: &str) -> io::Result<()> {
    send(write, &Message::Failed(reason.to_owned())).await
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), message: &Message) -> io::Result<()> {
    let mut line = serde_json::to_vec(message).expect("strings and numbers serialise");
    line.push(b'\n');
    timeout(REQUEST_TIME, write.write_all(&line)).await?
}

/// Asks the node that runs in `root` for a snapshot; `shown` gets the progress. `None` when
/// no node runs there.
///
/// # Errors
/// Why there is no snapshot.
pub fn ask_for_snapshot(
    root: &Path,
    dir: &Path,
    shown: impl FnMut(&str, u64, u64),
) -> anyhow::Result<Option<Summary>> {
    let dir = std::path::absolute(dir)?;
    match ask(root, &Request::SnapshotCreate { dir }, shown)? {
        Some(Outcome::Snapshot(summary)) => Ok(Some(summary)),
        Some(_) => bail!("the node did something else"),
        None => Ok(None),
    }
}

/// Asks the node that runs in `root` to check its index; `shown` gets the progress. `None`
/// when no node runs there.
///
/// # Errors
/// Why the check could not be made.
pub fn ask_for_check(
    root: &Path,
    args: &VerifyArgs,
    shown: impl FnMut(&str, u64, u64),
) -> anyhow::Result<Option<Checked>> {
    let request = Request::Verify {
        from: args.from,
        hash_serialized: args.hash_serialized,
    };
    match ask(root, &request, shown)? {
        Some(Outcome::Checked(checked)) => Ok(Some(checked)),
        Some(_) => bail!("the node did something else"),
        None => Ok(None),
    }
}

/// Asks the node that runs in `root` for what its operator has written into it. `None` when no
/// node runs there.
///
/// # Errors
/// Why they could not be read.
pub fn ask_for_books(root: &Path) -> anyhow::Result<Option<Books>> {
    match ask(root, &Request::Books, |_, _, _| ())? {
        Some(Outcome::Books(books)) => Ok(Some(books)),
        Some(_) => bail!("the node did something else"),
        None => Ok(None),
    }
}

/// Asks the node that runs in `root` for an archive; `shown` gets the progress. `None` when no
/// node runs there.
///
/// # Errors
/// Why it could not be written.
pub fn ask_for_archive(
    root: &Path,
    args: &ArchiveArgs,
    shown: impl FnMut(&str, u64, u64),
) -> anyhow::Result<Option<Archived>> {
    match ask(root, &Request::Archive(args.clone()), shown)? {
        Some(Outcome::Archived(archived)) => Ok(Some(archived)),
        Some(_) => bail!("the node did something else"),
        None => Ok(None),
    }
}

fn ask(
    root: &Path,
    request: &Request,
    mut shown: impl FnMut(&str, u64, u64),
) -> anyhow::Result<Option<Outcome>> {
    if !root.is_dir() {
        return Ok(None);
    }
    let connected = through_short_path(root, |path| StdUnixStream::connect(path));
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(err)
            if matches!(
                err.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(err) => {
            let path = root.join(SOCKET_FILE);
            return Err(err).with_context(|| path.display().to_string());
        }
    };
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    for line in io::BufReader::new(stream).lines() {
        match serde_json::from_str(&line?).context("the node's answer")? {
            Message::Progress { step, done, total } => shown(&step, done, total),
            Message::Done(outcome) => return Ok(Some(outcome)),
            Message::Failed(reason) => bail!("{reason}"),
        }
    }
    bail!("the node has stopped before it was done")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_user_can_connect_however_long_the_path_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("x".repeat(200));
        fs::create_dir(&root).unwrap();
        assert!(matches!(
            ask_for_snapshot(&root, Path::new("s"), |_, _, _| ()),
            Ok(None)
        ));
        fs::write(root.join(SOCKET_FILE), b"rest of an earlier run").unwrap();
        let listener = bind(&root).unwrap();
        let mode = fs::metadata(root.join(SOCKET_FILE)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        drop(listener);
        assert!(matches!(
            ask_for_snapshot(&root, Path::new("s"), |_, _, _| ()),
            Ok(None)
        ));
    }
}
