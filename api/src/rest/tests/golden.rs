//! Every answer about the mempool, and every error, as it goes over the wire.
//!
//! The answers about a real chain are in the tests of the binary.

use std::fmt::Write;

use axum::{body::Body, http::Method};
use pulse_primitives::{
    bitcoin::{Transaction, consensus::encode::serialize_hex},
    mempool::{
        Backlog, FeeEstimates, PackageOutcome, ProjectedBlock, RemovalReason, RemovedTx, TxRejected,
    },
};

use super::{Answer, World, fakes::accepted, output_of, script, scripthash, spend};

/// Headers that are part of the contract, in this order.
const HEADERS: [&str; 8] = [
    "content-type",
    "cache-control",
    "etag",
    "vary",
    "retry-after",
    "allow",
    "x-next-cursor",
    "x-indexed-height",
];

/// What is no address, in each way that has a text of its own.
pub(super) const NO_ADDRESSES: [&str; 5] = [
    "abc",
    // Longer than any in base58, and of another length.
    "bc1pg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zq8ss0kg",
    "11111111111111111111116iowaD",
    // Of Litecoin, in base58 and in bech32.
    "LVuDpNCSSj6pQ7t9Pv6d6sUkLKoqDEVUnJ",
    "ltc1qw508d6qejxtdg4y5r3zarvary0c5xw7kgmn4n9",
];

/// Requests and their answers, as text.
#[derive(Default)]
struct Record(String);

impl Record {
    fn add(&mut self, method: &Method, path: &str, body: &str, answer: &Answer) {
        let text = &mut self.0;
        let asked = format!("> {method} {path} {body}");
        writeln!(text, "{}", asked.trim_end()).unwrap();
        write!(text, "{}", answer.status.as_u16()).unwrap();
        for name in HEADERS {
            if let Some(value) = answer.headers.get(name) {
                write!(text, " | {name}: {}", value.to_str().unwrap()).unwrap();
            }
        }
        writeln!(text, "\n{}\n", answer.text).unwrap();
    }

    async fn call(&mut self, world: &World, method: Method, path: &str, body: &str) {
        let answer = world.call(method.clone(), path, body.to_owned()).await;
        self.add(&method, path, body, &answer);
    }

    async fn get(&mut self, world: &World, path: &str) {
        self.call(world, Method::GET, path, "").await;
    }
}

/// A world with a confirmed transaction, two unconfirmed ones that build upon each other, and
/// one that was replaced.
fn world() -> (World, [String; 4]) {
    let world = World::new();
    let coins = world.coins();
    let funding = spend(&coins[0], &script(0), 0);
    world.confirm(&[&funding.tx], 1);
    world.follow_index();
    world.follow_mempool();
    let parent = spend(&output_of(&funding, 0), &script(1), 1);
    let child = spend(&output_of(&parent, 0), &script(2), 2);
    let replaced = spend(&coins[1], &script(3), 3);
    let txids = [&funding, &parent, &child, &replaced].map(|entry| entry.txid.to_string());
    world.mempool.change(|pool| {
        pool.txs = vec![parent.clone(), child];
        pool.removed.insert(
            replaced.txid,
            RemovedTx {
                reason: RemovalReason::Replaced { by: parent.txid },
                time: 1_700_000_000,
            },
        );
        pool.backlog = Backlog {
            count: 18_233,
            vsize: 9_120_044,
            total_fee_sat: 30_155_870,
            memory_bytes: 1,
            histogram: vec![(53.01, 102_131), (20.5, 50_211), (1.0, 877_002)],
        };
        pool.estimates = FeeEstimates {
            by_target: vec![(1, 12.044), (144, 1.011), (1008, 1.0)],
        };
        pool.projected = vec![ProjectedBlock {
            tx_count: 2,
            weight: 1_200,
            vsize: 300,
            total_fee_sat: 900,
            fee_range: [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.5],
            median_fee_rate: 3.0,
        }];
    });
    (world, txids)
}

