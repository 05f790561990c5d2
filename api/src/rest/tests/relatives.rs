//! Packages, replacements and fee rates to choose from.

use pulse_primitives::{
    bitcoin::{Txid, hashes::Hash},
    mempool::{FeeEstimates, RemovalReason, RemovedTx},
};
use serde_json::{Value, json};

use super::{World, output_of, script, spend};

#[tokio::test(flavor = "multi_thread")]
async fn a_package_tells_relatives_and_the_rate_that_counts() {
    let world = World::new();
    let parent = spend(&world.coins()[0], &script(0), 1);
    let child = spend(&output_of(&parent, 0), &script(1), 2);
    world
        .mempool
        .change(|pool| pool.txs = vec![parent.clone(), child.clone()]);
    let member = |entry: &pulse_primitives::mempool::MempoolTx| -> Value {
        let rate = (1_000.0 / entry.vsize as f64).round() / 1_000.0;
        json!({"txid": entry.txid.to_string(), "fee": 1, "vsize": entry.vsize,
            "weight": entry.weight, "fee_rate": rate})
    };
    let mut wanted = member(&child);
    wanted["ancestors"] = json!([member(&parent)]);
    wanted["descendants"] = json!([]);
    wanted["chunk"] = json!([member(&parent), member(&child)]);
    let vsize = (parent.vsize + child.vsize) as f64;
    wanted["effective_fee_rate"] = json!((2_000.0 / vsize).round() / 1_000.0);
    let answer = world.get(&format!("/tx/{}/cpfp", child.txid)).await;
    assert_eq!(
        (answer.json(), answer.cache()),
        (wanted, "public, max-age=10")
    );
    let of_parent = world.get(&format!("/tx/{}/cpfp", parent.txid)).await.json();
    assert_eq!(of_parent["descendants"], json!([member(&child)]));
    let answer = world.get(&format!("/tx/{}/cpfp", Txid::all_zeros())).await;
    answer.is_error(404, "Transaction is not in the mempool");
}

#[tokio::test(flavor = "multi_thread")]
async fn replacements_lead_to_the_transaction_that_is_there() {
    let world = World::new();
    let coin = &world.coins()[0];
    let txs = [0, 1, 2, 3].map(|n| spend(coin, &script(n), 1));
    let path = |n: usize| format!("/tx/{}/replacement", txs[n].txid);
    let left = |reason| RemovedTx { reason, time: 9 };
    world
        .get(&path(0))
        .await
        .is_error(404, "Transaction was not replaced");
    world.mempool.change(|pool| {
        let by = |n: usize| RemovalReason::Replaced { by: txs[n].txid };
        pool.removed.insert(txs[0].txid, left(by(1)));
        pool.removed.insert(txs[1].txid, left(by(2)));
        pool.txs = vec![txs[2].clone()];
    });
    let step = |n: usize, by: usize| {
        json!({"txid": txs[n].txid.to_string(), "reason": "replaced",
        "by": txs[by].txid.to_string(), "time": 9})
    };
    let here = |n: usize| json!({"txid": txs[n].txid.to_string(), "status": {"confirmed": false}});
    assert_eq!(
        world.get(&path(0)).await.json(),
        json!({"chain": [step(0, 1), step(1, 2)], "present": here(2)})
    );
    assert_eq!(
        world.get(&path(1)).await.json(),
        json!({"chain": [step(1, 2)], "present": here(2)})
    );
    // What is in the mempool was not replaced.
    world
        .get(&path(2))
        .await
        .is_error(404, "Transaction was not replaced");

    // It expires, then another spend of the coin is confirmed.
    world.mempool.change(|pool| {
        pool.txs.clear();
        pool.removed
            .insert(txs[2].txid, left(RemovalReason::Expired));
    });
    let gone = world.get(&path(1)).await.json();
    assert_eq!(gone["present"], Value::Null);
    assert_eq!(gone["chain"][1]["reason"], "expired");
    world
        .get(&path(2))
        .await
        .is_error(404, "Transaction was not replaced");
    world.confirm(&[&txs[3].tx], 1);
    world.follow_index();
    world.follow_mempool();
    world.mempool.change(|pool| {
        let with = txs[3].txid;
        pool.removed
            .insert(txs[2].txid, left(RemovalReason::Conflict { with }));
    });
    let confirmed = world.get(&path(0)).await.json();
    assert_eq!(confirmed["chain"].as_array().unwrap().len(), 3);
    assert_eq!(confirmed["present"]["txid"], txs[3].txid.to_string());
    assert_eq!(confirmed["present"]["status"]["confirmed"], true);
    // A circle of names ends, too.
    world.mempool.change(|pool| {
        let by = txs[0].txid;
        pool.removed
            .insert(txs[1].txid, left(RemovalReason::Replaced { by }));
    });
    let circle = world.get(&path(0)).await.json();
    assert_eq!(circle["chain"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn recommended_fees_follow_estimates_and_the_minimum() {
    let world = World::new();
    world.mempool.change(|pool| {
        pool.estimates = FeeEstimates {
            by_target: vec![(1, 12.0), (2, 11.0), (6, 3.0), (144, 0.01)],
        };
    });
    let answer = world.get("/fees/recommended").await;
    assert_eq!(
        answer.text,
        r#"{"fastestFee":11.0,"halfHourFee":11.0,"hourFee":3.0,"economyFee":0.1,"minimumFee":0.1}"#
    );
}
