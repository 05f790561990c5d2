//! Files that are replaced as a whole.
//!
//! # Correctness
//! Written beside the old file, flushed to disk, then renamed over it: a crash leaves the
//! old or the new one.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// Replaces the file at `path` by what `write` writes. Returns its length in bytes.
///
/// # Errors
/// Those of `write` and of the operating system; the old file is still there then.
pub(super) fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<u64> {
    let temporary = path.with_extension("new");
    let mut out = BufWriter::new(File::create(&temporary)?);
    write(&mut out)?;
    out.flush()?;
    let file = out.get_ref();
    file.sync_all()?;
    let len = file.metadata()?.len();
    fs::rename(&temporary, path)?;
    if let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(len)
}

/// Opens the file at `path`; `None` if there is none.
///
/// # Errors
/// What the operating system said.
pub(super) fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Moves a useless file out of the way, so that it can be looked at. Returns where to.
///
/// # Errors
/// What the operating system said.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = path.with_extension("damaged");
    fs::rename(path, &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.dat");
        assert!(open(&path).unwrap().is_none());
        assert_eq!(replace(&path, |out| out.write_all(b"old")).unwrap(), 3);
        let failed = replace(&path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("no"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        replace(&path, |out| out.write_all(b"newer")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
    }

    #[test]
    fn a_useless_file_is_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mempool.dat");
        fs::write(&path, b"nonsense").unwrap();
        let aside = set_aside(&path).unwrap();
        assert_eq!(fs::read(aside).unwrap(), b"nonsense");
        assert!(open(&path).unwrap().is_none());
    }
}
