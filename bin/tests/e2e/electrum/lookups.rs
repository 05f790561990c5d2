//! Single facts, against what the blocks and transactions themselves say.

use std::{
    collections::{HashMap, HashSet},
    thread,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::{
    Amount, BlockHash, FeeRate, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
    Txid, Witness, absolute::LockTime, consensus::encode::serialize_hex, hashes::Hash,
    transaction::Version,
};
use pulse_testkit::{ChainData, PulseNode};
use serde_json::{Value, json};

use super::{
    DEADLINE, Scene,
    live::{broadcast, other, status},
    raw::Client,
    scripthash, synced,
};

/// Requests of a batch.
const AT_ONCE: usize = 500;

fn speaking(node: &PulseNode) -> Client {
    Client::speaking(node.electrum_addr("tcp").unwrap(), "1.6")
}

/// Asks everything, and compares each result with what it is to be.
#[track_caller]
fn assert_all(client: &mut Client, method: &str, expected: &[(Value, Value)]) {
    assert!(!expected.is_empty());
    for part in expected.chunks(AT_ONCE) {
        let calls = part.iter().enumerate();
        let calls =
            calls.map(|(id, (params, _))| json!({"id": id, "method": method, "params": params}));
        client.send(&format!("{}\n", Value::Array(calls.collect())));
        let answers = client.line().unwrap();
        let answers = answers.as_array().unwrap();
        assert_eq!(answers.len(), part.len());
        for (id, (answer, (params, result))) in answers.iter().zip(part).enumerate() {
            assert_eq!(answer["id"], id);
            assert_eq!(answer.get("error"), None, "{method} {params}");
            assert_eq!(answer["result"], *result, "{method} {params}");
        }
    }
}

#[test]
fn blocks_transactions_and_outputs_are_those_of_the_chain() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let blocks = data.regtest_kernel();
    let (node, _peer) = synced("regtest", Network::Regtest, &blocks);
    let mut client = speaking(&node);

    let mut headers = Vec::new();
    let mut confirmed = Vec::new();
    let mut outputs = Vec::new();
    let inputs = blocks.iter().flat_map(|block| &block.txdata);
    let inputs = inputs.flat_map(|tx| &tx.input);
    let spent: HashSet<OutPoint> = inputs.map(|input| input.previous_output).collect();
    for (height, block) in blocks.iter().enumerate() {
        let hash = block.block_hash();
        let header = serialize_hex(&block.header);
        let found = json!({"height": height, "hex": header});
        headers.push((json!([height]), found.clone()));
        headers.push((json!([hash]), found));
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            let brief = json!({"block_hash": hash, "block_height": height});
            let mut whole = brief.clone();
            whole["block_header"] = json!(header);
            confirmed.push((json!([txid]), brief));
            confirmed.push((json!([txid, true]), whole));
            for (vout, output) in (0..).zip(&tx.output) {
                let script = &output.script_pubkey;
                // Nobody can spend these, so that there is no such output.
                let is_none = height == 0 || script.is_op_return() || script.len() > 10_000;
                let result = match is_none || spent.contains(&OutPoint::new(txid, vout)) {
                    true => Value::Null,
                    false => json!({
                        "confirmed_height": height,
                        "scripthash": scripthash(script),
                        "value": output.value.to_sat(),
                    }),
                };
                outputs.push((json!([txid, vout]), result));
            }
            let past = tx.output.len();
            outputs.push((json!([txid, past]), Value::Null));
        }
    }
    assert!(outputs.iter().any(|(_, result)| !result.is_null()));
    assert_all(&mut client, "blockchain.header.get", &headers);
    let method = "blockchain.transaction.get_confirmed_blockhash";
    assert_all(&mut client, method, &confirmed);
    assert_all(&mut client, "blockchain.utxo.get_info", &outputs);
    for (params, error) in [
        (json!([207]), (1, "height 207 out of range")),
        (json!([Txid::all_zeros()]), (-32602, "unknown block")),
    ] {
        let found = client.error("blockchain.header.get", params);
        assert_eq!(found, (error.0, error.1.to_owned()));
    }

    let golden = data.golden("regtest-kernel-0-206");
    let mut uses = Vec::new();
    let mut statuses = Vec::new();
    for script in &golden.scripts {
        let first = script.history.first().filter(|_| !script.unspendable);
        let first = first.map(|(height, _, txid)| {
            let hash = blocks[usize::try_from(*height).unwrap()].block_hash();
            json!({"block_hash": hash, "height": height, "tx_hash": txid})
        });
        uses.push((json!([script.scripthash]), json!(first)));
        let status = (!script.unspendable).then(|| script.electrum_status.clone());
        statuses.push((json!([script.scripthash]), json!(status)));
    }
    assert_all(&mut client, "blockchain.scripthash.get_first_use", &uses);
    assert_all(&mut client, "blockchain.scripthash.get_status", &statuses);
}

