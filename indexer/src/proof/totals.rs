//! Checks `agg` rows and the sums that `hist` rows state: what a reader makes of them, for
//! each script, must be what the script's outputs give.
//!
//! `hist`, `utxo` and `agg` are sorted by script key, so each is read once.

use std::sync::atomic::AtomicBool;

use super::{
    report::{Difference, VerifyReport, Wrong},
    walk::stopped,
};
use crate::{
    keys::ScriptKey,
    query::model::ScriptStats,
    rows::{
        TxNum,
        checkpoint::{self, Checkpoint, Sum},
        codec::Reader as RowReader,
        script,
    },
    store::{
        Family, StoreError,
        reader::{Reader, Rows},
    },
};

/// Scripts between two looks at whether to stop.
const STOP_INTERVAL: u64 = 1 << 12;

/// Compares the totals of each script. `false` if it was stopped.
pub(super) fn check(
    reader: &Reader<'_>,
    stop: &AtomicBool,
    report: &mut VerifyReport,
) -> Result<bool, StoreError> {
    let mut hist = reader.rows(Family::Hist, &[]);
    let mut utxo = reader.rows(Family::Utxo, &[]);
    let mut agg = reader.rows(Family::Agg, &[]);
    let mut scripts = 0u64;
    while let Some(script) = script_of(&hist, Family::Hist)? {
        scripts += 1;
        if scripts.is_multiple_of(STOP_INTERVAL) && stopped(stop) {
            return Ok(false);
        }
        extra_checkpoints(&mut agg, script, report)?;
        let mut checkpoint = None;
        if script_of(&agg, Family::Agg)? == Some(script) {
            let value = agg.item().map(|(_, value)| value.to_vec());
            let decoded = Checkpoint::decode(&value.unwrap_or_default());
            checkpoint = Some(decoded.map_err(|row| Family::Agg.damaged(row))?);
            agg.next();
        }
        let (all, read, through_found) = sums(&mut hist, script, checkpoint.as_ref())?;
        let live = live_value(&mut utxo, script)?;
        let spent = all.stated();
        let expected = ScriptStats {
            spent_txo_sum: spent.funded_txo_sum.wrapping_sub(live),
            ..spent
        };
        let found = read.finish(|| Ok::<_, StoreError>(live))?;
        if found != expected || !through_found {
            let (family, key) = match &checkpoint {
                Some(_) => (Family::Agg, checkpoint::key(script).to_vec()),
                None => (Family::Hist, script.to_be_bytes().to_vec()),
            };
            let mut text = format!("the totals are {found:?}, the outputs give {expected:?}");
            if !through_found {
                text.push_str("; counts up to a transaction that the script does not have");
            }
            report.add(Difference {
                family: family.name(),
                key,
                height: None,
                txid: None,
                what: Wrong::Text(text),
            });
        }
    }
    hist.status()?;
    utxo.status()?;
    extra_checkpoints(&mut agg, ScriptKey::MAX, report)?;
    agg.status()?;
    Ok(true)
}

/// Script key of the row that a cursor stands at.
fn script_of(rows: &Rows<'_>, family: Family) -> Result<Option<ScriptKey>, StoreError> {
    let script = rows.item().map(|(key, _)| RowReader::new(key).u64());
    script.transpose().map_err(|row| family.damaged(row))
}

/// Passes checkpoints of scripts before `script`, which have no history.
fn extra_checkpoints(
    agg: &mut Rows<'_>,
    script: ScriptKey,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    while script_of(agg, Family::Agg)?.is_some_and(|found| found < script) {
        if let Some((key, value)) = agg.item() {
            report.add(Difference {
                family: Family::Agg.name(),
                key: key.to_vec(),
                height: None,
                txid: None,
                what: Wrong::Extra(value.to_vec()),
            });
        }
        agg.next();
    }
    Ok(())
}

/// The sum of all rows of a script, the sum as it is read with its checkpoint, and whether
/// the transaction up to which that counts is one of the script.
fn sums(
    hist: &mut Rows<'_>,
    script: ScriptKey,
    checkpoint: Option<&Checkpoint>,
) -> Result<(Sum, Sum, bool), StoreError> {
    let through: Option<TxNum> = checkpoint.map(|checkpoint| checkpoint.through);
    let (mut all, mut read) = (Sum::from(None), Sum::from(checkpoint));
    let mut through_found = through.is_none();
    while let Some((key, value)) = hist.item() {
        let row =
            script::hist_parts(key).and_then(|parts| Ok((parts, script::Change::decode(value)?)));
        let ((of, txnum), change) = row.map_err(|row| Family::Hist.damaged(row))?;
        if of != script {
            break;
        }
        all.add(txnum, &change);
        through_found |= through == Some(txnum);
        if through.is_none_or(|through| txnum > through) {
            read.add(txnum, &change);
        }
        hist.next();
    }
    Ok((all, read, through_found))
}

/// Value of the live outputs of a script. Passes those of scripts before it, which are
/// found when `utxo` rows are compared with the blocks.
fn live_value(utxo: &mut Rows<'_>, script: ScriptKey) -> Result<u64, StoreError> {
    let mut live = 0u64;
    while let Some(of) = script_of(utxo, Family::Utxo)?.filter(|of| *of <= script) {
        if let Some((_, value)) = utxo.item().filter(|_| of == script) {
            let sats = script::amount(value).map_err(|row| Family::Utxo.damaged(row))?;
            live = live.wrapping_add(sats);
        }
        utxo.next();
    }
    Ok(live)
}
