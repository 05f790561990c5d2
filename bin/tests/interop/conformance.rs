//! Our verdict on transactions against Bitcoin Core's `testmempoolaccept`.

use std::{collections::BTreeMap, env, fmt, fs::File, io::Write, path::PathBuf};

use pulse_primitives::bitcoin::{Amount, Transaction, consensus::encode::serialize_hex};
use pulse_testkit::{Bitcoind, PulseNode, txgen::Case};
use serde_json::{Value, json};

use super::chain;
use crate::e2e::common::{DEADLINE, options};

/// Rules of scripts that are policy alone and that the kernel does not check: what
/// Bitcoin Core says in the parenthesis. docs/policy.md tells what they mean.
const NOT_ENFORCED: &[&str] = &[
    "Stack size must be exactly one after execution",
    "Signature must be zero for failed CHECK(MULTI)SIG operation",
    "OP_IF/NOTIF argument must be minimal",
    "Data push larger than necessary",
    "Script number overflowed or is non-minimally encoded",
];

/// What a node says of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// Accepted, with its virtual size and fee in sat.
    Allowed { vsize: u64, fee: u64 },
    /// Refused: the reason up to a parenthesis or comma, and all of it.
    Refused(String, String),
    /// Not judged, because another of the package was refused.
    Open,
    /// Does not decode.
    Undecodable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed { .. } => f.write_str("allowed"),
            Self::Refused(reason, _) => f.write_str(reason),
            Self::Open => f.write_str("(not judged)"),
            Self::Undecodable => f.write_str("(does not decode)"),
        }
    }
}

/// `PULSE_CONFORMANCE_CASES` cases (20,000) of seed `PULSE_CONFORMANCE_SEED` (1), one
/// by one against both nodes with the same chain and mempool. What differs is written
/// to `target/conformance-*.json`.
#[test]
#[ignore = "needs BITCOIND=/path/to/bitcoind"]
fn verdicts_and_reasons_are_those_of_bitcoin_core() {
    let cases = number("PULSE_CONFORMANCE_CASES", 20_000);
    let seed = number("PULSE_CONFORMANCE_SEED", 1);
    let (chain, mut txgen) = chain::funded(seed, 60);
    let bitcoind = Bitcoind::start(&[]);
    for block in &chain.blocks()[1..] {
        assert_eq!(bitcoind.submit_block(block), None);
    }
    let mut node = options("regtest").connect(bitcoind.p2p_addr()).start();
    node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);

    let mut tally = Tally::default();
    for (number, tx) in txgen.prelude().into_iter().enumerate() {
        let hex = serialize_hex(&tx);
        let theirs = bitcoind.try_call("sendrawtransaction", &json!([hex, 0, 21_000_000]));
        let ours = node.post("/tx", &hex);
        assert_eq!(
            theirs.is_ok(),
            ours.status == 200,
            "transaction {number} of the prelude: {theirs:?}, {}",
            ours.text()
        );
        assert!(
            theirs.is_ok(),
            "transaction {number} of the prelude: {theirs:?}"
        );
    }
    // Both know all of it before the first case.
    let count = bitcoind.call("getmempoolinfo", &json!([]))["size"].clone();
    node.wait_until("the mempool", DEADLINE, |node| {
        node.get_json::<Value>("/mempool/txids")
            .as_array()
            .unwrap()
            .len() as u64
            == count.as_u64().unwrap()
    });

    for _ in 0..cases {
        let case = txgen.case();
        let theirs = core_verdicts(&bitcoind, &case.txs);
        let ours = our_verdicts(&node, &case.txs);
        tally.count(&case, &theirs, &ours);
    }
    tally.report(seed);
    assert_eq!(
        tally.accepted_more, 0,
        "transactions accepted that Bitcoin Core refuses"
    );
    assert_eq!(tally.differing(), 0, "verdicts that differ");
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn hexes(txs: &[Transaction]) -> Vec<String> {
    txs.iter().map(serialize_hex).collect()
}

fn core_verdicts(bitcoind: &Bitcoind, txs: &[Transaction]) -> Vec<Verdict> {
    match bitcoind.try_call("testmempoolaccept", &json!([hexes(txs), 0])) {
        Ok(reply) => verdicts(&reply),
        Err(err) if err.code == -22 => vec![Verdict::Undecodable],
        Err(err) => panic!("{err}"),
    }
}

fn our_verdicts(node: &PulseNode, txs: &[Transaction]) -> Vec<Verdict> {
    let reply = node.post("/txs/test?maxfeerate=0", &json!(hexes(txs)).to_string());
    if reply.status == 400 && reply.text().contains("TX decode failed") {
        return vec![Verdict::Undecodable];
    }
    assert_eq!(reply.status, 200, "{}", reply.text());
    verdicts(&reply.json())
}

