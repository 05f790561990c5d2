//! Checks every row of the index against the blocks of the active chain.
//!
//! ```text
//! blocks -> their rows: counted in      (families by height: compared at once)
//! index  -> all its rows: counted out   (checks the checksum of every table block)
//! what is left over: the blocks again, rows of those buckets compared one by one
//! ```
//!
//! # Correctness
//! Both directions: a row that is missing, one too many and one that differs each leave
//! something over (see [`fingerprint`](super::fingerprint)). Sums that not every `hist` row
//! states, and `agg` rows, which may be there or not, are checked by what readers make of
//! them: the totals of each script, added up from its rows, must be what its outputs give.
//! One snapshot is checked, whatever is indexed meanwhile.
//!
//! # Limits
//! Memory: 4 bytes per block, the sums of the buckets, and the rows of the buckets in which
//! something is left over, which are looked at [`MAX_BUCKETS`] at most. Time: one pass over
//! the blocks with a look-up per input, one over the index; with differences, another of
//! each.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path, sync::atomic::AtomicBool};

use pulse_primitives::{Height, bitcoin::bip158::FilterHeader, ports::BlockSource};

use super::{
    ProofError, UtxoSummary,
    core_set::CoreSet,
    fingerprint::{FAMILIES, Fingerprints, Side},
    report::{Difference, VerifyReport, Wrong},
    totals,
    walk::{Walk, Walked, rows_of, stopped},
};
use crate::{
    index::Shared,
    rows::{
        TxNum,
        block::{decode_position, encode_position, key as height_key},
        filter::FilterEntry,
        meta::Cursor,
        script, spend, tx,
    },
    store::{
        Family, StoreError,
        reader::{Reader, SpentInOrder},
    },
};

/// Buckets in which differences are looked for one by one.
const MAX_BUCKETS: usize = 32;

/// Rows between two signs of progress.
const PROGRESS_ROWS: u64 = 1 << 16;

/// What to check.
#[derive(Debug, Clone, Copy, Default)]
pub struct VerifyOptions<'a> {
    /// First block whose rows are checked.
    pub from: Height,
    /// Compute Bitcoin Core's numbers too, if all blocks are checked.
    pub with_core_stats: bool,
    /// Directory for temporary files, to compute `hash_serialized_3` among them.
    pub sorted_in: Option<&'a Path>,
}

/// How far a check has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyStep {
    /// This block of so many was read.
    Block(Height, Height),
    /// So many rows of this family were read.
    Rows(&'static str, u64),
    /// There are differences; this block of so many was read again to name them.
    Again(Height, Height),
}

struct Verify<'a> {
    reader: &'a Reader<'a>,
    source: &'a dyn BlockSource,
    cursor: Cursor,
    /// Number of the first transaction that is checked.
    first: TxNum,
    stop: &'a AtomicBool,
    progress: &'a mut dyn FnMut(VerifyStep),
    report: VerifyReport,
}

/// See [`Index::verify`](crate::Index::verify).
pub(crate) fn verify(
    shared: &Shared,
    source: &dyn BlockSource,
    options: &VerifyOptions<'_>,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(VerifyStep),
) -> Result<Option<VerifyReport>, ProofError> {
    let reader = shared.store.reader();
    let Some(cursor) = reader.cursor()? else {
        return Err(ProofError::Empty);
    };
    let tip = cursor.tip;
    if source.hash_at(tip.height) != Some(tip.hash) {
        return Err(ProofError::OtherChain {
            height: tip.height,
            hash: tip.hash,
        });
    }
    let from = options.from.min(tip.height);
    let walk = Walk::new(&reader, source, from)?;
    let mut core = match options.with_core_stats && from == 0 {
        true => Some((
            CoreSet::new(shared.genesis, options.sorted_in)?,
            reader.spent_in_order(),
        )),
        false => None,
    };
    let mut verify = Verify {
        reader: &reader,
        source,
        cursor,
        first: walk.next_txnum(),
        stop,
        progress,
        report: VerifyReport::new(from, tip),
    };
    let mut sums = Fingerprints::new(cursor.next_txnum);
    let Some(blocks_left) = verify.blocks(walk, &mut sums, &mut core)? else {
        return Ok(None);
    };
    if !verify.index(&mut sums)? || !verify.totals()? {
        return Ok(None);
    }
    verify.commitment((from == 0).then_some(blocks_left))?;
    verify.above_tip()?;
    let different = sums.different();
    if !different.is_empty() && !verify.name_differences(&sums, &different)? {
        return Ok(None);
    }
    let mut report = verify.report;
    if let Some((core, _)) = core {
        report.core = Some(core.finish()?);
    }
    Ok(Some(report))
}

