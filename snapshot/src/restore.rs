//! A snapshot on disk, to be proven or restored.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    direct::ChunkBuffer,
    error::SnapshotError,
    files::{list, parallel, read_range, threads},
    manifest::{ChunkHash, FileEntry, MANIFEST_FILE, Manifest, PROOF_FILE},
    progress::Progress,
    staging::Staging,
};

/// A snapshot whose manifest is sound and whose files are those of the manifest by name
/// and size. Their bytes are not looked at before [`Snapshot::verify`] or
/// [`Snapshot::restore_into`].
#[derive(Debug)]
pub struct Snapshot {
    dir: PathBuf,
    manifest: Manifest,
    hash: ChunkHash,
}

impl Snapshot {
    /// Opens the snapshot in `dir`.
    ///
    /// # Errors
    /// [`SnapshotError`], which names the file if it is about one.
    pub fn open(dir: &Path) -> Result<Self, SnapshotError> {
        let (manifest, hash) = Manifest::read(dir)?;
        let mut there: BTreeMap<_, _> = list(dir)?.into_iter().collect();
        there.remove(MANIFEST_FILE);
        there.remove(PROOF_FILE);
        for file in &manifest.files {
            match there.remove(&file.path) {
                Some(size) if size == file.size => {}
                Some(size) if size < file.size => {
                    return Err(SnapshotError::file(&file.path, "it is cut short"));
                }
                Some(_) => return Err(SnapshotError::file(&file.path, "it is too long")),
                None => return Err(SnapshotError::file(&file.path, "it is missing")),
            }
        }
        if let Some((path, _)) = there.into_iter().next() {
            return Err(SnapshotError::file(path, "it is not in the manifest"));
        }
        Ok(Self {
            dir: dir.to_owned(),
            manifest,
            hash,
        })
    }

    /// What it is.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// BLAKE3 hash of the manifest, which stands for the whole snapshot.
    #[must_use]
    pub fn hash(&self) -> ChunkHash {
        self.hash
    }

    /// The bytes of the manifest, which give [`Snapshot::hash`].
    ///
    /// # Errors
    /// [`SnapshotError::Io`]; [`SnapshotError::Manifest`] if they have changed since.
    pub fn manifest_bytes(&self) -> Result<Vec<u8>, SnapshotError> {
        let path = self.dir.join(MANIFEST_FILE);
        let bytes = fs::read(&path).map_err(SnapshotError::io(&path))?;
        match ChunkHash::of(&bytes) == self.hash {
            true => Ok(bytes),
            false => Err(SnapshotError::manifest("it has changed since")),
        }
    }

    /// Where the file at this place of the manifest lies.
    #[must_use]
    pub fn file_path(&self, file: usize) -> Option<PathBuf> {
        let entry = self.manifest.files.get(file)?;
        Some(self.dir.join(&entry.path))
    }

    /// Reads and hashes everything.
    ///
    /// # Errors
    /// [`SnapshotError::File`] with the file that does not meet its hashes.
    pub fn verify(&self, progress: &Progress) -> Result<(), SnapshotError> {
        progress.begin("hashing", self.manifest.total_bytes());
        self.each_chunk(|file, chunk, buffer| {
            progress.check()?;
            let entry = &self.manifest.files[file];
            self.read_chunk(entry, chunk, buffer)?;
            if ChunkHash::of(buffer) != entry.chunks[chunk] {
                return Err(SnapshotError::file(
                    &entry.path,
                    "its bytes do not meet their hash",
                ));
            }
            progress.add(buffer.len() as u64);
            Ok(())
        })
    }

    /// Copies everything into `target`, proving each chunk on its way; some 16 MiB of
    /// memory per thread. The caller binds the directory next, and then
    /// [`Staging::clear`]s.
    ///
    /// # Errors
    /// [`SnapshotError`]; what was copied is taken up by the next try.
    pub fn restore_into(&self, target: &Path, progress: &Progress) -> Result<(), SnapshotError> {
        progress.begin("preparing", 0);
        let staging = Staging::open(target, self.manifest.clone())?;
        progress.begin("copying", self.manifest.total_bytes());
        self.each_chunk(|file, chunk, buffer| {
            progress.check()?;
            if !staging.has_chunk(file, chunk, buffer)? {
                self.read_chunk(&self.manifest.files[file], chunk, buffer)?;
                staging.put_chunk(file, chunk, buffer)?;
            }
            progress.add(buffer.len() as u64);
            Ok(())
        })?;
        progress.begin("waiting for the disk", 0);
        staging.place()
    }

    fn read_chunk(
        &self,
        entry: &FileEntry,
        chunk: usize,
        buffer: &mut ChunkBuffer,
    ) -> Result<(), SnapshotError> {
        let (start, len) = entry.chunk_range(chunk);
        let path = self.dir.join(&entry.path);
        read_range(&path, start, len, buffer).map_err(SnapshotError::io(&path))
    }

    fn each_chunk(
        &self,
        work: impl Fn(usize, usize, &mut ChunkBuffer) -> Result<(), SnapshotError> + Sync,
    ) -> Result<(), SnapshotError> {
        let files = self.manifest.files.iter().enumerate();
        let chunks: Vec<(usize, usize)> = files
            .flat_map(|(file, entry)| (0..entry.chunks.len()).map(move |chunk| (file, chunk)))
            .collect();
        parallel(chunks.len(), threads(), |index, buffer| {
            let (file, chunk) = chunks[index];
            work(file, chunk, buffer)
        })
    }
}
