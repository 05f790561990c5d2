//! Rendering, byte by byte, of the contract's vectors.

use bitcoin::{
    Amount, MerkleBlock, Network, ScriptBuf, TxIn, TxOut,
    block::Header,
    consensus::encode::{deserialize_hex, serialize_hex},
};

use super::*;
use crate::ScriptTypes;

const HEADER: &str = "000000201111111111111111111111111111111111111111111111111111111111111111e129dfe02f567fc612d126596d43406144f40a771810ac7143421d2df3e5c1d000f15365ffff7f2002000000";
const BLOCK: &str = "1c45a447627cbd0003b94a77a48f5746dac20551805150cfb23d2b2f9b5fbc53";
const GOLDEN_TX: &str = "02000000000102aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0100000017160014adfce54f529b2154e3c361bbe3f7d41db0635717fdffffffbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb0000000000fdffffff04c0d4010000000000225120444444444444444444444444444444444444444444444444444444444444444400000000000000000c6a0a70756c73652d6e6f6465f0000000000000000451024e73a85b01000000000025512103222222222222222222222222222222222222222222222222222222222222222251ae0209300602010102010101210211111111111111111111111111111111111111111111111111111111111111110300093006020101020101014751210322222222222222222222222222222222222222222222222222222222222222222102333333333333333333333333333333333333333333333333333333333333333352ae00350c00";
const GOLDEN_JSON: &str = r#"
{"txid":"75d41b136e3bbb6f4349fff9403eb22ced8e460a41252150f234daffca7145e8","version":2,"locktime":800000,
 "vin":[
  {"txid":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","vout":1,
   "prevout":{"scriptpubkey":"a914173727a17ada832a0fd90be6c628f63598b3400f87",
    "scriptpubkey_asm":"OP_HASH160 OP_PUSHBYTES_20 173727a17ada832a0fd90be6c628f63598b3400f OP_EQUAL",
    "scriptpubkey_type":"p2sh","scriptpubkey_address":"33omYBLg1nTDLfMic7vWYVPYe185gnteL3","value":150000},
   "scriptsig":"160014adfce54f529b2154e3c361bbe3f7d41db0635717",
   "scriptsig_asm":"OP_PUSHBYTES_22 0014adfce54f529b2154e3c361bbe3f7d41db0635717",
   "witness":["300602010102010101","021111111111111111111111111111111111111111111111111111111111111111"],
   "is_coinbase":false,"sequence":4294967293,
   "inner_redeemscript_asm":"OP_0 OP_PUSHBYTES_20 adfce54f529b2154e3c361bbe3f7d41db0635717"},
  {"txid":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","vout":0,
   "prevout":{"scriptpubkey":"0020a012dab14491e936e7f53ac0bcc62f916b3acfef78e65cca411cee11f840302e",
    "scriptpubkey_asm":"OP_0 OP_PUSHBYTES_32 a012dab14491e936e7f53ac0bcc62f916b3acfef78e65cca411cee11f840302e",
    "scriptpubkey_type":"v0_p2wsh","scriptpubkey_address":"bc1q5qfd4v2yj85ndel48tqte330j94n4nl00rn9ejjprnhpr7zqxqhqd4qpkl","value":60000},
   "scriptsig":"","scriptsig_asm":"",
   "witness":["","300602010102010101","51210322222222222222222222222222222222222222222222222222222222222222222102333333333333333333333333333333333333333333333333333333333333333352ae"],
   "is_coinbase":false,"sequence":4294967293,
   "inner_witnessscript_asm":"OP_PUSHNUM_1 OP_PUSHBYTES_33 032222222222222222222222222222222222222222222222222222222222222222 OP_PUSHBYTES_33 023333333333333333333333333333333333333333333333333333333333333333 OP_PUSHNUM_2 OP_CHECKMULTISIG"}],
 "vout":[
  {"scriptpubkey":"51204444444444444444444444444444444444444444444444444444444444444444",
   "scriptpubkey_asm":"OP_PUSHNUM_1 OP_PUSHBYTES_32 4444444444444444444444444444444444444444444444444444444444444444",
   "scriptpubkey_type":"v1_p2tr","scriptpubkey_address":"bc1pg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zq8ss0kf","value":120000},
  {"scriptpubkey":"6a0a70756c73652d6e6f6465","scriptpubkey_asm":"OP_RETURN OP_PUSHBYTES_10 70756c73652d6e6f6465","scriptpubkey_type":"op_return","value":0},
  {"scriptpubkey":"51024e73","scriptpubkey_asm":"OP_PUSHNUM_1 OP_PUSHBYTES_2 4e73","scriptpubkey_type":"unknown","scriptpubkey_address":"bc1pfeessrawgf","value":240},
  {"scriptpubkey":"512103222222222222222222222222222222222222222222222222222222222222222251ae",
   "scriptpubkey_asm":"OP_PUSHNUM_1 OP_PUSHBYTES_33 032222222222222222222222222222222222222222222222222222222222222222 OP_PUSHNUM_1 OP_CHECKMULTISIG",
   "scriptpubkey_type":"unknown","value":89000}],
 "size":369,"weight":1083,"fee":760,"status":{"confirmed":false}}"#;

