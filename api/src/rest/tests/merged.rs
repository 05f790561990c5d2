//! What only mempool/electrs adds: lists of several scripts, summaries, spenders of several
//! transactions, and what a backend of the operator asks for.

use std::slice::from_ref;

use axum::{body::Body, http::Method};
use pulse_primitives::{bitcoin::Transaction, mempool::MempoolTx};
use serde_json::{Value, json};

use super::{Answer, World, output_of, script, scripthash, spend};

/// A world in which two scripts were paid once each, in blocks of their own, and pay on to a
/// third in the mempool.
struct Paid {
    world: World,
    funding: Vec<MempoolTx>,
    waiting: Vec<MempoolTx>,
}

impl Paid {
    fn new() -> Self {
        let world = World::new();
        let coins = world.coins();
        // The made-up chain creates money, which lists of transactions do not tolerate.
        let funding: Vec<_> = (0..2)
            .map(|at| spend(&coins[at], &script(u8::try_from(at).unwrap()), 0))
            .collect();
        let onward: Vec<_> = (funding.iter())
            .map(|entry| spend(&output_of(entry, 0), &script(2), 0))
            .collect();
        for (entry, nonce) in funding.iter().zip(1..) {
            world.confirm(&[&entry.tx], nonce);
        }
        world.follow_index();
        world.follow_mempool();
        let waiting: Vec<_> = (onward.into_iter().zip(1..))
            .map(|(entry, sequence)| MempoolTx { sequence, ..entry })
            .collect();
        world.mempool.change(|pool| pool.txs = waiting.clone());
        Self {
            world,
            funding,
            waiting,
        }
    }

    fn hashes(&self) -> String {
        json!([scripthash(&script(0)), scripthash(&script(1))]).to_string()
    }

    /// All four, as one list of the two scripts has them.
    fn all(&self) -> Vec<String> {
        let newest_first = self.funding.iter().rev();
        let all = self.waiting.iter().chain(newest_first);
        all.map(|entry| entry.txid.to_string()).collect()
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.world.call(Method::POST, path, body.to_owned()).await
    }
}

