//! Opens sled without trusting it: whatever goes wrong is sorted into "in use",
//! "the system refused" and "damaged".
//!
//! sled 0.34 meets damaged files with an error, with a panic, or (rarely) without
//! ever returning. So it is opened and read through on a thread of its own, which is
//! given up after [`OPEN_TIMEOUT`].

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::MetaError;

/// Longest time that opening and reading the database may take. It holds some thousand
/// rows and some MiB, so this is generous on any disk.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for a lock to go away: threads of sled hold it a little longer than the store
/// that was closed last.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// sled's own page cache, in bytes. The contents are far smaller.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

/// Why the database did not open.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    InUse,
    System(io::Error),
    Damaged(String),
}

impl OpenFailure {
    fn from_io(err: io::Error) -> Self {
        if is_system_failure(&err) {
            Self::System(err)
        } else {
            Self::Damaged(err.to_string())
        }
    }
}

impl From<sled::Error> for OpenFailure {
    fn from(err: sled::Error) -> Self {
        match err {
            sled::Error::Io(err) => Self::from_io(err),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// Opens the database in `dir`, creating it if need be, and hands it to `read`, which
/// reads every row: damage that shows only on reading is found here.
pub(crate) fn open<T: Send + 'static>(
    dir: &Path,
    read: impl FnOnce(sled::Db) -> Result<T, OpenFailure> + Send + 'static,
) -> Result<T, OpenFailure> {
    create_private_dir(dir).map_err(OpenFailure::from_io)?;
    refuse_if_locked(dir)?;
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(CACHE_BYTES)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(Some(1_000));
    let (result_tx, result_rx) = mpsc::sync_channel(1);
    let opener = move || {
        let result = guard(|| read(config.open()?)).unwrap_or_else(|panic| {
            Err(OpenFailure::Damaged(format!(
                "the database gave up: {panic}"
            )))
        });
        // The receiver has gone when the time was over.
        let _ = result_tx.send(result);
    };
    thread::Builder::new()
        .name("meta-open".to_owned())
        .spawn(opener)
        .map_err(OpenFailure::System)?;
    result_rx.recv_timeout(OPEN_TIMEOUT).unwrap_or_else(|_| {
        Err(OpenFailure::Damaged(format!(
            "it did not open within {} s",
            OPEN_TIMEOUT.as_secs()
        )))
    })
}

/// Runs `action`; a panic in it becomes its message.
pub(crate) fn guard<T>(action: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(action)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("panic without a message");
        text.lines().next().unwrap_or_default().to_owned()
    })
}

/// Moves `dir` aside and returns where it went.
pub(crate) fn move_aside(dir: &Path) -> Result<PathBuf, MetaError> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut number = 0_u32;
    let target = loop {
        let mut name = dir.file_name().unwrap_or_default().to_owned();
        name.push(format!(".damaged-{now}-{number}"));
        let target = dir.with_file_name(name);
        if !target
            .try_exists()
            .map_err(|err| MetaError::io(&target, err))?
        {
            break target;
        }
        number += 1;
    };
    fs::rename(dir, &target).map_err(|err| MetaError::io(dir, err))?;
    Ok(target)
}

fn create_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// sled reports a held lock as an error of kind `Other`, which could be anything; so
/// the same lock is tried here first.
fn refuse_if_locked(dir: &Path) -> Result<(), OpenFailure> {
    let file = match File::open(dir.join("db")) {
        Ok(file) => file,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(OpenFailure::from_io(err)),
    };
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => return Err(OpenFailure::InUse),
            Err(TryLockError::Error(err)) => return Err(OpenFailure::from_io(err)),
        }
    }
}

/// Whether the error tells of the machine and not of the contents of the files.
fn is_system_failure(err: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(
        err.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::ResourceBusy
            | io::ErrorKind::OutOfMemory
            | io::ErrorKind::Interrupted
    ) || matches!(err.raw_os_error(), Some(ENFILE | EMFILE))
}
