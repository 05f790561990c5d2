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

/// Both servers, each with a client that stays connected as long as the server likes.
struct Both<'a> {
    world: &'a World,
    addrs: [SocketAddr; 2],
    theirs: Client,
    ours: Client,
    /// Scripts that electrs has a subscription of, which ends with the connection.
    subscribed: BTreeSet<String>,
    their_relay_fee: Value,
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

/// What a history has, in no order.
fn unordered(history: &[Value]) -> Vec<String> {
    let mut entries: Vec<String> = history.iter().map(Value::to_string).collect();
    entries.sort_unstable();
    entries
}

/// The status of a history in the order that it has.
fn status(history: &[Value]) -> Value {
    if history.is_empty() {
        return Value::Null;
    }
    let entries = history.iter().map(|entry| {
        let txid = entry["tx_hash"].as_str().unwrap();
        format!("{txid}:{}:", entry["height"])
    });
    let text: String = entries.collect();
    json!(sha256::Hash::hash(text.as_bytes()).to_string())
}

impl<'a> Both<'a> {
    fn new(stage: &Stage, world: &'a World) -> Self {
        let addrs = [
            stage.electrs.electrum,
            stage.node.electrum_addr("tcp").unwrap(),
        ];
        let mut both = Self {
            world,
            addrs,
            theirs: Client::connect(addrs[0]),
            ours: Client::connect(addrs[1]),
            subscribed: BTreeSet::new(),
            their_relay_fee: Value::Null,
        };
        let fee = both.ask_theirs("blockchain.relayfee", &json!([]));
        both.their_relay_fee = fee["result"].clone();
        assert!(both.their_relay_fee.is_number());
        both
    }

    fn ask_theirs(&mut self, method: &str, params: &Value) -> Value {
        let answer = ask(&mut self.theirs, self.addrs[0], method, params);
        if answer.get("closed").is_some() {
            self.subscribed.clear();
        }
        answer
    }

    fn ask_ours(&mut self, method: &str, params: &Value) -> Value {
        ask(&mut self.ours, self.addrs[1], method, params)
    }

    /// The histories of a script, if they differ by nothing but what is not the same order,
    /// and ours is in that of the chain and then the canonical one.
    fn histories(&mut self, params: &Value) -> Option<[Vec<Value>; 2]> {
        let method = "blockchain.scripthash.get_history";
        let [theirs, ours] = [
            self.ask_theirs(method, params),
            self.ask_ours(method, params),
        ]
        .map(|answer| answer["result"].as_array().cloned());
        let (theirs, ours) = (theirs?, ours?);
        let place = |entry: &Value| {
            let txid = entry["tx_hash"].as_str().unwrap().to_owned();
            match entry["height"].as_i64().unwrap() {
                0 => (1, 0, txid),
                -1 => (2, 0, txid),
                _ => (0, self.world.position(&txid).unwrap(), txid),
            }
        };
        let is_ordered = ours.is_sorted_by_key(place);
        (is_ordered && unordered(&theirs) == unordered(&ours)).then_some([theirs, ours])
    }

