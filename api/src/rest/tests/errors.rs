//! Every error that a client can get, as it goes over the wire. Clients look for some of the
//! texts, so a changed one has to be seen.

use std::fmt::Write;

use axum::response::IntoResponse;
use pulse_indexer::query::QueryError;
use pulse_primitives::{
    bitcoin::{BlockHash, Network, Txid, hashes::Hash},
    ports::BlockSourceError,
};
use pulse_request::{RequestError, query::address};

use super::{Answer, golden::NO_ADDRESSES};
use crate::{BroadcastErrors, rest::error::RestError};

/// One error of each kind. Whoever adds a kind has to name it here before this compiles.
macro_rules! each {
    ($name:ident: $error:ty { $($pattern:pat => $sample:expr,)* }) => {
        fn $name() -> Vec<$error> {
            let samples: Vec<$error> = vec![$($sample),*];
            for sample in &samples {
                match sample {
                    $($pattern => {})*
                }
            }
            samples
        }
    };
}

each!(rest: RestError {
    RestError::NoEndpoint { .. } => RestError::NoEndpoint { path: "/the/path".to_owned() },
    // With those of `request`.
    RestError::Request(_) => RequestError::InvalidNumber.into(),
    RestError::CursorGone => RestError::CursorGone,
    RestError::BlockNotFound => RestError::BlockNotFound,
    RestError::TxNotFound => RestError::TxNotFound,
    RestError::ProofNotFound => RestError::ProofNotFound,
    RestError::TxIndexOutOfRange => RestError::TxIndexOutOfRange,
    RestError::StartIndexNotMultiple => RestError::StartIndexNotMultiple,
    RestError::StartIndexOutOfRange => RestError::StartIndexOutOfRange,
    RestError::NotRemoved => RestError::NotRemoved,
    RestError::NotReplaced => RestError::NotReplaced,
    RestError::NotInMempool => RestError::NotInMempool,
    RestError::MissingTx => RestError::MissingTx,
    RestError::TooManyTxs => RestError::TooManyTxs,
    RestError::InvalidMaxFeeRate => RestError::InvalidMaxFeeRate,
    RestError::InvalidMaxBurn => RestError::InvalidMaxBurn,
    RestError::InvalidTxSize { .. } => RestError::InvalidTxSize { index: 3 },
    RestError::InvalidTxHex { .. } => RestError::InvalidTxHex { index: 3 },
    RestError::Rpc { form: BroadcastErrors::Blockstream, .. } => RestError::Rpc {
        method: "sendrawtransaction",
        code: -26,
        message: "min relay fee not met, 120 < 141".to_owned(),
        form: BroadcastErrors::Blockstream,
    },
    RestError::Rpc { form: BroadcastErrors::Mempool, .. } => RestError::Rpc {
        method: "sendrawtransaction",
        code: -26,
        message: "min relay fee not met, 120 < 141".to_owned(),
        form: BroadcastErrors::Mempool,
    },
    RestError::MempoolBehind => RestError::MempoolBehind,
    RestError::AddressSearchOff => RestError::AddressSearchOff,
    RestError::AfterTxidNotFound => RestError::AfterTxidNotFound,
    RestError::TooManyScripts => RestError::TooManyScripts,
    RestError::NoTxids => RestError::NoTxids,
    RestError::TooManyTxids => RestError::TooManyTxids,
    RestError::TooManyConnections => RestError::TooManyConnections,
    RestError::TooManySubscriptions => RestError::TooManySubscriptions,
    RestError::MiningOff => RestError::MiningOff,
    RestError::TooManyUtxos => RestError::TooManyUtxos,
    RestError::TooManyTxsAround => RestError::TooManyTxsAround,
    RestError::TooManyEntries { .. } => RestError::TooManyEntries { most: 1_000 },
    RestError::AnswerFull => RestError::AnswerFull,
    RestError::InvalidWallet => RestError::InvalidWallet,
    RestError::InvalidGapLimit { .. } => RestError::InvalidGapLimit { most: 1_000 },
    RestError::NoApiKey => RestError::NoApiKey,
    RestError::WrongApiKey => RestError::WrongApiKey,
    RestError::TooManyRequests { .. } => RestError::TooManyRequests { secs: 2 },
    RestError::NotSynced { .. } => RestError::NotSynced {
        reason: "indexed 120 of 4312 blocks".to_owned(),
    },
    RestError::Query(QueryError::PositionRenewing { .. }) => {
        QueryError::PositionRenewing { height: 7 }.into()
    },
    // Whatever else is wrong with the index is told alike.
    RestError::Query(_) => QueryError::from(BlockSourceError::NotStored {
        hash: BlockHash::all_zeros(),
    }).into(),
    RestError::Inconsistent { .. } => RestError::Inconsistent {
        txid: Txid::all_zeros(),
        what: "a secret of ours",
    },
    RestError::Busy => RestError::Busy,
    RestError::QueryTimeout => RestError::QueryTimeout,
    RestError::BodyTooLarge => RestError::BodyTooLarge,
    RestError::BodyTimeout => RestError::BodyTimeout,
    RestError::BodyUnreadable { .. } => RestError::unreadable("what the transport says"),
    RestError::Internal => RestError::Internal,
});

