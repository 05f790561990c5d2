//! Real clients, unmodified: electrum-client over TCP and TLS, a BDK wallet through a
//! reorganisation of three blocks, and a WebSocket client.

use bdk_electrum::{BdkElectrumClient, electrum_client};
use bdk_wallet::KeychainKind;
use electrum_client::{Client, ConfigBuilder, ElectrumApi, Param};
use futures_util::{SinkExt, StreamExt};
use pulse_primitives::bitcoin::{Network, ScriptBuf, Txid, WPubkeyHash, hashes::Hash};
use pulse_testkit::ChainData;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{client_async, tungstenite::Message};

use super::{DEADLINE, Scene, synced};

fn url(scene: &Scene, transport: &str) -> String {
    let scheme = if transport == "tls" { "ssl" } else { "tcp" };
    let addr = scene.node.electrum_addr(transport).unwrap();
    format!("{scheme}://{addr}")
}

fn open(url: &str) -> Client {
    let config = ConfigBuilder::new().validate_domain(false).build();
    Client::from_config(url, config).unwrap()
}

#[test]
fn electrum_client_does_everything_over_tcp_and_tls() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let blocks = data.regtest_kernel();
    let (node, _peer) = synced("regtest", Network::Regtest, &blocks);
    let golden = data.golden("regtest-kernel-0-206");
    for (scheme, transport) in [("tcp", "tcp"), ("ssl", "tls")] {
        let addr = node.electrum_addr(transport).unwrap();
        let client = open(&format!("{scheme}://{addr}"));
        let features = client.server_features().unwrap();
        assert_eq!(features.genesis_hash[..], {
            let mut hash = blocks[0].block_hash().to_byte_array();
            hash.reverse();
            hash
        });
        client.ping().unwrap();
        assert_eq!(client.block_headers_subscribe().unwrap().height, 206);
        assert_eq!(client.block_header(7).unwrap(), blocks[7].header);
        let headers = client.block_headers(200, 100).unwrap();
        assert_eq!((headers.count, headers.max), (7, 2016));
        assert_eq!(headers.headers[6], blocks[206].header);
        assert!(client.estimate_fee(2).unwrap() < 0.0);
        assert!(client.relay_fee().unwrap() > 0.0);
        let block = blocks
            .iter()
            .position(|block| block.txdata.len() > 2)
            .unwrap();
        let txids: Vec<Txid> = blocks[block]
            .txdata
            .iter()
            .map(|tx| tx.compute_txid())
            .collect();
        let txs = client.batch_transaction_get(&txids).unwrap();
        assert_eq!(txs, blocks[block].txdata);
        let proof = client.transaction_get_merkle(&txids[1], block).unwrap();
        assert_eq!((proof.block_height, proof.pos), (block, 1));
        let root = blocks[block].header.merkle_root;
        assert!(electrum_client::utils::validate_merkle_proof(
            &txids[1], &root, &proof
        ));
        let from_pos = client.txid_from_pos(block, 1).unwrap();
        assert_eq!(from_pos, txids[1]);
        let heights: Vec<u32> = (0..207).collect();
        assert_eq!(client.batch_block_header(&heights).unwrap().len(), 207);

        let scripts: Vec<_> = (golden.scripts.iter())
            .filter(|script| !script.unspendable)
            .collect();
        let bytes: Vec<&_> = scripts
            .iter()
            .map(|script| script.script.as_script())
            .collect();
        let histories = client.batch_script_get_history(bytes.clone()).unwrap();
        let balances = client.batch_script_get_balance(bytes.clone()).unwrap();
        let unspent = client.batch_script_list_unspent(bytes.clone()).unwrap();
        for (n, script) in scripts.iter().enumerate() {
            let found: Vec<Txid> = histories[n].iter().map(|entry| entry.tx_hash).collect();
            let expected: Vec<Txid> = script.history.iter().map(|(_, _, txid)| *txid).collect();
            assert_eq!(found, expected);
            let confirmed = script.funded_txo_sum - script.spent_txo_sum;
            assert_eq!(balances[n].confirmed, confirmed);
            assert_eq!(unspent[n].len(), script.utxos.len());
        }
        let status = client.script_subscribe(bytes[0]).unwrap();
        let status = status.map(|status| {
            let bytes: &[u8] = &status[..];
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        });
        assert_eq!(status, scripts[0].electrum_status);
        assert!(client.script_unsubscribe(bytes[0]).unwrap());
        let error = client.raw_call("blockchain.nonsense", [Param::Usize(1)]);
        assert!(error.is_err());
    }
}

