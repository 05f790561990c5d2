//! The history as bytes, to be kept across restarts.
//!
//! ```text
//! "pulsefee"                               8 bytes
//! version                                  u32, now 1
//! time of saving, time of the tip          2 x u64, seconds since 1970
//! best height, first and last block        3 x u32; first = last = 0: no data
//! averages of short, medium, long horizon  f64 each: 237 x (2 + 2 x periods)
//! CRC-32 of all before                     u32
//! ```
//! Little-endian, 307,200 bytes or so. The version stands for the layout, the buckets and
//! the horizons.
//!
//! # Correctness
//! Transactions still waiting are written as failures of as long as they waited, as Bitcoin
//! Core does when it stops; the estimator in memory keeps waiting for them.

use super::{
    FeeEstimator,
    buckets::Buckets,
    history::{History, Range},
    horizon::{Horizon, LONG, MEDIUM, SHORT, Span},
};

const MAGIC: &[u8; 8] = b"pulsefee";
const VERSION: u32 = 1;
/// Older history is not used, in hours (Bitcoin Core's `MAX_FILE_AGE`).
const MAX_AGE_HOURS: u64 = 60;

/// Why a saved history cannot be used. The estimator then starts without one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Not a history, or one cut short.
    #[error("not a fee history: {len} bytes")]
    Malformed {
        /// Bytes given.
        len: usize,
    },
    /// Written by a program that does it otherwise.
    #[error("fee history has version {found}, known is {VERSION}")]
    Version {
        /// Version found.
        found: u32,
    },
    /// Bytes were changed.
    #[error("fee history fails its checksum")]
    Checksum,
    /// The checksum is right, but no estimator can have such numbers.
    #[error("fee history holds impossible numbers")]
    Implausible,
    /// Too long ago to say anything about fees now.
    #[error("fee history is {hours} hours old, more than {MAX_AGE_HOURS}")]
    TooOld {
        /// Age in full hours.
        hours: u64,
    },
}

impl FeeEstimator {
    /// The history as bytes; `now` is in seconds since 1970.
    #[must_use]
    pub fn to_bytes(&self, now: u64) -> Vec<u8> {
        let mut history = self.history.clone();
        history.fail_all();
        let range = history.best_range().unwrap_or_default();
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&now.to_le_bytes());
        bytes.extend_from_slice(&self.tip_time.to_le_bytes());
        for height in [history.best(), range.first, range.last] {
            bytes.extend_from_slice(&height.to_le_bytes());
        }
        for horizon in history.horizons() {
            bytes.extend(horizon.averages().flat_map(f64::to_le_bytes));
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// The estimator that wrote `bytes`, with no transactions waiting; `now` is in seconds
    /// since 1970.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn from_bytes(bytes: &[u8], now: u64) -> Result<Self, RestoreError> {
        let malformed = RestoreError::Malformed { len: bytes.len() };
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(malformed.clone())?;
        let mut reader = Reader {
            rest: body,
            len: bytes.len(),
        };
        if reader.take() != Some(MAGIC) {
            return Err(malformed);
        }
        let version = reader.u32().ok_or(malformed.clone())?;
        if version != VERSION {
            return Err(RestoreError::Version { found: version });
        }
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err(RestoreError::Checksum);
        }
        let saved_at = reader.u64().ok_or(malformed.clone())?;
        let age = now.saturating_sub(saved_at);
        if age > MAX_AGE_HOURS * 3600 {
            return Err(RestoreError::TooOld { hours: age / 3600 });
        }
        let tip_time = reader.u64().ok_or(malformed.clone())?;
        let mut height = || reader.u32().ok_or(malformed.clone());
        let (best, range) = (
            height()?,
            Range {
                first: height()?,
                last: height()?,
            },
        );
        if range.first > range.last || range.last > best {
            return Err(RestoreError::Implausible);
        }
        let buckets = Buckets::new();
        let mut horizon = |span| reader.horizon(span, buckets.len());
        let horizons = [horizon(SHORT)?, horizon(MEDIUM)?, horizon(LONG)?];
        let history = History::restored(horizons, best, (range.last > 0).then_some(range));
        if !reader.rest.is_empty() {
            return Err(malformed);
        }
        Ok(Self { history, tip_time })
    }
}

/// Reads from the front.
struct Reader<'a> {
    rest: &'a [u8],
    /// Bytes in all, for errors.
    len: usize,
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (head, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn horizon(&mut self, span: Span, buckets: usize) -> Result<Horizon, RestoreError> {
        let malformed = RestoreError::Malformed { len: self.len };
        let mut averages = Vec::with_capacity(span.averages_len(buckets));
        for _ in 0..span.averages_len(buckets) {
            let bytes = self.take().ok_or(malformed.clone())?;
            averages.push(f64::from_le_bytes(*bytes));
        }
        if averages
            .iter()
            .any(|value| !value.is_finite() || *value < 0.0)
        {
            return Err(RestoreError::Implausible);
        }
        Horizon::from_averages(span, buckets, &averages).ok_or(malformed)
    }
}
