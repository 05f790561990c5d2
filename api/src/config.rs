//! The `[http]` section of the configuration.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::{NonZeroU64, NonZeroUsize},
    path::PathBuf,
};

use axum::http::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::{access::AccessConfig, fallback::FallbackUrl};

/// Settings of the HTTP listeners, section `[http]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Address of the public listener. Default `127.0.0.1:8080`.
    pub addr: SocketAddr,
    /// Address of the operator's listener. When given, `/metrics` is served only
    /// there. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops_addr: Option<SocketAddr>,
    /// Another Esplora server (`http(s)://host[:port][/path]`) that is asked for what this
    /// node does not know while it is not synced. It learns what clients ask for.
    /// Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_esplora: Option<FallbackUrl>,
    /// PEM file with authorities that may have signed the certificate of `fallback_esplora`,
    /// besides those that the system trusts. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_ca: Option<PathBuf>,
    /// Value of `Access-Control-Allow-Origin` on every answer of the public listener;
    /// empty sends no CORS headers. Default `*`, since all of it is public data.
    pub cors: CorsOrigin,
    /// Most unspent outputs in one answer; an address with more gets a 400 unless it asks
    /// for pages. Default 100000.
    pub utxos_limit: usize,
    /// Most open connections of a listener; requests on further ones get a 503. Default 1024.
    pub max_connections: NonZeroUsize,
    /// Most open connections of one address (IPv6: of a /64 network) on a listener; a
    /// request on a further one gets a 429. 0 is no limit. Default 0, since behind a proxy
    /// all clients have one address.
    pub max_connections_per_address: usize,
    /// Most requests that are being answered at the same time on a listener; a further one
    /// gets a 503. Default 4096.
    pub max_requests: NonZeroUsize,
    /// Seconds in which a request body must arrive, else its client gets a 408. Default 30.
    pub body_timeout_secs: NonZeroU64,
    /// Write a line to the log for each answer: method, route, status, bytes and time, and
    /// nothing of who asked for what. Default false.
    pub access_log: bool,
    /// Certificate chain as a PEM file, with which the public listener speaks HTTPS besides
    /// HTTP. Read again when it changes. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of `tls_cert` as a PEM file. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// Most queries that read the index at the same time. Default 16.
    pub max_queries: NonZeroUsize,
    /// Seconds that a request waits for one of `max_queries` before it gets a 503.
    /// Default 5.
    pub queue_wait_secs: NonZeroU64,
    /// Seconds that a query may take before its client gets a 503. Default 30.
    pub request_timeout_secs: NonZeroU64,
    /// How the reason is written why a transaction is refused. Default `blockstream`.
    pub broadcast_errors: BroadcastErrors,
    /// How the kinds of scripts are called. Default `blockstream`.
    pub script_types: ScriptTypes,
    /// Who may ask how often.
    pub access: AccessConfig,
}

/// A form of the refusals of Bitcoin Core's methods: clients look for the reason in either.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BroadcastErrors {
    /// `sendrawtransaction RPC error -26: REASON`, as Blockstream's server has it.
    #[default]
    Blockstream,
    /// `sendrawtransaction RPC error: {"code":-26,"message":"REASON"}`, as mempool's has it.
    Mempool,
}

/// Names of the kinds of scripts: clients switch on either.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScriptTypes {
    /// Those of Blockstream's server.
    #[default]
    Blockstream,
    /// Also `anchor`, `multisig` and `provably_unspendable` of mempool's, and the script that a
    /// spend of taproot by its script reveals, as `inner_witnessscript_asm`.
    Mempool,
}

impl Default for ApiConfig {
    fn default() -> Self {
        const fn count(n: usize) -> NonZeroUsize {
            NonZeroUsize::new(n).expect("the constant is not zero")
        }
        const fn secs(n: u64) -> NonZeroU64 {
            NonZeroU64::new(n).expect("the constant is not zero")
        }
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            ops_addr: None,
            fallback_esplora: None,
            fallback_ca: None,
            cors: CorsOrigin(Some(HeaderValue::from_static("*"))),
            utxos_limit: 100_000,
            max_connections: const { count(1024) },
            max_connections_per_address: 0,
            max_requests: const { count(4096) },
            body_timeout_secs: const { secs(30) },
            access_log: false,
            tls_cert: None,
            tls_key: None,
            max_queries: const { count(16) },
            queue_wait_secs: const { secs(5) },
            request_timeout_secs: const { secs(30) },
            broadcast_errors: BroadcastErrors::default(),
            script_types: ScriptTypes::default(),
            access: AccessConfig::default(),
        }
    }
}

/// A value for `Access-Control-Allow-Origin`, or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CorsOrigin(Option<HeaderValue>);

impl CorsOrigin {
    /// Sends no CORS headers.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// The header value, if CORS headers are to be sent.
    #[must_use]
    pub const fn header(&self) -> Option<&HeaderValue> {
        self.0.as_ref()
    }
}

impl TryFrom<String> for CorsOrigin {
    type Error = axum::http::header::InvalidHeaderValue;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        HeaderValue::from_str(&text).map(|value| Self(Some(value)))
    }
}

impl From<CorsOrigin> for String {
    fn from(origin: CorsOrigin) -> Self {
        origin
            .0
            .and_then(|value| value.to_str().map(str::to_owned).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused() {
        let error = serde_json::from_str::<ApiConfig>(r#"{"adr":"127.0.0.1:1"}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `adr`"), "{error}");
    }

    #[test]
    fn zero_limits_are_refused() {
        for key in [
            "max_connections",
            "max_requests",
            "body_timeout_secs",
            "max_queries",
            "queue_wait_secs",
            "request_timeout_secs",
        ] {
            assert!(serde_json::from_str::<ApiConfig>(&format!(r#"{{"{key}":0}}"#)).is_err());
        }
    }

    #[test]
    fn the_defaults_survive_a_round_trip() {
        let text = serde_json::to_string(&ApiConfig::default()).unwrap();
        assert!(text.contains(r#""cors":"*""#), "{text}");
        assert_eq!(
            serde_json::from_str::<ApiConfig>(&text).unwrap(),
            ApiConfig::default()
        );
    }

    #[test]
    fn a_cors_value_that_cannot_be_a_header_is_refused() {
        assert!(CorsOrigin::try_from("a\nb".to_owned()).is_err());
        assert_eq!(
            CorsOrigin::try_from(String::new()).unwrap(),
            CorsOrigin::none()
        );
    }
}
