//! Blocks full of scripts and inputs that nobody would send, for comparisons of how
//! transactions are shown.

use pulse_primitives::bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute::LockTime,
    transaction::Version,
};
use pulse_testkit::ChainBuilder;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

/// Odd outputs of each kind.
const COPIES: usize = 60;
/// A point of the curve, as keys have it.
const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
/// A signature as scripts have it, without its last byte, which says what it signs.
const SIGNATURE: &str = "304402200102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20022021222324252627282a2b2c2d2e2f303132333435363738393a3b3c3d3e3f40";

/// Adds three blocks: odd outputs, then inputs that spend with odd scripts and witnesses.
pub fn mine(chain: &mut ChainBuilder, seed: u64) {
    let rng = &mut StdRng::seed_from_u64(seed);
    let mut coins = (3..).map(|height: usize| {
        let coinbase = &chain.blocks()[height].txdata[0];
        (
            OutPoint::new(coinbase.compute_txid(), 0),
            coinbase.output[0].value,
        )
    });
    let mut coins: Vec<_> = coins.by_ref().take(22).collect();
    let mut next = || coins.pop().expect("there are enough");

    let (coin, value) = next();
    let scripts: Vec<ScriptBuf> = (0..COPIES).flat_map(|_| kinds(rng)).collect();
    let each = value / u64::try_from(scripts.len()).expect("fits");
    let outputs = scripts.iter().map(|script| TxOut {
        // Zero now and then, and amounts with all digits.
        value: Amount::from_sat(rng.gen_range(0..each.to_sat())),
        script_pubkey: script.clone(),
    });
    let odd = spend(
        vec![(coin, ScriptBuf::new(), Witness::new())],
        outputs.collect(),
        rng,
    );
    let programs: Vec<OutPoint> = (0..)
        .zip(&odd.output)
        .filter(|(_, output)| is_free_program(&output.script_pubkey))
        .map(|(vout, _)| OutPoint::new(odd.compute_txid(), vout))
        .collect();

    let mut spends = Vec::new();
    for _ in 0..20 {
        let (coin, value) = next();
        let to = TxOut {
            value: value / 2,
            script_pubkey: kinds(rng).swap_remove(0),
        };
        spends.push(spend(
            vec![(coin, pushes(rng), Witness::new())],
            vec![to],
            rng,
        ));
    }
    let mut witnessed = Vec::new();
    for coins in programs.chunks(5) {
        let inputs = coins.iter().map(|coin| {
            let items: Vec<Vec<u8>> = (0..rng.gen_range(0..5)).map(|_| item(rng)).collect();
            (*coin, ScriptBuf::new(), Witness::from_slice(&items))
        });
        let inputs = inputs.collect();
        let nothing = TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        };
        witnessed.push(spend(inputs, vec![nothing], rng));
    }
    for txs in [vec![odd], spends, witnessed] {
        chain.mine(&ScriptBuf::from_bytes(vec![0x51]), Amount::ZERO, txs);
    }
}

