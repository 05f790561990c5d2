//! Which questions another server may answer, and what its answers must look like.

use serde::de::IgnoredAny;

/// The routes of the Esplora contract that any server of it answers alike, with the form of
/// their answers. What only this node has is not among them, nor is any broadcast.
const ROUTES: [(&str, Form); 32] = [
    ("/blocks/tip/hash", Form::Hash),
    ("/blocks/tip/height", Form::Number),
    ("/blocks", Form::Json),
    ("/blocks/:start_height", Form::Json),
    ("/block-height/:height", Form::Hash),
    ("/block/:hash", Form::Json),
    ("/block/:hash/status", Form::Json),
    ("/block/:hash/header", Form::Hex),
    ("/block/:hash/raw", Form::Bytes),
    ("/block/:hash/txids", Form::Json),
    ("/block/:hash/txid/:index", Form::Hash),
    ("/block/:hash/txs", Form::Json),
    ("/block/:hash/txs/:start_index", Form::Json),
    ("/tx/:txid", Form::Json),
    ("/tx/:txid/hex", Form::Hex),
    ("/tx/:txid/raw", Form::Bytes),
    ("/tx/:txid/status", Form::Json),
    ("/tx/:txid/merkle-proof", Form::Json),
    ("/tx/:txid/merkleblock-proof", Form::Hex),
    ("/tx/:txid/outspend/:vout", Form::Json),
    ("/tx/:txid/outspends", Form::Json),
    ("/address/:address", Form::Json),
    ("/address/:address/txs", Form::Json),
    ("/address/:address/txs/chain", Form::Json),
    ("/address/:address/txs/chain/:last_seen_txid", Form::Json),
    ("/address/:address/txs/mempool", Form::Json),
    ("/address/:address/utxo", Form::Json),
    ("/mempool", Form::Json),
    ("/mempool/txids", Form::Json),
    ("/mempool/recent", Form::Json),
    ("/fee-estimates", Form::Json),
    // The other names of the address routes.
    ("/scripthash/:hash", Form::Json),
];

/// What an answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    /// 64 hex digits.
    Hash,
    /// An even number of hex digits.
    Hex,
    /// Decimal digits.
    Number,
    Bytes,
}

impl Form {
    /// That of a route that may be passed on.
    pub(super) fn of(template: &str) -> Option<Self> {
        if template.starts_with("/scripthash/:hash/") {
            let twin = template.replacen("/scripthash/:hash", "/address/:address", 1);
            return Self::of(&twin);
        }
        let mut routes = ROUTES.iter();
        Some(routes.find(|(route, _)| *route == template)?.1)
    }

    /// The content type that such an answer has here.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Hash | Self::Hex | Self::Number => "text/plain",
            Self::Bytes => "application/octet-stream",
        }
    }

    /// Whether this is such an answer.
    pub(super) fn fits(self, content_type: &str, body: &[u8]) -> bool {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let hex = || body.iter().all(u8::is_ascii_hexdigit);
        essence.eq_ignore_ascii_case(self.content_type())
            && match self {
                Self::Json => serde_json::from_slice::<IgnoredAny>(body).is_ok(),
                Self::Hash => body.len() == 64 && hex(),
                Self::Hex => !body.is_empty() && body.len().is_multiple_of(2) && hex(),
                Self::Number => {
                    (1..=10).contains(&body.len()) && body.iter().all(u8::is_ascii_digit)
                }
                Self::Bytes => !body.is_empty(),
            }
    }
}

/// Whether a path is passed on as it stands: `/` and the characters of hashes, addresses,
/// numbers and names, so that no server reads it as another path.
pub(super) fn is_plain(path: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'/';
    path.starts_with('/') && path.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_questions_of_the_contract_are_passed_on() {
        for route in [
            "/blocks/tip/hash",
            "/scripthash/:hash/txs/chain",
            "/fee-estimates",
        ] {
            assert!(Form::of(route).is_some(), "{route}");
        }
        for route in [
            "/tx",
            "/broadcast",
            "/txs/package",
            "/txs/test",
            "/tx/:txid/removed",
            "/mempool/projected-blocks",
            "/scripthash/:hash/summary",
        ] {
            assert_eq!(Form::of(route), None, "{route}");
        }
    }

    #[test]
    fn an_answer_of_another_form_is_none() {
        let hash = "ab".repeat(32);
        assert!(Form::Hash.fits("text/plain; charset=utf-8", hash.as_bytes()));
        assert!(Form::Json.fits("application/json", b"[]"));
        assert!(Form::Number.fits("text/plain", b"812"));
        for (form, content_type, body) in [
            (Form::Hash, "text/html", hash.as_str()),
            (Form::Hash, "text/plain", "<html>"),
            (Form::Json, "application/json", "{\"a\":"),
            (Form::Json, "application/json", ""),
            (Form::Json, "text/html", "[]"),
            (Form::Number, "text/plain", "812\n"),
            (Form::Hex, "text/plain", "abc"),
            (Form::Bytes, "application/octet-stream", ""),
        ] {
            assert!(!form.fits(content_type, body.as_bytes()), "{form:?} {body}");
        }
    }

    #[test]
    fn a_path_that_could_be_read_otherwise_is_not_passed_on() {
        assert!(is_plain("/blocks/12"));
        for path in [
            "/blocks/..",
            "/blocks/%2e%2e",
            "*",
            "blocks",
            "/blocks/a b",
            "/tx/a:b",
        ] {
            assert!(!is_plain(path), "{path}");
        }
    }
}
