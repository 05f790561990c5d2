//! What the description of the API says about the routes for operators.

mod operator;

use std::borrow::Cow;

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

pub(crate) use operator::describe_operator;

use super::{METRICS_TYPE, stats::StatsJson};
use crate::rest::openapi::{ErrorText, Paths};

const NO_STORE: &str = "no-store";

/// Gives a name to a schema of JSON that another crate makes.
macro_rules! schema_of {
    ($(#[$doc:meta])* $type:ident, $name:literal, $json:tt) => {
        $(#[$doc])*
        pub(super) enum $type {}

        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                serde_json::from_value(json!($json)).expect("the constant is a schema")
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }
        }
    };
}

schema_of!(
    /// `Readiness` of the node.
    Ready, "Readiness", {
    "type": "object",
    "description": "Whether answers are complete, or why not.",
    "required": ["state"],
    "properties": {
        "state": {"type": "string", "enum": ["synced", "not_synced"]},
        "reason": {"type": "string", "description": "Only if it is not synced."}
    }
});
schema_of!(
    /// A hash as hex.
    HashText, "Hash", {
    "type": "string",
    "description": "A hash in display order (its bytes reversed).",
    "pattern": "^[0-9a-f]{64}$"
});
schema_of!(
    /// `PeerReport` of the node.
    Peer, "Peer", {
    "type": "object",
    "description": "A connected peer.",
    "required": [
        "addr", "kind", "transport", "connected_seconds", "least_ping_ms", "user_agent",
        "start_height", "in_flight"
    ],
    "properties": {
        "addr": {"type": "string"},
        "kind": {"type": "string"},
        "transport": {"type": "string", "enum": ["v1", "v2"]},
        "connected_seconds": {"type": "integer", "minimum": 0},
        "least_ping_ms": {"type": ["integer", "null"], "minimum": 0},
        "user_agent": {"type": "string"},
        "start_height": {"type": "integer"},
        "in_flight": {"type": "integer", "minimum": 0}
    }
});

schema_of!(
    /// `PeerDetail` of the node.
    PeerDetail, "PeerDetail", {
    "type": "object",
    "description": "A connection with a finished handshake.",
    "required": [
        "id", "addr", "network", "kind", "direction", "transport", "version", "services",
        "user_agent", "relays_txs", "start_height", "known_height", "last_ping_ms",
        "least_ping_ms", "bytes_received", "bytes_sent", "connected_since"
    ],
    "properties": {
        "id": {"type": "integer", "minimum": 0},
        "addr": {"type": "string"},
        "network": {"type": ["string", "null"], "enum": ["ipv4", "ipv6", "onion", "i2p", "cjdns", null]},
        "kind": {"type": "string", "enum": [
            "manual", "full_relay", "block_relay", "feeler", "addr_fetch", "inbound", "sibling"
        ]},
        "direction": {"type": "string", "enum": ["inbound", "outbound"]},
        "transport": {"type": "string", "enum": ["v1", "v2"]},
        "version": {"type": "integer", "minimum": 0},
        "services": {"type": "integer", "minimum": 0},
        "user_agent": {"type": "string"},
        "relays_txs": {"type": "boolean"},
        "start_height": {"type": "integer"},
        "known_height": {"type": ["integer", "null"], "minimum": 0},
        "last_ping_ms": {"type": ["integer", "null"], "minimum": 0},
        "least_ping_ms": {"type": ["integer", "null"], "minimum": 0},
        "bytes_received": {"type": "integer", "minimum": 0},
        "bytes_sent": {"type": "integer", "minimum": 0},
        "connected_since": {"type": "integer", "minimum": 0}
    }
});
schema_of!(
    /// `BanDetail` of the node.
    Ban, "Ban", {
    "type": "object",
    "description": "A ban in force.",
    "required": ["target", "since", "until"],
    "properties": {
        "target": {"type": "string"},
        "since": {"type": "integer", "minimum": 0},
        "until": {"type": "integer", "minimum": 0}
    }
});
schema_of!(
    /// `Label` of the metadata.
    Label, "Label", {
    "type": "object",
    "description": "A label as a line of BIP 329; other keys are not kept.",
    "required": ["type", "ref"],
    "properties": {
        "type": {"type": "string", "enum": ["addr", "input", "output", "pubkey", "tx", "xpub"]},
        "ref": {"type": "string", "minLength": 1, "maxLength": 200},
        "label": {"type": "string", "maxLength": 1000},
        "origin": {"type": ["string", "null"], "maxLength": 1000},
        "spendable": {"type": ["boolean", "null"]}
    }
});
schema_of!(
    /// How many were taken.
    Imported, "Imported", {
    "type": "object",
    "required": ["imported"],
    "properties": {"imported": {"type": "integer", "minimum": 0}}
});
schema_of!(
    /// `ApiKey` of the metadata as it is listed.
    ApiKey, "ApiKey", {
    "type": "object",
    "required": ["id", "name", "created", "requests_per_second"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9a-f]{8}$"},
        "name": {"type": "string"},
        "created": {"type": "integer", "minimum": 0},
        "requests_per_second": {"type": ["integer", "null"], "minimum": 1}
    }
});
schema_of!(
    /// The same when it was just made.
    MadeKey, "MadeApiKey", {
    "type": "object",
    "required": ["id", "name", "created", "requests_per_second", "key"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9a-f]{8}$"},
        "name": {"type": "string"},
        "created": {"type": "integer", "minimum": 0},
        "requests_per_second": {"type": ["integer", "null"], "minimum": 1},
        "key": {"type": "string", "pattern": "^pulse_[0-9a-f]{8}_[0-9a-f]{48}$"}
    }
});
schema_of!(
    /// The same as it is kept.
    KeptKey, "KeptApiKey", {
    "type": "object",
    "required": ["id", "name", "created", "requests_per_second", "sha256"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9a-f]{8}$"},
        "name": {"type": "string"},
        "created": {"type": "integer", "minimum": 0},
        "requests_per_second": {"type": ["integer", "null"], "minimum": 1},
        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    }
});

/// The description of the routes that both listeners have.
pub(crate) fn describe(paths: &mut Paths) {
    paths.tag("Node", "The node itself, for operators and their monitors");
    let synced = paths.own_get("/health", "Whether answers are complete");
    let schema = synced.reference::<Ready>();
    synced.ok_json(&schema, NO_STORE);
    paths
        .own_get("/health/live", "Whether the process answers")
        .response(200, plain("text/plain", "^ok$"));
    let stats = paths.own_get("/stats", "The node in numbers");
    let schema = stats.reference::<StatsJson>();
    stats.ok_json(&schema, NO_STORE);
    paths
        .own_get("/metrics", "What the process has recorded, for Prometheus")
        .about("Only on the operator's listener if there is one.")
        .response(200, plain(METRICS_TYPE, "^"))
        .error(ErrorText::pattern(404, "^endpoint does not exist"));
}

fn plain(content_type: &str, pattern: &str) -> Value {
    json!({
        "description": "The answer.",
        "headers": {
            "Cache-Control": {"required": true, "schema": {"const": "no-store"}},
        },
        "content": {content_type: {"schema": {"type": "string", "pattern": pattern}}},
    })
}
