//! A snapshot in the making.
//!
//! # Correctness
//! It lies in a folder of its own, `NAME.partial`, and gets its name when everything in it
//! is on the disk. A rest of one that was cut short is known by its marker and replaced.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::SnapshotError,
    files::{copy, list, make_dir, parallel, read_range, sync_dir, threads, write_synced},
    manifest::{CHUNK_LEN, ChunkHash, FileEntry, Manifest, ManifestHead, is_known_path},
    progress::Progress,
};

const MARKER: &str = ".unfinished";

/// A snapshot in the making. Removed when it is dropped unfinished.
#[derive(Debug)]
pub struct Draft {
    /// What it will be.
    dir: PathBuf,
    /// Where it is made.
    partial: PathBuf,
    finished: bool,
}

impl Draft {
    /// Begins a snapshot that will be `dir`, which must not exist.
    ///
    /// # Errors
    /// [`SnapshotError::Exists`], also for a folder that is in the way and was not made
    /// here; [`SnapshotError::Io`].
    pub fn begin(dir: &Path) -> Result<Self, SnapshotError> {
        let taken = |path: &Path| path.symlink_metadata().is_ok();
        if taken(dir) {
            return Err(SnapshotError::Exists {
                path: dir.to_owned(),
            });
        }
        let mut partial = dir.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        if taken(&partial) {
            if !partial.join(MARKER).is_file() {
                return Err(SnapshotError::Exists { path: partial });
            }
            fs::remove_dir_all(&partial).map_err(SnapshotError::io(&partial))?;
        }
        make_dir(&partial)?;
        let draft = Self {
            dir: dir.to_owned(),
            partial,
            finished: false,
        };
        write_synced(&draft.partial.join(MARKER), b"")?;
        Ok(draft)
    }

    /// The folder in which it is made.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.partial
    }

    /// Adds a file that nobody will ever write again: as a second name of the same file
    /// where the file system can, else as a copy.
    ///
    /// # Errors
    /// [`SnapshotError::Io`], [`SnapshotError::Cancelled`].
    pub fn link(&self, from: &Path, path: &str, progress: &Progress) -> Result<(), SnapshotError> {
        progress.check()?;
        let to = self.place(path)?;
        match fs::hard_link(from, &to) {
            Ok(()) => Ok(()),
            // Another file system, or one without links, or too many of them. What is
            // really wrong shows with the copy.
            Err(_) => copy(from, &to, progress),
        }
    }

    /// Adds a copy of a file as it is now.
    ///
    /// # Errors
    /// As [`Draft::link`].
    pub fn copy(&self, from: &Path, path: &str, progress: &Progress) -> Result<(), SnapshotError> {
        progress.check()?;
        copy(from, &self.place(path)?, progress)
    }

    /// Where a file of that name is to be written, its folder made.
    ///
    /// # Errors
    /// [`SnapshotError::File`] when a snapshot cannot have such a file.
    pub fn place(&self, path: &str) -> Result<PathBuf, SnapshotError> {
        if !is_known_path(path) {
            return Err(SnapshotError::file(
                path,
                "its name is not one that a snapshot can have",
            ));
        }
        let to = self.partial.join(path);
        if let Some(parent) = to.parent() {
            make_dir(parent)?;
        }
        Ok(to)
    }

    /// Hashes all files, writes the manifest, waits for the disk, and gives the snapshot
    /// its name.
    ///
    /// # Errors
    /// [`SnapshotError`]; there is no snapshot then.
    pub fn finish(
        mut self,
        head: ManifestHead,
        progress: &Progress,
    ) -> Result<(Manifest, ChunkHash), SnapshotError> {
        let mut files = list(&self.partial)?;
        files.retain(|(path, _)| path != MARKER);
        let entries = self.hash(&files, progress)?;
        progress.begin("writing the manifest", 0);
        let manifest = Manifest::new(head, entries);
        let hash = manifest.write(&self.partial)?;
        let marker = self.partial.join(MARKER);
        fs::remove_file(&marker).map_err(SnapshotError::io(&marker))?;
        sync_tree(&self.partial)?;
        if self.dir.symlink_metadata().is_ok() {
            return Err(SnapshotError::Exists {
                path: self.dir.clone(),
            });
        }
        fs::rename(&self.partial, &self.dir).map_err(SnapshotError::io(&self.dir))?;
        self.finished = true;
        if let Some(parent) = self.dir.parent().filter(|dir| dir.is_dir()) {
            sync_dir(parent)?;
        }
        Ok((manifest, hash))
    }

    fn hash(
        &self,
        files: &[(String, u64)],
        progress: &Progress,
    ) -> Result<Vec<FileEntry>, SnapshotError> {
        let total = files.iter().map(|(_, size)| size).sum();
        progress.begin("hashing", total);
        let entries: Vec<_> = files
            .iter()
            .map(|(path, size)| FileEntry {
                path: path.clone(),
                size: *size,
                chunks: Vec::new(),
            })
            .collect();
        let chunks: Vec<(usize, usize)> = entries
            .iter()
            .enumerate()
            .flat_map(|(file, entry)| {
                let count = usize::try_from(entry.size.div_ceil(CHUNK_LEN)).unwrap_or(usize::MAX);
                (0..count).map(move |chunk| (file, chunk))
            })
            .collect();
        let hashes = parking_lot::Mutex::new(vec![None; chunks.len()]);
        parallel(chunks.len(), threads(), |index, buffer| {
            progress.check()?;
            let (file, chunk) = chunks[index];
            let (start, len) = entries[file].chunk_range(chunk);
            let path = self.partial.join(&entries[file].path);
            read_range(&path, start, len, buffer).map_err(SnapshotError::io(&path))?;
            hashes.lock()[index] = Some(ChunkHash::of(buffer));
            progress.add(len as u64);
            Ok(())
        })?;
        let mut entries = entries;
        for ((file, _), hash) in chunks.iter().zip(hashes.into_inner()) {
            entries[*file].chunks.extend(hash);
        }
        // Before the manifest names them they are on the disk.
        for entry in &entries {
            let path = self.partial.join(&entry.path);
            fs::File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(SnapshotError::io(&path))?;
        }
        Ok(entries)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if let Err(err) = fs::remove_dir_all(&self.partial) {
            tracing::warn!(dir = %self.partial.display(), %err, "an unfinished snapshot stays behind");
        }
    }
}

/// Syncs every folder below and including `dir`.
fn sync_tree(dir: &Path) -> Result<(), SnapshotError> {
    for entry in fs::read_dir(dir).map_err(SnapshotError::io(dir))? {
        let path = entry.map_err(SnapshotError::io(dir))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        }
    }
    sync_dir(dir)
}