#[test]
fn a_bdk_wallet_scans_syncs_and_follows_a_reorganisation_of_three_blocks() {
    let mut scene = Scene::new();
    let client = BdkElectrumClient::new(open(&url(&scene, "tcp")));
    let request = scene.wallet.start_full_scan();
    let update = client.full_scan(request, 20, 10, true).unwrap();
    scene.wallet.apply_update(update).unwrap();
    let funds = scene.wallet.balance().total().to_sat();
    assert_eq!(funds, 3 * 50 * 100_000_000);

    let sync = |scene: &mut Scene| {
        let client = BdkElectrumClient::new(open(&url(scene, "tls")));
        let request = scene.wallet.start_sync_with_revealed_spks();
        let update = client.sync(request, 10, true).unwrap();
        scene.wallet.apply_update(update).unwrap();
    };
    let to = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([9; 20]));
    let tx = scene.pay(&to, 1_000_000);
    let txid = client.transaction_broadcast(&tx).unwrap();
    sync(&mut scene);
    let is_confirmed = |scene: &Scene| {
        let found = scene.wallet.get_tx(txid).unwrap();
        found.chain_position.is_confirmed()
    };
    assert!(!is_confirmed(&scene));
    scene.mine(vec![tx]);
    scene.mine(vec![]);
    scene.mine(vec![]);
    sync(&mut scene);
    assert!(is_confirmed(&scene));
    assert_eq!(scene.wallet.latest_checkpoint().height(), 113);
    scene.reorganise(110, 4);
    sync(&mut scene);
    assert!(!is_confirmed(&scene), "it is back in the mempool");
    assert_eq!(scene.wallet.latest_checkpoint().height(), 114);
    assert_eq!(
        scene.wallet.latest_checkpoint().hash(),
        scene.chain.tip_hash()
    );
    assert!(
        scene
            .wallet
            .derivation_index(KeychainKind::External)
            .is_some()
    );
}

#[test]
fn a_web_socket_client_asks_and_is_told() {
    let mut scene = Scene::new();
    let addr = scene.node.electrum_addr("ws").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut socket = runtime.block_on(async {
        let stream = TcpStream::connect(addr).await.unwrap();
        let connected = client_async(format!("ws://{addr}/"), stream).await;
        connected.unwrap().0
    });
    let mut ask = |request: Option<Value>| -> Value {
        runtime.block_on(async {
            if let Some(request) = request {
                let text = Message::text(request.to_string());
                socket.send(text).await.unwrap();
            }
            let answer = timeout(DEADLINE, socket.next()).await;
            let answer = answer.unwrap().unwrap().unwrap();
            let text = answer.into_text().unwrap();
            assert!(!text.ends_with('\n'));
            serde_json::from_str(&text).unwrap()
        })
    };
    let call = |method: &str| json!({"id": 1, "method": method, "params": []});
    let pong = json!({"jsonrpc": "2.0", "id": 1, "result": null});
    assert_eq!(ask(Some(call("server.ping"))), pong);
    assert_eq!(ask(Some(json!([call("server.ping")]))), json!([pong]));
    let tip = ask(Some(call("blockchain.headers.subscribe")));
    assert_eq!(tip["result"]["height"], 110);
    scene.mine(vec![]);
    let notice = ask(None);
    assert_eq!(notice["params"][0]["height"], 111);
    let wss = scene.node.electrum_addr("wss");
    assert!(wss.is_some(), "it listens");
}