fn txids(answer: &Answer) -> Vec<String> {
    let list = answer.json();
    let list = list.as_array().unwrap().iter();
    list.map(|tx| tx["txid"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_scripts_have_one_list_that_pages_from_the_mempool_into_the_chain() {
    let paid = Paid::new();
    let all = paid.all();
    let answer = paid.post("/scripthashes/txs", &paid.hashes()).await;
    assert_eq!(txids(&answer), all);
    assert_eq!(answer.cache(), "public, max-age=10");
    for limit in 1..5 {
        let mut found = Vec::new();
        let mut path = format!("/api/scripthashes/txs?max_txs={limit}");
        loop {
            let page = txids(&paid.post(&path, &paid.hashes()).await);
            let Some(last) = page.last() else { break };
            assert!(page.len() <= limit);
            path = format!("/scripthashes/txs?max_txs={limit}&after_txid={last}");
            found.extend(page);
        }
        assert_eq!(found, all, "{limit}");
    }
    // Named twice, or with others that are none.
    let twice = json!([
        scripthash(&script(0)),
        "x",
        scripthash(&script(0)),
        scripthash(&script(1))
    ]);
    let answer = paid.post("/scripthashes/txs", &twice.to_string()).await;
    assert_eq!(txids(&answer), all);
    let answer = paid.post("/addresses/txs", r#"["x",""]"#).await;
    assert_eq!(answer.text, "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_script_has_the_same_list_within_a_budget() {
    let paid = Paid::new();
    let world = &paid.world;
    let path = format!("/scripthash/{}/txs", scripthash(&script(0)));
    let (confirmed, waiting) = (
        paid.funding[0].txid.to_string(),
        paid.waiting[0].txid.to_string(),
    );
    let get = async |query: String| txids(&world.get(&format!("{path}{query}")).await);
    assert_eq!(
        get("?max_txs=50".into()).await,
        [waiting.clone(), confirmed.clone()]
    );
    assert_eq!(get("?max_txs=1".into()).await, from_ref(&waiting));
    // Nothing is no number, and neither is there a list without entries.
    assert_eq!(get("?max_txs=0".into()).await, from_ref(&waiting));
    assert_eq!(get("?max_txs=x".into()).await.len(), 2);
    assert_eq!(get("?after_txid=zz".into()).await.len(), 2);
    assert_eq!(
        get(format!("?after_txid={waiting}")).await,
        from_ref(&confirmed)
    );
    let after_last = world.get(&format!("{path}?after_txid={confirmed}")).await;
    assert_eq!(after_last.text, "[]");
    // Unknown, confirmed of another script, unconfirmed of another script.
    for other in [
        "ab".repeat(32),
        paid.funding[1].txid.to_string(),
        paid.waiting[1].txid.to_string(),
    ] {
        let answer = world.get(&format!("{path}?after_txid={other}")).await;
        answer.is_error(422, "after_txid not found");
    }
    let chain = world.get(&format!("{path}/chain?max_txs=1")).await;
    assert_eq!(txids(&chain), [confirmed]);
    let mempool = world.get(&format!("{path}/mempool?max_txs=1")).await;
    assert_eq!(txids(&mempool), [waiting]);
}

#[tokio::test(flavor = "multi_thread")]
async fn summaries_say_what_each_transaction_changed() {
    let paid = Paid::new();
    let world = &paid.world;
    let path = format!("/scripthash/{}/txs/summary", scripthash(&script(0)));
    let value = |entry: &MempoolTx| entry.tx.output[0].value.to_sat();
    let received = value(&paid.funding[0]);
    let tx = world.get(&format!("/tx/{}", paid.funding[0].txid)).await;
    let status = tx.json()["status"].clone();
    let entry = json!({
        "txid": paid.funding[0].txid.to_string(),
        "height": status["block_height"],
        "value": received,
        "time": status["block_time"],
        "tx_position": 1,
    });
    let answer = world.get(&path).await;
    assert_eq!(answer.json(), json!([entry]));
    assert!(answer.text.starts_with(r#"[{"txid":""#), "{}", answer.text);

    // Spent: what left and what came back count together.
    let tx: &Transaction = &paid.waiting[0].tx;
    world.confirm(&[tx], 3);
    world.follow_index();
    world.mempool.change(|pool| pool.txs.clear());
    world.follow_mempool();
    let list = world.get(&path).await.json();
    assert_eq!(list[0]["value"], -i64::try_from(received).unwrap());
    assert_eq!(list[1], entry);
    let first = list[0]["txid"].as_str().unwrap();
    let rest = world.get(&format!("{path}/{first}")).await.json();
    assert_eq!(rest, json!([entry]));
    assert_eq!(
        world.get(&format!("{path}?max_txs=1")).await.json()[0],
        list[0]
    );
    let unknown = "ab".repeat(32);
    let answer = world.get(&format!("{path}/{unknown}")).await;
    answer.is_error(422, "after_txid not found");
    // Of the payer and the paid together only the fee is lost.
    let both = json!([scripthash(&script(0)), scripthash(&script(2))]).to_string();
    let list = paid.post("/scripthashes/txs/summary", &both).await.json();
    assert_eq!(list[0]["value"], -1);
    let after = format!("/scripthashes/txs/summary/{first}");
    assert_eq!(paid.post(&after, &both).await.json(), json!([entry]));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_scripts_are_bounded_and_json() {
    let paid = Paid::new();
    let many = |count: usize| json!(vec!["x"; count]).to_string();
    assert_eq!(paid.post("/addresses/txs", &many(300)).await.text, "[]");
    for path in ["/addresses/txs", "/scripthashes/txs/summary"] {
        let answer = paid.post(path, &many(301)).await;
        answer.is_error(422, "body too long");
        let answer = paid.post(path, &format!("[{:21600}]", "")).await;
        answer.is_error(422, "body too long");
        let answer = paid.post(path, "").await;
        answer.is_error(400, "EOF while parsing a value at line 1 column 0");
        let answer = paid.post(path, "{}").await;
        answer.is_error(
            400,
            "invalid type: map, expected a sequence at line 1 column 0",
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spenders_of_several_transactions_come_in_one_answer() {
    let paid = Paid::new();
    let world = &paid.world;
    let (funding, waiting) = (paid.funding[0].txid, paid.waiting[0].txid);
    let unknown = "ab".repeat(32);
    let list = format!("{waiting},x,{funding},{unknown}");
    let answer = world.get(&format!("/txs/outspends?txids={list}")).await;
    let spent = json!({"spent": true, "txid": waiting.to_string(), "vin": 0, "status": {"confirmed": false}});
    let want = json!([[{"spent": false}], [], [spent], []]);
    assert_eq!(answer.json(), want);
    let by_txid = json!([waiting.to_string(), "x", funding.to_string(), unknown]).to_string();
    let path = "/internal/txs/outspends/by-txid";
    let answer = world.operator(Method::POST, path, by_txid).await;
    assert_eq!(answer.json(), want);
    let by_outpoint = json!([format!("{funding}:0"), format!("{funding}:7"), "x"]).to_string();
    let path = "/internal/txs/outspends/by-outpoint";
    let answer = world.operator(Method::POST, path, by_outpoint).await;
    assert_eq!(
        answer.json(),
        json!([spent, {"spent": false}, {"spent": false}])
    );

    let missing = world.get("/txs/outspends").await;
    missing.is_error(400, "No txids specified");
    let many = vec!["x"; 51].join(",");
    let many = world.get(&format!("/txs/outspends?txids={many}")).await;
    assert_eq!(many.status.as_u16(), 400);
    assert_eq!(many.text, "Too many txids requested");
    assert_eq!(many.cache(), "public, max-age=0");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_the_mempool_come_in_pages_by_their_bytes() {
    let paid = Paid::new();
    let world = &paid.world;
    let mut sorted: Vec<_> = paid.waiting.iter().map(|entry| entry.txid).collect();
    sorted.sort_unstable();
    let answer = world.get("/mempool/txids/page").await;
    assert_eq!(answer.json(), json!(sorted));
    let first = world.get("/mempool/txids/page?max_txs=1").await;
    assert_eq!(first.json(), json!(sorted[..1]));
    let path = format!("/mempool/txids/page/{}", sorted[0]);
    assert_eq!(world.get(&path).await.json(), json!(sorted[1..]));
    let path = format!("/mempool/txids/page/{}", sorted[1]);
    assert_eq!(world.get(&path).await.text, "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_of_the_operator_gets_whole_lists_and_nobody_else_does() {
    let paid = Paid::new();
    let world = &paid.world;
    let (funding, waiting) = (&paid.funding[0], &paid.waiting);
    let block: Value = world
        .get(&format!("/tx/{}/status", funding.txid))
        .await
        .json();
    let block = block["block_hash"].as_str().unwrap().to_owned();
    let of_block = format!("/internal/block/{block}/txs");
    let get = async |path: &str| world.operator(Method::GET, path, Body::empty()).await;
    let answer = get(&of_block).await;
    assert_eq!(txids(&answer)[1], funding.txid.to_string());
    let unknown = "ab".repeat(32);
    let answer = get(&format!("/internal/block/{unknown}/txs")).await;
    answer.is_error(404, "Block not found");

    let all = get("/internal/mempool/txs/all").await;
    let in_order: Vec<_> = waiting.iter().map(|entry| entry.txid.to_string()).collect();
    assert_eq!(txids(&all), in_order);
    let first = get("/internal/mempool/txs?max_txs=1").await;
    let rest = get(&format!("/internal/mempool/txs/{}", txids(&first)[0])).await;
    assert_eq!((txids(&first).len(), txids(&rest).len()), (1, 1));
    assert_ne!(txids(&first), txids(&rest));

    let named = json!([
        funding.txid.to_string(),
        unknown,
        waiting[1].txid.to_string(),
        "x"
    ]);
    let post = async |path: &str| {
        let body = named.to_string();
        world.operator(Method::POST, path, body).await
    };
    let both = [funding.txid.to_string(), waiting[1].txid.to_string()];
    assert_eq!(txids(&post("/internal/txs").await), both);
    assert_eq!(txids(&post("/internal/mempool/txs").await), both[1..]);

    for (method, path) in [
        (Method::GET, of_block.as_str()),
        (Method::GET, "/internal/mempool/txs"),
        (Method::GET, "/internal/mempool/txs/all"),
        (Method::POST, "/internal/mempool/txs"),
        (Method::POST, "/internal/txs"),
        (Method::POST, "/internal/txs/outspends/by-txid"),
        (Method::POST, "/internal/txs/outspends/by-outpoint"),
    ] {
        let answer = world.call(method, path, "[]").await;
        answer.is_error(404, &format!("endpoint does not exist {path:?}"));
    }
}