#[test]
fn what_waits_in_the_mempool_is_seen_in_each_fact() {
    let mut scene = Scene::new();
    scene.fund();
    // What the wallet has: the coinbases of the first three blocks.
    let coins: HashMap<OutPoint, (u32, u64)> = (1..=3)
        .zip(&scene.chain.blocks()[1..])
        .map(|(height, block)| {
            let coinbase = &block.txdata[0];
            assert_eq!(coinbase.output[0].script_pubkey, scene.script);
            let outpoint = OutPoint::new(coinbase.compute_txid(), 0);
            (outpoint, (height, coinbase.output[0].value.to_sat()))
        })
        .collect();
    let total: u64 = coins.values().map(|(_, value)| value).sum();
    let (target, second) = (other(9), other(8));
    let [wallet, target_name, second_name] =
        [&scene.script, &target, &second].map(|script| json!([scripthash(script)]));
    let mut client = scene.client();
    let of = |method: &str| format!("blockchain.scripthash.{method}");
    for method in ["get_first_use", "get_status"] {
        assert_eq!(client.call(&of(method), target_name.clone()), Value::Null);
    }

    let tx = scene.pay(&target, 10_000_000);
    let txid = broadcast(&mut client, &tx);
    let inputs = tx.input.iter().map(|input| input.previous_output);
    let taken: HashSet<OutPoint> = inputs.collect();
    let spent: u64 = taken.iter().map(|outpoint| coins[outpoint].1).sum();
    let back = (tx.output.iter()).filter(|output| output.script_pubkey == scene.script);
    let back: u64 = back.map(|output| output.value.to_sat()).sum();
    let unconfirmed = i64::try_from(back).unwrap() - i64::try_from(spent).unwrap();
    assert!(unconfirmed < 0);
    assert_eq!(
        client.call(&of("get_balance"), wallet.clone()),
        json!({"confirmed": total, "unconfirmed": unconfirmed})
    );
    for (outpoint, (height, value)) in &coins {
        let expected = match taken.contains(outpoint) {
            true => Value::Null,
            false => {
                json!({"confirmed_height": height, "scripthash": wallet[0], "value": value})
            }
        };
        let found = client.call(
            "blockchain.utxo.get_info",
            json!([outpoint.txid, outpoint.vout]),
        );
        assert_eq!(found, expected);
    }
    for (vout, output) in tx.output.iter().enumerate() {
        let found = client.call("blockchain.utxo.get_info", json!([txid, vout]));
        let name = scripthash(&output.script_pubkey);
        assert_eq!(
            found,
            json!({"scripthash": name, "value": output.value.to_sat()})
        );
    }
    let zeros = BlockHash::all_zeros();
    assert_eq!(
        client.call(&of("get_first_use"), target_name.clone()),
        json!({"block_hash": zeros, "height": 0, "tx_hash": txid})
    );
    assert_eq!(
        client.call(&of("get_status"), target_name.clone()),
        status(&[(txid, 0)])
    );
    let none = "No confirmed transaction matching the requested hash was found";
    let block_of = "blockchain.transaction.get_confirmed_blockhash";
    assert_eq!(client.error(block_of, json!([txid])), (2, none.to_owned()));
    let height_of = "blockchain.transaction.get_height";
    assert_eq!(client.call(height_of, json!([txid])), 0);

    // A child: what it spends is gone, though it was never in a block.
    let child = scene.pay_all_from(&tx, &second);
    let child_id = broadcast(&mut client, &child);
    let change = child.input[0].previous_output;
    assert_eq!(change.txid, txid);
    let found = client.call("blockchain.utxo.get_info", json!([txid, change.vout]));
    assert_eq!(found, Value::Null);
    assert_eq!(
        client.call(&of("get_status"), second_name.clone()),
        status(&[(child_id, -1)])
    );
    assert_eq!(client.call(height_of, json!([child_id])), 0);

    scene.mine(vec![tx.clone(), child]);
    assert_eq!(
        client.call(&of("get_balance"), wallet),
        json!({"confirmed": total - spent + back, "unconfirmed": 0})
    );
    let block = scene.chain.tip();
    let hash = block.block_hash();
    for (name, txid) in [(target_name, txid), (second_name, child_id)] {
        assert_eq!(
            client.call(&of("get_first_use"), name.clone()),
            json!({"block_hash": hash, "height": 111, "tx_hash": txid})
        );
        assert_eq!(client.call(&of("get_status"), name), status(&[(txid, 111)]));
        assert_eq!(
            client.call(block_of, json!([txid, true])),
            json!({"block_hash": hash, "block_header": serialize_hex(&block.header), "block_height": 111})
        );
        assert_eq!(client.call(height_of, json!([txid])), 111);
    }
}

