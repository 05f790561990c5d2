//! The description of the HTTP API against what a node answers.

mod story;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use jsonschema::Validator;
use pulse_testkit::{NodeOptions, PulseNode};
use serde_json::{Value, json};
use ureq::http::HeaderMap;

use super::common::DEADLINE;

/// An unknown hash, and some that are none.
const UNKNOWN: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const MALFORMED: [&str; 3] = ["", "x", "-1"];

/// Operations of the public listener that never succeed, whatever is asked.
const WITHOUT_SUCCESS: [&str; 2] = ["get_address_prefix_prefix", "get_block_template"];

/// The document and what was seen of it.
struct Description {
    document: Value,
    validators: BTreeMap<String, Validator>,
    /// Operations and statuses that were seen.
    seen: BTreeSet<(String, u16)>,
}

/// An answer.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

fn ask(agent: &ureq::Agent, method: &str, url: &str, body: &str) -> Answer {
    let answer = match method {
        "get" => agent.get(url).call(),
        "post" => agent.post(url).send(body),
        "delete" => agent.delete(url).call(),
        other => panic!("{other}: teach the test this method"),
    };
    Answer::of(answer.unwrap_or_else(|err| panic!("{method} {url}: {err}")))
}

impl Answer {
    fn of(mut answer: ureq::http::Response<ureq::Body>) -> Self {
        Self {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: (answer.body_mut().with_config().limit(64 << 20))
                .read_to_vec()
                .unwrap(),
        }
    }
}

/// Objects may not have keys that the schema does not name: a test of the schema, not of
/// what later versions may add.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.contains_key("properties") && !object.contains_key("additionalProperties") {
                object.insert("additionalProperties".to_owned(), json!(false));
            }
            object.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

impl Description {
    fn of(node: &PulseNode) -> Self {
        let document: Value = node.get_json("/openapi.json");
        assert_eq!(node.get_json::<Value>("/api/openapi.json"), document);
        Self::new(document)
    }

    fn new(mut document: Value) -> Self {
        assert_eq!(document["openapi"], "3.1.0");
        close(&mut document["components"]["schemas"]);
        Self {
            document,
            validators: BTreeMap::new(),
            seen: BTreeSet::new(),
        }
    }

    /// What is said of an operation.
    fn operation(&self, method: &str, template: &str) -> Value {
        let operation = &self.document["paths"][template][method];
        let named = operation["operationId"].is_string();
        assert!(named, "{method} {template} is not described");
        operation.clone()
    }

    /// Every operation has succeeded at least once, but those of `excused`, which have not.
    fn assert_successes(&self, excused: &[&str]) {
        let paths = self.document["paths"].as_object().unwrap();
        let all: BTreeSet<&str> = (paths.values())
            .flat_map(|item| item.as_object().unwrap().values())
            .map(|operation| operation["operationId"].as_str().unwrap())
            .collect();
        let succeeded = |id: &str| {
            let seen = |status| self.seen.contains(&(id.to_owned(), status));
            seen(200) || seen(101)
        };
        let never: Vec<&str> = all.into_iter().filter(|id| !succeeded(id)).collect();
        assert_eq!(never, excused, "these have never succeeded");
    }

