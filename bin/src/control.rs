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
//! Eight clients at a time, of which one can make a snapshot; a request has ten seconds and
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

use crate::snapshot::{self, Source, Summary};

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
}

/// What the node answers, line by line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Progress { step: String, done: u64, total: u64 },
    Done(Summary),
    Failed(String),
}

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
    source: Source,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let slots = Arc::new(Semaphore::new(CLIENTS));
    let snapshots = Arc::new(Mutex::new(()));
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
        let (source, snapshots, stop) = (source.clone(), Arc::clone(&snapshots), stop.clone());
        clients.spawn(async move {
            // The client has gone if it cannot be told.
            let _ = serve(stream, source, &snapshots, &stop).await;
            drop(slot);
        });
    }
    // Each has been told to stop as well.
    while clients.join_next().await.is_some() {}
    Ok(())
}

async fn serve(
    stream: UnixStream,
    source: Source,
    snapshots: &Mutex<()>,
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
    let dir = match serde_json::from_slice(&line) {
        Ok(Request::SnapshotCreate { dir }) if dir.is_absolute() => dir,
        Ok(_) => return fail(&mut write, "the place is no absolute path").await,
        Err(err) => return fail(&mut write, &format!("not understood: {err}")).await,
    };
    let Ok(_only) = snapshots.try_lock() else {
        return fail(&mut write, "another snapshot is being made").await;
    };
    info!(dir = %dir.display(), "snapshot asked for");
    let progress = Arc::new(Progress::default());
    let mut job = tokio::task::spawn_blocking({
        let progress = Arc::clone(&progress);
        move || snapshot::create(&source, &dir, snapshot::PATIENCE, &progress)
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
        Ok(Ok(summary)) => Message::Done(summary),
        Ok(Err(err)) => {
            warn!(err = format!("{err:#}"), "no snapshot was made");
            Message::Failed(format!("{err:#}"))
        }
        Err(_) => Message::Failed("a thread of the node panicked".to_owned()),
    };
    send(&mut write, &message).await
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
    mut shown: impl FnMut(&str, u64, u64),
) -> anyhow::Result<Option<Summary>> {
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
    let dir = std::path::absolute(dir)?;
    let mut request = serde_json::to_vec(&Request::SnapshotCreate { dir })?;
    request.push(b'\n');
    stream.write_all(&request)?;
    for line in io::BufReader::new(stream).lines() {
        match serde_json::from_str(&line?).context("the node's answer")? {
            Message::Progress { step, done, total } => shown(&step, done, total),
            Message::Done(summary) => return Ok(Some(summary)),
            Message::Failed(reason) => bail!("{reason}"),
        }
    }
    bail!("the node has stopped before the snapshot was finished")
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
