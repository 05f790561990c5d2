//! Wallets by descriptor and extended public key.

use axum::http::Method;
use miniscript::{
    Descriptor, DescriptorPublicKey,
    bitcoin::{
        base58,
        bip32::{Xpriv, Xpub},
        secp256k1::Secp256k1,
    },
};
use pulse_primitives::bitcoin::{Network, ScriptBuf};
use serde_json::{Value, json};

use super::{Answer, World, output_of, scripthash, spend};

fn account() -> (Xpriv, Xpub) {
    let secp = Secp256k1::new();
    let master = Xpriv::new_master(Network::Regtest, &[7; 32]).unwrap();
    (master, Xpub::from_priv(&secp, &master))
}

fn derived(descriptor: &str, index: u32) -> ScriptBuf {
    let descriptor: Descriptor<DescriptorPublicKey> = descriptor.parse().unwrap();
    let secp = Secp256k1::new();
    descriptor
        .derived_descriptor(&secp, index)
        .unwrap()
        .script_pubkey()
}

async fn scan(world: &World, path: &str, descriptors: Value, gap: Option<u32>) -> Answer {
    let mut body = json!({"descriptors": descriptors});
    if let Some(gap) = gap {
        body["gap_limit"] = gap.into();
    }
    world.call(Method::POST, path, body.to_string()).await
}

/// Pays each script in a block of its own.
fn pay(world: &World, scripts: &[ScriptBuf]) {
    for (script, nonce) in scripts.iter().zip(1..) {
        let coin = &world.coins()[nonce as usize];
        world.confirm(&[&spend(coin, script, 1).tx], nonce);
    }
    world.follow_index();
    world.follow_mempool();
}