    /// What `$ref` means, if it is one.
    fn resolved(&self, part: &Value) -> Value {
        match part["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.strip_prefix('#').unwrap();
                self.document.pointer(pointer).unwrap().clone()
            }
            None => part.clone(),
        }
    }

    fn check_value(&mut self, schema: &Value, value: &Value, of: &str) {
        let key = schema.to_string();
        if !self.validators.contains_key(&key) {
            let mut whole = schema.clone();
            close(&mut whole);
            whole["components"] = self.document["components"].clone();
            let validator = jsonschema::draft202012::options().build(&whole);
            let validator = validator.unwrap_or_else(|err| panic!("{of}: {err} in {key}"));
            self.validators.insert(key.clone(), validator);
        }
        if let Err(err) = self.validators[&key].validate(value) {
            panic!("{of}: {err} at {} in {value:.600}", err.instance_path());
        }
    }

    /// Status, content type, headers and body are as described.
    fn check(&mut self, operation: &Value, of: &str, answer: &Answer) {
        let responses = &operation["responses"];
        let response = &responses[answer.status.to_string()];
        let text = String::from_utf8_lossy(&answer.body);
        assert!(
            response.is_object(),
            "{of}: status {} is not described: {text:.200}",
            answer.status
        );
        let response = self.resolved(response);
        let id = operation["operationId"].as_str().unwrap().to_owned();
        self.seen.insert((id, answer.status));
        if let Some(headers) = response["headers"].as_object() {
            for (name, header) in headers {
                let header = self.resolved(header);
                let Some(value) = answer.headers.get(name.to_lowercase()) else {
                    assert_ne!(header["required"], true, "{of}: no header {name}");
                    continue;
                };
                let value = value.to_str().unwrap();
                let value = match header["schema"]["type"] == "integer" {
                    true => json!(value.parse::<u64>().unwrap()),
                    false => json!(value),
                };
                self.check_value(&header["schema"], &value, &format!("{of}: {name}"));
            }
        }
        for (name, value) in &answer.headers {
            let told = |name: &str| {
                let headers = response["headers"].as_object();
                headers.is_some_and(|all| all.keys().any(|key| key.eq_ignore_ascii_case(name)))
            };
            let usual = [
                "content-type",
                "content-length",
                "transfer-encoding",
                "date",
                "vary",
                // Those of a handshake.
                "connection",
                "upgrade",
                "sec-websocket-accept",
            ];
            let name = name.as_str();
            assert!(
                usual.contains(&name) || name.starts_with("access-control-") || told(name),
                "{of}: header {name}: {value:?} is not described"
            );
        }
        let Some(contents) = response["content"].as_object() else {
            assert!(answer.body.is_empty(), "{of}: a body is not described");
            return;
        };
        let content_type = answer.headers["content-type"].to_str().unwrap();
        let content = contents.get(content_type);
        let content = content.unwrap_or_else(|| panic!("{of}: {content_type} is not described"));
        let value = match content_type {
            "application/json" => serde_json::from_slice(&answer.body).unwrap(),
            "application/octet-stream" => return,
            _ => json!(std::str::from_utf8(&answer.body).unwrap()),
        };
        self.check_value(&content["schema"], &value, of);
    }
}

/// Values that occur on the chain, by the names of parameters.
pub struct Samples(BTreeMap<&'static str, Vec<String>>);

impl Samples {
    pub fn of(node: &PulseNode) -> Self {
        let mut samples = BTreeMap::<_, Vec<String>>::new();
        let mut add = |name, value: &str| samples.entry(name).or_default().push(value.to_owned());
        for height in ["0", "110", "130"] {
            let hash = node
                .get(&format!("/block-height/{height}"))
                .text()
                .to_owned();
            add("hash", &hash);
            let txs: Vec<Value> = node.get_json(&format!("/block/{hash}/txs"));
            for tx in [txs.first(), txs.last()].into_iter().flatten() {
                add("txid", tx["txid"].as_str().unwrap());
                for output in tx["vout"].as_array().unwrap() {
                    if let Some(address) = output["scriptpubkey_address"].as_str() {
                        add("address", address);
                    }
                    let script = hex::decode(output["scriptpubkey"].as_str().unwrap()).unwrap();
                    add("scripthash", &super::common::scripthash(&script));
                }
            }
        }
        for txid in node
            .get_json::<Vec<String>>("/mempool/txids")
            .iter()
            .take(2)
        {
            add("txid", txid);
        }
        for (name, values) in [
            ("height", ["0", "130", "999999"]),
            ("index", ["0", "1", "999999"]),
            ("start_height", ["0", "130", "999999"]),
            ("start_index", ["0", "1", "999975"]),
            ("vout", ["0", "1", "4294967296"]),
        ] {
            values.iter().for_each(|value| add(name, value));
        }
        let after = samples["txid"].clone();
        for name in ["last_seen_txid", "last_txid"] {
            samples.insert(name, after.clone());
        }
        for values in samples.values_mut() {
            values.sort();
            values.dedup();
            values.truncate(9);
            values.push(UNKNOWN.to_owned());
            values.extend(MALFORMED.map(str::to_owned));
        }
        let other = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4".to_owned();
        samples.get_mut("address").unwrap().push(other);
        Self(samples)
    }

    /// Names of parameters with values that mean something.
    pub fn existing(&self) -> BTreeMap<&'static str, Vec<String>> {
        let mut existing = BTreeMap::<_, Vec<String>>::new();
        for (name, values) in &self.0 {
            let name = match *name {
                "scripthash" => "hash",
                name => name,
            };
            let values = values
                .iter()
                .filter(|value| !MALFORMED.contains(&value.as_str()));
            existing.entry(name).or_default().extend(values.cloned());
        }
        existing
    }

    /// Paths with these values in place of the parameters: each value of each parameter
    /// once, beside the first values of the others.
    fn paths(&self, template: &str) -> Vec<String> {
        let names: Vec<&str> = template
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        let nothing = vec![UNKNOWN.to_owned()];
        let values = |name: &str| {
            let name = match template.starts_with("/scripthash/") && name == "hash" {
                true => "scripthash",
                false => name,
            };
            self.0.get(name).unwrap_or(&nothing)
        };
        let rounds = names.iter().map(|name| values(name).len()).max();
        let mut paths = Vec::new();
        for varied in 0..names.len().max(1) {
            for round in 0..rounds.unwrap_or(1) {
                let mut path = template.to_owned();
                for (at, name) in names.iter().enumerate() {
                    let list = values(name);
                    // The others stand still on something that exists.
                    let value = if at == varied { round } else { 0 };
                    let value = &list[value.min(list.len() - 1)];
                    path = path.replace(&format!("{{{name}}}"), value);
                }
                paths.push(path);
            }
        }
        paths.sort();
        paths.dedup();
        paths
    }
}

