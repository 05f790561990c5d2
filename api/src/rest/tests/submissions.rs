//! Transactions that clients hand in.

use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use pulse_primitives::{
    bitcoin::{Amount, consensus::encode::serialize_hex},
    mempool::{MempoolTx, PackageOutcome, SubmitLimits, TxRejected, TxVerdict},
};
use serde_json::json;

use super::{Answer, World, fakes::accepted, script, scripthash, spend};
use crate::BroadcastErrors;

const DECODE_FAILED: &str =
    "sendrawtransaction RPC error -22: TX decode failed. Make sure the tx has at least one input.";
const TOPOLOGY: &str =
    "package topology disallowed. not child-with-parents or parents depend on each other.";

async fn post(world: &World, path: &str, body: impl Into<Body>) -> Answer {
    world.call(Method::POST, path, body).await
}

fn refused(code: i32, reason: &str, debug: &str) -> TxRejected {
    TxRejected {
        code,
        reason: reason.to_owned(),
        debug: debug.to_owned(),
    }
}

fn entry(world: &World) -> (MempoolTx, String) {
    let entry = spend(&world.coins()[0], &script(0), 1);
    let hex = serialize_hex(&*entry.tx);
    (entry, hex)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_accepted_and_visible_when_its_txid_is_answered() {
    let world = World::new();
    let (entry, hex) = entry(&world);
    // The default limits, and white space around the hex does no harm.
    let limits = SubmitLimits {
        max_fee_rate_sat_kvb: Some(10_000_000),
        max_burn: Some(Amount::ZERO),
    };
    let bodies = [hex.clone(), format!(" {}\n", hex.to_uppercase())];
    for body in bodies {
        world.mempool.change(|pool| {
            pool.txs.clear();
            pool.submission = Some(Ok(entry.clone()));
        });
        let answer = post(&world, "/tx", body).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.text, entry.txid.to_string());
        assert_eq!(answer.cache(), "public, max-age=0");
        let seen = world.mempool.change(|pool| pool.seen.pop());
        assert_eq!(seen, Some((vec![(*entry.tx).clone()], limits)));
        let list = world
            .get(&format!("/scripthash/{}/txs", scripthash(&script(0))))
            .await;
        assert_eq!(list.json()[0]["txid"], entry.txid.to_string());
    }
    world
        .mempool
        .change(|pool| pool.submission = Some(Ok(entry.clone())));
    let answer = world.get(&format!("/api/broadcast?tx=00&tx={hex}&x")).await;
    assert_eq!(
        (answer.status, &answer.text),
        (StatusCode::OK, &entry.txid.to_string())
    );
    assert_eq!(answer.cache(), "public, max-age=0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_transaction_gets_code_and_reason() {
    let world = World::new();
    let (_, hex) = entry(&world);
    for (err, want) in [
        (
            refused(-26, "min relay fee not met", "120 < 141"),
            "sendrawtransaction RPC error -26: min relay fee not met, 120 < 141",
        ),
        (
            refused(-25, "bad-txns-inputs-missingorspent", ""),
            "sendrawtransaction RPC error -25: bad-txns-inputs-missingorspent",
        ),
        (
            refused(-27, "Transaction outputs already in utxo set", ""),
            "sendrawtransaction RPC error -27: Transaction outputs already in utxo set",
        ),
    ] {
        world
            .mempool
            .change(|pool| pool.submission = Some(Err(err)));
        post(&world, "/tx", hex.clone()).await.is_error(400, want);
    }
    // As other clients look for it.
    let world_of_mempool = World::with(
        |config| config.broadcast_errors = BroadcastErrors::Mempool,
        true,
    );
    let err = refused(-26, "min relay fee not met", "120 < 141");
    world_of_mempool
        .mempool
        .change(|pool| pool.submission = Some(Err(err)));
    for (path, body, want) in [
        (
            "/tx",
            hex.clone(),
            r#"sendrawtransaction RPC error: {"code":-26,"message":"min relay fee not met, 120 < 141"}"#,
        ),
        (
            "/tx",
            "zz".to_owned(),
            r#"sendrawtransaction RPC error: {"code":-22,"message":"TX decode failed. Make sure the tx has at least one input."}"#,
        ),
        (
            "/txs/package",
            "[]".to_owned(),
            r#"submitpackage RPC error: {"code":-8,"message":"Array must contain between 1 and 25 transactions."}"#,
        ),
        (
            "/txs/package",
            "[\"zz\"]".to_owned(),
            "Invalid transaction size for item 0",
        ),
    ] {
        post(&world_of_mempool, path, body)
            .await
            .is_error(400, want);
    }
    for body in ["", "zz", "0", "00", &hex[2..], &format!("{hex}00")] {
        post(&world, "/tx", body.to_owned())
            .await
            .is_error(400, DECODE_FAILED);
    }
    let answer = post(&world, "/tx", vec![0xff]).await;
    answer.is_error(400, "invalid utf-8 sequence of 1 bytes from index 0");
    world.get("/broadcast").await.is_error(400, "Missing tx");
    world
        .get("/broadcast?txs=00")
        .await
        .is_error(400, "Missing tx");
    world
        .get("/broadcast?tx=")
        .await
        .is_error(400, DECODE_FAILED);
    let seen = world.mempool.change(|pool| pool.seen.len());
    assert_eq!(seen, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_checked_in_the_order_of_the_contract() {
    let world = World::new();
    let (_, hex) = entry(&world);
    let list = |items: &[&str]| json!(items).to_string();
    let junk = "00".repeat(60);
    for (path, method) in [
        ("/txs/package", "submitpackage"),
        ("/txs/test", "testmempoolaccept"),
    ] {
        for (query, body, want) in [
            (
                "?maxfeerate=x",
                String::new(),
                "EOF while parsing a value at line 1 column 0",
            ),
            ("", "x".to_owned(), "expected value at line 1 column 1"),
            (
                "",
                "[1]".to_owned(),
                "invalid type: integer `1`, expected a string at line 1 column 2",
            ),
            (
                "?maxfeerate=x",
                list(&["00"; 26]),
                "Exceeded maximum of 25 transactions",
            ),
            (
                "?maxfeerate=x&maxburnamount=x",
                list(&["00"]),
                "Invalid maxfeerate",
            ),
            ("?maxfeerate=-1", list(&["00"]), "Invalid maxfeerate"),
            ("?maxfeerate=nan", list(&["00"]), "Invalid maxfeerate"),
            ("?maxburnamount=x", list(&["00"]), "Invalid maxburnamount"),
            (
                "",
                list(&[&hex, &junk[2..]]),
                "Invalid transaction size for item 1",
            ),
            (
                "",
                list(&[&"0".repeat(800_000)]),
                "Invalid transaction size for item 0",
            ),
            (
                "",
                list(&[&hex, &"x".repeat(120)]),
                "Invalid transaction hex for item 1",
            ),
            (
                "",
                list(&[&hex, &"0".repeat(121)]),
                "Invalid transaction hex for item 1",
            ),
        ] {
            post(&world, &format!("{path}{query}"), body)
                .await
                .is_error(400, want);
        }
        let want =
            format!("{method} RPC error -8: Array must contain between 1 and 25 transactions.");
        post(&world, path, "[]").await.is_error(400, &want);
        let want = format!(
            "{method} RPC error -22: TX decode failed: {junk} Make sure the tx has at least one input."
        );
        post(&world, path, list(&[&junk]))
            .await
            .is_error(400, &want);
        let answer = post(&world, path, vec![b'[', 0xff]).await;
        answer.is_error(400, "invalid utf-8 sequence of 1 bytes from index 1");
    }
    assert_eq!(world.mempool.change(|pool| pool.seen.len()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_query_are_bitcoins_and_none_from_one_bitcoin_on() {
    let world = World::new();
    let (_, hex) = entry(&world);
    for (query, rate, burn) in [
        ("", Some(10_000_000), 0),
        ("?maxfeerate=0.25", Some(25_000_000), 0),
        ("?maxfeerate=0.25&maxfeerate=0.5", Some(50_000_000), 0),
        ("?maxfeerate=0", None, 0),
        ("?maxfeerate=1", None, 0),
        ("?maxfeerate=100", None, 0),
        (
            "?maxfeerate=0.123456789&maxburnamount=0.00000500",
            Some(12_345_679),
            500,
        ),
        ("?maxburnamount=2", Some(10_000_000), 200_000_000),
    ] {
        post(
            &world,
            &format!("/txs/test{query}"),
            json!([hex]).to_string(),
        )
        .await;
        let (_, limits) = world.mempool.change(|pool| pool.seen.pop()).unwrap();
        assert_eq!(limits.max_fee_rate_sat_kvb, rate, "{query}");
        assert_eq!(limits.max_burn, Some(Amount::from_sat(burn)), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_answers_like_bitcoin_core() {
    let world = World::new();
    let (entry, hex) = entry(&world);
    let other = spend(&world.coins()[1], &script(1), 2);
    let mut known = accepted(&other);
    let twin = spend(&world.coins()[2], &script(1), 3);
    let mut replaced = accepted(&twin);
    if let (Some(Ok(known)), Some(Ok(twin_of))) = (&mut known.result, &mut replaced.result) {
        known.effective_includes.clear();
        twin_of.other_wtxid = Some(entry.wtxid);
    }
    let missing = TxVerdict {
        txid: other.txid,
        wtxid: entry.wtxid,
        result: Some(Err(refused(-25, "bad-txns-inputs-missingorspent", ""))),
    };
    let outcome = PackageOutcome {
        message: "transaction failed".to_owned(),
        verdicts: vec![accepted(&entry), known, replaced],
        replaced: vec![other.txid],
    };
    world
        .mempool
        .change(|pool| pool.package = Some(Ok(outcome)));
    let body = json!([hex, hex]).to_string();
    let answer = post(&world, "/txs/package", body.clone()).await;
    assert_eq!(answer.cache(), "public, max-age=10");
    let first = format!(
        r#"{{"package_msg":"transaction failed","tx-results":{{"{}":{{"txid":"{}","other-wtxid":null,"vsize":271,"fees":{{"base":7.6e-6,"effective-feerate":0.00002804,"effective-includes":["{}"]}},"error":null}},"#,
        entry.wtxid, entry.txid, entry.wtxid
    );
    assert!(answer.text.starts_with(&first), "{}", answer.text);
    let json = answer.json();
    let results = &json["tx-results"];
    assert_eq!(
        results[other.wtxid.to_string()],
        json!({"txid": other.txid.to_string(), "other-wtxid": null, "vsize": 271,
            "fees": {"base": 7.6e-6, "effective-feerate": null, "effective-includes": null}, "error": null})
    );
    assert_eq!(
        results[twin.wtxid.to_string()],
        json!({"txid": twin.txid.to_string(), "other-wtxid": entry.wtxid.to_string(), "vsize": null, "fees": null, "error": null})
    );
    assert_eq!(
        json["replaced-transactions"],
        json!([other.txid.to_string()])
    );

    let outcome = PackageOutcome {
        message: "transaction failed".to_owned(),
        verdicts: vec![missing],
        replaced: Vec::new(),
    };
    world
        .mempool
        .change(|pool| pool.package = Some(Ok(outcome)));
    let answer = post(&world, "/txs/package", body.clone()).await;
    assert_eq!(
        answer.text,
        format!(
            r#"{{"package_msg":"transaction failed","tx-results":{{"{}":{{"txid":"{}","other-wtxid":null,"vsize":null,"fees":null,"error":"bad-txns-inputs-missingorspent"}}}},"replaced-transactions":[]}}"#,
            entry.wtxid, other.txid
        )
    );

    world
        .mempool
        .change(|pool| pool.package = Some(Err(refused(-25, TOPOLOGY, ""))));
    let answer = post(&world, "/txs/package", body).await;
    answer.is_error(400, &format!("submitpackage RPC error -25: {TOPOLOGY}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_tells_a_verdict_for_each_transaction() {
    let world = World::new();
    let (entry, hex) = entry(&world);
    let verdict = |reason: &str, debug: &str| TxVerdict {
        txid: entry.txid,
        wtxid: entry.wtxid,
        result: Some(Err(refused(-26, reason, debug))),
    };
    world.mempool.change(|pool| {
        pool.verdicts = vec![
            accepted(&entry),
            verdict("min relay fee not met", "120 < 141"),
            verdict("bad-txns-inputs-missingorspent", ""),
        ];
    });
    let answer = post(&world, "/txs/test", json!([hex]).to_string()).await;
    let (txid, wtxid) = (entry.txid.to_string(), entry.wtxid.to_string());
    let refused = |reason: &str| json!({"txid": txid, "wtxid": wtxid, "allowed": false, "vsize": null, "fees": null, "reject-reason": reason});
    assert_eq!(
        answer.json(),
        json!([
            {"txid": txid, "wtxid": wtxid, "allowed": true, "vsize": 271,
             "fees": {"base": 7.6e-6, "effective-feerate": 0.000_028_04, "effective-includes": [wtxid]},
             "reject-reason": null},
            refused("min relay fee not met"),
            refused("missing-inputs"),
        ])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_refused_as_a_whole_says_so_for_each_transaction() {
    let world = World::new();
    let (entry, hex) = entry(&world);
    world.mempool.change(|pool| {
        pool.package_error = Some("package-not-sorted".to_owned());
        pool.verdicts = vec![TxVerdict {
            txid: entry.txid,
            wtxid: entry.wtxid,
            result: None,
        }];
    });
    let answer = post(&world, "/txs/test", json!([hex, hex]).to_string()).await;
    assert_eq!(
        answer.json(),
        json!([{"txid": entry.txid.to_string(), "wtxid": entry.wtxid.to_string(),
            "package-error": "package-not-sorted", "allowed": null, "vsize": null,
            "fees": null, "reject-reason": null}])
    );
}
