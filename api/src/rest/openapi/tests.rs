use std::collections::BTreeSet;

use super::{
    super::router::{OPERATOR, PUBLIC, Tables, Verb},
    *,
};

/// Routes of both listeners that are not in the router's tables.
const OTHERS: [&str; 5] = ["/health", "/health/live", "/stats", "/metrics", TEMPLATE];
/// Those of the operator's listener.
const OPERATORS: [(&str, &str); 16] = [
    ("get", "/peers"),
    ("delete", "/peers/:id"),
    ("get", "/bans"),
    ("post", "/bans"),
    ("delete", "/bans/:target"),
    ("get", "/labels"),
    ("post", "/labels"),
    ("get", "/labels/:type/:ref"),
    ("delete", "/labels/:type/:ref"),
    ("get", "/labels/export"),
    ("post", "/labels/import"),
    ("get", "/api-keys"),
    ("post", "/api-keys"),
    ("delete", "/api-keys/:id"),
    ("get", "/api-keys/export"),
    ("post", "/api-keys/import"),
];

#[test]
fn every_route_is_described_and_every_description_has_its_route() {
    compare(&described(), PUBLIC, &[("get", "/ws"), ("get", "/events")]);
    compare(&described_for_operators(), OPERATOR, &OPERATORS);
}

fn compare(paths: &Paths, tables: Tables, others: &[(&'static str, &'static str)]) {
    let mut described = BTreeSet::new();
    for route in paths.routes() {
        assert!(described.insert(route), "{route:?} is described twice");
    }
    let routes = tables.iter().copied().flatten().map(|route| {
        let method = match route.verb {
            Verb::Get => "get",
            Verb::Post => "post",
        };
        (method, route.template)
    });
    let routes: BTreeSet<_> = routes
        .chain(OTHERS.map(|template| ("get", template)))
        .chain(others.iter().copied())
        .collect();
    let missing: Vec<_> = routes.difference(&described).collect();
    assert!(
        missing.is_empty(),
        "give these a place in the `describe` of their file, see docs/api.md: {missing:?}"
    );
    let unknown: Vec<_> = described.difference(&routes).collect();
    assert!(unknown.is_empty(), "no such routes: {unknown:?}");
}

#[test]
fn every_reference_leads_somewhere_and_ids_are_unique() {
    assert!(references(&public()) > 100);
    assert!(references(&operator()) > 50);
}

fn references(document: &Value) -> usize {
    let text = document.to_string();
    let mut references = 0;
    for part in text.split("\"$ref\":\"").skip(1) {
        let reference = part.split('"').next().unwrap();
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
        references += 1;
    }
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{method} {path}: {id}");
        }
    }
    references
}

#[test]
fn errors_and_cache_times_are_those_of_the_code() {
    let document = public();
    let block = &document["paths"]["/block/{hash}"]["get"]["responses"];
    let cache = &block["200"]["headers"]["Cache-Control"]["schema"]["enum"];
    assert_eq!(*cache, json!(["public, max-age=157784630", "no-store"]));
    let error = |status: &str| &block[status]["content"]["text/plain"]["schema"];
    assert_eq!(
        *error("404"),
        json!({"type": "string", "const": "Block not found"})
    );
    assert_eq!(
        *error("400"),
        json!({"type": "string", "const": "Invalid hex string"})
    );
    let spent = &document["components"]["schemas"]["TxInput"]["required"];
    let spent: Vec<&str> = (spent.as_array().unwrap().iter())
        .map(|key| key.as_str().unwrap())
        .collect();
    // What is null for a coinbase is always there, what is left out is not.
    assert!(spent.contains(&"prevout") && !spent.contains(&"witness"));
}