/// A node with a chain that grows by a block every two seconds.
pub fn living(args: &[&str]) -> PulseNode {
    simulated(Duration::from_secs(2), 131, args)
}

/// A node with a chain of 130 blocks, and the next one not before `rest` is over.
pub fn standing(rest: Duration, args: &[&str]) -> PulseNode {
    simulated(rest, 130, args)
}

fn simulated(interval: Duration, height: u32, args: &[&str]) -> PulseNode {
    let interval = interval.as_secs().to_string();
    let options = NodeOptions::new(env!("CARGO_BIN_EXE_pulse-node"))
        .args(["--simulate"])
        .args(args.iter().copied())
        .env("PULSE_NODE__SIMULATE_INTERVAL_SECS", &interval);
    let mut node = options.start();
    node.wait_until("the chain is there", DEADLINE, |node| {
        node.get("/health").status == 200 && node.tip_height() >= Some(height)
    });
    node
}

#[test]
fn every_described_operation_answers_as_described() {
    let node = living(&[]);
    let mut description = Description::of(&node);
    let samples = Samples::of(&node);
    let base = format!("http://{}", node.http_addr());
    check_all(&mut description, &base, &samples, &[], || {});
    drop(node);
    story::public(&mut description);
    description.assert_successes(&WITHOUT_SUCCESS);
    for wanted in [400, 404] {
        let seen = (description.seen.iter()).any(|(_, status)| *status == wanted);
        assert!(seen, "no {wanted} was seen");
    }
}

