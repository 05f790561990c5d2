//! What HTTP clients send: paths, queries, bodies that are lists of strings.

use pulse_primitives::bitcoin::Network;
use pulse_request::{
    RequestError, body,
    path::{MATCHED_SEGMENTS, Template, matched_part},
    query::{self, Asked},
};

use super::outcome;

/// Templates of every shape that the API has.
const TEMPLATES: [Template; 8] = [
    Template::new("/blocks/tip/hash"),
    Template::new("/blocks/:start_height"),
    Template::new("/block/:hash/txs/:start_index"),
    Template::new("/tx/:txid"),
    Template::new("/tx/:txid/outspend/:vout"),
    Template::new("/address/:address/txs/chain/:last_seen_txid"),
    Template::new("/scripthash/:hash/utxo"),
    Template::new("/internal/mempool/txs/:last_txid"),
];
const NETWORKS: [Network; 3] = [Network::Bitcoin, Network::Testnet4, Network::Regtest];

/// What became of a parameter, in a word.
fn word<T>(read: Result<T, RequestError>) -> String {
    read.map_or_else(|error| error.to_string(), |_| "read".to_owned())
}

/// At most the segments that count take part, parameters are parts of the path, and one that
/// reads is what it is shown as.
pub fn run_path(data: &[u8]) -> u64 {
    let path = String::from_utf8_lossy(data);
    let matched = matched_part(&path);
    assert!(path.contains(matched));
    assert!(matched.matches('/').count() <= MATCHED_SEGMENTS);
    let mut words = Vec::new();
    for template in &TEMPLATES {
        let Some(params) = template.params(matched) else {
            continue;
        };
        words.push(template.text().to_owned());
        for param in params {
            assert!(!param.contains('/') && matched.contains(param));
            words.push(word(segment(param)));
        }
    }
    outcome(words)
}

fn segment(text: &str) -> Result<(), RequestError> {
    let lower = text.to_lowercase();
    if let Ok(hash) = query::block_hash(text) {
        assert_eq!(hash.to_string(), lower);
        assert_eq!(query::txid(text)?.to_string(), lower);
        assert_eq!(query::scripthash(text)?.text, text);
        return Ok(());
    }
    if let Ok(number) = query::number::<u64>(text) {
        assert_eq!(text.trim_start_matches('+').parse(), Ok(number));
        return Ok(());
    }
    let mut last = Ok(());
    for network in NETWORKS {
        match query::address(text, network) {
            Ok(subject) => assert_eq!(subject.text, text),
            Err(error) => {
                assert!(error.to_string().len() < 100);
                last = Err(error);
            }
        }
    }
    last
}

/// Paths of every template.
pub fn path_seeds() -> Vec<Vec<u8>> {
    const HASH: &str = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f";
    [
        "/blocks/tip/hash".to_owned(),
        "/api/blocks/812".to_owned(),
        format!("/block/{HASH}/txs/25"),
        format!("/api/tx/{HASH}"),
        format!("/tx/{HASH}/outspend/1"),
        format!("/address/1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa/txs/chain/{HASH}"),
        "/address/bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4/txs/chain/".to_owned(),
        format!("/scripthash/{HASH}/utxo"),
        format!("/internal/mempool/txs/{HASH}/a/b"),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// What is asked for is within its limits, and a cursor that reads is shown as it was sent.
pub fn run_query(data: &[u8]) -> u64 {
    const MOST: usize = 1_000;
    let text = String::from_utf8_lossy(data);
    let asked = Asked::of(Some(&text));
    let count = asked.max_txs(25, MOST);
    assert!((1..=MOST).contains(&count));
    let page = asked.page(25, MOST);
    if let Ok(Some(page)) = &page {
        assert!((1..=MOST).contains(&page.limit));
        if let Some(cursor) = &page.cursor {
            let sent = query::value(Some(&text), "cursor").expect("it was read");
            assert_eq!(query::cursor_text(cursor), sent.to_lowercase());
        }
    }
    let balances = asked.balances(100, MOST);
    if let Ok((limit, Some(place))) = &balances {
        assert!((1..=MOST).contains(limit));
        let sent = query::value(Some(&text), "cursor").expect("it was read");
        assert_eq!(query::balance_place_text(place), sent.to_lowercase());
    }
    outcome((
        [asked.partial, asked.scriptpubkey, asked.wants_budget()],
        page.is_ok_and(|page| page.is_some()),
        word(asked.heights()),
        word(asked.height()),
        word(balances),
    ))
}

/// Queries with every key.
pub fn query_seeds() -> Vec<Vec<u8>> {
    let cursor = "0000006e00112233445566770000000100000002";
    [
        format!("limit=10&cursor={cursor}"),
        format!("cursor={cursor}00000000000003e8&limit=5"),
        "from_height=1&to_height=4294967295&scriptpubkey=true".to_owned(),
        format!("max_txs=1000&after_txid={}", "ab".repeat(32)),
        "partial=1&height=7&%6cimit=3&unknown=".to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// Strings that read are the same when they are sent on.
pub fn run_body(data: &[u8]) -> u64 {
    let is_text = body::text(data).is_ok();
    let strings = body::strings(data);
    if let Ok(strings) = &strings {
        assert!(is_text);
        let again = serde_json::to_vec(strings).expect("strings are JSON");
        assert_eq!(&body::strings(&again).expect("what was read"), strings);
    }
    let count = strings.as_ref().map(Vec::len).ok();
    // Where the parser stopped is not an outcome of its own.
    let text = strings.err().map(|error| error.to_string());
    let text = text.map(|text| text.split(" at ").next().unwrap_or_default().to_owned());
    outcome((is_text, count, text))
}

/// Lists of strings.
pub fn body_seeds() -> Vec<Vec<u8>> {
    [
        "[]".to_owned(),
        r#"["a","b\u00e9\n"]"#.to_owned(),
        format!(r#"["{}"]"#, "00".repeat(300)),
        r#"{"a":[1,null]}"#.to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}
