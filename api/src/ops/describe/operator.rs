//! What the description says about the routes that only the operator's listener has.

use serde_json::{Value, json};

use super::{ApiKey, Ban, Imported, KeptKey, Label, MadeKey, NO_STORE, PeerDetail, plain};
use crate::rest::openapi::{ErrorText, Operation, Param, Paths};

/// Peers and bans, labels, API keys.
pub(crate) fn describe_operator(paths: &mut Paths) {
    peers(paths);
    labels(paths);
    keys(paths);
}

fn peers(paths: &mut Paths) {
    paths.tag(
        "Peers",
        "Connections with other nodes, and who may have none",
    );
    let operation = paths.own_get("/peers", "Connections, oldest first");
    let schema = listed(operation.reference::<PeerDetail>());
    operation.ok_json(&schema, NO_STORE);
    let number = param(
        "Number of the connection",
        json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}),
    );
    let operation = paths.delete("/peers/:id", "Ends a connection");
    changes(operation)
        .param("id", number)
        .response(200, plain("text/plain", "^disconnected$"))
        .error(ErrorText::exact(404, "no such peer").uncached());
    let operation = paths.own_get("/bans", "Bans in force");
    let schema = listed(operation.reference::<Ban>());
    operation.ok_json(&schema, NO_STORE);
    let operation = paths.post("/bans", "Bans an address or a network");
    let schema = operation.reference::<Ban>();
    let body = json!({
        "type": "object",
        "required": ["target"],
        "additionalProperties": false,
        "properties": {
            "target": {"type": "string", "description": "An address, or a network as IP/BITS."},
            "seconds": {
                "type": ["integer", "null"], "minimum": 1, "maximum": 315_360_000,
                "default": 86_400
            },
        },
    });
    changes(operation)
        .body(
            "application/json",
            "Who is banned, and for how long.",
            &body,
        )
        .ok_json(&schema, NO_STORE)
        .error(ErrorText::pattern(400, ".+").uncached())
        .error(ErrorText::pattern(409, "^there are too many bans").uncached());
    let target = param(
        "An address, or a network as IP/BITS, as it was banned",
        json!({"type": "string", "minLength": 1}),
    );
    let operation = paths.delete("/bans/:target", "Lifts a ban");
    changes(operation)
        .param("target", target)
        .response(200, plain("text/plain", "^lifted$"))
        .error(ErrorText::pattern(400, ".+").uncached())
        .error(ErrorText::exact(404, "no such ban").uncached());
}

fn labels(paths: &mut Paths) {
    const TYPES: [&str; 6] = ["addr", "input", "output", "pubkey", "tx", "xpub"];
    paths.tag("Labels", "Names for addresses and other things (BIP 329)");
    let operation = paths.own_get("/labels", "Labels in the order of type and reference");
    let schema = listed(operation.reference::<Label>());
    operation
        .query(
            "limit",
            "Labels on a page.",
            &json!({"type": "integer", "minimum": 1, "default": 1_000}),
        )
        .query(
            "after_type",
            "Type of the label after which the page begins.",
            &json!({"type": "string", "enum": TYPES}),
        )
        .query(
            "after_ref",
            "Reference of the label after which the page begins.",
            &json!({"type": "string"}),
        )
        .ok_json(&schema, NO_STORE)
        .error(ErrorText::exact(400, "no such type").uncached())
        .error(ErrorText::exact(400, "Invalid limit").uncached());
    let operation = paths.post("/labels", "Sets a label");
    let schema = operation.reference::<Label>();
    changes(operation)
        .body("application/json", "The label.", &schema)
        .ok_json(&schema, NO_STORE)
        .error(ErrorText::pattern(400, ".+").uncached())
        .error(ErrorText::pattern(409, "^there are [0-9]+ labels already$").uncached());
    let kind = || param("What it is about", json!({"type": "string", "enum": TYPES}));
    let reference = || {
        let schema = json!({"type": "string", "minLength": 1});
        param("Which one, as its type has it", schema)
    };
    let operation = paths.own_get("/labels/:type/:ref", "One label");
    let schema = operation.reference::<Label>();
    operation
        .param("type", kind())
        .param("ref", reference())
        .ok_json(&schema, NO_STORE)
        .error(ErrorText::exact(404, "no such label").uncached());
    let operation = paths.delete("/labels/:type/:ref", "Forgets a label");
    changes(operation)
        .param("type", kind())
        .param("ref", reference())
        .response(200, plain("text/plain", "^removed$"))
        .error(ErrorText::exact(404, "no such label").uncached());
    paths
        .own_get("/labels/export", "All labels, one JSON object per line")
        .response(200, plain("application/jsonl", "^"));
    let operation = paths.post("/labels/import", "Sets labels, all or none");
    let schema = operation.reference::<Imported>();
    changes(operation)
        .body(
            "application/jsonl",
            "Labels, one JSON object per line.",
            &json!({"type": "string"}),
        )
        .ok_json(&schema, NO_STORE)
        .error(ErrorText::pattern(400, "^line [0-9]+: .+").uncached())
        .error(ErrorText::pattern(409, "^there are [0-9]+ labels already$").uncached());
}

fn keys(paths: &mut Paths) {
    paths.tag("API keys", "Keys by which clients are told apart");
    let operation = paths.own_get("/api-keys", "Keys, without what makes them keys");
    let schema = listed(operation.reference::<ApiKey>());
    operation.ok_json(&schema, NO_STORE);
    let operation = paths.post("/api-keys", "Makes a key, which is not shown again");
    let schema = operation.reference::<MadeKey>();
    let body = json!({
        "type": "object",
        "required": ["name"],
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 100},
            "requests_per_second": {
                "type": ["integer", "null"], "minimum": 1, "maximum": u32::MAX
            },
        },
    });
    changes(operation)
        .body("application/json", "Whose it is, and what it may.", &body)
        .ok_json(&schema, NO_STORE)
        .error(ErrorText::pattern(400, ".+").uncached())
        .error(ErrorText::pattern(409, "^there are [0-9]+ keys already$").uncached());
    let id = param(
        "Id of the key",
        json!({"type": "string", "pattern": "^[0-9a-f]{8}$"}),
    );
    let operation = paths.delete("/api-keys/:id", "Revokes a key");
    changes(operation)
        .param("id", id)
        .response(200, plain("text/plain", "^revoked$"))
        .error(ErrorText::exact(404, "no such key").uncached());
    let operation = paths.own_get("/api-keys/export", "What is kept of each key");
    let kept = listed(operation.reference::<KeptKey>());
    operation.ok_json(&kept, NO_STORE);
    let operation = paths.post("/api-keys/import", "Takes such keys, all or none");
    let schema = operation.reference::<Imported>();
    let _ = operation.reference::<KeptKey>();
    changes(operation)
        .body("application/json", "What an export has given.", &kept)
        .ok_json(&schema, NO_STORE)
        .error(ErrorText::pattern(400, ".+").uncached())
        .error(ErrorText::pattern(409, "^there are [0-9]+ keys already$").uncached());
}

/// It changes something, which is refused to web pages.
fn changes(operation: &mut Operation) -> &mut Operation {
    operation.error(ErrorText::exact(403, "not for web pages").uncached())
}

fn listed(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn param(description: &'static str, schema: Value) -> Param {
    Param {
        description,
        schema,
        errors: Vec::new(),
    }
}
