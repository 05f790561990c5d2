//! Files and folders, synced where it counts.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use parking_lot::Mutex;

use crate::{direct::ChunkBuffer, error::SnapshotError, progress::Progress};

/// Mode of new files and folders: what a snapshot holds is public, but nobody else has to
/// read it from this machine's disk.
pub(crate) const FILE_MODE: u32 = 0o600;
pub(crate) const DIR_MODE: u32 = 0o700;

/// Bytes copied between two looks at whether to stop.
const COPY_STEP: u64 = 16 << 20;

/// Free bytes of the file system that `dir`, which exists, is on.
///
/// # Errors
/// [`SnapshotError::Io`].
pub fn available_bytes(dir: &Path) -> Result<u64, SnapshotError> {
    let stat = rustix::fs::statvfs(dir).map_err(|err| SnapshotError::io(dir)(err.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether files of one folder can be linked into the other.
///
/// # Errors
/// [`SnapshotError::Io`].
pub fn same_file_system(a: &Path, b: &Path) -> Result<bool, SnapshotError> {
    let device = |path: &Path| {
        fs::metadata(path)
            .map(|meta| meta.dev())
            .map_err(SnapshotError::io(path))
    };
    Ok(device(a)? == device(b)?)
}

/// Makes a folder and those above it.
pub(crate) fn make_dir(dir: &Path) -> Result<(), SnapshotError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(dir)
        .map_err(SnapshotError::io(dir))
}

/// Writes a new file and waits until it is on the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), SnapshotError> {
    create_new(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .map_err(SnapshotError::io(path))
}

/// Waits until the entries of a folder are on the disk.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), SnapshotError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(SnapshotError::io(dir))
}

/// Copies a file that has no copy yet, as it is long now.
pub(crate) fn copy(from: &Path, to: &Path, progress: &Progress) -> Result<(), SnapshotError> {
    let mut source = File::open(from).map_err(SnapshotError::io(from))?;
    let mut target = create_new(to).map_err(SnapshotError::io(to))?;
    loop {
        progress.check()?;
        // The kernel of the operating system copies, without a buffer of ours.
        let copied = io::copy(&mut (&mut source).take(COPY_STEP), &mut target)
            .map_err(SnapshotError::io(to))?;
        progress.add(copied);
        if copied < COPY_STEP {
            return Ok(());
        }
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
}

/// Every file below `dir`, as paths relative to it with `/`, sorted, with their sizes.
///
/// # Errors
/// [`SnapshotError::File`] for what is neither file nor folder, above all a link.
pub(crate) fn list(dir: &Path) -> Result<Vec<(String, u64)>, SnapshotError> {
    let mut files = Vec::new();
    let mut folders = vec![(dir.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(SnapshotError::io(&folder))? {
            let entry = entry.map_err(SnapshotError::io(&folder))?;
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            // Of the entry itself: a link is not followed.
            let meta = entry.metadata().map_err(SnapshotError::io(entry.path()))?;
            if meta.is_dir() {
                folders.push((entry.path(), format!("{path}/")));
            } else if meta.is_file() {
                files.push((path, meta.len()));
            } else {
                return Err(SnapshotError::file(path, "it is neither file nor folder"));
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Runs `work` for `0..count` on `threads` threads, each with a buffer of its own. The
/// first error ends all.
pub(crate) fn parallel(
    count: usize,
    threads: usize,
    work: impl Fn(usize, &mut ChunkBuffer) -> Result<(), SnapshotError> + Sync,
) -> Result<(), SnapshotError> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let run = || {
        let mut buffer = ChunkBuffer::default();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            if let Err(err) = work(index, &mut buffer) {
                next.store(count, Ordering::Relaxed);
                failed.lock().get_or_insert(err);
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            scope.spawn(run);
        }
        run();
    });
    failed.into_inner().map_or(Ok(()), Err)
}

/// Reads exactly `len` bytes at `start` into the buffer.
pub(crate) fn read_range(
    path: &PathBuf,
    start: u64,
    len: usize,
    buffer: &mut ChunkBuffer,
) -> io::Result<()> {
    buffer.resize(len);
    File::open(path)?.read_exact_at(buffer, start)
}

/// Threads for hashing: half of the processors, since the other half has answers to give.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, |count| count.get().div_ceil(2).min(8))
}