each!(request: RequestError {
    RequestError::InvalidHex => RequestError::InvalidHex,
    RequestError::InvalidNumber => RequestError::InvalidNumber,
    RequestError::InvalidScripthash => RequestError::InvalidScripthash,
    RequestError::InvalidLimit => RequestError::InvalidLimit,
    RequestError::InvalidCursor => RequestError::InvalidCursor,
    // The other texts are in `golden::errors`.
    RequestError::InvalidAddress(_) => address("abc", Network::Regtest).unwrap_err(),
    RequestError::WrongNetwork => RequestError::WrongNetwork,
    RequestError::InvalidBody { .. } => RequestError::InvalidBody {
        what: "what the parser says".to_owned(),
    },
    RequestError::TooManyDescriptors { .. } => RequestError::TooManyDescriptors { most: 20 },
    RequestError::InvalidDescriptor { .. } => RequestError::InvalidDescriptor {
        index: 3,
        what: "wrong checksum",
    },
    RequestError::TooManyDerivations => RequestError::TooManyDerivations,
});

/// Answers with each of them.
async fn answers() -> Vec<Answer> {
    let request = request().into_iter().map(RestError::from);
    let mut answers = Vec::new();
    for error in rest().into_iter().chain(request) {
        answers.push(Answer::of(error.into_response()).await);
    }
    answers
}

#[tokio::test]
async fn every_error_has_its_status_headers_and_text() {
    let mut record = String::new();
    for answer in answers().await {
        write!(record, "{}", answer.status.as_u16()).unwrap();
        let headers = answer.headers.iter();
        let mut headers: Vec<_> = headers
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        headers.sort();
        for header in headers {
            write!(record, " | {header}").unwrap();
        }
        writeln!(record, "\n{}\n", answer.text).unwrap();
    }
    insta::assert_snapshot!(record);
}

/// `text` with a word for each number, as the documents write it.
fn general(text: &str) -> String {
    let mut general = String::new();
    for c in text.chars() {
        match c.is_ascii_digit() {
            true if general.ends_with('N') => {}
            true => general.push('N'),
            false => general.push(c),
        }
    }
    general
}

/// The texts in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The table of errors in the document of the API says what is sent, with its status.
#[tokio::test]
async fn the_table_of_errors_is_true() {
    let document = include_str!("../../../../docs/api.md");
    let (_, section) = document.split_once("\n## Errors\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    // Addresses have texts of their own.
    let addresses = NO_ADDRESSES.map(|text| address(text, Network::Bitcoin).unwrap_err());
    let mut sent: Vec<(String, String)> = addresses
        .iter()
        .map(|error| ("400".to_owned(), general(&error.to_string())))
        .collect();
    for answer in answers().await {
        sent.push((answer.status.as_u16().to_string(), general(&answer.text)));
    }
    let mut rows = 0;
    for row in section.lines() {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [statuses, texts, _] = cells[..] else {
            continue;
        };
        let statuses = statuses.trim_start_matches("| ");
        if !statuses.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        rows += 1;
        for text in quoted(texts) {
            let text = general(text);
            let is = |(status, said): &(String, String)| {
                let matches = match text.strip_suffix('…') {
                    Some(start) => said.starts_with(start),
                    None => *said == text,
                };
                matches && statuses.split(", ").any(|of| of == status)
            };
            assert!(sent.iter().any(is), "{statuses} {text}");
        }
    }
    assert!(rows > 10, "the table has moved");
}