const MAINNET: Rendering = rendering(Network::Bitcoin);

const fn rendering(network: Network) -> Rendering {
    Rendering {
        network,
        types: ScriptTypes::Blockstream,
    }
}

/// The compact form of JSON that was broken into lines between tokens.
fn compact(text: &str) -> String {
    text.lines().map(str::trim_start).collect()
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

fn output(script: &str, sat: u64) -> TxOut {
    TxOut {
        value: Amount::from_sat(sat),
        script_pubkey: ScriptBuf::from_hex(script).unwrap(),
    }
}

fn golden_prevouts() -> Vec<TxOut> {
    vec![
        output("a914173727a17ada832a0fd90be6c628f63598b3400f87", 150_000),
        output(
            "0020a012dab14491e936e7f53ac0bcc62f916b3acfef78e65cca411cee11f840302e",
            60_000,
        ),
    ]
}

fn block_ref() -> BlockRef {
    BlockRef {
        height: 812,
        hash: BLOCK.parse().unwrap(),
        time: 1_700_000_000,
    }
}

#[test]
fn the_golden_transaction_renders_as_in_the_contract() {
    let tx: bitcoin::Transaction = deserialize_hex(GOLDEN_TX).unwrap();
    let txid = tx.compute_txid();
    let prevouts = golden_prevouts();
    let rendered = TxJson::render(&tx, txid, &prevouts, None, MAINNET).unwrap();
    assert_eq!(json(&rendered), compact(GOLDEN_JSON));
}

#[test]
fn addresses_in_a_transaction_are_those_of_the_network() {
    let tx: bitcoin::Transaction = deserialize_hex(GOLDEN_TX).unwrap();
    let prevouts = golden_prevouts();
    let txid = tx.compute_txid();
    let text =
        json(&TxJson::render(&tx, txid, &prevouts, None, rendering(Network::Regtest)).unwrap());
    assert!(
        text.contains(r#""scriptpubkey_address":"bcrt1pfees"#),
        "{text}"
    );
    assert!(!text.contains(r#""bc1"#));
}

#[test]
fn spent_outputs_that_do_not_fit_are_an_error_and_never_a_wrong_fee() {
    let tx: bitcoin::Transaction = deserialize_hex(GOLDEN_TX).unwrap();
    let txid = tx.compute_txid();
    let mut prevouts = golden_prevouts();
    prevouts[0].value = Amount::from_sat(1);
    assert!(TxJson::render(&tx, txid, &prevouts, None, MAINNET).is_err());
    prevouts.truncate(1);
    assert!(TxJson::render(&tx, txid, &prevouts, None, MAINNET).is_err());
}

#[test]
fn a_coinbase_has_no_spent_output_and_no_fee() {
    let tx = bitcoin::Transaction {
        version: bitcoin::transaction::Version(-1),
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn {
            script_sig: ScriptBuf::from_hex("022c0300").unwrap(),
            witness: Witness::from_slice(&[[0_u8; 32]]),
            sequence: bitcoin::Sequence::MAX,
            ..TxIn::default()
        }],
        output: vec![output("51", 5_000_000_000)],
    };
    let detail = TxDetail {
        txid: tx.compute_txid(),
        tx: tx.into(),
        prevouts: Vec::new().into(),
        block: block_ref(),
    };
    let rendered = TxJson::new(&detail, MAINNET).unwrap();
    let want = compact(
        r#"{"txid":"0000000000000000000000000000000000000000000000000000000000000000","vout":4294967295,"prevout":null,
        "scriptsig":"022c0300","scriptsig_asm":"OP_PUSHBYTES_2 2c03 OP_0",
        "witness":["0000000000000000000000000000000000000000000000000000000000000000"],"is_coinbase":true,"sequence":4294967295}"#,
    );
    assert_eq!(json(&rendered.vin[0]), want);
    assert_eq!((rendered.fee, rendered.version), (0, u32::MAX));
    assert_eq!(
        json(&rendered.status),
        format!(
            r#"{{"confirmed":true,"block_height":812,"block_hash":"{BLOCK}","block_time":1700000000}}"#
        )
    );
}

#[test]
fn a_block_renders_as_in_the_contract() {
    let header: Header = deserialize_hex(HEADER).unwrap();
    assert_eq!(serialize_hex(&header), HEADER);
    let mut block = BlockInfo {
        height: 812,
        hash: header.block_hash(),
        header,
        tx_count: 3,
        size: 1021,
        weight: 3229,
        median_time: 1_699_997_001,
    };
    let want = compact(
        r#"{"id":"1c45a447627cbd0003b94a77a48f5746dac20551805150cfb23d2b2f9b5fbc53","height":812,"version":536870912,
        "timestamp":1700000000,"tx_count":3,"size":1021,"weight":3229,
        "merkle_root":"d0c1e5f32d1d424371ac1018770af4446140436d5926d112c67f562fe0df29e1",
        "previousblockhash":"1111111111111111111111111111111111111111111111111111111111111111",
        "mediantime":1699997001,"nonce":2,"bits":545259519,"difficulty":4.6565423739069247e-10}"#,
    );
    assert_eq!(json(&BlockJson::from(&block)), want);

    let genesis = bitcoin::constants::genesis_block(Network::Bitcoin);
    block.header = genesis.header;
    block.header.version = bitcoin::block::Version::from_consensus(-1);
    let text = json(&BlockJson::from(&block));
    assert!(text.contains(r#""version":4294967295,"#), "{text}");
    assert!(text.contains(r#""previousblockhash":null,"#), "{text}");
    assert!(
        text.contains(r#""bits":486604799,"difficulty":1.0}"#),
        "{text}"
    );
}

#[test]
fn a_block_status_always_has_its_three_keys() {
    let none = BlockStatusJson {
        in_best_chain: false,
        height: None,
        next_best: None,
    };
    assert_eq!(
        json(&none),
        r#"{"in_best_chain":false,"height":null,"next_best":null}"#
    );
    let some = BlockStatusJson {
        in_best_chain: true,
        height: Some(811),
        next_best: Some(BLOCK.parse().unwrap()),
    };
    assert_eq!(
        json(&some),
        format!(r#"{{"in_best_chain":true,"height":811,"next_best":"{BLOCK}"}}"#)
    );
}

#[test]
fn an_outspend_has_one_key_or_four() {
    assert_eq!(json(&OutspendJson::unspent()), r#"{"spent":false}"#);
    assert_eq!(
        json(&OutspendJson::unconfirmed(BLOCK.parse().unwrap(), 2)),
        format!(r#"{{"spent":true,"txid":"{BLOCK}","vin":2,"status":{{"confirmed":false}}}}"#)
    );
    let spender = Spender {
        txid: BLOCK.parse().unwrap(),
        vin: 0,
        block: block_ref(),
    };
    let status = json(&StatusJson::from(Some(block_ref())));
    assert_eq!(
        json(&OutspendJson::from(spender)),
        format!(r#"{{"spent":true,"txid":"{BLOCK}","vin":0,"status":{status}}}"#)
    );
}

#[test]
fn stats_echo_an_address_first_and_a_scripthash_last() {
    let chain = ScriptStats {
        tx_count: 3,
        funded_txo_count: 2,
        funded_txo_sum: 120_500,
        spent_txo_count: 1,
        spent_txo_sum: 500,
    };
    let stats = r#""chain_stats":{"funded_txo_count":2,"funded_txo_sum":120500,"spent_txo_count":1,"spent_txo_sum":500,"tx_count":3},"mempool_stats":{"funded_txo_count":0,"funded_txo_sum":0,"spent_txo_count":1,"spent_txo_sum":120000,"tx_count":1}"#;
    let mempool = ScriptMempoolTotals {
        tx_count: 1,
        spent_count: 1,
        spent_sat: 120_000,
        ..ScriptMempoolTotals::default()
    };
    let mut of = Subject {
        kind: SubjectKind::Address,
        text: "BC1Q".to_owned(),
        hash: [0; 32],
    };
    assert_eq!(
        json(&StatsJson::new(&of, chain, mempool)),
        format!(r#"{{"address":"BC1Q",{stats}}}"#)
    );
    of.kind = SubjectKind::Scripthash;
    assert_eq!(
        json(&StatsJson::new(&of, chain, mempool)),
        format!(r#"{{{stats},"scripthash":"BC1Q"}}"#)
    );
}

#[test]
fn an_unspent_output_has_no_script() {
    let utxo = Utxo {
        outpoint: bitcoin::OutPoint::new(BLOCK.parse().unwrap(), 3),
        value: 5000,
        block: block_ref(),
    };
    let status = json(&StatusJson::from(Some(block_ref())));
    assert_eq!(
        json(&UtxoJson::from(utxo)),
        format!(r#"{{"txid":"{BLOCK}","vout":3,"status":{status},"value":5000}}"#)
    );
    assert_eq!(
        json(&UtxoJson::unconfirmed(utxo.outpoint, Amount::from_sat(7))),
        format!(r#"{{"txid":"{BLOCK}","vout":3,"status":{{"confirmed":false}},"value":7}}"#)
    );
}

#[test]
fn merkle_proofs_render_as_in_the_contract() {
    let ids = [
        "9a538906e6466ebd2617d321f71bc94e56056ce213d366773699e28158e00614",
        "705f425bfcb81942ec8db27abc2485c1322177233dac87d78445c704dccf129c",
        "babb95b7a797b2e17dbc71c7b49dce0c15687d7704c03a4394fdeb40eaadc31c",
    ]
    .map(|id| id.parse::<Txid>().unwrap());
    let sibling = "55766b905b9b12c5b1ea831fa5ffb90e1cdf3941230d52c7bce2eb38bc83be4b";
    let proof = MerkleProof {
        block: BlockRef {
            height: 812,
            hash: BLOCK.parse().unwrap(),
            time: 1_700_000_000,
        },
        merkle: vec![ids[2], sibling.parse().unwrap()],
        pos: 2,
    };
    assert_eq!(
        json(&MerkleProofJson::from(proof)),
        format!(
            r#"{{"block_height":812,"merkle":["{}","{sibling}"],"pos":2}}"#,
            ids[2]
        )
    );

    let header: Header = deserialize_hex(HEADER).unwrap();
    let partial = MerkleBlock::from_header_txids_with_predicate(&header, &ids, |id| *id == ids[2]);
    assert_eq!(
        serialize_hex(&partial),
        "000000201111111111111111111111111111111111111111111111111111111111111111e129dfe02f567fc612d126596d43406144f40a771810ac7143421d2df3e5c1d000f15365ffff7f200200000003000000024bbe83bc38ebe2bcc7520d234139df1c0eb9ffa51f83eab1c5129b5b906b76551cc3adea40ebfd94433ac004777d68150cce9db4c771bc7de1b297a7b795bbba010d"
    );
}
