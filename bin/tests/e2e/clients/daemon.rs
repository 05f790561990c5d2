//! The Electrum wallet's own daemon: it checks every header and every proof itself, hangs up
//! over what it does not like, and asks for a script only when it is told that it changed.

use pulse_primitives::bitcoin::{
    Address, Network, ScriptBuf, WPubkeyHash, base58,
    bip32::{DerivationPath, Xpriv},
    hashes::Hash,
};
use pulse_testkit::ElectrumWallet;
use serde_json::{Value, json};

use crate::e2e::electrum::{KEY, Scene};

/// First bytes of an extended private key for P2WPKH on a test network (SLIP-132).
const P2WPKH: [u8; 4] = [0x04, 0x5f, 0x18, 0xbc];

/// The account of the scenes' wallet, as Electrum takes it.
fn account(scene: &Scene) -> String {
    let key: Xpriv = KEY.parse().unwrap();
    let path: DerivationPath = "84'/1'/0'".parse().unwrap();
    let account = key.derive_priv(scene.wallet.secp_ctx(), &path).unwrap();
    let mut bytes = account.encode();
    bytes[..4].copy_from_slice(&P2WPKH);
    base58::encode_check(&bytes)
}

/// Waits until the wallet has these transactions at these confirmations, newest last.
fn wait_history(wallet: &ElectrumWallet, txid: &str, confirmations: u32) {
    wallet.wait_until("onchain_history", &json!({}), |history| {
        let entries = history["transactions"].as_array().unwrap();
        entries
            .iter()
            .any(|entry| entry["txid"] == txid && entry["confirmations"] == confirmations)
    });
}

fn wait_height(wallet: &ElectrumWallet, height: u32) {
    wallet.wait_until("getinfo", &json!({}), |info| {
        info["blockchain_height"] == height && info["server_height"] == height
    });
}

fn balance(wallet: &ElectrumWallet, wanted: &Value) {
    wallet.wait_until("getbalance", &json!({}), |balance| balance == wanted);
}

fn lives_through_it_all(tls: bool) {
    let mut scene = Scene::new();
    let transport = if tls { "tls" } else { "tcp" };
    let server = scene.node.electrum_addr(transport).unwrap();
    let Some(wallet) = ElectrumWallet::start(server, tls, &account(&scene)) else {
        return;
    };
    wallet.wait_until("getinfo", &json!({}), |info| info["connected"] == true);
    wait_height(&wallet, 110);
    balance(&wallet, &json!({"confirmed": "150"}));

    // It pays, and takes the answer only if it is its own transaction's id.
    let to = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([9; 20]));
    let to = Address::from_script(&to, Network::Regtest).unwrap();
    let pay = json!({"destination": to.to_string(), "amount": "10", "fee": "0.0001"});
    let tx = wallet.call("payto", &pay);
    let txid = wallet.call("broadcast", &json!({ "tx": tx }));
    let txid = txid.as_str().unwrap();
    assert_eq!(scene.node.get(&format!("/tx/{txid}/hex")).text(), tx);
    wait_history(&wallet, txid, 0);
    // The change of 150 - 10 and the fee, all or part of it unconfirmed.
    let left = |balance: &Value| -> f64 {
        let part = |key: &str| {
            balance[key]
                .as_str()
                .map_or(0.0, |text| text.parse().unwrap())
        };
        part("confirmed") + part("unconfirmed")
    };
    let is_left = |balance: &Value| (left(balance) - 139.9999).abs() < 1e-9;
    wallet.wait_until("getbalance", &json!({}), is_left);

    // A block confirms it; two more bury it; all three are replaced.
    let mined = scene.node.get(&format!("/tx/{txid}/raw")).body;
    let mined = pulse_primitives::bitcoin::consensus::deserialize(&mined).unwrap();
    scene.mine(vec![mined]);
    wait_history(&wallet, txid, 1);
    balance(&wallet, &json!({"confirmed": "139.9999"}));
    scene.mine(vec![]);
    scene.mine(vec![]);
    wait_height(&wallet, 113);
    wait_history(&wallet, txid, 3);
    scene.reorganise(110, 4);
    wait_height(&wallet, 114);
    wait_history(&wallet, txid, 0);
    wallet.wait_until("getbalance", &json!({}), is_left);

    let info = wallet.call("getinfo", &json!({}));
    assert_eq!(info["connected"], true);
    assert_eq!(info["server"], server.ip().to_string());
}

#[test]
fn electrum_s_daemon_pays_and_follows_the_chain_over_tcp() {
    lives_through_it_all(false);
}

#[test]
fn electrum_s_daemon_pays_and_follows_the_chain_over_tls() {
    lives_through_it_all(true);
}