#[tokio::test(flavor = "multi_thread")]
async fn used_scripts_are_found_up_to_the_gap() {
    let world = World::new();
    let (_, key) = account();
    let both = format!("wpkh({key}/<0;1>/*)");
    let [outer, inner] = [0, 1].map(|branch| format!("wpkh({key}/{branch}/*)"));
    let paid: Vec<_> = [
        (&outer, 0),
        (&outer, 3),
        (&outer, 22),
        (&outer, 45),
        (&inner, 1),
    ]
    .map(|(descriptor, index)| derived(descriptor, index))
    .to_vec();
    pay(&world, &paid);

    let answer = scan(&world, "/descriptors", json!([both]), None).await;
    assert_eq!(answer.cache(), "no-store");
    let found = answer.json();
    let indexes = |keychain: usize| -> Vec<u64> {
        let used = found["keychains"][keychain]["used"].as_array().unwrap();
        used.iter()
            .map(|used| used["index"].as_u64().unwrap())
            .collect()
    };
    // 45 is behind a gap of 22.
    assert_eq!((indexes(0), indexes(1)), (vec![0, 3, 22], vec![1]));
    assert_eq!(found["keychains"][0]["next_index"], 23);
    assert_eq!(found["keychains"][1]["next_index"], 2);
    let mut balance = 0;
    for (keychain, index, script) in [(0, 0, &paid[0]), (0, 2, &paid[2]), (1, 0, &paid[4])] {
        let used = &found["keychains"][keychain]["used"][index];
        assert_eq!(used["scripthash"], scripthash(script));
        let address = used["address"].as_str().unwrap();
        let alone = world.get(&format!("/address/{address}")).await.json();
        assert_eq!(used["chain_stats"], alone["chain_stats"]);
    }
    for keychain in 0..2 {
        for used in found["keychains"][keychain]["used"].as_array().unwrap() {
            balance += used["chain_stats"]["funded_txo_sum"].as_u64().unwrap();
        }
    }
    assert_eq!(
        found["balance"],
        json!({"confirmed": balance, "unconfirmed": 0})
    );
    let tip: u64 = world.get("/blocks/tip/height").await.text.parse().unwrap();
    assert_eq!(found["height"], tip);
    assert_eq!(found["hash"], world.get("/blocks/tip/hash").await.text);

    let wide = scan(&world, "/descriptors", json!([both]), Some(23))
        .await
        .json();
    assert_eq!(wide["keychains"][0]["next_index"], 46);
    let narrow = scan(&world, "/descriptors", json!([both]), Some(3))
        .await
        .json();
    assert_eq!(narrow["keychains"][0]["next_index"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_and_transactions_are_those_of_the_scripts() {
    let world = World::new();
    let (_, key) = account();
    let descriptor = format!("wpkh({key}/0/*)");
    let scripts: Vec<_> = (0..3).map(|index| derived(&descriptor, index)).collect();
    pay(&world, &scripts);
    // In the mempool from one to another, and to one that no block knows.
    let entry = {
        let path = format!("/scripthash/{}/utxo", scripthash(&scripts[0]));
        let utxo = world.get(&path).await.json();
        let coins = world.chain.coins().into_iter();
        let mut coins = coins.filter(|(at, _)| utxo[0]["txid"] == at.txid.to_string());
        spend(&coins.next().unwrap(), &derived(&descriptor, 5), 9)
    };
    let next = spend(&output_of(&entry, 0), &scripts[1], 10);
    world
        .mempool
        .change(|pool| pool.txs = vec![entry.clone(), next.clone()]);

    let path = "/descriptors/utxo";
    let found = scan(&world, path, json!([descriptor]), None).await.json();
    assert_eq!(found["keychains"][0]["next_index"], 6);
    let mut wanted = Vec::new();
    for (index, script) in [(0, &scripts[0]), (1, &scripts[1]), (2, &scripts[2])] {
        let path = format!("/scripthash/{}/utxo", scripthash(script));
        let alone = world.get(&path).await.json();
        for mut utxo in alone.as_array().unwrap().clone() {
            utxo["keychain"] = 0.into();
            utxo["index"] = index.into();
            wanted.push(utxo);
        }
    }
    assert_eq!(found["utxos"], json!(wanted));
    assert_eq!(wanted.len(), 3);
    let sum: i64 = wanted
        .iter()
        .map(|utxo| utxo["value"].as_i64().unwrap())
        .sum();
    let balance = &found["balance"];
    let total = balance["confirmed"].as_i64().unwrap() + balance["unconfirmed"].as_i64().unwrap();
    assert_eq!(total, sum);
    // A descriptor that is given twice counts once.
    let twice = scan(&world, path, json!([descriptor, descriptor]), None)
        .await
        .json();
    assert_eq!(twice["balance"], found["balance"]);
    assert_eq!(twice["utxos"], found["utxos"]);

    let path = "/descriptors/txs";
    let all = scan(&world, path, json!([descriptor]), None).await.json();
    let ids = |found: &Value| -> Vec<Value> {
        let txs = found["txs"].as_array().unwrap();
        txs.iter().map(|tx| tx["txid"].clone()).collect()
    };
    let all = ids(&all);
    assert_eq!(all.len(), 5);
    assert_eq!(all[0], entry.txid.to_string());
    assert_eq!(all[1], next.txid.to_string());
    // By pages.
    let mut paged = Vec::new();
    let mut query = "?limit=1".to_owned();
    loop {
        let page = scan(&world, &format!("{path}{query}"), json!([descriptor]), None).await;
        paged.extend(ids(&page.json()));
        let Some(cursor) = page.headers.get("x-next-cursor") else {
            break;
        };
        query = format!("?limit=1&cursor={}", cursor.to_str().unwrap());
    }
    assert_eq!(paged, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_keys_are_accounts_of_their_prefix() {
    let world = World::new();
    let (_, key) = account();
    let plain = key.to_string();
    let with_version = |version: [u8; 4]| {
        let mut bytes = base58::decode_check(&plain).unwrap();
        bytes[..4].copy_from_slice(&version);
        base58::encode_check(&bytes)
    };
    let keys = [
        (plain.clone(), format!("pkh({key}/1/*)")),
        (
            with_version([0x04, 0x4a, 0x52, 0x62]),
            format!("sh(wpkh({key}/1/*))"),
        ),
        (
            with_version([0x04, 0x5f, 0x1c, 0xf6]),
            format!("wpkh({key}/1/*)"),
        ),
    ];
    let scripts: Vec<_> = keys.iter().map(|(_, inner)| derived(inner, 4)).collect();
    pay(&world, &scripts);
    for ((text, _), script) in keys.iter().zip(&scripts) {
        let found = scan(&world, "/descriptors", json!([text]), None)
            .await
            .json();
        let used = &found["keychains"][1]["used"];
        assert_eq!(used[0]["scripthash"], scripthash(script), "{text}");
        assert_eq!(used[0]["index"], 4);
        assert_eq!(used.as_array().unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_never_repeated() {
    let world = World::new();
    let (private, key) = account();
    let wif = miniscript::bitcoin::PrivateKey::new(private.private_key, Network::Regtest).to_wif();
    let mainnet = Xpub {
        network: Network::Bitcoin.into(),
        ..key
    };
    let deep = format!(
        "wsh({}pk({key}){})",
        "and_v(v:pk(A),".repeat(70),
        ")".repeat(70)
    );
    let secret = "private keys are not accepted";
    for (text, what) in [
        (format!("wpkh({private}/0/*)"), secret),
        (private.to_string(), secret),
        (format!("wpkh({}x/0/*)", private), secret),
        (format!("wpkh({wif})"), secret),
        (format!("nonsense {wif}"), secret),
        (
            format!("wpkh({key}/0'/*)"),
            "hardened derivation needs private keys",
        ),
        (
            format!("wpkh({key}/0/*h)"),
            "hardened derivation needs private keys",
        ),
        (
            format!("wpkh({mainnet}/0/*)"),
            "has keys of another network",
        ),
        (format!("wpkh({key}/0/*)#aaaaaaaa"), "wrong checksum"),
        (format!("wpkh({key}"), "does not parse"),
        (format!("what({key}/*)"), "does not parse"),
        ("addr(é)".to_owned(), "does not parse"),
        (String::new(), "does not parse"),
        (deep, "nested too deeply"),
        (
            format!("wsh({}:pk({key}))", "v".repeat(17)),
            "too many wrappers",
        ),
        (format!("wpkh({key}/{}*)", "1/".repeat(2_500)), "too long"),
        (
            format!("wsh(multi(1,{key}/<0;1>/*,{key}/<2;3;4>/*))"),
            "its keys have different numbers of branches",
        ),
    ] {
        let valid = format!("wpkh({key}/7/*)");
        let answer = scan(&world, "/descriptors", json!([valid, text]), None).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text.as_str()),
            (400, format!("Descriptor 1: {what}").as_str()),
            "{text}"
        );
    }
    let branches: Vec<_> = (0..41).map(|n| n.to_string()).collect();
    let many = format!("wpkh({key}/<{}>/*)", branches.join(";"));
    let answer = scan(&world, "/descriptors", json!([many]), None).await;
    answer.is_error(400, "Descriptor 0: too many branches in all");
    let one = format!("wpkh({key}/0/*)");
    for (descriptors, gap, text) in [
        (json!([]), None, "Expected 1 to 20 descriptors"),
        (json!(vec![&one; 21]), None, "Expected 1 to 20 descriptors"),
        (
            json!([one]),
            Some(0),
            "Invalid gap_limit; expected 1 to 1000",
        ),
        (
            json!([one]),
            Some(1_001),
            "Invalid gap_limit; expected 1 to 1000",
        ),
        (
            json!(vec![&one; 11]),
            Some(1_000),
            "Too many scripts to derive; ask with fewer descriptors or a lower gap_limit",
        ),
        (
            json!([format!("wpkh({key}{}/*)", "/1".repeat(200))]),
            Some(1_000),
            "Too many scripts to derive; ask with fewer descriptors or a lower gap_limit",
        ),
        (
            json!(one),
            None,
            r#"Invalid wallet; expected {"descriptors":[...],"gap_limit":N}"#,
        ),
    ] {
        scan(&world, "/descriptors", descriptors, gap)
            .await
            .is_error(400, text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_without_a_range_is_one_script() {
    let world = World::new();
    let (_, key) = account();
    let text = format!("tr({key}/5)");
    pay(&world, &[derived(&text, 0)]);
    let found = scan(&world, "/descriptors", json!([text]), None)
        .await
        .json();
    assert_eq!(found["keychains"][0]["next_index"], Value::Null);
    assert_eq!(found["keychains"][0]["used"].as_array().unwrap().len(), 1);
}
