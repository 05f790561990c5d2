//! The one place where errors become a JSON-RPC code and a text.
//!
//! # Correctness
//! -32603 is for a node that has never been synced since its start, and for what is broken.
//! Wallets give up such a server (and over -32601, -101 and -102), so ordinary failures have
//! other codes: 1 for requests that cannot be served as they are, 2 for those that may be
//! served later, 3 and 4 for limits. Internal detail is logged, not sent.

use pulse_indexer::query::QueryError;
use pulse_primitives::{Height, bitcoin::Txid};
use pulse_request::rpc::{self, RpcError};
use serde_json::Value;
use tracing::{debug, error, warn};

use super::config::ElectrumConfig;
use crate::{blocking::BlockingError, places::Refused, together::Apart};

/// Why a request has no result. What it displays is the message that the client gets.
#[derive(Debug, thiserror::Error)]
pub(super) enum ElectrumError {
    /// The line, or a parameter, cannot be read.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// JSON, but no request.
    #[error("invalid request")]
    InvalidRequest,
    #[error("unknown method {method}")]
    UnknownMethod {
        /// As the client named it, shortened.
        method: String,
    },
    #[error("request line exceeds {limit} bytes")]
    LineTooLong { limit: usize },
    #[error("response exceeds {limit} bytes")]
    ReplyTooLong { limit: usize },
    #[error("unsupported protocol version: {asked}")]
    UnsupportedVersion {
        /// What the client asked for, shortened.
        asked: String,
    },
    #[error("server.version already sent")]
    VersionSent,
    /// More transactions or outputs than one answer may have.
    #[error("history too large (limit: {limit} entries)")]
    HistoryTooLarge { limit: usize },
    #[error("height {height} out of range")]
    NoBlock { height: Height },
    #[error(
        "header height {height} must be <= cp_height {cp_height} which must be <= chain height {tip}"
    )]
    CheckpointRange {
        height: Height,
        cp_height: Height,
        tip: Height,
    },
    #[error(
        "No such mempool or blockchain transaction. Use gettransaction for wallet transactions."
    )]
    NoTx,
    #[error("No confirmed transaction matching the requested hash was found")]
    NotConfirmed,
    #[error("tx {txid} not in block at height {height}")]
    NotInBlock { txid: Txid, height: Height },
    #[error("no tx at position {pos} in block at height {height}")]
    NoPosition { pos: u32, height: Height },
    /// The mempool refuses a transaction.
    #[error("the transaction was rejected by network rules.\n\n{reason}")]
    Rejected {
        /// In the words of Bitcoin Core.
        reason: String,
    },
    #[error("the tx package was rejected by network rules.\n\n{reason}.")]
    PackageRejected {
        /// In the words of Bitcoin Core.
        reason: String,
    },
    #[error("Too many subscriptions on this connection (limit: {limit})")]
    ConnectionSubscriptions { limit: usize },
    #[error("Too many subscriptions from this address (limit: {limit})")]
    AddressSubscriptions { limit: usize },
    #[error("Too many connections (limit: {limit})")]
    Connections { limit: usize },
    #[error("Too many connections from this address (limit: {limit})")]
    AddressConnections { limit: usize },
    #[error("Too many requests from this address (limit: {limit} per second)")]
    RequestRate { limit: u32 },
    /// A later block could change the answer, and the node has not been synced yet.
    #[error("unavailable index: {reason}")]
    NotSynced {
        /// One sentence for people.
        reason: String,
    },
    /// As [`Self::NotSynced`], of a node that was synced: it is in a reorganisation, or was
    /// without peers.
    #[error("catching up: {reason}; try again")]
    CatchingUp {
        /// One sentence for people.
        reason: String,
    },
    /// The mempool does not build upon the index's tip.
    #[error("the mempool is catching up; try again")]
    MempoolBehind,
    #[error("server is busy; try again")]
    Busy,
    #[error("query took too long")]
    QueryTimeout,
    #[error("{}", query_text(.0))]
    Query(#[from] QueryError),
    #[error("internal error")]
    Internal,
}

impl ElectrumError {
    /// Why a connection is not served.
    pub(super) fn refused(why: Refused, config: &ElectrumConfig) -> Self {
        match why {
            Refused::Full => Self::Connections {
                limit: config.max_connections.get(),
            },
            Refused::OverShare => Self::AddressConnections {
                limit: config.max_connections_per_address,
            },
        }
    }