#[test]
fn every_operation_of_the_operator_answers_as_described() {
    let node = living(&["--ops-addr", "127.0.0.1:0"]);
    let mut description = Description::new(node.get_ops("/openapi.json").json());
    let mut samples = Samples::of(&node);
    let label = json!({"type": "tx", "ref": UNKNOWN, "label": "rent", "spendable": false});
    let (label, ban) = (
        label.to_string(),
        r#"{"target":"203.0.113.0/24","seconds":60}"#,
    );
    let key: Value = node.post_ops("/api-keys", r#"{"name":"shop"}"#).json();
    let kept = node.get_ops("/api-keys/export").text().to_owned();
    let id = key["id"].as_str().unwrap().to_owned();
    for (name, values) in [
        ("id", vec![id, "7".to_owned()]),
        (
            "target",
            vec!["203.0.113.0%2F24".to_owned(), "203.0.113.0/24".to_owned()],
        ),
        ("type", vec!["tx".to_owned(), "xpub".to_owned()]),
        ("ref", vec![UNKNOWN.to_owned(), "x".to_owned()]),
    ] {
        samples.0.insert(name, values);
    }
    let further = [
        label.clone(),
        ban.to_owned(),
        kept.clone(),
        r#"{"name":"a"}"#.to_owned(),
    ];
    // Something to find and to remove, whatever was asked before.
    let prepare = || {
        for (path, body) in [
            ("/labels", label.as_str()),
            ("/bans", ban),
            ("/api-keys/import", &kept),
        ] {
            let reply = node.post_ops(path, body);
            assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        }
    };
    let base = format!("http://{}", node.ops_addr().unwrap());
    check_all(&mut description, &base, &samples, &further, prepare);
    story::operator(&mut description);
    description.assert_successes(&[]);
    for (id, status) in [
        ("delete_bans_target", 404),
        ("delete_peers_id", 404),
        ("post_internal_txs", 400),
    ] {
        let seen = description.seen.contains(&(id.to_owned(), status));
        assert!(seen, "{id} was never answered with {status}");
    }
    // What a web page sends is refused as described.
    for (path, body) in [("/bans", ban), ("/labels", &label)] {
        let operation = &description.document["paths"][path]["post"].clone();
        let agent = agent();
        let sent = agent
            .post(format!("{base}{path}"))
            .header("origin", "https://page.example")
            .send(body);
        let answer = Answer::of(sent.unwrap());
        assert_eq!(answer.status, 403);
        description.check(operation, path, &answer);
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(DEADLINE))
        .build()
        .into()
}

/// Asks for every operation with all samples, and compares the answers with the description.
/// `prepare` is called before each operation.
fn check_all(
    description: &mut Description,
    base: &str,
    samples: &Samples,
    further: &[String],
    prepare: impl Fn(),
) {
    let agent = agent();
    let started = Instant::now();
    let mut packed = BTreeSet::new();
    let paths = description.document["paths"].as_object().unwrap().clone();
    for (template, item) in &paths {
        for (method, operation) in item.as_object().unwrap() {
            prepare();
            for path in samples.paths(template) {
                for query in queries(operation) {
                    for body in bodies(operation, samples, further) {
                        let of = format!("{method} {path}{query} {body:.80}");
                        let answer = ask(&agent, method, &format!("{base}{path}{query}"), &body);
                        description.check(operation, &of, &answer);
                        let status = answer.status;
                        assert!(status < 500 || status == 503, "{of}: {status}");
                        if status == 200 && method == "get" && packed.insert(template) {
                            assert_packs(&agent, &format!("{base}{path}{query}"));
                        }
                    }
                }
            }
        }
    }
    assert!(started.elapsed() < DEADLINE);
}

/// The answer comes to its end in each coding, too.
fn assert_packs(agent: &ureq::Agent, url: &str) {
    for (coding, magic) in [
        ("gzip", &[0x1f, 0x8b][..]),
        ("zstd", &[0x28, 0xb5, 0x2f, 0xfd]),
    ] {
        let asked = agent.get(url).header("accept-encoding", coding);
        let answer = asked.call().map(Answer::of);
        let answer = answer.unwrap_or_else(|err| panic!("{coding} of {url}: {err}"));
        assert_eq!(answer.status, 200, "{coding} of {url}");
        if let Some(said) = answer.headers.get("content-encoding") {
            assert_eq!(said, coding, "{url}");
            assert!(answer.body.starts_with(magic), "{coding} of {url}");
        }
    }
}

/// No query; and one for each key, with values that mean something and some that do not.
fn queries(operation: &Value) -> Vec<String> {
    let mut queries = vec![String::new()];
    for parameter in operation["parameters"].as_array().unwrap() {
        if parameter["in"] == "query" {
            let name = parameter["name"].as_str().unwrap();
            let values = ["1", "true", "x", "", "0000006e"];
            queries.extend(values.map(|value| format!("?{name}={value}")));
        }
    }
    queries
}

/// Bodies of a POST.
fn bodies(operation: &Value, samples: &Samples, further: &[String]) -> Vec<String> {
    if operation["requestBody"].is_null() {
        return vec![String::new()];
    }
    let listed = |name: &str| json!(samples.0[name]).to_string();
    let mut bodies = vec![
        String::new(),
        "x".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        "[1]".to_owned(),
        listed("txid"),
        listed("address"),
        listed("scripthash"),
        json!(["00".repeat(60)]).to_string(),
        json!(vec![""; 30]).to_string(),
        "[".repeat(10_000),
    ];
    bodies.extend_from_slice(further);
    bodies
}
