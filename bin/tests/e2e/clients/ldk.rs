//! What a Lightning node is told: LDK's transaction synchronisation, over the REST API and
//! over Electrum.
//!
//! Every call is compared with the chain of that moment. A channel is lost if a confirmation
//! is told that is none, or one is not told, so a walk of blocks and reorganisations is taken
//! with a sync after each step.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use lightning::{
    chain::{Confirm, Filter, WatchedOutput, transaction},
    util::logger::{Logger, Record},
};
use lightning_transaction_sync::{ElectrumSyncClient, EsploraSyncClient};
use pulse_primitives::bitcoin::{
    Block, BlockHash, ScriptBuf, Transaction, Txid, WPubkeyHash, block::Header,
    consensus::encode::serialize_hex, hashes::Hash,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::e2e::electrum::Scene;

/// Steps of a walk.
const STEPS: u32 = 24;

struct Quiet;

impl Logger for Quiet {
    fn log(&self, _record: Record) {}
}

/// Stands for a channel: holds what it was told, and finds at once what is not of the chain.
#[derive(Default)]
struct Channel {
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    /// The chain of this moment.
    chain: Vec<Block>,
    confirmed: BTreeMap<Txid, (u32, BlockHash)>,
    tip: Option<(u32, BlockHash)>,
    confirmations: u32,
    reversals: u32,
}

impl Told {
    fn block(&self, height: u32) -> &Block {
        &self.chain[usize::try_from(height).unwrap()]
    }
}

impl Confirm for Channel {
    fn transactions_confirmed(
        &self,
        header: &Header,
        txdata: &transaction::TransactionData<'_>,
        height: u32,
    ) {
        let told = &mut *self.told.lock().unwrap();
        assert_eq!(*header, told.block(height).header, "at {height}");
        for (position, tx) in txdata {
            assert_eq!(**tx, told.block(height).txdata[*position]);
            let known = told
                .confirmed
                .insert(tx.compute_txid(), (height, header.block_hash()));
            assert_eq!(known, None, "told twice, without a reversal between");
            told.confirmations += 1;
        }
    }

    fn transaction_unconfirmed(&self, txid: &Txid) {
        let told = &mut *self.told.lock().unwrap();
        let (height, hash) = told.confirmed.remove(txid).expect("it was confirmed");
        let now = told.chain.get(usize::try_from(height).unwrap());
        assert_ne!(now.map(Block::block_hash), Some(hash), "it still is");
        told.reversals += 1;
    }

    fn best_block_updated(&self, header: &Header, height: u32) {
        let told = &mut *self.told.lock().unwrap();
        assert_eq!(*header, told.block(height).header, "tip {height}");
        told.tip = Some((height, header.block_hash()));
    }

    fn get_relevant_txids(&self) -> Vec<(Txid, u32, Option<BlockHash>)> {
        let told = self.told.lock().unwrap();
        let all = told.confirmed.iter();
        all.map(|(txid, (height, hash))| (*txid, *height, Some(*hash)))
            .collect()
    }
}

/// Where a transaction is in the chain.
fn place(chain: &[Block], txid: Txid) -> Option<(u32, BlockHash)> {
    (0..)
        .zip(chain)
        .find(|(_, block)| block.txdata.iter().any(|tx| tx.compute_txid() == txid))
        .map(|(height, block)| (height, block.block_hash()))
}

/// A walk of blocks and reorganisations, with a sync by `sync` after each step.
fn walk<S: Filter>(seed: u64, open: impl Fn(&Scene) -> S, sync: impl Fn(&S, &Arc<Channel>)) {
    let mut scene = Scene::new();
    scene.fund();
    let mut rng = StdRng::seed_from_u64(seed);
    let to = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([9; 20]));
    // The funding of a channel, and what closes it, of which only the output is known.
    let other = scene.pay(&to, 5_000_000);
    let funding = scene.pay(&to, 10_000_000);
    let closing = scene.pay_all_from(&funding, &to);
    let txs = [other, funding, closing];
    let ids = txs.each_ref().map(Transaction::compute_txid);
    for tx in &txs {
        let reply = scene.node.post("/tx", &serialize_hex(tx));
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let client = open(&scene);
    client.register_tx(&ids[0], &to);
    client.register_tx(&ids[1], &to);
    let outpoint = txs[2].input[0].previous_output;
    let output = &txs[1].output[usize::try_from(outpoint.vout).unwrap()];
    client.register_output(WatchedOutput {
        block_hash: None,
        outpoint: transaction::OutPoint {
            txid: outpoint.txid,
            index: u16::try_from(outpoint.vout).unwrap(),
        },
        script_pubkey: output.script_pubkey.clone(),
    });
    let channel = Arc::new(Channel::default());
    let check = |scene: &Scene, step: u32| {
        let blocks = scene.chain.blocks();
        channel.told.lock().unwrap().chain = blocks.to_vec();
        sync(&client, &channel);
        let told = channel.told.lock().unwrap();
        let tip = (scene.chain.height(), scene.chain.tip_hash());
        assert_eq!(told.tip, Some(tip), "step {step}");
        for txid in ids {
            let (found, expected) = (told.confirmed.get(&txid), place(blocks, txid));
            assert_eq!(found.copied(), expected, "{txid} in step {step}");
        }
    };
    check(&scene, 0);
    for step in 1..=STEPS {
        let height = scene.chain.height();
        if height > 110 && rng.gen_bool(0.4) {
            let depth = rng.gen_range(1..=3.min(height - 110));
            scene.reorganise(height - depth, depth + 1);
        } else {
            let missing = txs.iter().zip(ids);
            let missing = missing.filter(|(_, txid)| place(scene.chain.blocks(), *txid).is_none());
            let count = rng.gen_range(0..=txs.len());
            let next = missing.take(count).map(|(tx, _)| tx.clone()).collect();
            scene.mine(next);
        }
        check(&scene, step);
    }
    // At least once through all three blocks.
    scene.mine(vec![]);
    let height = scene.chain.height();
    scene.reorganise(110, height - 109);
    check(&scene, STEPS + 1);
    let confirmed = channel.told.lock().unwrap().confirmed.len();
    assert_eq!(confirmed, 0, "all are back in the mempool");
    scene.mine(txs.to_vec());
    check(&scene, STEPS + 2);
    let told = channel.told.lock().unwrap();
    assert!(told.reversals >= 3 && told.confirmations >= 6, "they moved");
}

#[test]
fn ldk_is_told_of_confirmations_and_reorganisations_over_rest() {
    walk(
        1,
        |scene| EsploraSyncClient::new(scene.node.api_url(), Arc::new(Quiet)),
        |client, channel| client.sync(vec![Arc::clone(channel)]).unwrap(),
    );
}

#[test]
fn ldk_is_told_of_confirmations_and_reorganisations_over_electrum() {
    walk(
        2,
        |scene| {
            let url = format!("tcp://{}", scene.node.electrum_addr("tcp").unwrap());
            ElectrumSyncClient::new(url, Arc::new(Quiet)).unwrap()
        },
        |client, channel| client.sync(vec![Arc::clone(channel)]).unwrap(),
    );
}