/// A transaction of any version, lock time and sequences that no rule holds back.
fn spend(
    inputs: Vec<(OutPoint, ScriptBuf, Witness)>,
    output: Vec<TxOut>,
    rng: &mut StdRng,
) -> Transaction {
    let version = *[1, 2, 3, 0, -1, i32::MIN, i32::MAX]
        .choose(rng)
        .expect("some");
    // Relative lock times hold from version 2 on, read without a sign.
    let disabled = Sequence::from_consensus(0x8000_0000 | rng.r#gen::<u32>());
    Transaction {
        version: Version(version),
        lock_time: LockTime::from_consensus(rng.gen_range(0..100)),
        input: inputs
            .into_iter()
            .map(|(previous_output, script_sig, witness)| TxIn {
                previous_output,
                script_sig,
                sequence: *[disabled, Sequence::MAX, Sequence::ENABLE_RBF_NO_LOCKTIME]
                    .choose(rng)
                    .expect("some"),
                witness,
            })
            .collect(),
        output,
    }
}

/// Whether everybody can spend it: a witness program of a version that means nothing yet.
fn is_free_program(script: &ScriptBuf) -> bool {
    script
        .witness_version()
        .is_some_and(|version| version.to_num() >= 2)
}

fn bytes(rng: &mut StdRng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.r#gen()).collect()
}

fn push(data: &[u8]) -> Vec<u8> {
    let len = u8::try_from(data.len()).expect("short");
    [&[len], data].concat()
}

/// What is pushed: numbers, keys, signatures of every kind, anything.
fn item(rng: &mut StdRng) -> Vec<u8> {
    let signature = hex(SIGNATURE);
    match rng.gen_range(0..8) {
        0 => Vec::new(),
        1 => {
            let len = rng.gen_range(1..=5);
            bytes(rng, len)
        }
        2 => hex(KEY),
        3 | 4 => {
            let kinds = [0, 1, 2, 3, 4, 0x41, 0x80, 0x81, 0x82, 0x83, 0xff];
            let kind = *kinds.choose(rng).expect("some");
            [signature, vec![kind]].concat()
        }
        // One that is damaged.
        5 => {
            let mut damaged = [signature, vec![1]].concat();
            let at = rng.gen_range(0..damaged.len());
            damaged[at] = rng.r#gen();
            damaged
        }
        6 => {
            let len = rng.gen_range(6..75);
            bytes(rng, len)
        }
        _ => vec![rng.r#gen()],
    }
}

/// Pushes of all kinds, which OP_TRUE does not mind.
fn pushes(rng: &mut StdRng) -> ScriptBuf {
    let mut script = Vec::new();
    for _ in 0..rng.gen_range(0..8) {
        match rng.gen_range(0..5) {
            0 => script.push(*[0x00, 0x4f, 0x51, 0x5a, 0x60].choose(rng).expect("some")),
            1 => {
                let data = item(rng);
                let len = u8::try_from(data.len()).expect("short");
                script.extend([&[0x4c, len], data.as_slice()].concat());
            }
            2 => {
                let len = rng.gen_range(0..=520_u16);
                script.push(0x4d);
                script.extend(len.to_le_bytes());
                script.extend(bytes(rng, len.into()));
            }
            _ => script.extend(push(&item(rng))),
        }
    }
    ScriptBuf::from_bytes(script)
}

fn hex(text: &str) -> Vec<u8> {
    use pulse_primitives::bitcoin::hex::FromHex;
    Vec::from_hex(text).expect("the constants are hex")
}

/// One output script of each kind, each a little different every time.
fn kinds(rng: &mut StdRng) -> Vec<ScriptBuf> {
    let long = rng.gen_range(0..200);
    let program = |version: u8, rng: &mut StdRng| {
        let len = rng.gen_range(1..=42);
        [vec![version], push(&bytes(rng, len))].concat()
    };
    let mut key = hex(KEY);
    if rng.gen_bool(0.3) {
        let at = rng.gen_range(0..key.len());
        key[at] = rng.r#gen();
    }
    let (required, given) = (rng.gen_range(0x50..=0x54), rng.gen_range(0..=3_u8));
    let keys: Vec<u8> = (0..given).flat_map(|_| push(&key)).collect();
    let (twenty, other) = (bytes(rng, 20), bytes(rng, 32));
    let data: Vec<u8> = (0..rng.gen_range(0..4))
        .flat_map(|_| push(&item(rng)))
        .collect();
    let later = rng.gen_range(0x52..=0x60);
    vec![
        bytes(rng, long),
        // Opcodes, with little data in between.
        (0..rng.gen_range(0..40))
            .map(|_| rng.gen_range(0x4f..=0xff))
            .collect(),
        [vec![0x6a], data].concat(),
        [vec![0x6a], bytes(rng, 10)].concat(),
        [vec![required], keys, vec![0x50 + given, 0xae]].concat(),
        [push(&key), vec![0xac]].concat(),
        [push(&bytes(rng, 65)), vec![0xac]].concat(),
        [vec![0x76, 0xa9], push(&twenty), vec![0x88, 0xac]].concat(),
        [vec![0xa9], push(&twenty), vec![0x87]].concat(),
        [vec![0x00], push(&twenty)].concat(),
        [vec![0x00], push(&other)].concat(),
        program(0x00, rng),
        [vec![0x51], push(&other)].concat(),
        program(0x51, rng),
        hex("51024e73"),
        program(later, rng),
        program(later, rng),
        Vec::new(),
        pushes(rng).into_bytes(),
    ]
    .into_iter()
    .map(ScriptBuf::from_bytes)
    .collect()
}
