//! Mutated lines at a live server: whatever comes, each is answered or refused, nothing in
//! the node breaks, and the next line finds it as it was.

use std::{
    env,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::consensus::encode::serialize_hex;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::{Value, json};

use super::{Scene, raw::Client, scripthash};

/// Lines between two looks at what came back.
const ROUND: usize = 100;
/// What the last line of a round asks.
const LAST: &str = "the last of this round";
const VERSION: &str = "server.version";

/// Good requests of every method.
fn seeds(scene: &Scene) -> Vec<Value> {
    let script = scripthash(&scene.script);
    let block = &scene.chain.blocks()[1];
    let (txid, hash) = (block.txdata[0].compute_txid(), block.block_hash());
    let raw = serialize_hex(&block.txdata[0]);
    let of_script = [
        "get_balance",
        "get_history",
        "get_mempool",
        "listunspent",
        "subscribe",
        "unsubscribe",
        "get_status",
        "get_first_use",
    ];
    let mut requests: Vec<(String, Value)> = of_script
        .map(|method| (format!("blockchain.scripthash.{method}"), json!([script])))
        .to_vec();
    for (method, params) in [
        (VERSION, json!(["fuzz", ["1.4", "1.6"]])),
        ("server.features", json!([])),
        ("server.add_peer", json!([{"hosts": {}}])),
        ("server.peers.subscribe", json!([])),
        ("blockchain.block.header", json!([5, 100])),
        ("blockchain.block.headers", json!([5, 10, 100])),
        ("blockchain.header.get", json!([hash])),
        ("blockchain.headers.subscribe", json!([])),
        ("blockchain.scripthash.get_history", json!([script, 1, 50])),
        ("blockchain.estimatefee", json!([2, "ECONOMICAL"])),
        ("blockchain.transaction.get", json!([txid, true])),
        ("blockchain.transaction.get_merkle", json!([txid, 1])),
        ("blockchain.transaction.id_from_pos", json!([1, 0, true])),
        ("blockchain.transaction.get_height", json!([txid])),
        ("blockchain.transaction.subscribe", json!([txid])),
        ("blockchain.transaction.unsubscribe", json!([txid])),
        (
            "blockchain.transaction.get_confirmed_blockhash",
            json!([txid]),
        ),
        ("blockchain.transaction.broadcast", json!([raw])),
        (
            "blockchain.transaction.broadcast_package",
            json!([[raw], true]),
        ),
        ("blockchain.utxo.get_info", json!([txid, 0])),
        ("mempool.get_fee_histogram", json!([])),
        (
            "blockchain.scripthash.get_balance",
            json!({"scripthash": script}),
        ),
    ] {
        requests.push((method.to_owned(), params));
    }
    let request =
        |(method, params)| json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let mut all: Vec<Value> = requests.into_iter().map(request).collect();
    all.push(Value::Array(all[..3].to_vec()));
    all
}

/// Something that belongs nowhere.
fn strange(rng: &mut StdRng) -> Value {
    let long = "ab".repeat(rng.gen_range(0..5_000));
    let deep = (0..rng.gen_range(0..100)).fold(json!(7), |inner, _| json!([inner]));
    let strange = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(0),
        json!(1.5),
        json!(1e300),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("\u{0}\u{7f}\u{2028}\u{1f600}"),
        json!("11".repeat(32)),
        json!(long),
        json!({}),
        json!({"scripthash": "x", "": []}),
        deep,
    ];
    strange.choose(rng).expect("some").clone()
}

/// Puts something strange in one place.
fn estrange(value: &mut Value, rng: &mut StdRng) {
    let inner: Vec<&mut Value> = match value {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    };
    let count = inner.len();
    match inner.into_iter().nth(rng.gen_range(0..=count)) {
        Some(inner) => estrange(inner, rng),
        None => *value = strange(rng),
    }
}

/// Damages bytes, and what separates one line from the next least of all.
fn damage(line: &mut Vec<u8>, rng: &mut StdRng) {
    for _ in 0..rng.gen_range(1..4) {
        let at = rng.gen_range(0..=line.len());
        match rng.gen_range(0..4) {
            0 => line.insert(at, rng.r#gen()),
            1 => line.truncate(at),
            2 => {
                let piece = line[at..].to_vec();
                line.extend(piece);
            }
            _ => {
                if let Some(byte) = line.get_mut(at) {
                    *byte = rng.r#gen();
                }
            }
        }
    }
}

#[test]
fn mutated_lines_are_answered_or_refused() {
    let seconds = env::var("PULSE_FUZZ_SECONDS").map_or(4, |text| text.parse().unwrap());
    let seed = env::var("PULSE_FUZZ_SEED").map_or(1, |text| text.parse().unwrap());
    let scene = Scene::new();
    let seeds = seeds(&scene);
    let rng = &mut StdRng::seed_from_u64(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut answers, mut refusals) = (0_u64, 0_u64);
    let mut client = Client::speaking(scene.addr(), "1.6");
    while Instant::now() < end {
        let mut round = Vec::new();
        for _ in 0..ROUND {
            let mut request = seeds.choose(rng).expect("some").clone();
            if rng.gen_bool(0.7) {
                estrange(&mut request, rng);
            }
            let mut line = request.to_string().into_bytes();
            if rng.gen_bool(0.4) {
                damage(&mut line, rng);
            }
            round.extend(line);
            round.push(b'\n');
        }
        let last = json!({"id": LAST, "method": "server.ping"});
        round.extend(format!("{last}\n").into_bytes());
        client.send_bytes(&round);
        loop {
            let Some(answer) = client.line() else {
                // A line may end its connection, but nobody else's.
                client = Client::speaking(scene.addr(), "1.6");
                break;
            };
            if answer["id"] == LAST {
                break;
            }
            for one in answer.as_array().unwrap_or(&vec![answer.clone()]) {
                answers += 1;
                let Some(error) = one.get("error") else {
                    assert!(
                        one.get("result").is_some() || one.get("method").is_some(),
                        "{one}"
                    );
                    continue;
                };
                refusals += 1;
                // What wallets hang up over is said of what is no method alone.
                let code = error["code"].as_i64().unwrap();
                assert_ne!(code, -32603, "{one}");
                assert!(
                    error["message"]
                        .as_str()
                        .is_some_and(|text| text.len() < 1_000),
                    "{one}"
                );
            }
        }
    }
    assert!(refusals > 100 && answers > refusals, "{answers} {refusals}");
    assert!(
        !scene.node.log().contains("panicked"),
        "seed {seed}: {}",
        scene.node.log_tail()
    );
    // Nothing has changed.
    let mut client = scene.client();
    let tip = client.call("blockchain.headers.get_tip", json!([]));
    assert_eq!(tip["height"], 110);
}
