//! The description of the API: an OpenAPI 3.1 document at `/openapi.json` and
//! `/api/openapi.json`, made from what answers. The operator's listener has one of its own at
//! `/openapi.json`.
//!
//! ```text
//! describe() of each subject -> Paths -> one JSON document
//! models (ToSchema), errors (status, text, Retry-After), cache times -> the parts
//! ```
//!
//! Each file with endpoints has a function `describe` that names its routes with the
//! templates of the router. What a route can answer stands there once; the schemas of its
//! JSON, the texts of its errors and the values of its headers are read from the types that
//! make them.
//!
//! # Correctness
//! Tests compare the document with the router's table in both directions, and with real
//! answers of a node.

mod error;
mod operation;
mod param;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::{Extension, IntoResponse, Response},
    routing::get,
};
use serde_json::{Map, Value, json};

pub(crate) use error::ErrorText;
pub(crate) use operation::{Operation, Paths};
pub(crate) use param::Param;

use super::{
    address, balance, block, bulk, internal, mempool, merged, no_endpoint, outspends, relatives,
    submit, tx, wallet,
};
use crate::{layers::RouteTemplate, ops, push, state::ApiState};

/// Where the document is.
const TEMPLATE: &str = "/openapi.json";

/// The document of the public listener.
static PUBLIC: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(public().to_string()));

/// That of the operator's.
static OPERATOR: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(operator().to_string()));

/// What the public listener serves.
fn public() -> Value {
    let mut document = document(described(), &[]);
    document["info"]["title"] = "pulse-node".into();
    document["info"]["description"] = DESCRIPTION.into();
    document["servers"] = json!([
        {"url": "/api", "description": "the canonical place"},
        {"url": "/", "description": "the same answers"},
    ]);
    for operations in members(&mut document["paths"]) {
        for operation in members(operations) {
            members(&mut operation["responses"]).for_each(add_tip_height);
        }
    }
    members(&mut document["components"]["responses"]).for_each(add_tip_height);
    document
}

/// What the operator's listener serves.
fn operator() -> Value {
    let failed = [
        "the labels cannot be read or written",
        "the keys cannot be written",
    ];
    let mut document = document(described_for_operators(), &failed);
    document["info"]["title"] = "pulse-node, operator's listener".into();
    document["info"]["description"] = OPERATORS_DESCRIPTION.into();
    document["servers"] = json!([{"url": "/"}]);
    document
}

/// All that the subjects say.
fn described() -> Paths {
    let mut paths = Paths::default();
    block::describe(&mut paths);
    tx::describe(&mut paths);
    address::describe(&mut paths);
    merged::describe(&mut paths);
    outspends::describe(&mut paths);
    balance::describe(&mut paths);
    bulk::describe(&mut paths);
    wallet::describe(&mut paths);
    mempool::describe(&mut paths);
    relatives::describe(&mut paths);
    submit::describe(&mut paths);
    push::describe(&mut paths);
    ops::describe(&mut paths);
    describe(&mut paths);
    paths
}

/// The same for the operator's listener.
fn described_for_operators() -> Paths {
    let mut paths = Paths::default();
    ops::describe(&mut paths);
    ops::describe_operator(&mut paths);
    internal::describe(&mut paths);
    describe(&mut paths);
    paths
}

/// The description of the description.
fn describe(paths: &mut Paths) {
    paths.tag("Node", "The node itself, for operators and their monitors");
    paths
        .own_get(TEMPLATE, "This document")
        .ok_json(&json!({"type": "object"}), "public, max-age=10");
}

/// The routes of the document.
pub(crate) fn routes() -> Router<ApiState> {
    let route = get(|| serve(&PUBLIC)).fallback(no_endpoint);
    Router::new()
        .route(TEMPLATE, route.clone())
        .route("/api/openapi.json", route)
}

/// The route of the document about the operator's listener.
pub(crate) fn operator_routes() -> Router<ApiState> {
    let route = get(|| serve(&OPERATOR)).fallback(no_endpoint);
    Router::new().route(TEMPLATE, route)
}

async fn serve(document: &'static LazyLock<Bytes>) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=10"),
        ),
    ];
    let template = Extension(RouteTemplate(TEMPLATE));
    (template, headers, Body::from(Bytes::clone(document))).into_response()
}

/// A document around `paths`, without what is of one listener. `unavailable` are texts of 503
/// besides those that every route may have.
fn document(paths: Paths, unavailable: &[&str]) -> Value {
    let (tags, paths, schemas) = paths.finish();
    let mut responses = Map::new();
    for (name, response) in error::shared(unavailable) {
        responses.insert(name.to_owned(), response);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
        "tags": tags,
        "paths": paths,
        "components": {"schemas": schemas, "responses": responses},
    })
}

/// The values of an object; of anything else none.
fn members(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value.as_object_mut().into_iter().flat_map(Map::values_mut)
}

/// Any answer may say how new it is. What is described elsewhere has it there.
fn add_tip_height(response: &mut Value) {
    if response.get("$ref").is_none() {
        response["headers"]["X-Tip-Height"] = json!({
            "description": "Height of the newest indexed block when the question was taken up; \
                            absent before the first, and where another server has answered \
                            that does not say it.",
            "schema": {"type": "integer", "minimum": 0},
        });
    }
}

const DESCRIPTION: &str = "\
The REST API of the Esplora servers, and what this node adds to it (marked *not Esplora*).

- Every GET can be asked as HEAD, which gives the same without a body, and every path with \
OPTIONS: 204 with CORS headers.
- Paths are matched literally: nothing is decoded, upper and lower case differ, and only the \
first five segments count. A path or a method that does not exist is answered with 404 and \
`endpoint does not exist \"/the/path\"`. Unknown keys of a query are ignored; of one that is \
repeated the last value counts.
- JSON is compact. Texts have no newline at the end. Errors are texts, without `Cache-Control`.
- JSON may get more keys in later versions.
- Amounts are in satoshis, fee rates in satoshis per virtual byte, times in seconds since 1970, \
unless something else is said.
- `X-Min-Height: N` or `?min_height=N` asks any path for an answer that is not older than block \
N; a node that is behind waits up to three seconds and then answers 503.";

const OPERATORS_DESCRIPTION: &str = "\
What the operator of a node sees and does. It is on the operator's listener alone, which is not \
for the public: it asks for no key.

- Requests with an `Origin`, which web pages send, change nothing: 403. No CORS header is sent.
- Answers are not for caches, but for those about blocks and transactions (`/internal/...`), \
which are like those of the public API; their paths also exist under `/api`.
- Errors are texts without a newline at the end. A path or a method that does not exist is \
answered with 404 and `endpoint does not exist \"/the/path\"`.
- Times are in seconds since 1970.";
