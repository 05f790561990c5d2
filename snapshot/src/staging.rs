//! A data directory in the making, filled chunk by chunk.
//!
//! ```text
//! TARGET/restore.partial/{headers.dat, index/, kernel/}   while chunks arrive
//! TARGET/{headers.dat, index/, kernel/}                   when all are there
//! ```
//!
//! It lies in the target folder itself, which may be the root of a file system.
//!
//! # Correctness
//! A chunk is written only after it has met its hash. What an earlier try has left is
//! taken up again: nothing of it counts before it is hashed anew. `restore.partial`
//! stays until the caller has bound the directory, so that a restore cut short anywhere is
//! known as one.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

use crate::{
    direct::{self, ChunkBuffer},
    error::SnapshotError,
    files::{FILE_MODE, available_bytes, list, make_dir, parallel, read_range, sync_dir, threads},
    manifest::{ChunkHash, Manifest},
    progress::Progress,
};

/// Folder in the target while a restore is under way.
pub const STAGING_FOLDER: &str = "restore.partial";

/// What a restore makes in the target.
pub const TOP_LEVEL: [&str; 3] = ["headers.dat", "index", "kernel"];

/// Where the blocks are.
const BLOCKS_FOLDER: &str = "kernel/blocks/";

/// Bytes that are left free beside the snapshot.
const SPARE_BYTES: u64 = 256 << 20;

/// A data directory in the making.
#[derive(Debug)]
pub struct Staging {
    target: PathBuf,
    root: PathBuf,
    manifest: Manifest,
    /// Chunks that are in place, by file.
    done: Mutex<Vec<Vec<bool>>>,
}

impl Staging {
    /// Begins or goes on in `target`, a folder that holds nothing else and that nobody else
    /// uses.
    ///
    /// # Errors
    /// [`SnapshotError::NoSpace`], [`SnapshotError::Io`].
    pub fn open(target: &Path, manifest: Manifest) -> Result<Self, SnapshotError> {
        let root = target.join(STAGING_FOLDER);
        if root.is_dir() {
            // It was cut short while it put things in their places.
            for name in TOP_LEVEL {
                let placed = target.join(name);
                if placed.symlink_metadata().is_ok() {
                    let back = root.join(name);
                    fs::rename(&placed, &back).map_err(SnapshotError::io(&back))?;
                }
            }
        }
        make_dir(&root)?;
        sync_dir(target)?;
        let done = manifest
            .files
            .iter()
            .map(|file| vec![false; file.chunks.len()])
            .collect();
        let staging = Self {
            target: target.to_owned(),
            root,
            manifest,
            done: Mutex::new(done),
        };
        staging.clear_strangers()?;
        staging.check_space()?;
        for file in &staging.manifest.files {
            staging.make_file(&file.path, file.size)?;
        }
        Ok(staging)
    }