    /// The name of a difference that is meant to be, with everything checked that is not to
    /// differ.
    fn known(
        &mut self,
        method: &str,
        params: &Value,
        theirs: &Value,
        ours: &Value,
    ) -> Option<&'static str> {
        let (their, our) = (&theirs["result"], &ours["result"]);
        let numbers = params.as_array()?.iter().filter_map(Value::as_u64);
        let has_large = numbers.max() > Some(u32::MAX.into());
        if has_large && ours["error"]["code"] == -32602 && theirs.get("error").is_none() {
            return Some("a number of more than 32 bits is none");
        }
        match method {
            "nonsense" => {
                let unknown = json!({"code": -32601, "message": "unknown method nonsense"});
                (theirs.get("closed").is_some() && ours["error"] == unknown)
                    .then_some("an error instead of the end of the connection")
            }
            "blockchain.scripthash.get_history" => {
                let [theirs, ours] = self.histories(params)?;
                (*their == json!(theirs) && *our == json!(ours))
                    .then_some("order inside a block and in the mempool")
            }
            "blockchain.scripthash.subscribe" => {
                let [theirs, ours] = self.histories(params)?;
                (theirs != ours && *their == status(&theirs) && *our == status(&ours))
                    .then_some("status of a history in that other order")
            }
            "server.donation_address" => (*theirs.get("result")? == Value::Null && our == "")
                .then_some("no donation address is an empty text"),
            "blockchain.estimatefee" => (*our == -1 && *their == self.their_relay_fee)
                .then_some("no estimate is -1 instead of the relay fee"),
            "blockchain.transaction.get_merkle" => {
                let params = json!([params[0], our.get("block_height")?]);
                let with_height = self.ask_theirs(method, &params);
                (theirs["error"] == "missing height" && with_height["result"] == *our)
                    .then_some("a proof needs no height")
            }
            "blockchain.block.headers" => self.known_row(params, theirs, our),
            "blockchain.scripthash.unsubscribe" => {
                let script = params[0].as_str()?;
                (*our == true && *their == false && !self.subscribed.contains(script))
                    .then_some("a subscription that electrs ended with the connection")
            }
            _ => None,
        }
    }

    /// As [`Self::known`], of headers with the proof of the last one.
    fn known_row(&mut self, params: &Value, theirs: &Value, our: &Value) -> Option<&'static str> {
        theirs.get("error")?;
        let (start, count) = (params[0].as_u64()?, our["count"].as_u64()?);
        if count == 0 {
            let none = json!({"count": 0, "hex": "", "max": 2016});
            return (start > self.world.height && *our == none)
                .then_some("no headers above the tip, and no proof of them, instead of an error");
        }
        // The same without the proof, and the proof alone.
        let row = self.ask_theirs("blockchain.block.headers", &json!([start, params[1]]));
        let last = json!([start + count - 1, params[2]]);
        let proof = self.ask_theirs("blockchain.block.header", &last);
        let mut expected = row["result"].clone();
        expected["branch"] = proof["result"]["branch"].clone();
        expected["root"] = proof["result"]["root"].clone();
        (proof["result"]["root"].is_string() && *our == expected).then_some(
            "the headers up to the tip with the proof of the last one instead of an error",
        )
    }

    /// Notes what electrs has done.
    fn note(&mut self, method: &str, params: &Value, theirs: &Value) {
        let Some(script) = params[0].as_str() else {
            return;
        };
        if theirs.get("result").is_none() {
            return;
        }
        match method {
            "blockchain.scripthash.subscribe" => {
                self.subscribed.insert(script.to_owned());
            }
            "blockchain.scripthash.unsubscribe" => {
                self.subscribed.remove(script);
            }
            _ => {}
        }
    }
}

#[test]
#[ignore = "needs BITCOIND=/path/to/bitcoind and ELECTRS=/path/to/electrs"]
fn answers_over_electrum_are_those_of_electrs() {
    let seed = number("PULSE_COMPARE_SEED", 1);
    let stage = Stage::new(seed);
    let world = World::of(&stage.bitcoind);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut both = Both::new(&stage, &world);
    let mut tally = Tally::default();
    for _ in 0..number("PULSE_COMPARE_REQUESTS", 20_000) {
        let (method, pattern) = *pick(&mut rng, METHODS);
        let params = params(pattern, &world, &mut rng);
        let our = both.ask_ours(method, &params);
        let their = both.ask_theirs(method, &params);
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
        let is_closed = their.get("closed").is_some();
        let refusals_agree = both_refuse || their.get("error") == our.get("error");
        if found.is_empty() && refusals_agree && !is_closed {
            both.note(method, &params, &their);
            tally.same(method);
            continue;
        }
        let known = both.known(method, &params, &their, &our);
        both.note(method, &params, &their);
        let example = format!("{params} theirs {their:.400}, ours {our:.400}");
        let detail = found.first().map_or("error", |(path, _)| path).to_owned();
        tally.differs(method, known, detail, example);
    }
    tally.report();
}
