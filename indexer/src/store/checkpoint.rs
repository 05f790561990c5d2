//! A second database that is as this one was at one moment.
//!
//! # Correctness
//! What is in memory is written to table files first, all families at one point; then the
//! table files get second names and the small files are copied. The cursor that counts is
//! read from the result itself, which proves on the way that it opens.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use pulse_primitives::tip::ChainTip;
use rocksdb::{DB, Options, checkpoint::Checkpoint};

use super::{Family, Store, StoreError};
use crate::{
    proof::UtxoSummary,
    rows::{
        codec::BadRow,
        meta::{self, Cursor},
    },
};

/// What opening leaves behind and no database needs.
const NOT_OF_THE_DATABASE: [&str; 2] = ["LOG", "LOCK"];

impl Store {
    /// Makes the second database in `path`, which must not exist. Gives its newest block and
    /// what it holds unspent.
    pub(crate) fn checkpoint(
        &self,
        path: &Path,
    ) -> Result<Option<(ChainTip, UtxoSummary)>, StoreError> {
        // Rows of a bulk load are in no log.
        self.flush()?;
        Checkpoint::new(&self.db)?.create_checkpoint(path)?;
        read_state(path)
    }
}

/// The newest block of the database in `path`, which nobody has open, and what it holds
/// unspent. Changes nothing there.
pub(crate) fn read_state(path: &Path) -> Result<Option<(ChainTip, UtxoSummary)>, StoreError> {
    let mut options = Options::default();
    options.set_paranoid_checks(true);
    let families = ["default", Family::Meta.name()];
    let copy = DB::open_cf_for_read_only(&options, path, families, false)?;
    let cf = copy
        .cf_handle(Family::Meta.name())
        .expect("it was opened with it");
    let cursor = copy.get_cf(cf, meta::CURSOR)?;
    let utxos = copy.get_cf(cf, meta::UTXO_COMMITMENT)?;
    drop(copy);
    remove_traces(path).map_err(|source| StoreError::Checkpoint { source })?;
    let Some(cursor) = cursor else {
        return Ok(None);
    };
    let damaged = |row| Family::Meta.damaged(row);
    let utxos = utxos.ok_or_else(|| damaged(BadRow("no utxo_commitment with the cursor")))?;
    Ok(Some((
        Cursor::decode(&cursor).map_err(damaged)?.tip,
        UtxoSummary::decode(&utxos).map_err(damaged)?,
    )))
}

fn remove_traces(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let name = name.split('.').next().unwrap_or_default();
        if NOT_OF_THE_DATABASE.contains(&name) {
            match fs::remove_file(entry.path()) {
                Err(err) if err.kind() != ErrorKind::NotFound => return Err(err),
                _ => {}
            }
        }
    }
    Ok(())
}