    /// What is being restored.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether a restore into `target` was begun and has not put everything in its place.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn is_under_way(target: &Path) -> Result<bool, SnapshotError> {
        let root = target.join(STAGING_FOLDER);
        match fs::read_dir(&root) {
            Ok(mut entries) => Ok(entries.next().is_some()),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(err) => Err(SnapshotError::io(&root)(err)),
        }
    }

    /// Where a file of the snapshot lies until everything is put in its place.
    #[must_use]
    pub fn path_of(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The chunks that are not in place yet, as (file, chunk) in the order of the manifest.
    /// Reads and hashes what an earlier try has left.
    ///
    /// # Errors
    /// [`SnapshotError::Io`], [`SnapshotError::Cancelled`].
    pub fn missing(&self, progress: &Progress) -> Result<Vec<(usize, usize)>, SnapshotError> {
        let files = self.manifest.files.iter().enumerate();
        let chunks: Vec<(usize, usize)> = files
            .flat_map(|(file, entry)| (0..entry.chunks.len()).map(move |chunk| (file, chunk)))
            .collect();
        let missing = Mutex::new(Vec::new());
        parallel(chunks.len(), threads(), |index, buffer| {
            progress.check()?;
            let (file, chunk) = chunks[index];
            if !self.has_chunk(file, chunk, buffer)? {
                missing.lock().push((file, chunk));
            }
            Ok(())
        })?;
        let mut missing = missing.into_inner();
        missing.sort_unstable();
        Ok(missing)
    }

    /// Whether the chunk is in place already, from an earlier try. Reads and hashes it.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn has_chunk(
        &self,
        file: usize,
        chunk: usize,
        buffer: &mut ChunkBuffer,
    ) -> Result<bool, SnapshotError> {
        let entry = &self.manifest.files[file];
        let (start, len) = entry.chunk_range(chunk);
        let path = self.root.join(&entry.path);
        let meta = fs::metadata(&path).map_err(SnapshotError::io(&path))?;
        if meta.blocks() == 0 && len > 0 {
            // Nothing was ever written to it.
            return Ok(false);
        }
        read_range(&path, start, len, buffer).map_err(SnapshotError::io(&path))?;
        let has = ChunkHash::of(buffer) == entry.chunks[chunk];
        if has {
            self.done.lock()[file][chunk] = true;
        }
        Ok(has)
    }

    /// Writes a chunk, if it is the one that the manifest names.
    ///
    /// # Errors
    /// [`SnapshotError::File`] if it is not, [`SnapshotError::Io`].
    pub fn put_chunk(&self, file: usize, chunk: usize, bytes: &[u8]) -> Result<(), SnapshotError> {
        let entry = &self.manifest.files[file];
        let (start, len) = entry.chunk_range(chunk);
        if bytes.len() != len || ChunkHash::of(bytes) != entry.chunks[chunk] {
            return Err(SnapshotError::file(
                &entry.path,
                "its bytes do not meet their hash",
            ));
        }
        let path = self.root.join(&entry.path);
        // The index and the coins are read as soon as all is there.
        let write = match entry.path.starts_with(BLOCKS_FOLDER) {
            true => direct::write_at,
            false => direct::write_cached_at,
        };
        write(&path, bytes, start).map_err(SnapshotError::io(&path))?;
        self.done.lock()[file][chunk] = true;
        Ok(())
    }

    /// Waits until what has been written of a file is on the disk.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn sync(&self, file: usize) -> Result<(), SnapshotError> {
        let path = self.root.join(&self.manifest.files[file].path);
        File::open(&path)
            .and_then(|file| file.sync_data())
            .map_err(SnapshotError::io(&path))
    }

    /// Waits for the disk and puts everything in its place. The caller binds the directory
    /// next, and then [`Staging::clear`]s.
    ///
    /// # Errors
    /// [`SnapshotError::Incomplete`], [`SnapshotError::Io`].
    pub fn place(self) -> Result<(), SnapshotError> {
        let done = self.done.into_inner();
        let missing = done.iter().flatten().filter(|done| !**done).count();
        if missing > 0 {
            return Err(SnapshotError::Incomplete { missing });
        }
        let mut folders = vec![self.root.clone()];
        for file in &self.manifest.files {
            let path = self.root.join(&file.path);
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(SnapshotError::io(&path))?;
            let above = path.ancestors().skip(1);
            folders.extend(
                above
                    .take_while(|dir| *dir != self.root)
                    .map(Path::to_owned),
            );
        }
        folders.sort_unstable();
        folders.dedup();
        for folder in &folders {
            sync_dir(folder)?;
        }
        for name in TOP_LEVEL {
            let (from, to) = (self.root.join(name), self.target.join(name));
            match fs::rename(&from, &to) {
                // Without an index there is no folder of it.
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed.map_err(SnapshotError::io(&to))?,
            }
        }
        sync_dir(&self.target)
    }

    /// Ends the restore into `target`, which is bound now.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn clear(target: &Path) -> Result<(), SnapshotError> {
        let root = target.join(STAGING_FOLDER);
        match fs::remove_dir(&root) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(SnapshotError::io(&root)),
        }?;
        sync_dir(target)
    }

    /// Removes what belongs to another snapshot.
    fn clear_strangers(&self) -> Result<(), SnapshotError> {
        for (path, size) in list(&self.root)? {
            let files = &self.manifest.files;
            let known = files
                .binary_search_by(|file| file.path.as_str().cmp(&path))
                .is_ok_and(|index| files[index].size == size);
            if !known {
                let path = self.root.join(path);
                fs::remove_file(&path).map_err(SnapshotError::io(&path))?;
            }
        }
        Ok(())
    }

    fn check_space(&self) -> Result<(), SnapshotError> {
        let mut there = 0;
        for (path, size) in list(&self.root)? {
            let path = self.root.join(path);
            let meta = fs::metadata(&path).map_err(SnapshotError::io(&path))?;
            there += (meta.blocks() * 512).min(size);
        }
        let needed = self.manifest.total_bytes().saturating_sub(there) + SPARE_BYTES;
        let available = available_bytes(&self.target)?;
        if available < needed {
            return Err(SnapshotError::NoSpace {
                dir: self.target.clone(),
                available,
                needed,
            });
        }
        Ok(())
    }

    fn make_file(&self, path: &str, size: u64) -> Result<(), SnapshotError> {
        let path = self.root.join(path);
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .and_then(|file| file.set_len(size))
            .map_err(SnapshotError::io(&path))
    }
}