#[test]
fn a_server_with_a_name_tells_where_it_listens() {
    let scene = Scene::with(|options| options.env("PULSE_ELECTRUM__HOST", "node.example"));
    let port = |transport| scene.node.electrum_addr(transport).unwrap().port();
    let features = scene.client().call("server.features", json!([]));
    assert_eq!(
        features["hosts"],
        json!({"node.example": {
            "tcp_port": port("tcp"), "ssl_port": port("tls"),
            "ws_port": port("ws"), "wss_port": port("wss"),
        }})
    );
}

/// A spend of `coin`, which anybody can spend, with so many outputs that it is large; all of
/// them have the same size. The fee is what is left.
fn large(coin: OutPoint, value: Amount, fee: Amount) -> Transaction {
    const OUTPUTS: u64 = 700;
    let each = Amount::from_sat(1_000);
    let output = |value| TxOut {
        value,
        script_pubkey: other(9),
    };
    let mut outputs = vec![output(each); usize::try_from(OUTPUTS).unwrap()];
    outputs.push(output(value - each * OUTPUTS - fee));
    let mut witness = Witness::new();
    witness.push([0x51]);
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: coin,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness,
        }],
        output: outputs,
    }
}

/// The bins as their definition has them: from the highest rate, each ends when it holds more
/// than 50,000 vB and the next transaction has another rate; its name is its lowest rate.
fn bins(txs: &[(u64, &Transaction)]) -> Vec<(f64, u64)> {
    let rate = |(fee, tx): &(u64, &Transaction)| {
        let fee = f64::from(u32::try_from(*fee).unwrap());
        fee / (f64::from(u32::try_from(tx.weight().to_wu()).unwrap()) / 4.0)
    };
    let mut rated: Vec<(f64, u64)> = txs
        .iter()
        .map(|tx| (rate(tx), u64::try_from(tx.1.vsize()).unwrap()))
        .collect();
    rated.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut bins: Vec<(f64, u64)> = Vec::new();
    for (rate, vsize) in rated {
        match bins.last_mut() {
            Some(bin) if bin.1 <= 50_000 || bin.0 == rate => *bin = (rate, bin.1 + vsize),
            _ => bins.push((rate, vsize)),
        }
    }
    bins
}

#[test]
fn fee_rates_are_binned_and_equal_ones_are_never_parted() {
    let mut scene = Scene::new();
    scene.fund();
    let anybody = ScriptBuf::from_bytes(vec![0x51]).to_p2wsh();
    let value = Amount::from_sat(100_000_000);
    let mut builder = scene.wallet.build_tx();
    for _ in 0..6 {
        builder.add_recipient(anybody.clone(), value);
    }
    builder.fee_rate(FeeRate::from_sat_per_vb(5).unwrap());
    let psbt = builder.finish().unwrap();
    let split = scene.sign(psbt);
    let coins: Vec<OutPoint> = (0..)
        .zip(&split.output)
        .filter(|(_, output)| output.script_pubkey == anybody)
        .map(|(vout, _)| OutPoint::new(split.compute_txid(), vout))
        .collect();
    scene.mine(vec![split]);
    let mut client = scene.client();
    assert_eq!(
        client.call("mempool.get_fee_histogram", json!([])),
        json!([])
    );

    // Four of one rate are one bin of far more than its size; the others are the next one.
    let fees = [400_000, 200_000, 400_000, 100_000, 400_000, 400_000];
    let txs: Vec<(u64, Transaction)> = fees
        .into_iter()
        .zip(&coins)
        .map(|(fee, coin)| (fee, large(*coin, value, Amount::from_sat(fee))))
        .collect();
    for count in 1..=txs.len() {
        broadcast(&mut client, &txs[count - 1].1);
        let known: Vec<(u64, &Transaction)> =
            txs[..count].iter().map(|(fee, tx)| (*fee, tx)).collect();
        let expected = json!(bins(&known));
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = client.call("mempool.get_fee_histogram", json!([]));
            if found == expected {
                break;
            }
            assert!(Instant::now() < deadline, "{found} is not {expected}");
            thread::sleep(Duration::from_millis(50));
        }
    }
    let known: Vec<(u64, &Transaction)> = txs.iter().map(|(fee, tx)| (*fee, tx)).collect();
    let sizes: Vec<u64> = bins(&known).iter().map(|(_, vsize)| *vsize).collect();
    let each = u64::try_from(txs[0].1.vsize()).unwrap();
    assert_eq!(sizes, [4 * each, 2 * each]);
    assert!(each > 20_000);
}
