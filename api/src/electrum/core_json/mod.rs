//! A transaction as Bitcoin Core's `getrawtransaction` shows it.

mod asm;
mod descriptor;

use pulse_primitives::bitcoin::{
    Address, BlockHash, Network, Script, Transaction, TxIn, consensus::encode::serialize_hex,
    opcodes::all::OP_CHECKMULTISIG, script::Instruction,
};
use serde_json::{Map, Value, json};

/// The block that confirms a transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Confirmation {
    pub(super) hash: BlockHash,
    /// Confirmations: 1 at the tip.
    pub(super) count: u32,
    /// Time in its header, in seconds since 1970.
    pub(super) time: u32,
}

/// The object for a transaction, with its block if it has one.
pub(super) fn transaction(
    tx: &Transaction,
    confirmation: Option<Confirmation>,
    network: Network,
) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("txid", json!(tx.compute_txid()));
    put("hash", json!(tx.compute_wtxid()));
    // Bitcoin Core reads it without a sign.
    put("version", json!(tx.version.0.cast_unsigned()));
    put("size", json!(tx.total_size()));
    put("vsize", json!(tx.vsize()));
    put("weight", json!(tx.weight().to_wu()));
    put("locktime", json!(tx.lock_time.to_consensus_u32()));
    let is_coinbase = tx.is_coinbase();
    let inputs = tx.input.iter();
    put("vin", inputs.map(|txin| input(txin, is_coinbase)).collect());
    let outputs = tx.output.iter().enumerate().map(|(n, output)| {
        json!({
            "value": output.value.to_btc(),
            "n": n,
            "scriptPubKey": script_pubkey(&output.script_pubkey, network),
        })
    });
    put("vout", outputs.collect());
    put("hex", json!(serialize_hex(tx)));
    if let Some(block) = confirmation {
        put("blockhash", json!(block.hash));
        put("confirmations", json!(block.count));
        put("time", json!(block.time));
        put("blocktime", json!(block.time));
    }
    Value::Object(object)
}

fn input(txin: &TxIn, is_coinbase: bool) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    if is_coinbase {
        put("coinbase", json!(txin.script_sig.to_hex_string()));
    } else {
        put("txid", json!(txin.previous_output.txid));
        put("vout", json!(txin.previous_output.vout));
        put(
            "scriptSig",
            json!({
                "asm": asm::of(&txin.script_sig, true),
                "hex": txin.script_sig.to_hex_string(),
            }),
        );
    }
    if !txin.witness.is_empty() {
        put(
            "txinwitness",
            txin.witness.iter().map(hex::encode).collect(),
        );
    }
    put("sequence", json!(txin.sequence.0));
    Value::Object(object)
}

fn script_pubkey(script: &Script, network: Network) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("asm", json!(asm::of(script, false)));
    put("desc", json!(descriptor::of(script, network)));
    put("hex", json!(script.to_hex_string()));
    // P2PK has the address of its key for rust-bitcoin neither, nor for Bitcoin Core.
    if let Ok(address) = Address::from_script(script, network) {
        put("address", json!(address.to_string()));
    }
    put("type", json!(type_name(script)));
    Value::Object(object)
}

/// Name of the kind of script (`GetTxnOutputType` of Bitcoin Core).
fn type_name(script: &Script) -> &'static str {
    if script.is_p2sh() {
        "scripthash"
    } else if let Some(version) = script.witness_version() {
        match (version.to_num(), script.len()) {
            (0, 22) => "witness_v0_keyhash",
            (0, 34) => "witness_v0_scripthash",
            (0, _) => "nonstandard",
            (1, 34) => "witness_v1_taproot",
            _ if script.as_bytes() == [0x51, 0x02, 0x4e, 0x73] => "anchor",
            _ => "witness_unknown",
        }
    } else if script.is_op_return() && Script::from_bytes(&script.as_bytes()[1..]).is_push_only() {
        "nulldata"
    } else if p2pk(script).is_some() {
        "pubkey"
    } else if script.is_p2pkh() {
        "pubkeyhash"
    } else if multisig(script).is_some() {
        "multisig"
    } else {
        "nonstandard"
    }
}

/// Signatures needed and keys of a bare multisig script.
fn multisig(script: &Script) -> Option<(u8, Vec<&[u8]>)> {
    let number = |instruction: &Instruction<'_>| match instruction {
        Instruction::Op(op) if (0x51..=0x60).contains(&op.to_u8()) => Some(op.to_u8() - 0x50),
        Instruction::PushBytes(bytes) => match bytes.as_bytes() {
            [n @ 17..=20] => Some(*n),
            _ => None,
        },
        Instruction::Op(_) => None,
    };
    let all: Vec<Instruction<'_>> = script
        .instructions_minimal()
        .collect::<Result<_, _>>()
        .ok()?;
    let [needed, keys @ .., count, last] = all.as_slice() else {
        return None;
    };
    if *last != Instruction::Op(OP_CHECKMULTISIG) {
        return None;
    }
    let keys: Vec<&[u8]> = keys
        .iter()
        .map(|key| match key {
            Instruction::PushBytes(bytes) => Some(bytes.as_bytes()).filter(|key| is_key(key)),
            Instruction::Op(_) => None,
        })
        .collect::<Option<_>>()?;
    let (needed, count) = (number(needed)?, number(count)?);
    (usize::from(count) == keys.len() && (1..=count).contains(&needed)).then_some((needed, keys))
}

/// The key of a script that is a key and its check.
fn p2pk(script: &Script) -> Option<&[u8]> {
    let [_, key @ .., _] = script.as_bytes() else {
        return None;
    };
    (script.is_p2pk() && is_key(key)).then_some(key)
}

/// Whether bytes have the form of a public key.
fn is_key(bytes: &[u8]) -> bool {
    match bytes.first() {
        Some(2 | 3) => bytes.len() == 33,
        Some(4 | 6 | 7) => bytes.len() == 65,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
