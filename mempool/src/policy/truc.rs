//! Transactions of version 3: topologically restricted until confirmed (BIP 431).
//!
//! One unconfirmed parent with one child, both of version 3, the child small: so replacing
//! either stays cheap.

use bitcoin::{Transaction, Txid, Wtxid};
use pulse_primitives::bitcoin;

const TRUC_VERSION: i32 = 3;
/// Most unconfirmed ancestors, or descendants, itself included.
const FAMILY_LIMIT: usize = 2;
const MAX_VSIZE: u64 = 10_000;
const CHILD_MAX_VSIZE: u64 = 1_000;

/// A transaction as its rules see it.
#[derive(Debug, Clone, Copy)]
pub struct TrucTx<'a> {
    /// The transaction.
    pub tx: &'a Transaction,
    /// Its id.
    pub txid: Txid,
    /// Its id with witnesses.
    pub wtxid: Wtxid,
    /// Virtual size as policy sees it, in vB.
    pub vsize: u64,
}

/// An unconfirmed parent in the mempool.
#[derive(Debug, Clone)]
pub struct TrucParent {
    /// Its id.
    pub txid: Txid,
    /// Its id with witnesses.
    pub wtxid: Wtxid,
    /// Its version.
    pub version: i32,
    /// How many it depends on in the mempool, itself included.
    pub ancestors: usize,
    /// Its descendants in the mempool, itself apart, and how many each depends on, itself
    /// included.
    pub descendants: Vec<(Txid, usize)>,
}

/// A violation, in Bitcoin Core's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrucViolation {
    /// The detail of `TRUC-violation`.
    pub debug: String,
    /// A child of the same parent that may be evicted instead.
    pub sibling: Option<Txid>,
}

impl From<String> for TrucViolation {
    fn from(debug: String) -> Self {
        Self {
            debug,
            sibling: None,
        }
    }
}

/// Whether the rules of this module bind a transaction of that version.
#[must_use]
pub fn is_truc(version: i32) -> bool {
    version == TRUC_VERSION
}

fn named(txid: &Txid, wtxid: &Wtxid) -> String {
    format!("{txid} (wtxid={wtxid})")
}

/// Parents and children are both of version 3, or neither.
fn check_inheritance(tx: &TrucTx<'_>, parent: (Txid, Wtxid, i32)) -> Result<(), String> {
    let (txid, wtxid, version) = parent;
    let (this, other) = (named(&tx.txid, &tx.wtxid), named(&txid, &wtxid));
    match (is_truc(tx.tx.version.0), is_truc(version)) {
        (false, true) => Err(format!(
            "non-version=3 tx {this} cannot spend from version=3 tx {other}"
        )),
        (true, false) => Err(format!(
            "version=3 tx {this} cannot spend from non-version=3 tx {other}"
        )),
        _ => Ok(()),
    }
}

fn too_big(what: &str, tx: &TrucTx<'_>, limit: u64) -> String {
    let this = named(&tx.txid, &tx.wtxid);
    let vsize = tx.vsize;
    format!("version=3 {what} {this} is too big: {vsize} > {limit} virtual bytes")
}

fn too_many_ancestors(txid: &Txid, wtxid: &Wtxid) -> String {
    format!("tx {} would have too many ancestors", named(txid, wtxid))
}

fn too_many_descendants(txid: &Txid, wtxid: &Wtxid) -> String {
    let parent = named(txid, wtxid);
    format!("tx {parent} would exceed descendant count limit")
}

/// Checks one transaction against its parents in the mempool (sorted by id);
/// `is_conflict` tells which transactions it replaces anyway.
///
/// # Errors
/// [`TrucViolation`].
pub fn check_single(
    tx: &TrucTx<'_>,
    parents: &[TrucParent],
    is_conflict: impl Fn(&Txid) -> bool,
) -> Result<(), TrucViolation> {
    for parent in parents {
        check_inheritance(tx, (parent.txid, parent.wtxid, parent.version))?;
    }
    if !is_truc(tx.tx.version.0) {
        return Ok(());
    }
    if tx.vsize > MAX_VSIZE {
        return Err(too_big("tx", tx, MAX_VSIZE).into());
    }
    if parents.len() + 1 > FAMILY_LIMIT {
        return Err(too_many_ancestors(&tx.txid, &tx.wtxid).into());
    }
    let Some(parent) = parents.first() else {
        return Ok(());
    };
    if parent.ancestors + 1 > FAMILY_LIMIT {
        return Err(too_many_ancestors(&tx.txid, &tx.wtxid).into());
    }
    if tx.vsize > CHILD_MAX_VSIZE {
        return Err(too_big("child tx", tx, CHILD_MAX_VSIZE).into());
    }
    let replaces_child = parent.descendants.iter().any(|(txid, _)| is_conflict(txid));
    if parent.descendants.is_empty() || replaces_child {
        return Ok(());
    }
    // More than one child, or a grandchild, can only come from a reorganisation: then it is
    // not clear which to evict.
    let sibling = match parent.descendants[..] {
        [(sibling, FAMILY_LIMIT)] => Some(sibling),
        _ => None,
    };
    Err(TrucViolation {
        debug: too_many_descendants(&parent.txid, &parent.wtxid),
        sibling,
    })
}

/// Checks `package[index]` against the package and its parents in the mempool.
///
/// # Errors
/// Bitcoin Core's detail of `TRUC-violation`.
pub fn check_in_package(
    package: &[TrucTx<'_>],
    index: usize,
    mempool_parents: &[TrucParent],
) -> Result<(), String> {
    let this = &package[index];
    let spends = |tx: &Transaction, txid: Txid| {
        tx.input
            .iter()
            .any(|input| input.previous_output.txid == txid)
    };
    let before = package[..index].iter();
    let package_parents: Vec<_> = before.filter(|tx| spends(this.tx, tx.txid)).collect();
    if !is_truc(this.tx.version.0) {
        for parent in mempool_parents {
            check_inheritance(this, (parent.txid, parent.wtxid, parent.version))?;
        }
        for parent in package_parents {
            check_inheritance(this, (parent.txid, parent.wtxid, parent.tx.version.0))?;
        }
        return Ok(());
    }
    if this.vsize > MAX_VSIZE {
        return Err(too_big("tx", this, MAX_VSIZE));
    }
    let own = mempool_parents.first().map_or(0, |parent| parent.ancestors);
    let parents = mempool_parents.len() + package_parents.len();
    if parents + 1 > FAMILY_LIMIT || own + package_parents.len() + 1 > FAMILY_LIMIT {
        return Err(too_many_ancestors(&this.txid, &this.wtxid));
    }
    let parent = mempool_parents
        .first()
        .map(|p| (p.txid, p.wtxid, p.version, !p.descendants.is_empty()))
        .or_else(|| {
            let parent = package_parents.first()?;
            Some((parent.txid, parent.wtxid, parent.tx.version.0, false))
        });
    let Some((txid, wtxid, version, has_descendants)) = parent else {
        return Ok(());
    };
    if this.vsize > CHILD_MAX_VSIZE {
        return Err(too_big("child tx", this, CHILD_MAX_VSIZE));
    }
    check_inheritance(this, (txid, wtxid, version))?;
    for other in package.iter().filter(|tx| tx.txid != this.txid) {
        for input in &other.tx.input {
            if input.previous_output.txid == txid {
                return Err(too_many_descendants(&txid, &wtxid));
            }
            if input.previous_output.txid == this.txid {
                return Err(too_many_ancestors(&other.txid, &other.wtxid));
            }
        }
    }
    if has_descendants {
        return Err(too_many_descendants(&txid, &wtxid));
    }
    Ok(())
}
