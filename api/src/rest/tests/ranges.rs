//! Lists of some blocks, scripts in unspent outputs, and balances.

use pulse_primitives::bitcoin::{Address, Network};
use serde_json::{Value, json};

use super::{Answer, World, output_of, script, scripthash, spend};

/// A world with four payments to script 0 in a block each, the third of which the fifth block
/// spends, and one payment in the mempool. Returns the height of the first.
fn paid() -> (World, u64, Vec<u64>) {
    let world = World::new();
    let first = world.chain.active().len() as u64;
    let entries: Vec<_> = (world.coins().iter().take(4))
        .map(|coin| spend(coin, &script(0), 1))
        .collect();
    for (entry, nonce) in entries.iter().zip(1..) {
        world.confirm(&[&entry.tx], nonce);
    }
    let moved = spend(&output_of(&entries[2], 0), &script(1), 2);
    world.confirm(&[&moved.tx], 9);
    world.follow_index();
    world.follow_mempool();
    let waiting = spend(&world.coins()[7], &script(0), 3);
    world.mempool.change(|pool| pool.txs.push(waiting));
    let values = entries
        .iter()
        .map(|entry| entry.tx.output[0].value.to_sat());
    (world, first, values.collect())
}

fn heights(answer: &Answer) -> Vec<Option<u64>> {
    let list = answer.json();
    let list = list.as_array().unwrap().iter();
    list.map(|entry| entry["status"]["block_height"].as_u64())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_can_be_about_some_blocks() {
    let (world, first, _) = paid();
    let path = format!("/scripthash/{}", scripthash(&script(0)));
    let at = |offset: u64| Some(first + offset);
    for (list, query, wanted) in [
        (
            "txs",
            String::new(),
            vec![None, at(4), at(3), at(2), at(1), at(0)],
        ),
        (
            "txs",
            format!("?from_height={}", first + 3),
            vec![None, at(4), at(3)],
        ),
        (
            "txs",
            format!("?to_height={}", first + 1),
            vec![at(1), at(0)],
        ),
        (
            "txs/chain",
            format!("?from_height={}&to_height={}", first + 1, first + 2),
            vec![at(2), at(1)],
        ),
        ("txs/chain", format!("?from_height={}", first + 50), vec![]),
        (
            "txs/chain",
            format!("?from_height={}&to_height=0", first),
            vec![],
        ),
        ("utxo", String::new(), vec![at(0), at(1), at(3), None]),
        (
            "utxo",
            format!("?from_height={}", first + 1),
            vec![at(1), at(3), None],
        ),
        (
            "utxo",
            format!("?to_height={}", first + 1),
            vec![at(0), at(1)],
        ),
    ] {
        let answer = world.get(&format!("{path}/{list}{query}")).await;
        assert_eq!(heights(&answer), wanted, "{list}{query}");
    }
    // Behind a transaction of the list.
    let newest = world.get(&format!("{path}/txs/chain?limit=1")).await.json();
    let newest = newest[0]["txid"].as_str().unwrap();
    for (query, wanted) in [
        (String::new(), vec![at(3), at(2), at(1), at(0)]),
        (
            format!("?from_height={}&to_height={}", first + 1, first + 2),
            vec![at(2), at(1)],
        ),
        (format!("?from_height={}", first + 4), vec![]),
        (format!("?from_height={}", first + 5), vec![]),
    ] {
        let answer = world
            .get(&format!("{path}/txs/chain/{newest}{query}"))
            .await;
        assert_eq!(heights(&answer), wanted, "after {newest}{query}");
    }
    // By pages.
    for list in ["txs", "utxo"] {
        let query = format!("?from_height={}&to_height={}", first + 1, first + 3);
        let whole = world.get(&format!("{path}/{list}{query}")).await;
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = format!("{path}/{list}{query}&limit=1{cursor}");
            let page = world.get(&page).await;
            found.extend(heights(&page));
            let Some(next) = page.headers.get("x-next-cursor") else {
                break;
            };
            cursor = format!("&cursor={}", next.to_str().unwrap());
        }
        assert_eq!(found, heights(&whole), "{list}");
    }
    for query in ["from_height=x", "to_height=-1", "to_height=4294967296"] {
        for list in ["txs", "txs/chain", "utxo", "balance/history"] {
            let answer = world.get(&format!("{path}/{list}?{query}")).await;
            answer.is_error(400, "Invalid number");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unspent_outputs_have_their_script_when_asked() {
    let (world, ..) = paid();
    world.mempool.change(|pool| {
        let coin = &pool.txs[0].clone();
        pool.txs.push(spend(&output_of(coin, 0), &script(4), 4));
    });
    let address = Address::from_script(&script(0), Network::Regtest).unwrap();
    for (path, script) in [
        (
            format!("/scripthash/{}/utxo", scripthash(&script(0))),
            script(0),
        ),
        (format!("/address/{address}/utxo"), script(0)),
        // In the mempool alone.
        (
            format!("/scripthash/{}/utxo", scripthash(&script(4))),
            script(4),
        ),
    ] {
        let plain = world.get(&path).await.json();
        let mut wanted = plain.as_array().unwrap().clone();
        assert!(!wanted.is_empty());
        for utxo in &mut wanted {
            assert_eq!(utxo.get("scriptpubkey"), None);
            utxo["scriptpubkey"] = script.to_hex_string().into();
        }
        let with = world.get(&format!("{path}?scriptpubkey=true")).await.json();
        assert_eq!(with, Value::from(wanted));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn balances_are_told_at_a_block_and_block_by_block() {
    let (world, first, values) = paid();
    let path = format!("/scripthash/{}/balance", scripthash(&script(0)));
    let hash = |height: u64| world.chain.active()[usize::try_from(height).unwrap()].to_string();
    let sums = [
        values[0],
        values[0] + values[1],
        values[..3].iter().sum(),
        values.iter().sum(),
    ];
    let last = sums[3] - values[2];
    for (height, wanted) in [
        (0, 0),
        (first - 1, 0),
        (first, sums[0]),
        (first + 1, sums[1]),
        (first + 2, sums[2]),
        (first + 3, sums[3]),
        (first + 4, last),
    ] {
        let answer = world.get(&format!("{path}?height={height}")).await.json();
        assert_eq!(answer["balance"], wanted, "{height}");
        assert_eq!(answer["block_height"], height);
        assert_eq!(answer["block_hash"], hash(height));
    }
    let now = world.get(&path).await.json();
    assert_eq!(now["balance"], last);
    assert_eq!(now["block_height"], first + 4);
    let above = format!("{path}?height={}", first + 5);
    world.get(&above).await.is_error(404, "Block not found");
    let wrong = format!("{path}?height=x");
    world.get(&wrong).await.is_error(400, "Invalid number");

    let entry = |offset: u64, change: i64, balance: u64| -> Value {
        let height = first + offset;
        json!({"block_height": height, "block_hash": hash(height), "tx_count": 1,
            "change": change, "balance": balance})
    };
    let signed = |value: u64| i64::try_from(value).unwrap();
    let wanted = [
        entry(4, -signed(values[2]), last),
        entry(3, signed(values[3]), sums[3]),
        entry(2, signed(values[2]), sums[2]),
        entry(1, signed(values[1]), sums[1]),
        entry(0, signed(values[0]), sums[0]),
    ];
    let entries = |answer: &Answer| -> Vec<Value> {
        let mut list = answer.json().as_array().unwrap().clone();
        for entry in &mut list {
            let time = entry.as_object_mut().unwrap().remove("block_time");
            assert!(time.unwrap().as_u64().unwrap() > 0);
        }
        list
    };
    assert_eq!(
        entries(&world.get(&format!("{path}/history")).await),
        wanted
    );
    let middle = format!(
        "{path}/history?from_height={}&to_height={}",
        first + 1,
        first + 3
    );
    assert_eq!(entries(&world.get(&middle).await), wanted[1..4]);

    // By pages, with a block and a reorganisation above the cursor in between.
    let page = world.get(&format!("{path}/history?limit=2")).await;
    assert_eq!(entries(&page), wanted[..2]);
    let cursor = page.headers["x-next-cursor"].to_str().unwrap().to_owned();
    let next = format!("{path}/history?limit=9&cursor={cursor}");
    world.confirm(&[&spend(&world.coins()[5], &script(0), 5).tx], 10);
    world.follow_index();
    world.follow_mempool();
    assert_eq!(entries(&world.get(&next).await), wanted[2..]);
    world.chain.disconnect(2);
    for nonce in 20..24 {
        world.confirm(&[], nonce);
    }
    world.follow_index();
    world.follow_mempool();
    assert_eq!(entries(&world.get(&next).await), wanted[2..]);
    // One that replaces its block makes it void.
    world.chain.disconnect(6);
    for nonce in 30..38 {
        world.confirm(&[], nonce);
    }
    world.follow_index();
    world.follow_mempool();
    let gone = "Cursor left the chain with a reorganisation; start again without it";
    world.get(&next).await.is_error(410, gone);
    for cursor in ["", "00", &cursor[1..], &format!("{cursor}0"), &cursor[..40]] {
        let wrong = format!("{path}/history?cursor={cursor}");
        world.get(&wrong).await.is_error(400, "Invalid cursor");
    }
}
