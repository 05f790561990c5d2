//! The REST API: status, type, cache and body of every answer.

use std::collections::BTreeSet;

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;

use super::{
    Stage, Tally, number,
    questions::{World, pick},
};
use crate::interop::{
    http::{Answer, Client},
    verbose::differences,
};

/// A question.
struct Question {
    /// The route that it is meant for.
    kind: &'static str,
    method: &'static str,
    path: String,
    body: String,
}

/// Routes; what a letter stands for is drawn anew for each question: `B` block, `T`
/// transaction, `H` height, `N` small number, `O` address or scripthash.
const ROUTES: &[&str] = &[
    "/blocks/tip/hash",
    "/blocks/tip/height",
    "/blocks",
    "/blocks/H",
    "/block-height/H",
    "/block/B",
    "/block/B/status",
    "/block/B/header",
    "/block/B/raw",
    "/block/B/txids",
    "/block/B/txid/N",
    "/block/B/txs",
    "/block/B/txs/N",
    "/tx/T",
    "/tx/T/hex",
    "/tx/T/raw",
    "/tx/T/status",
    "/tx/T/merkle-proof",
    "/tx/T/merkleblock-proof",
    "/tx/T/outspend/N",
    "/tx/T/outspends",
    "/O",
    "/O/txs",
    "/O/txs/chain",
    "/O/txs/chain/T",
    "/O/txs/mempool",
    "/O/utxo",
    "/address-prefix/bcrt1q",
    "/mempool",
    "/mempool/txids",
    "/mempool/recent",
    "/fee-estimates",
    "/nonsense/N",
];

fn question(world: &World, rng: &mut StdRng) -> Question {
    match rng.gen_range(0..30) {
        0 => {
            let kind = "POST /tx";
            let (path, body) = ("/tx".to_owned(), world.raw(rng));
            return Question {
                kind,
                method: "POST",
                path,
                body,
            };
        }
        1 => {
            let kind = "/broadcast";
            let raw = world.raw(rng);
            let path = match rng.gen_range(0..8) {
                0 => "/broadcast".to_owned(),
                1 => format!("/broadcast?x=1&tx=00&tx={raw}"),
                _ => format!("/broadcast?tx={raw}"),
            };
            return Question {
                kind,
                method: "GET",
                path,
                body: String::new(),
            };
        }
        _ => {}
    }
    let kind = pick(rng, ROUTES);
    let segments: Vec<String> = kind
        .split('/')
        .map(|segment| match segment {
            "B" => world.block(rng),
            "T" => world.txid(rng),
            "H" => world.height(rng),
            "N" => world.small(rng),
            "O" => world.owner(rng),
            literal => literal.to_owned(),
        })
        .collect();
    let mut path = segments.join("/");
    match rng.gen_range(0..40) {
        0 => path.push('/'),
        1 => path.push_str("/more"),
        2 => path.push_str("?a=b&c"),
        3 => path.insert(0, '/'),
        4 => path.push_str("/a/b/c/d"),
        5 => path = path.to_uppercase(),
        _ => {}
    }
    let method = match rng.gen_range(0..60) {
        0 => "PUT",
        1 => "DELETE",
        2 => "POST",
        _ => "GET",
    };
    Question {
        kind,
        method,
        path,
        body: String::new(),
    }
}

/// The parts of an answer that clients see, without what is of no order.
fn shown(kind: &str, answer: &Answer) -> (u16, Option<String>, Option<String>, Value) {
    let header = |name: &str| answer.header(name).map(ToOwned::to_owned);
    let json = serde_json::from_slice::<Value>(&answer.body);
    let is_json = answer.header("content-type") == Some("application/json");
    let mut body = match json {
        Ok(json) if is_json => json,
        _ => Value::String(answer.body.iter().map(|byte| char::from(*byte)).collect()),
    };
    // Lists without an order, by the contract.
    if (kind.ends_with("/utxo") || kind == "/mempool/txids")
        && let Some(list) = body.as_array_mut()
    {
        list.sort_by_key(Value::to_string);
    }
    (
        answer.status,
        header("content-type"),
        header("cache-control"),
        body,
    )
}

fn ids(list: &Value) -> Option<BTreeSet<&str>> {
    let list = list.as_array()?.iter();
    list.map(|tx| tx["txid"].as_str()).collect()
}

/// Where the transactions of a list are: their heights, in the order of the list.
fn heights(list: &Value) -> Option<Vec<Option<u64>>> {
    let list = list.as_array()?.iter();
    list.map(|tx| Some(tx.get("status")?["block_height"].as_u64()))
        .collect()
}

/// The name of a difference that is meant to be.
fn known(asked: &Question, theirs: &Answer, ours: &Answer) -> Option<&'static str> {
    let (their, our) = (theirs.text(), ours.text());
    let list = |text: &str| serde_json::from_str::<Value>(text).ok();
    let lists = list(&their).zip(list(&our));
    match asked.kind {
        "/block/B/txs/N" if their.starts_with("start index") && our.starts_with("start index") => {
            Some("start of a page that is none")
        }
        "/broadcast" if (theirs.status, ours.status) == (414, 431) => {
            Some("a path that is too long")
        }
        "/mempool/recent" => Some("order of arrival"),
        "/O/txs" | "/O/txs/chain" | "/O/txs/chain/T" | "/O/txs/mempool" => {
            let (their, our) = lists?;
            if ids(&their) == ids(&our) {
                return Some("order inside a block and of arrival");
            }
            // A page may end inside a block.
            (heights(&their)? == heights(&our)? || asked.kind == "/O/txs/chain/T")
                .then_some("page that ends inside a block")
        }
        _ => None,
    }
}

#[test]
#[ignore = "needs BITCOIND=/path/to/bitcoind and ELECTRS=/path/to/electrs"]
fn answers_over_rest_are_those_of_electrs() {
    let seed = number("PULSE_COMPARE_SEED", 1);
    let stage = Stage::new(seed);
    let world = World::of(&stage.bitcoind);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut theirs = Client::new(stage.electrs.rest);
    let mut ours = Client::new(stage.node.http_addr());
    let mut tally = Tally::default();
    for _ in 0..number("PULSE_COMPARE_REQUESTS", 20_000) {
        let asked = question(&world, &mut rng);
        let answers = [&mut theirs, &mut ours]
            .map(|client| client.ask(asked.method, &asked.path, asked.body.as_bytes()));
        let [their, our] = answers.each_ref().map(|answer| shown(asked.kind, answer));
        let mut found = Vec::new();
        if their.0 != our.0 {
            found.push(("status".to_owned(), format!("{} {}", their.0, our.0)));
        } else {
            if their.1 != our.1 {
                found.push(("type".to_owned(), format!("{:?} {:?}", their.1, our.1)));
            }
            if their.2 != our.2 {
                found.push(("cache".to_owned(), format!("{:?} {:?}", their.2, our.2)));
            }
            differences("body", &their.3, &our.3, &mut found);
        }
        if found.is_empty() {
            tally.same(asked.kind);
            continue;
        }
        let paths: BTreeSet<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        let detail = match their.0 == our.0 {
            true => format!("{} {paths:?}", their.0),
            false => format!("status {} here {}", their.0, our.0),
        };
        let known = known(&asked, &answers[0], &answers[1]);
        let example = format!(
            "{} {} {:.100} {found:.3?}\n  theirs {:.300}\n  ours   {:.300}",
            asked.method,
            asked.path,
            asked.body,
            answers[0].text(),
            answers[1].text()
        );
        tally.differs(asked.kind, known, detail, example);
    }
    tally.report();
}