#[tokio::test(flavor = "multi_thread")]
async fn unconfirmed_answers() {
    let (world, [funding, parent, child, replaced]) = world();
    let mut record = Record::default();
    for path in [
        format!("/tx/{parent}"),
        format!("/tx/{parent}/hex"),
        format!("/tx/{parent}/status"),
        format!("/tx/{parent}/outspend/0"),
        format!("/tx/{parent}/outspends"),
        format!("/tx/{child}/outspends"),
        format!("/tx/{parent}/merkle-proof"),
        format!("/tx/{replaced}/removed"),
        format!("/tx/{parent}/removed"),
        format!("/txs/outspends?txids={funding},{parent},{child}"),
        "/txs/outspends".to_owned(),
        "/mempool".to_owned(),
        "/mempool/txids".to_owned(),
        "/mempool/txids/page?max_txs=1".to_owned(),
        "/mempool/recent".to_owned(),
        "/mempool/projected-blocks".to_owned(),
        "/fee-estimates".to_owned(),
    ] {
        record.get(&world, &path).await;
    }
    for index in 0..3 {
        let base = format!("/scripthash/{}", scripthash(&script(index)));
        for tail in [
            "",
            "/txs",
            "/txs?max_txs=1",
            "/txs/chain",
            "/txs/mempool",
            "/txs/summary",
            "/utxo",
            "/utxo?limit=1",
        ] {
            record.get(&world, &format!("{base}{tail}")).await;
        }
    }
    let scripts = format!("[\"{}\"]", scripthash(&script(1)));
    let post = Method::POST;
    record
        .call(&world, post.clone(), "/scripthashes/txs", &scripts)
        .await;
    record
        .call(&world, post, "/scripthashes/txs/summary", &scripts)
        .await;
    insta::assert_snapshot!(record.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn submissions() {
    let (world, _) = world();
    let entry = spend(&world.coins()[2], &script(7), 9);
    let hex = serialize_hex(&*entry.tx);
    let list = format!("[\"{hex}\"]");
    let post = Method::POST;
    let mut record = Record::default();
    let accepts = |world: &World| {
        world
            .mempool
            .change(|pool| pool.submission = Some(Ok(entry.clone())));
    };
    accepts(&world);
    record.call(&world, post.clone(), "/tx", &hex).await;
    accepts(&world);
    let query = format!("/broadcast?tx={hex}");
    record.get(&world, &query).await;
    for (code, reason, debug) in [
        (-25, "bad-txns-inputs-missingorspent", ""),
        (-26, "min relay fee not met", "120 < 141"),
        (-27, "Transaction outputs already in utxo set", ""),
    ] {
        let rejected = TxRejected {
            code,
            reason: reason.to_owned(),
            debug: debug.to_owned(),
        };
        world
            .mempool
            .change(|pool| pool.submission = Some(Err(rejected)));
        record.call(&world, post.clone(), "/tx", &hex).await;
    }
    for body in ["", "zz", "00", &format!("{hex}00")] {
        record.call(&world, post.clone(), "/tx", body).await;
    }
    record.get(&world, "/broadcast").await;
    world
        .mempool
        .change(|pool| pool.verdicts = vec![accepted(&entry)]);
    record.call(&world, post.clone(), "/txs/test", &list).await;
    world.mempool.change(|pool| {
        pool.package = Some(Ok(PackageOutcome {
            message: "success".to_owned(),
            verdicts: vec![accepted(&entry)],
            replaced: Vec::new(),
        }));
    });
    record
        .call(&world, post.clone(), "/txs/package", &list)
        .await;
    for path in ["/txs/package?maxfeerate=x", "/txs/package?maxburnamount=x"] {
        record.call(&world, post.clone(), path, &list).await;
    }
    let long = format!("[{}]", vec!["\"00\""; 26].join(","));
    let no_hex = format!("[\"{}\"]", "zz".repeat(60));
    let no_tx = format!("[\"{}\"]", "00".repeat(60));
    for body in ["", "{}", "[1]", "[]", &long, "[\"00\"]", &no_hex, &no_tx] {
        record
            .call(&world, post.clone(), "/txs/package", body)
            .await;
    }
    record.call(&world, post, "/txs/test", "[]").await;
    insta::assert_snapshot!(record.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors() {
    let (world, [funding, ..]) = world();
    let unknown = "ab".repeat(32);
    let tip = world.get("/blocks/tip/hash").await.text;
    let mut record = Record::default();
    for path in [
        "/nonsense".to_owned(),
        "/a\"b".to_owned(),
        "//blocks".to_owned(),
        format!("/tx/{funding}/"),
        "/block/abc".to_owned(),
        format!("/block/{unknown}"),
        format!("/block/{unknown}/status"),
        format!("/block/{unknown}/header"),
        format!("/block/{unknown}/raw"),
        format!("/block/{unknown}/txids"),
        format!("/block/{unknown}/txid/0"),
        format!("/block/{unknown}/txs"),
        format!("/block/{tip}/txid/x"),
        format!("/block/{tip}/txid/99999"),
        format!("/block/{tip}/txs/1"),
        format!("/block/{tip}/txs/25"),
        "/blocks/99999".to_owned(),
        "/blocks/99999999999".to_owned(),
        "/block-height/99999".to_owned(),
        "/block-height/x".to_owned(),
        "/tx/abc".to_owned(),
        format!("/tx/{unknown}"),
        format!("/tx/{unknown}/hex"),
        format!("/tx/{unknown}/raw"),
        format!("/tx/{unknown}/status"),
        format!("/tx/{unknown}/outspend/0"),
        format!("/tx/{unknown}/outspend/x"),
        format!("/tx/{unknown}/outspends"),
        format!("/tx/{unknown}/merkle-proof"),
        format!("/tx/{unknown}/merkleblock-proof"),
        format!("/tx/{unknown}/removed"),
        format!("/tx/{unknown}/replacement"),
        format!("/tx/{unknown}/cpfp"),
        "/txs/outspends".to_owned(),
        "/txs/outspends?txids=".to_owned(),
        "/scripthash/abc".to_owned(),
        "/address/bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4".to_owned(),
        format!("/scripthash/{unknown}/txs/chain/{funding}"),
        format!("/scripthash/{unknown}/txs?after_txid={unknown}"),
        format!("/scripthash/{unknown}/txs?limit=0"),
        format!("/scripthash/{unknown}/utxo?cursor=x"),
        format!("/scripthash/{unknown}/txs?from_height=x"),
        format!("/scripthash/{unknown}/txs/summary/{unknown}"),
        format!("/scripthash/{unknown}/balance?height=99999"),
        format!("/scripthash/{unknown}/balance?height=x"),
        "/mempool/txids/page/abc".to_owned(),
        "/blocks?min_height=x".to_owned(),
        "/address-prefix/bc1q".to_owned(),
        "/block-template".to_owned(),
    ] {
        record.get(&world, &path).await;
    }
    for text in NO_ADDRESSES {
        record.get(&world, &format!("/address/{text}")).await;
    }
    for (method, path, body) in [
        (Method::POST, "/blocks", ""),
        (Method::PUT, "/tx", ""),
        (Method::DELETE, "/blocks", ""),
        (Method::OPTIONS, "/txs/package", ""),
        (Method::HEAD, "/blocks/tip/height", ""),
        (Method::HEAD, "/nonsense", ""),
        (Method::POST, "/addresses/txs", "x"),
        (Method::POST, "/bulk/txs", "[1]"),
        (Method::POST, "/descriptors", "{}"),
        (Method::POST, "/descriptors", r#"{"descriptors":[]}"#),
        (Method::POST, "/descriptors", r#"{"descriptors":["x"]}"#),
        (
            Method::POST,
            "/descriptors",
            r#"{"descriptors":["x"],"gap_limit":0}"#,
        ),
    ] {
        record.call(&world, method, path, body).await;
    }
    for (path, what, count) in [
        ("/addresses/txs", "addresses", 301),
        ("/scripthashes/txs/summary", "scripthashes", 301),
        ("/bulk/txs", "txids", 1_001),
        ("/bulk/addresses/utxo", "addresses", 1_001),
    ] {
        let many = format!("[{}]", vec!["\"\""; count].join(","));
        let answer = world.call(Method::POST, path, many).await;
        record.add(&Method::POST, path, &format!("({count} {what})"), &answer);
    }
    let txids = vec![unknown.as_str(); 51].join(",");
    let path = format!("/txs/outspends?txids={txids}");
    let answer = world.get(&path).await;
    record.add(&Method::GET, "/txs/outspends?txids=", "(51 txids)", &answer);
    let too_large = Body::from(vec![b'0'; 1_000_001]);
    let answer = world.call(Method::POST, "/tx", too_large).await;
    record.add(&Method::POST, "/tx", "(1,000,001 bytes)", &answer);
    let no_text = Body::from(vec![0xff]);
    let answer = world.call(Method::POST, "/tx", no_text).await;
    record.add(&Method::POST, "/tx", "(no UTF-8)", &answer);

    // Behind: the index has a block that the mempool has not seen.
    let tx = Transaction::clone(&spend(&world.coins()[3], &script(9), 1).tx);
    world.confirm(&[&tx], 5);
    world.follow_index();
    record.get(&world, "/mempool/txids").await;
    // Not synced: three blocks are known that the index does not have.
    for nonce in 6..9 {
        world.confirm(&[], nonce);
    }
    for path in ["/blocks/tip/height", "/blocks", "/mempool"] {
        record.get(&world, path).await;
    }
    record.get(&world, "/blocks/tip/height?partial=true").await;
    let first = world.get("/block-height/0").await.text;
    record.get(&world, &format!("/block/{first}")).await;
    insta::assert_snapshot!(record.0);
}