    /// Code in the JSON-RPC answer.
    pub(super) fn code(&self) -> i32 {
        match self {
            Self::Rpc(RpcError::Parse) => -32700,
            Self::InvalidRequest => -32600,
            Self::UnknownMethod { .. } => -32601,
            Self::Rpc(RpcError::Params { .. }) => -32602,
            Self::NotSynced { .. } | Self::Internal => -32603,
            Self::Query(QueryError::PositionRenewing { .. } | QueryError::NotInView { .. })
            | Self::NoTx
            | Self::NotConfirmed
            | Self::CatchingUp { .. }
            | Self::MempoolBehind
            | Self::Busy
            | Self::QueryTimeout => 2,
            Self::Query(_) => -32603,
            Self::RequestRate { .. } => 3,
            Self::ConnectionSubscriptions { .. }
            | Self::AddressSubscriptions { .. }
            | Self::Connections { .. }
            | Self::AddressConnections { .. } => 4,
            Self::LineTooLong { .. }
            | Self::Rpc(RpcError::BatchTooLong { .. })
            | Self::ReplyTooLong { .. }
            | Self::UnsupportedVersion { .. }
            | Self::VersionSent
            | Self::HistoryTooLarge { .. }
            | Self::NoBlock { .. }
            | Self::CheckpointRange { .. }
            | Self::NotInBlock { .. }
            | Self::NoPosition { .. }
            | Self::Rejected { .. }
            | Self::PackageRejected { .. } => 1,
        }
    }

    /// Whether the node is only between two states: the same request has an answer soon.
    pub(super) fn passes(&self) -> bool {
        matches!(
            self,
            Self::CatchingUp { .. }
                | Self::MempoolBehind
                | Self::Query(QueryError::NotInView { .. })
        )
    }

    /// Kind of a refusal because of a limit, for the metrics.
    pub(super) fn limit(&self) -> Option<&'static str> {
        Some(match self {
            Self::LineTooLong { .. } => "line",
            Self::Rpc(RpcError::BatchTooLong { .. }) => "batch",
            Self::ReplyTooLong { .. } => "reply",
            Self::HistoryTooLarge { .. } => "history",
            Self::ConnectionSubscriptions { .. } | Self::AddressSubscriptions { .. } => {
                "subscriptions"
            }
            Self::Connections { .. } | Self::AddressConnections { .. } => "connections",
            Self::RequestRate { .. } => "rate",
            Self::Busy => "queries",
            _ => return None,
        })
    }

    /// Logs what an operator has to know and the client must not.
    pub(super) fn log(&self, method: &'static str) {
        match self {
            Self::Query(QueryError::NotInView { .. }) => {}
            // The index tells the operator of each place once, however often it is asked for.
            Self::Query(err @ (QueryError::PositionRenewing { .. } | QueryError::Store(_))) => {
                debug!(method, %err, "query failed");
            }
            Self::Query(err) => error!(method, err = err as &dyn std::error::Error, "query failed"),
            Self::QueryTimeout => warn!(method, "query took too long"),
            Self::MempoolBehind => warn!(method, "mempool does not follow the index"),
            Self::Internal => error!(method, "electrum method panicked"),
            _ => {}
        }
    }

    pub(super) fn params(what: impl Into<String>) -> Self {
        RpcError::Params { what: what.into() }.into()
    }
}

/// The answer to the request with that id. `result` is JSON.
pub(super) fn reply(id: &Value, result: &Result<String, ElectrumError>) -> String {
    match result {
        Ok(result) => rpc::success(id, result),
        Err(error) => rpc::failure(id, error.code(), &error.to_string()),
    }
}

impl From<Apart> for ElectrumError {
    fn from(_: Apart) -> Self {
        Self::MempoolBehind
    }
}

impl From<BlockingError> for ElectrumError {
    fn from(error: BlockingError) -> Self {
        match error {
            BlockingError::Busy => Self::Busy,
            BlockingError::TimedOut => Self::QueryTimeout,
            BlockingError::Panicked => Self::Internal,
        }
    }
}

/// What is sent of a failed query.
fn query_text(error: &QueryError) -> String {
    match error {
        QueryError::PositionRenewing { .. } | QueryError::NotInView { .. } => error.to_string(),
        _ => "index read failed".to_owned(),
    }
}