/// An amount in BTC, as both tell it, in sat.
fn sat(btc: &Value) -> u64 {
    let amount = Amount::from_btc(btc.as_f64().expect("a number"));
    amount.expect("at most 21 million").to_sat()
}

fn verdicts(reply: &Value) -> Vec<Verdict> {
    let one = |entry: &Value| {
        let refused = |text: &str| {
            let reason = text.split(['(', ',']).next().unwrap_or_default().trim();
            Verdict::Refused(reason.to_owned(), text.to_owned())
        };
        if let Some(reason) = entry["reject-reason"].as_str() {
            refused(reason)
        } else if let Some(reason) = entry["package-error"].as_str() {
            refused(reason)
        } else if entry["allowed"] == true {
            Verdict::Allowed {
                vsize: entry["vsize"].as_u64().unwrap(),
                fee: sat(&entry["fees"]["base"]),
            }
        } else {
            Verdict::Open
        }
    };
    reply
        .as_array()
        .expect("an array")
        .iter()
        .map(one)
        .collect()
}

#[derive(Default)]
struct Tally {
    judged: u64,
    same: u64,
    allowed: u64,
    accepted_more: u64,
    /// Accepted here because the kernel does not check a rule that is policy alone.
    not_enforced: BTreeMap<&'static str, u64>,
    /// By what Bitcoin Core said.
    by_reason: BTreeMap<String, (u64, u64)>,
    /// (what it was about, theirs, ours) -> (how often, an example).
    differing: BTreeMap<(String, String, String), (u64, Vec<String>)>,
}

impl Tally {
    fn count(&mut self, case: &Case, theirs: &[Verdict], ours: &[Verdict]) {
        let longest = theirs.len().max(ours.len());
        for index in 0..longest {
            let their = theirs.get(index).unwrap_or(&Verdict::Open);
            let our = ours.get(index).unwrap_or(&Verdict::Open);
            self.judged += 1;
            let entry = self.by_reason.entry(their.to_string()).or_default();
            entry.0 += 1;
            if matches!(their, Verdict::Allowed { .. }) {
                self.allowed += 1;
            }
            let same = match (their, our) {
                (Verdict::Refused(their, _), Verdict::Refused(our, _)) => their == our,
                _ => their == our,
            };
            if same {
                self.same += 1;
                entry.1 += 1;
                continue;
            }
            if let (Verdict::Refused(_, text), Verdict::Allowed { .. }) = (their, our) {
                let known = NOT_ENFORCED.iter().find(|known| text.contains(*known));
                if let Some(known) = known {
                    *self.not_enforced.entry(known).or_default() += 1;
                    continue;
                }
                self.accepted_more += 1;
            }
            let key = (
                case.name.clone(),
                format!("{their} {their:?}"),
                format!("{our} {our:?}"),
            );
            let entry = self
                .differing
                .entry(key)
                .or_insert_with(|| (0, hexes(&case.txs)));
            entry.0 += 1;
        }
    }

    fn differing(&self) -> u64 {
        self.judged - self.same - self.not_enforced.values().sum::<u64>()
    }

    #[allow(clippy::print_stdout, reason = "the report is what the test is for")]
    fn report(&self, seed: u64) {
        println!(
            "verdicts {} same {} accepted there {} accepted by us alone {}",
            self.judged, self.same, self.allowed, self.accepted_more
        );
        println!("| Bitcoin Core says | verdicts | same here |\n|---|---:|---:|");
        for (reason, (count, same)) in &self.by_reason {
            println!("| `{reason}` | {count} | {same} |");
        }
        println!("| Refused there for a rule that is not enforced here | verdicts |\n|---|---:|");
        for (rule, count) in &self.not_enforced {
            println!("| {rule} | {count} |");
        }
        let examples: Vec<_> = self
            .differing
            .iter()
            .map(|((name, theirs, ours), (count, txs))| {
                json!({"case": name, "theirs": theirs, "ours": ours, "count": count, "txs": txs})
            })
            .collect();
        if examples.is_empty() {
            return;
        }
        let dir = env::var_os("CARGO_TARGET_TMPDIR").map_or_else(env::temp_dir, PathBuf::from);
        let path = dir.join(format!("conformance-{seed}.json"));
        let mut file = File::create(&path).unwrap();
        writeln!(file, "{}", serde_json::to_string_pretty(&examples).unwrap()).unwrap();
        println!("what differs is in {}", path.display());
        for ((name, theirs, ours), (count, _)) in self.differing.iter().take(60) {
            println!("{count:6} {name}: theirs {theirs}, ours {ours}");
        }
    }
}
