//! `headers.dat`: all headers in order of arrival.
//!
//! ```text
//! head    "PULSEHDR" | format version u32 LE | network magic 4 | genesis hash 32 | CRC-32 of these u32 LE
//! record  header 80 | CRC-32 of it u32 LE
//! ```
//!
//! # Correctness
//! A record is only ever appended, behind its parent's, and an append is synced
//! before it returns. After a crash or a power cut only the last append can be
//! missing in part, so a bad end with no good record behind it is cut off; anything
//! else is damage, which is reported and never repaired by deleting.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use pulse_primitives::{
    bitcoin::{
        block::Header,
        consensus::{deserialize, serialize},
        hashes::Hash,
    },
    network::ChainParams,
};
use tracing::warn;

use super::HeaderStoreError;

const FILE_MAGIC: &[u8; 8] = b"PULSEHDR";
const FORMAT_VERSION: u32 = 1;
const HEAD_LEN: usize = 8 + 4 + 4 + 32 + 4;
const RECORD_LEN: usize = 84;

/// The open file, at its end.
pub(super) struct HeaderFile {
    path: PathBuf,
    file: File,
    /// Length of what is known to be good, in bytes.
    len: u64,
}

impl HeaderFile {
    /// Opens or creates the file and hands each header to `visit`, oldest first.
    /// `visit` names what is wrong with a header that does not belong where it stands.
    pub fn open(
        path: &Path,
        params: &ChainParams,
        mut visit: impl FnMut(&Header) -> Result<(), &'static str>,
    ) -> Result<Self, HeaderStoreError> {
        let io = |source| HeaderStoreError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        let file_len = file.metadata().map_err(io)?.len();
        let head = head(params);
        if file_len < HEAD_LEN as u64 {
            write_head(path, &mut file, &head)?;
            return Ok(Self {
                path: path.to_owned(),
                file,
                len: HEAD_LEN as u64,
            });
        }

        let mut reader = BufReader::with_capacity(1 << 20, &file);
        let mut found = [0; HEAD_LEN];
        reader.read_exact(&mut found).map_err(io)?;
        check_head(path, &found, &head)?;

        let records = (file_len - HEAD_LEN as u64) / RECORD_LEN as u64;
        let mut first_bad = None;
        for record in 0..records {
            let mut bytes = [0; RECORD_LEN];
            reader.read_exact(&mut bytes).map_err(io)?;
            let damaged = |record, what| HeaderStoreError::Damaged {
                path: path.to_owned(),
                record,
                offset: record_offset(record),
                what,
            };
            match (parse_record(&bytes), first_bad) {
                (Some(header), None) => visit(&header).map_err(|what| damaged(record, what))?,
                // Something intact behind it: not a torn end.
                (Some(_), Some(bad)) => return Err(damaged(bad, "its checksum does not match")),
                (None, None) => first_bad = Some(record),
                (None, Some(_)) => {}
            }
        }

        let len = record_offset(first_bad.unwrap_or(records));
        if len != file_len {
            warn!(
                path = %path.display(),
                kept_bytes = len,
                cut_bytes = file_len - len,
                "the end of the header file was not fully written and is cut off"
            );
            file.set_len(len).map_err(io)?;
            file.sync_all().map_err(io)?;
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            len,
        })
    }

    /// Appends the headers and waits until they are on the disk. After an error the
    /// file is as before, or has a torn end that the next append overwrites.
    pub fn append(&mut self, headers: &[Header]) -> Result<(), HeaderStoreError> {
        let mut bytes = Vec::with_capacity(headers.len() * RECORD_LEN);
        for header in headers {
            let header = serialize(header);
            bytes.extend_from_slice(&header);
            bytes.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        }
        match self.write_at_end(&bytes) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(source) => {
                // Best effort: the good length is what counts, and it has not changed.
                if let Err(err) = self.file.set_len(self.len) {
                    warn!(%err, "could not cut off a failed append");
                }
                Err(self.io(source))
            }
        }
    }

    fn write_at_end(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.len))?;
        self.file.write_all(bytes)?;
        self.file.sync_data()
    }

    /// Copies what is known to be good to a new file, and waits until it is on the disk.
    pub fn copy_to(&self, path: &Path) -> Result<(), HeaderStoreError> {
        let copy = || {
            let source = File::open(&self.path)?;
            let mut target = OpenOptions::new().write(true).create_new(true).open(path)?;
            io::copy(&mut source.take(self.len), &mut target)?;
            target.sync_all()
        };
        copy().map_err(|source| HeaderStoreError::Io {
            path: path.to_owned(),
            source,
        })
    }

    /// Waits until the file and its metadata are on the disk.
    pub fn sync(&self) -> Result<(), HeaderStoreError> {
        self.file.sync_all().map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> HeaderStoreError {
        HeaderStoreError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

fn record_offset(record: u64) -> u64 {
    HEAD_LEN as u64 + record * RECORD_LEN as u64
}

fn head(params: &ChainParams) -> [u8; HEAD_LEN] {
    let mut head = [0; HEAD_LEN];
    head[..8].copy_from_slice(FILE_MAGIC);
    head[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    head[12..16].copy_from_slice(&params.magic);
    head[16..48].copy_from_slice(&params.genesis_hash().to_byte_array());
    let crc = crc32fast::hash(&head[..48]);
    head[48..].copy_from_slice(&crc.to_le_bytes());
    head
}

fn check_head(
    path: &Path,
    found: &[u8; HEAD_LEN],
    expected: &[u8; HEAD_LEN],
) -> Result<(), HeaderStoreError> {
    let crc = crc32fast::hash(&found[..48]).to_le_bytes();
    if found[..8] != expected[..8] || found[48..] != crc {
        return Err(HeaderStoreError::NotAHeaderFile {
            path: path.to_owned(),
        });
    }
    let version = u32::from_le_bytes([found[8], found[9], found[10], found[11]]);
    if version != FORMAT_VERSION {
        return Err(HeaderStoreError::FormatVersion {
            path: path.to_owned(),
            found: version,
            expected: FORMAT_VERSION,
        });
    }
    if found[12..48] != expected[12..48] {
        return Err(HeaderStoreError::WrongNetwork {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// Writes the head of a new file, or of one whose creation was cut short.
fn write_head(path: &Path, file: &mut File, head: &[u8; HEAD_LEN]) -> Result<(), HeaderStoreError> {
    let io = |source| HeaderStoreError::Io {
        path: path.to_owned(),
        source,
    };
    let mut start = Vec::with_capacity(HEAD_LEN);
    file.read_to_end(&mut start).map_err(io)?;
    if !head.starts_with(&start) {
        return Err(HeaderStoreError::NotAHeaderFile {
            path: path.to_owned(),
        });
    }
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    file.write_all(head).map_err(io)?;
    file.sync_all().map_err(io)?;
    // The directory entry must survive a power cut as well.
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        File::open(parent)
            .and_then(|directory| directory.sync_all())
            .map_err(io)?;
    }
    Ok(())
}

fn parse_record(bytes: &[u8; RECORD_LEN]) -> Option<Header> {
    let (header, crc) = bytes.split_at(80);
    if crc32fast::hash(header).to_le_bytes() != crc {
        return None;
    }
    deserialize(header).ok()
}
