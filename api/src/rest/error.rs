//! The one place where errors become a status and a plain-text body.
//!
//! The texts are those of Blockstream's electrs; clients match on some of them.
//! Internal detail is logged, never sent.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use pulse_indexer::query::QueryError;
use pulse_primitives::bitcoin::Txid;
use pulse_request::RequestError;
use serde_json::json;
use tracing::{debug, error, warn};

use crate::{BroadcastErrors, blocking::BlockingError, together::Apart};

/// Why a request has no answer. What it displays is the body that the client gets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestError {
    /// No such route, or not with this method.
    #[error("endpoint does not exist {path:?}")]
    NoEndpoint {
        /// The path as requested, without query.
        path: String,
    },
    /// It cannot be read.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The block that a cursor names was replaced.
    #[error("Cursor left the chain with a reorganisation; start again without it")]
    CursorGone,
    /// Unknown, stale, or above the tip.
    #[error("Block not found")]
    BlockNotFound,
    #[error("Transaction not found")]
    TxNotFound,
    /// No proof, because no block holds the transaction.
    #[error("Transaction not found or is unconfirmed")]
    ProofNotFound,
    #[error("tx index out of range")]
    TxIndexOutOfRange,
    #[error("start index must be a multiple of 25")]
    StartIndexNotMultiple,
    #[error("start index out of range")]
    StartIndexOutOfRange,
    /// It is in the mempool, confirmed, or nothing is remembered of it.
    #[error("Transaction was not removed from the mempool")]
    NotRemoved,
    /// Neither replaced nor in conflict with a confirmed one, as far as is remembered.
    #[error("Transaction was not replaced")]
    NotReplaced,
    #[error("Transaction is not in the mempool")]
    NotInMempool,
    /// `GET /broadcast` without a transaction.
    #[error("Missing tx")]
    MissingTx,
    #[error("Exceeded maximum of 25 transactions")]
    TooManyTxs,
    #[error("Invalid maxfeerate")]
    InvalidMaxFeeRate,
    #[error("Invalid maxburnamount")]
    InvalidMaxBurn,
    #[error("Invalid transaction size for item {index}")]
    InvalidTxSize {
        /// Place in the list, from 0.
        index: usize,
    },
    #[error("Invalid transaction hex for item {index}")]
    InvalidTxHex {
        /// Place in the list, from 0.
        index: usize,
    },
    /// What Bitcoin Core's RPC would refuse, in the words of servers that ask it.
    #[error("{method} RPC error{}", rpc_text(*form, *code, message))]
    Rpc {
        /// Name of Bitcoin Core's method.
        method: &'static str,
        /// Its error code.
        code: i32,
        /// Its text.
        message: String,
        /// Which servers' words.
        form: BroadcastErrors,
    },
    /// The mempool does not build upon the index's tip, for longer than a request waits.
    #[error("the mempool is catching up; try again")]
    MempoolBehind,
    /// No index of addresses by their first characters.
    #[error("address search disabled")]
    AddressSearchOff,
    /// Where a list is to begin is not in it.
    #[error("after_txid not found")]
    AfterTxidNotFound,
    /// More scripts, or more text, than one request may have.
    #[error("body too long")]
    TooManyScripts,
    #[error("No txids specified")]
    NoTxids,
    #[error("Too many txids requested")]
    TooManyTxids,
    /// The client's address has more connections than it may.
    #[error("Too many connections")]
    TooManyConnections,
    /// The connections of the client's address subscribe to more than they may.
    #[error("Too many subscriptions")]
    TooManySubscriptions,
    /// Block templates are not made.
    #[error("mining REST endpoints are disabled")]
    MiningOff,
    /// More unspent outputs than one answer may have.
    #[error("Too many unspent outputs")]
    TooManyUtxos,
    /// A balance would take too many reads.
    #[error("Too many transactions between this height and both ends of the history")]
    TooManyTxsAround,
    /// A request for many things at once names too many.
    #[error("Exceeded maximum of {most} entries")]
    TooManyEntries {
        /// The most that there may be.
        most: usize,
    },
    /// Of one entry among many: those before it have filled the answer.
    #[error("Answer is full; ask for this entry again")]
    AnswerFull,
    /// The body of a wallet is not what it should be. Says no more: it may hold secrets.
    #[error("Invalid wallet; expected {{\"descriptors\":[...],\"gap_limit\":N}}")]
    InvalidWallet,
    #[error("Invalid gap_limit; expected 1 to {most}")]
    InvalidGapLimit {
        /// The most that there may be.
        most: usize,
    },
    /// The operator wants an API key with every request.
    #[error("API key required")]
    NoApiKey,
    #[error("Invalid API key")]
    WrongApiKey,
    /// More than a key or an address may ask.
    #[error("Too many requests")]
    TooManyRequests {
        /// When it may ask again, in seconds.
        secs: u32,
    },
    /// A later block could change the answer.
    #[error("node is not synced yet: {reason}")]
    NotSynced {
        /// One sentence for people.
        reason: String,
    },
    /// The index has no answer for an internal reason.
    #[error("{}", query_text(.0))]
    Query(#[from] QueryError),
    /// The index answered something that cannot be.
    #[error("index read failed")]
    Inconsistent {
        /// The transaction in question.
        txid: Txid,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Too many queries at the same time.
    #[error("server is busy")]
    Busy,
    #[error("query took too long")]
    QueryTimeout,
    #[error("Request body too large")]
    BodyTooLarge,
    #[error("Request timeout")]
    BodyTimeout,
    /// The connection or its framing broke within the body.
    #[error("{what}")]
    BodyUnreadable {
        /// The transport's text.
        what: String,
    },
    /// A handler panicked.
    #[error("Internal server error")]
    Internal,
}

impl RestError {
    /// A body that cannot be read.
    pub(crate) fn unreadable(error: impl std::fmt::Display) -> Self {
        Self::BodyUnreadable {
            what: error.to_string(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Request(_)
            | Self::StartIndexNotMultiple
            | Self::StartIndexOutOfRange
            | Self::TooManyUtxos
            | Self::TooManyTxsAround
            | Self::TooManyEntries { .. }
            | Self::AnswerFull
            | Self::InvalidWallet
            | Self::InvalidGapLimit { .. }
            | Self::AddressSearchOff
            | Self::NoTxids
            | Self::TooManyTxids
            | Self::MissingTx
            | Self::TooManyTxs
            | Self::InvalidMaxFeeRate
            | Self::InvalidMaxBurn
            | Self::InvalidTxSize { .. }
            | Self::InvalidTxHex { .. }
            | Self::Rpc { .. }
            | Self::BodyUnreadable { .. } => StatusCode::BAD_REQUEST,
            Self::NoEndpoint { .. }
            | Self::BlockNotFound
            | Self::TxNotFound
            | Self::ProofNotFound
            | Self::NotRemoved
            | Self::NotReplaced
            | Self::NotInMempool
            | Self::TxIndexOutOfRange => StatusCode::NOT_FOUND,
            Self::MiningOff => StatusCode::FORBIDDEN,
            Self::AfterTxidNotFound | Self::TooManyScripts => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyConnections | Self::TooManySubscriptions => StatusCode::TOO_MANY_REQUESTS,
            Self::NoApiKey | Self::WrongApiKey => StatusCode::UNAUTHORIZED,
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::CursorGone => StatusCode::GONE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotSynced { .. }
            | Self::MempoolBehind
            | Self::Query(_)
            | Self::Inconsistent { .. }
            | Self::Busy
            | Self::QueryTimeout => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What caches are told. Most errors say nothing, so that shared caches do not keep them.
    pub(super) fn cache(&self) -> Option<&'static str> {
        match self {
            Self::MiningOff => Some("no-store"),
            Self::TooManyTxids => Some("public, max-age=0"),
            _ => None,
        }
    }

    /// Seconds after which asking again makes sense; given with every 429 and 503.
    fn retry_after_secs(&self) -> Option<u32> {
        match self {
            Self::TooManyRequests { secs } => Some(*secs),
            Self::NotSynced { .. } => Some(10),
            Self::Query(QueryError::PositionRenewing { .. })
            | Self::MempoolBehind
            | Self::TooManyConnections
            | Self::TooManySubscriptions
            | Self::Busy => Some(1),
            Self::Query(_) | Self::Inconsistent { .. } | Self::QueryTimeout => Some(5),
            _ => None,
        }
    }

    /// Logs what an operator has to know and the client must not.
    pub(crate) fn log(&self, route: &'static str) {
        match self {
            // The index tells the operator of each place once, however often it is asked for.
            Self::Query(err @ (QueryError::PositionRenewing { .. } | QueryError::Store(_))) => {
                debug!(route, %err, "query failed");
            }
            Self::Query(err) => error!(route, err = err as &dyn std::error::Error, "query failed"),
            Self::Inconsistent { txid, what } => {
                error!(route, %txid, what, "index and transaction do not agree");
            }
            Self::QueryTimeout => warn!(route, "query took too long"),
            Self::MempoolBehind => warn!(route, "mempool does not follow the index"),
            Self::Internal => error!(route, "handler panicked"),
            _ => {}
        }
    }
}

impl From<Apart> for RestError {
    fn from(_: Apart) -> Self {
        Self::MempoolBehind
    }
}

impl From<BlockingError> for RestError {
    fn from(error: BlockingError) -> Self {
        match error {
            BlockingError::Busy => Self::Busy,
            BlockingError::TimedOut => Self::QueryTimeout,
            BlockingError::Panicked => Self::Internal,
        }
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_string()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if let Some(cache) = self.cache() {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        }
        if matches!(self, Self::NoApiKey | Self::WrongApiKey) {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(secs) = self.retry_after_secs() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        response
    }
}

/// Code and text of a refusal by Bitcoin Core's RPC.
fn rpc_text(form: BroadcastErrors, code: i32, message: &str) -> String {
    match form {
        BroadcastErrors::Blockstream => format!(" {code}: {message}"),
        BroadcastErrors::Mempool => format!(": {}", json!({"code": code, "message": message})),
    }
}

/// What is sent of a failed query.
fn query_text(error: &QueryError) -> String {
    match error {
        QueryError::PositionRenewing { .. } => error.to_string(),
        _ => "index read failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_503_says_when_to_ask_again() {
        let reason = "indexed 1 of 9 blocks".to_owned();
        for (error, secs, text) in [
            (
                RestError::NotSynced { reason },
                "10",
                "node is not synced yet: indexed 1 of 9 blocks",
            ),
            (
                QueryError::PositionRenewing { height: 7 }.into(),
                "1",
                "the position of block 7 is being renewed; try again",
            ),
            (RestError::Busy, "1", "server is busy"),
            (
                RestError::MempoolBehind,
                "1",
                "the mempool is catching up; try again",
            ),
            (RestError::QueryTimeout, "5", "query took too long"),
        ] {
            assert_eq!(error.to_string(), text);
            let response = error.into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers()[header::RETRY_AFTER], secs);
        }
    }

    #[test]
    fn errors_are_bare_plain_text_that_caches_do_not_keep() {
        for (error, status, text) in [
            (RequestError::InvalidHex.into(), 400, "Invalid hex string"),
            (RequestError::InvalidNumber.into(), 400, "Invalid number"),
            (
                RequestError::InvalidScripthash.into(),
                400,
                "Invalid scripthash",
            ),
            (
                RequestError::WrongNetwork.into(),
                400,
                "Address on invalid network",
            ),
            (RestError::BlockNotFound, 404, "Block not found"),
            (RestError::TxNotFound, 404, "Transaction not found"),
            (
                RestError::ProofNotFound,
                404,
                "Transaction not found or is unconfirmed",
            ),
            (RestError::TxIndexOutOfRange, 404, "tx index out of range"),
            (
                RestError::StartIndexNotMultiple,
                400,
                "start index must be a multiple of 25",
            ),
            (
                RestError::StartIndexOutOfRange,
                400,
                "start index out of range",
            ),
            (RestError::TooManyUtxos, 400, "Too many unspent outputs"),
            (RestError::BodyTimeout, 408, "Request timeout"),
            (RestError::BodyTooLarge, 413, "Request body too large"),
            (RestError::Internal, 500, "Internal server error"),
        ] {
            assert_eq!(error.to_string(), text);
            let response = error.into_response();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "text/plain");
            assert!(!response.headers().contains_key(header::CACHE_CONTROL));
        }
    }

    #[test]
    fn the_missing_path_is_quoted_like_a_rust_string() {
        let path = "/a\"b".to_owned();
        assert_eq!(
            RestError::NoEndpoint { path }.to_string(),
            r#"endpoint does not exist "/a\"b""#
        );
    }
}