impl Verify<'_> {
    /// Counts the rows of the blocks in, and compares those by height. Returns what the
    /// blocks left unspent, `None` if it was stopped.
    fn blocks(
        &mut self,
        mut walk: Walk<'_>,
        sums: &mut Fingerprints,
        core: &mut Option<(CoreSet, SpentInOrder<'_>)>,
    ) -> Result<Option<UtxoSummary>, ProofError> {
        let (from, tip) = (self.report.from, self.cursor.tip.height);
        let filters_next = self.reader.filters_next()?;
        let mut filter_header = self.filter_header_before(from, filters_next);
        let mut left = UtxoSummary::default();
        for height in from..=tip {
            if stopped(self.stop) {
                return Ok(None);
            }
            let walked = walk.next(height < filters_next)?;
            left += self.reader.keys.utxos.change(&walked.batch.delta);
            rows_of(&walked.batch, self.first, |family, key, value, made| {
                let side = if made { Side::Add } else { Side::Take };
                self.report.rows += u64::from(made);
                sums.count(family, key, value, side);
            });
            self.by_height(height, &walked, &mut filter_header)?;
            if let Some((set, spent)) = core {
                let first = walked.batch.row.first_txnum;
                set.add_block(&walked.block.connected, |position, vout| {
                    let position = u32::try_from(position).unwrap_or(u32::MAX);
                    Ok::<_, ProofError>(spent.is_spent(first.saturating_add(position), vout)?)
                })?;
            }
            (self.progress)(VerifyStep::Block(height, tip));
        }
        walk.ended_with(&self.cursor.tip.hash)?;
        if walk.next_txnum() != self.cursor.next_txnum {
            let (found, expected) = (self.cursor.next_txnum, walk.next_txnum());
            let text = format!("cursor: next transaction is {found}, should be {expected}");
            self.report.add_text("meta", text);
        }
        Ok(Some(left))
    }

    fn filter_header_before(&self, from: Height, filters_next: Height) -> FilterHeader {
        use pulse_primitives::bitcoin::hashes::Hash;
        let before = from.checked_sub(1).filter(|_| from < filters_next);
        let entry = before.and_then(|height| self.reader.filter_entry(height).ok().flatten());
        entry.map_or_else(FilterHeader::all_zeros, |entry| entry.header)
    }

    /// Compares the rows of a block that are keyed by its height.
    fn by_height(
        &mut self,
        height: Height,
        walked: &Walked,
        filter_header: &mut FilterHeader,
    ) -> Result<(), ProofError> {
        let Walked { block, batch } = walked;
        self.compare(Family::Blk, height, Some(&batch.row.encode()), true);
        let position = encode_position(&batch.position);
        match self.reader.raw(Family::Pos, &height_key(height)) {
            // It names another place: the node moved the block, and renews the row.
            Ok(Some(row)) if decode_position(&row).is_ok() => {
                self.report.rows += 1;
                self.report.stale_positions += u64::from(row != position);
            }
            _ => self.compare(Family::Pos, height, Some(&position), true),
        }
        self.compare(Family::Undo, height, Some(&batch.delta.encode()), false);
        let entry = block.filter.as_ref().map(|filter| {
            let entry = FilterEntry::new(block.hash, filter, filter_header);
            *filter_header = entry.header;
            entry.encode()
        });
        self.compare(Family::Filter, height, block.filter.as_deref(), true);
        self.compare(Family::FilterHdr, height, entry.as_deref(), true);
        Ok(())
    }

    /// Compares one row that is keyed by height. One that is not `needed` may be missing.
    fn compare(&mut self, family: Family, height: Height, expected: Option<&[u8]>, needed: bool) {
        let key = height_key(height);
        let what = match (self.reader.raw(family, &key), expected) {
            (Err(err), _) => Wrong::Text(unreadable(&err)),
            (Ok(None), None) => return,
            (Ok(None), Some(_)) if !needed => return,
            (Ok(None), Some(expected)) => Wrong::Missing(expected.to_vec()),
            (Ok(Some(found)), None) => Wrong::Extra(found),
            (Ok(Some(found)), Some(expected)) => {
                self.report.rows += 1;
                if found == expected {
                    return;
                }
                let expected = expected.to_vec();
                Wrong::Value { found, expected }
            }
        };
        self.report.add(Difference {
            family: family.name(),
            key: key.to_vec(),
            height: Some(height),
            txid: None,
            what,
        });
    }

    /// Counts the rows of the index out. `false` if it was stopped.
    fn index(&mut self, sums: &mut Fingerprints) -> Result<bool, ProofError> {
        for family in FAMILIES {
            let mut rows = 0u64;
            let (first, stop, progress) = (self.first, self.stop, &mut *self.progress);
            let result = self.reader.scan(family, |key, value| {
                rows += 1;
                if rows.is_multiple_of(PROGRESS_ROWS) {
                    progress(VerifyStep::Rows(family.name(), rows));
                    if stopped(stop) {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                if is_checked(family, key, value, first) {
                    sums.count(family, key, &compared(family, value), Side::Take);
                }
                Ok(ControlFlow::Continue(()))
            });
            match result {
                Ok(flow) if flow.is_break() => return Ok(false),
                Ok(_) => {}
                Err(err) => self.report.add_text(family.name(), unreadable(&err)),
            }
        }
        Ok(true)
    }

    /// Checks `agg` rows and the sums in `hist` rows. `false` if it was stopped.
    fn totals(&mut self) -> Result<bool, ProofError> {
        match totals::check(self.reader, self.stop, &mut self.report) {
            Ok(done) => Ok(done),
            Err(err) => {
                let family = match &err {
                    StoreError::Damaged { family, .. } => family,
                    _ => "agg",
                };
                self.report.add_text(family, unreadable(&err));
                Ok(true)
            }
        }
    }

    /// Compares the commitment with the rows, and with what the blocks left if all were read.
    fn commitment(&mut self, left: Option<UtxoSummary>) -> Result<(), ProofError> {
        let stored = match self.reader.utxo_summary() {
            Ok(stored) => stored,
            Err(err) => {
                self.report.add_text("meta", unreadable(&err));
                return Ok(());
            }
        };
        let never = AtomicBool::new(false);
        match super::commitment::scan(self.reader, &never, &mut |_| {}) {
            Ok(found) => self.report.utxos = found,
            Err(err) => self.report.add_text("utxo", unreadable(&err)),
        }
        let sums = [("rows", self.report.utxos), ("blocks", left)];
        for (of, sum) in sums {
            if let Some(sum) = sum.filter(|sum| *sum != stored) {
                let text = format!("utxo_commitment: is {stored}; the {of} give {sum}");
                self.report.add_text("meta", text);
            }
        }
        Ok(())
    }

    /// Nothing lies above the tip.
    fn above_tip(&mut self) -> Result<(), ProofError> {
        let above = height_key(self.cursor.tip.height.saturating_add(1));
        let families = [
            Family::Blk,
            Family::Pos,
            Family::Undo,
            Family::Filter,
            Family::FilterHdr,
        ];
        for family in families {
            let mut rows = self.reader.rows(family, &above);
            while let Some((key, value)) = rows.item() {
                self.report.add(Difference {
                    family: family.name(),
                    key: key.to_vec(),
                    height: None,
                    txid: None,
                    what: Wrong::Extra(value.to_vec()),
                });
                rows.next();
            }
            if let Err(err) = rows.status() {
                self.report.add_text(family.name(), unreadable(&err));
            }
        }
        Ok(())
    }

    /// Reads the blocks again and compares the rows of those buckets one by one. `false` if
    /// it was stopped.
    fn name_differences(
        &mut self,
        sums: &Fingerprints,
        different: &[(Family, usize)],
    ) -> Result<bool, ProofError> {
        let (inspected, rest) = different.split_at(different.len().min(MAX_BUCKETS));
        self.report.more |= !rest.is_empty();
        let wanted = |family: Family, key: &[u8]| inspected.contains(&(family, sums.bucket(key)));
        let (from, tip) = (self.report.from, self.cursor.tip.height);
        let mut walk = Walk::new(self.reader, self.source, from)?;
        let mut expected: BTreeMap<(Family, Vec<u8>), Vec<u8>> = BTreeMap::new();
        for height in from..=tip {
            if stopped(self.stop) {
                return Ok(false);
            }
            let walked = walk.next(false)?;
            rows_of(&walked.batch, self.first, |family, key, value, made| {
                if !wanted(family, key) {
                } else if made {
                    expected.insert((family, key.to_vec()), value.to_vec());
                } else {
                    expected.remove(&(family, key.to_vec()));
                }
            });
            (self.progress)(VerifyStep::Again(height, tip));
        }
        walk.ended_with(&self.cursor.tip.hash)?;
        let mut found = Vec::new();
        for family in FAMILIES {
            if !inspected.iter().any(|(bucket_of, _)| *bucket_of == family) {
                continue;
            }
            let scanned = self.reader.scan(family, |key, value| {
                if is_checked(family, key, value, self.first) && wanted(family, key) {
                    let value = compared(family, value);
                    let should_be = expected.remove(&(family, key.to_vec()));
                    let what = match should_be {
                        None => Some(Wrong::Extra(value)),
                        Some(expected) if expected != value => Some(Wrong::Value {
                            found: value,
                            expected,
                        }),
                        Some(_) => None,
                    };
                    found.extend(what.map(|what| (family, key.to_vec(), what)));
                }
                Ok(ControlFlow::Continue(()))
            });
            // Reported before. Rows behind what cannot be read are not known to be missing.
            if scanned.is_err() {
                expected.retain(|(of, _), _| *of != family);
                self.report.more = true;
            }
        }
        found.extend(
            expected
                .into_iter()
                .map(|((family, key), value)| (family, key, Wrong::Missing(value))),
        );
        for (family, key, what) in found {
            let (height, txid) = match txnum(family, &key) {
                Some(txnum) => walk.name(txnum),
                None => (None, None),
            };
            self.report.add(Difference {
                family: family.name(),
                key,
                height,
                txid,
                what,
            });
        }
        Ok(true)
    }
}

/// Number of the transaction that a key names.
fn txnum(family: Family, key: &[u8]) -> Option<TxNum> {
    let txnum = match family {
        Family::Tx => tx::txnum(key),
        Family::Hist => script::hist_txnum(key),
        Family::Utxo => script::utxo_outpoint(key).map(|(txnum, _)| txnum),
        Family::Spend => spend::output(key).map(|(txnum, _)| txnum),
        _ => return Some(TxNum::from_be_bytes(key.try_into().ok()?)),
    };
    txnum.ok()
}

/// Whether a row of the index is of the blocks that are checked. One that does not decode
/// is: no block makes it.
fn is_checked(family: Family, key: &[u8], value: &[u8], first: TxNum) -> bool {
    let txnum = match (family, txnum(family, key)) {
        // A `spend` row is of the block that spends.
        (Family::Spend, Some(funding)) => spend::spender(funding, value).ok(),
        (_, txnum) => txnum,
    };
    txnum.is_none_or(|txnum| txnum >= first)
}

/// The part of a value that follows from the blocks alone.
fn compared(family: Family, value: &[u8]) -> Vec<u8> {
    match family {
        Family::Hist => script::Change::decode(value)
            .map_or_else(|_| value.to_vec(), script::Change::without_spent_sum),
        _ => value.to_vec(),
    }
}

fn unreadable(err: &StoreError) -> String {
    let mut text = err.to_string();
    let mut source = std::error::Error::source(err);
    while let Some(err) = source {
        text = format!("{text}: {err}");
        source = err.source();
    }
    text
}
