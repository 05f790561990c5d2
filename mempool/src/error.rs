//! Why a transaction is not accepted.

use std::{borrow::Cow, fmt};

use bitcoin::{Txid, Wtxid};
use pulse_primitives::{bitcoin, coins::CoinError, mempool::TxRejected, tip::ChainTip};

/// What kind of rule refuses a transaction; decides what relay remembers of it (Bitcoin
/// Core's `TxValidationResult`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectClass {
    /// Can never be valid.
    Consensus,
    /// Spends outputs in a way that policy does not relay. Depends on the inputs only.
    InputsNotStandard,
    /// Not relayed by policy, or a script fails.
    NotStandard,
    /// An input is unknown: its parent may arrive yet.
    MissingInputs,
    /// Valid later: locked, or a young coinbase.
    PrematureSpend,
    /// The witness is what policy refuses; another witness may do.
    WitnessMutated,
    /// Fails without a witness but might pass with one.
    WitnessStripped,
    /// Already here, or already confirmed.
    Conflict,
    /// Does not fit the mempool as it is.
    MempoolPolicy,
    /// The fee is too low alone; may be accepted in a package.
    Reconsiderable,
}

impl RejectClass {
    /// Name for metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Consensus => "consensus",
            Self::InputsNotStandard => "inputs_not_standard",
            Self::NotStandard => "not_standard",
            Self::MissingInputs => "missing_inputs",
            Self::PrematureSpend => "premature_spend",
            Self::WitnessMutated => "witness_mutated",
            Self::WitnessStripped => "witness_stripped",
            Self::Conflict => "conflict",
            Self::MempoolPolicy => "mempool_policy",
            Self::Reconsiderable => "reconsiderable",
        }
    }
}

/// Why one transaction is refused, in the words of Bitcoin Core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Kind of rule.
    pub class: RejectClass,
    /// Reason, such as `min relay fee not met`.
    pub reason: Cow<'static, str>,
    /// Detail, such as `120 < 141`. Empty if there is none.
    pub debug: String,
    /// With [`RejectClass::MissingInputs`]: the transactions that made the missing
    /// outputs, without repetition.
    pub missing_parents: Vec<Txid>,
    /// With a fee that is too low: the rate that was judged, in sat per 1000 vB, and the
    /// transactions that it includes.
    pub effective: Option<(u64, Vec<Wtxid>)>,
}

impl Rejected {
    pub(crate) fn new(class: RejectClass, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            class,
            reason: reason.into(),
            debug: String::new(),
            missing_parents: Vec::new(),
            effective: None,
        }
    }

    pub(crate) fn debug(mut self, debug: impl Into<String>) -> Self {
        self.debug = debug.into();
        self
    }

    pub(crate) fn consensus(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RejectClass::Consensus, reason)
    }

    pub(crate) fn not_standard(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RejectClass::NotStandard, reason)
    }

    pub(crate) fn premature(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RejectClass::PrematureSpend, reason)
    }

    pub(crate) fn policy(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RejectClass::MempoolPolicy, reason)
    }

    pub(crate) fn reconsiderable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RejectClass::Reconsiderable, reason)
    }
}

/// `reason`, or `reason, debug`.
impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if self.debug.is_empty() {
            return Ok(());
        }
        write!(f, ", {}", self.debug)
    }
}

impl std::error::Error for Rejected {}

impl From<Rejected> for TxRejected {
    fn from(rejected: Rejected) -> Self {
        let code = match rejected.class {
            RejectClass::MissingInputs => -25,
            _ => -26,
        };
        Self {
            code,
            reason: rejected.reason.into_owned(),
            debug: rejected.debug,
        }
    }
}

/// The mempool and the coins, or a block, are not of the same chain state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the mempool builds upon {mempool:?}, not upon {other:?}")]
pub struct TipMismatch {
    /// The block that the mempool builds upon.
    pub mempool: Option<ChainTip>,
    /// The other one.
    pub other: ChainTip,
}

/// Why there is no answer, or no acceptance.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The transaction is refused.
    #[error("transaction refused: {0}")]
    Rejected(Rejected),
    /// The coins are of another block than the mempool: take a new view and ask again.
    #[error(transparent)]
    Tip(#[from] TipMismatch),
    /// The mempool waits for [`crate::Mempool::finish_reorg`].
    #[error("the mempool is in a reorganisation")]
    Reorganising,
    /// The index could not answer.
    #[error(transparent)]
    Coins(#[from] CoinError),
}

impl From<Rejected> for AcceptError {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}
