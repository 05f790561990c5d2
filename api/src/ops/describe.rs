//! What the description of the API says about the routes for operators.

use std::borrow::Cow;

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema::Schema},
};

use super::{METRICS_TYPE, stats::StatsJson};
use crate::rest::openapi::{ErrorText, Paths};

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

/// The description of what the public listener has of these routes.
pub(crate) fn describe(paths: &mut Paths) {
    const NO_STORE: &str = "no-store";
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
