//! A regtest chain with coins of every kind of lock, for the node and bitcoind alike.

use std::time::{SystemTime, UNIX_EPOCH};

use pulse_primitives::{
    bitcoin::{Amount, Network, OutPoint, ScriptBuf, Transaction, TxOut},
    network::ChainParams,
};
use pulse_testkit::{ChainBuilder, TxGen, txgen::unsigned};

/// Height of the tip.
const HEIGHT: u32 = 125;
/// Seconds between blocks.
const SPACING: u32 = 600;

/// The chain, and a generator that knows its coins.
pub fn funded(seed: u64, copies: usize) -> (ChainBuilder, TxGen) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let now = u32::try_from(now).unwrap();
    let mut chain = ChainBuilder::new(ChainParams::new(Network::Regtest, None));
    // The tip is young, so that neither node believes itself in initial download.
    chain.not_before(now - HEIGHT * SPACING);
    chain.mine_empty_blocks(112);
    let median_time = now - HEIGHT * SPACING + (HEIGHT - 6) * SPACING;
    let mut txgen = TxGen::new(seed, HEIGHT, median_time);

    let funding = txgen.funding(copies);
    let outputs = funding.iter().map(|(_, output)| output.clone()).collect();
    let fund = spend_coinbase(&chain, 1, outputs);
    let txid = fund.compute_txid();
    let extra = TxOut {
        value: Amount::ONE_BTC,
        script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
    };
    let first = spend_coinbase(&chain, 2, vec![extra.clone()]);
    let gone = OutPoint::new(first.compute_txid(), 0);
    let second = unsigned(gone, vec![extra]);
    chain.mine_outputs(coinbase(&chain, &txgen), vec![fund, first, second]);
    for ((lock, output), vout) in funding.into_iter().zip(0..) {
        txgen.fund(lock, OutPoint::new(txid, vout), output.value);
    }
    txgen.add_spent(gone);
    while chain.height() < HEIGHT {
        let outputs = coinbase(&chain, &txgen);
        chain.mine_outputs(outputs, vec![]);
        let coinbase = &chain.tip().txdata[0];
        txgen.fund_immature(
            OutPoint::new(coinbase.compute_txid(), 0),
            coinbase.output[0].value,
        );
    }
    (chain, txgen)
}

fn coinbase(chain: &ChainBuilder, txgen: &TxGen) -> Vec<TxOut> {
    let value = pulse_simulator::mine::subsidy(Network::Regtest, chain.height() + 1);
    vec![TxOut {
        value,
        script_pubkey: txgen.coinbase_script(),
    }]
}

/// Coinbases of empty blocks pay to OP_TRUE.
fn spend_coinbase(chain: &ChainBuilder, height: usize, outputs: Vec<TxOut>) -> Transaction {
    let coinbase = chain.blocks()[height].txdata[0].compute_txid();
    unsigned(OutPoint::new(coinbase, 0), outputs)
}
