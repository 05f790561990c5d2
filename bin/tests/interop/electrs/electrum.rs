//! The Electrum protocol: every method that electrs knows, in version 1.4.

use std::{collections::BTreeSet, net::SocketAddr};

use pulse_primitives::bitcoin::hashes::{Hash, sha256};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    Stage, Tally, number,
    questions::{World, pick},
};
use crate::{e2e::electrum::raw::Client, interop::verbose::differences};

/// Methods and their parameters: as in the routes of REST, and `S` script, `F` flag.
const METHODS: &[(&str, &str)] = &[
    ("blockchain.block.header", "H"),
    ("blockchain.block.header", "HH"),
    ("blockchain.block.headers", "HN"),
    ("blockchain.block.headers", "HNH"),
    ("blockchain.estimatefee", "N"),
    ("blockchain.relayfee", ""),
    ("blockchain.headers.subscribe", ""),
    ("blockchain.scripthash.get_balance", "S"),
    ("blockchain.scripthash.get_history", "S"),
    ("blockchain.scripthash.listunspent", "S"),
    ("blockchain.scripthash.subscribe", "S"),
    ("blockchain.scripthash.unsubscribe", "S"),
    ("blockchain.transaction.get", "T"),
    ("blockchain.transaction.get_merkle", "TH"),
    ("blockchain.transaction.id_from_pos", "HN"),
    ("blockchain.transaction.id_from_pos", "HNF"),
    ("blockchain.transaction.broadcast", "R"),
    ("mempool.get_fee_histogram", ""),
    ("server.ping", ""),
    ("server.donation_address", ""),
    ("server.peers.subscribe", ""),
    ("nonsense", "N"),
];

fn params(pattern: &str, world: &World, rng: &mut StdRng) -> Value {
    let number = |text: String| match text.parse::<u64>() {
        Ok(number) => json!(number),
        Err(_) => json!(text),
    };
    let mut list = Vec::new();
    for letter in pattern.chars() {
        list.push(match letter {
            'H' => number(world.height(rng)),
            'N' => number(world.small(rng)),
            'T' => json!(world.txid(rng)),
            'F' => json!(rng.gen_bool(0.5)),
            'R' => json!(world.raw(rng)),
            'S' if rng.gen_bool(0.1) => json!(world.txid(rng)),
            _ => {
                let script = world.script(rng);
                let mut hash = sha256::Hash::hash(script.as_bytes()).to_byte_array();
                hash.reverse();
                json!(hash.map(|byte| format!("{byte:02x}")).concat())
            }
        });
    }
    if rng.gen_bool(0.02) {
        list.pop();
    }
    json!(list)
}

/// The name of a difference that is meant to be.
fn known(method: &str, theirs: &Value, ours: &Value) -> Option<&'static str> {
    let set = |answer: &Value| {
        let list = answer["result"].as_array()?.iter();
        Some(list.map(Value::to_string).collect::<BTreeSet<_>>())
    };
    if theirs.get("closed").is_some() {
        return ours
            .get("error")
            .map(|_| "an error instead of the end of the connection");
    }
    if ours["error"]["code"] == -32602 && theirs.get("error").is_none() {
        return Some("a number of more than 32 bits is none");
    }
    match method {
        "blockchain.scripthash.get_history" if set(theirs) == set(ours) => {
            Some("order inside a block and in the mempool")
        }
        "blockchain.scripthash.subscribe" => Some("status of a history in that other order"),
        "server.donation_address" => Some("no donation address is an empty text"),
        "blockchain.estimatefee" if ours["result"] == -1 => {
            Some("no estimate is -1 instead of the relay fee")
        }
        "blockchain.transaction.get_merkle" if theirs["error"] == "missing height" => {
            Some("a proof needs no height")
        }
        "blockchain.block.headers" if ours["result"]["count"] == 0 => {
            Some("no headers above the tip, and no proof of them, instead of an error")
        }
        "blockchain.block.headers"
            if theirs.get("error").is_some() && ours["result"]["root"].is_string() =>
        {
            Some("the headers up to the tip with the proof of the last one instead of an error")
        }
        "blockchain.scripthash.unsubscribe" if ours["result"] == true => {
            Some("a subscription that electrs ended with the connection")
        }
        _ => None,
    }
}

/// The whole answer; `closed` if there was none and the connection ended.
fn ask(client: &mut Client, addr: SocketAddr, method: &str, params: &Value) -> Value {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    client.send(&format!("{request}\n"));
    client.line().unwrap_or_else(|| {
        *client = Client::connect(addr);
        json!({"closed": true})
    })
}

#[test]
#[ignore = "needs BITCOIND=/path/to/bitcoind and ELECTRS=/path/to/electrs"]
fn answers_over_electrum_are_those_of_electrs() {
    let seed = number("PULSE_COMPARE_SEED", 1);
    let stage = Stage::new(seed);
    let world = World::of(&stage.bitcoind);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut theirs = Client::connect(stage.electrs.electrum);
    let mut ours = Client::connect(stage.node.electrum_addr("tcp").unwrap());
    let mut tally = Tally::default();
    for _ in 0..number("PULSE_COMPARE_REQUESTS", 20_000) {
        let (method, pattern) = *pick(&mut rng, METHODS);
        let params = params(pattern, &world, &mut rng);
        let our = ask(
            &mut ours,
            stage.node.electrum_addr("tcp").unwrap(),
            method,
            &params,
        );
        let their = ask(&mut theirs, stage.electrs.electrum, method, &params);
        let both_refuse = their.get("error").is_some() && our.get("error").is_some();
        let mut found = Vec::new();
        let sorted = |answer: &Value| {
            let mut result = answer["result"].clone();
            // Without an order in electrs.
            if method.ends_with("listunspent")
                && let Some(list) = result.as_array_mut()
            {
                list.sort_by_key(Value::to_string);
            }
            result
        };
        differences("result", &sorted(&their), &sorted(&our), &mut found);
        if found.is_empty() && (both_refuse || their.get("error") == our.get("error")) {
            tally.same(method);
            continue;
        }
        let example = format!("{params} theirs {their:.400}, ours {our:.400}");
        let detail = found.first().map_or("error", |(path, _)| path).to_owned();
        tally.differs(method, known(method, &their, &our), detail, example);
    }
    tally.report();
}
