//! A node between two states: what clients get while it is in a reorganisation, hears of
//! blocks that it does not get, or has never been synced.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::{
    Amount, Block, Network, OutPoint, ScriptBuf, Transaction, consensus::encode::serialize_hex,
};
use pulse_testkit::{Behaviour, ChainBuilder, ScriptedPeer};
use serde_json::{Value, json};

use super::{
    DEADLINE, Scene, electrum_options,
    live::{other, status},
    params,
    raw::Client,
    scripthash, served,
};

/// A question that is asked over and over, and its answer in each of the two states.
struct Question {
    method: String,
    params: Value,
    before: Value,
    after: Value,
    /// How often it was answered.
    answers: AtomicUsize,
}

impl Question {
    fn new(method: &str, params: Value, before: Value, after: Value) -> Self {
        Self {
            method: method.to_owned(),
            params,
            before,
            after,
            answers: AtomicUsize::new(0),
        }
    }

    /// Asks until `is_over` was true before a question. Returns how often the answer was that
    /// of each state.
    fn ask(&self, mut client: Client, is_over: &AtomicBool) -> [usize; 2] {
        let (mut before, mut after) = (0, 0);
        let deadline = Instant::now() + DEADLINE;
        loop {
            assert!(
                Instant::now() < deadline,
                "{} is asked for ever",
                self.method
            );
            let must_be_after = is_over.load(Ordering::Acquire);
            let answer = client.call(&self.method, self.params.clone());
            if answer == self.before && self.before != self.after {
                assert!(after == 0 && !must_be_after, "{} goes back", self.method);
                before += 1;
            } else {
                assert_eq!(answer, self.after, "{} {}", self.method, self.params);
                after += 1;
            }
            self.answers.fetch_add(1, Ordering::AcqRel);
            if must_be_after {
                return [before, after];
            }
        }
    }
}

/// The chain that a scene has, and another one without `gone` and with `stays` elsewhere.
struct Fork {
    old: Vec<Block>,
    new: Vec<Block>,
    gone: Transaction,
    stays: Transaction,
}

fn fork(scene: &mut Scene) -> Fork {
    let coin =
        |height: usize| OutPoint::new(scene.chain.blocks()[height].txdata[0].compute_txid(), 0);
    let (first, second) = (coin(1), coin(2));
    let gone = scene.pay_all_of(first, &other(7));
    let stays = scene.pay_all_of(second, &other(8));
    let script = ScriptBuf::from_bytes(vec![0x51]);
    scene.mine(vec![gone.clone()]);
    scene.mine(vec![stays.clone()]);
    for _ in 0..3 {
        scene.mine(vec![]);
    }
    let mut new = scene.chain.branch_at(110);
    new.mine_empty_blocks(3);
    new.mine(&script, Amount::ZERO, vec![stays.clone()]);
    new.mine_empty_blocks(4);
    let old = scene.chain.blocks().to_vec();
    let blocks = new.blocks().to_vec();
    scene.chain = new;
    Fork {
        old,
        new: blocks,
        gone,
        stays,
    }
}

/// What is asked, with the answers that follow from the blocks.
fn questions(fork: &Fork) -> Vec<Question> {
    let Fork {
        old,
        new,
        gone,
        stays,
    } = fork;
    let (gone_id, stays_id) = (gone.compute_txid(), stays.compute_txid());
    let [gone_to, stays_to] = [7, 8].map(|n| scripthash(&other(n)));
    let paid = |tx: &Transaction| tx.output[0].value.to_sat();
    let fee = 50 * 100_000_000 - paid(gone);
    let waiting = json!([{"fee": fee, "height": 0, "tx_hash": gone_id}]);
    let at = |height: u32| json!([{"height": height, "tx_hash": stays_id}]);
    let unspent = |height: u32| json!([{"height": height, "tx_hash": stays_id, "tx_pos": 0, "value": paid(stays)}]);
    let block_of = |blocks: &[Block], height: usize| json!({"block_hash": blocks[height].block_hash(), "block_height": height});
    let proof = |blocks: &[Block], height: usize| json!({"block_height": height, "merkle": [blocks[height].txdata[0].compute_txid()], "pos": 1});
    let hex = |blocks: &[Block], height: usize| json!(serialize_hex(&blocks[height].header));
    let row = |blocks: &[Block]| {
        let headers: Vec<Value> = (111..=115).map(|height| hex(blocks, height)).collect();
        json!({"count": 5, "headers": headers, "max": 2016})
    };
    let coin = |height: Option<u32>| {
        let mut coin = json!({"scripthash": gone_to, "value": paid(gone)});
        if let Some(height) = height {
            coin["confirmed_height"] = json!(height);
        }
        coin
    };
    let of_script = |name: &str, script: &str, before, after| {
        let method = format!("blockchain.scripthash.{name}");
        Question::new(&method, json!([script]), before, after)
    };
    let of_tx =
        |method: &str, before, after| Question::new(method, json!([stays_id]), before, after);
    vec![
        of_script(
            "get_balance",
            &gone_to,
            json!({"confirmed": paid(gone), "unconfirmed": 0}),
            json!({"confirmed": 0, "unconfirmed": paid(gone)}),
        ),
        of_script(
            "get_history",
            &gone_to,
            json!([{"height": 111, "tx_hash": gone_id}]),
            waiting.clone(),
        ),
        of_script("get_mempool", &gone_to, json!([]), waiting),
        of_script("get_history", &stays_to, at(112), at(114)),
        of_script("listunspent", &stays_to, unspent(112), unspent(114)),
        of_script(
            "subscribe",
            &stays_to,
            status(&[(stays_id, 112)]),
            status(&[(stays_id, 114)]),
        ),
        of_script(
            "get_first_use",
            &stays_to,
            json!({"block_hash": old[112].block_hash(), "height": 112, "tx_hash": stays_id}),
            json!({"block_hash": new[114].block_hash(), "height": 114, "tx_hash": stays_id}),
        ),
        of_tx("blockchain.transaction.get_height", json!(112), json!(114)),
        of_tx(
            "blockchain.transaction.get_confirmed_blockhash",
            block_of(old, 112),
            block_of(new, 114),
        ),
        of_tx(
            "blockchain.transaction.get_merkle",
            proof(old, 112),
            proof(new, 114),
        ),
        Question::new(
            "blockchain.transaction.get",
            json!([gone_id]),
            json!(serialize_hex(gone)),
            json!(serialize_hex(gone)),
        ),
        Question::new(
            "blockchain.utxo.get_info",
            json!([gone_id, 0]),
            coin(Some(111)),
            coin(None),
        ),
        Question::new(
            "blockchain.block.header",
            json!([115]),
            hex(old, 115),
            hex(new, 115),
        ),
        Question::new(
            "blockchain.block.headers",
            json!([111, 5]),
            row(old),
            row(new),
        ),
        Question::new(
            "blockchain.transaction.id_from_pos",
            json!([115, 0]),
            json!(old[115].txdata[0].compute_txid()),
            json!(new[115].txdata[0].compute_txid()),
        ),
        Question::new("blockchain.estimatefee", json!([2]), json!(-1), json!(-1)),
    ]
}

#[test]
fn a_reorganisation_refuses_nobody_and_shows_nothing_between_its_ends() {
    let mut scene = Scene::new();
    scene.fund();
    let fork = fork(&mut scene);
    let questions = questions(&fork);
    let (addr, is_over) = (scene.addr(), &AtomicBool::new(false));
    // Slow enough that many questions come while the node knows of a better chain that it
    // does not have.
    scene
        .peer
        .set_behaviours(&[Behaviour::Delay(Duration::from_millis(200))]);
    let tally: Vec<[usize; 2]> = thread::scope(|scope| {
        let clients: Vec<_> = (questions.iter())
            .map(|question| {
                let client = Client::speaking(addr, "1.6");
                scope.spawn(move || question.ask(client, is_over))
            })
            .collect();
        let answered = |question: &Question| question.answers.load(Ordering::Acquire) > 0;
        scene.node.wait_until("answers of each", DEADLINE, |_| {
            questions.iter().all(answered) || clients.iter().any(|client| client.is_finished())
        });
        scene.peer.push_blocks(&fork.new);
        scene.node.wait_until("it is not synced", DEADLINE, |node| {
            node.get("/health").status == 503
        });
        let tip = fork.new.last().unwrap().block_hash();
        scene.node.wait_synced_to_hash(tip, DEADLINE);
        is_over.store(true, Ordering::Release);
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    for (question, [before, after]) in questions.iter().zip(tally) {
        assert!(after > 0, "{}", question.method);
        let changes = question.before != question.after;
        assert_eq!(before > 0, changes, "{}", question.method);
    }
}

/// One of no more blocks than a synced node may lack.
#[test]
fn a_short_reorganisation_shows_nothing_between_its_ends_either() {
    let mut scene = Scene::new();
    let header = |chain: &ChainBuilder, height: usize| {
        let hex = serialize_hex(&chain.blocks()[height].header);
        json!({"height": height, "hex": hex})
    };
    let found = |chain: &ChainBuilder, height: usize| {
        let txid = chain.blocks()[height].txdata[0].compute_txid();
        json!([{"height": height, "tx_hash": txid}])
    };
    let mut subscriber = scene.client();
    subscriber.call("blockchain.headers.subscribe", json!([]));
    for round in 0..5 {
        let fork = scene.chain.blocks().len() - 1;
        let mut new = scene.chain.branch_at(u32::try_from(fork).unwrap());
        let script = other(20 + round);
        scene.chain.mine(&script, Amount::ZERO, vec![]);
        scene.chain.mine_empty_blocks(1);
        scene.peer.push_blocks(scene.chain.blocks());
        scene.node.wait_synced_to(scene.chain.height(), DEADLINE);
        subscriber.notice_until(|notice| notice["params"][0]["height"] == fork + 2);
        new.mine_empty_blocks(1);
        new.mine(&script, Amount::ZERO, vec![]);
        new.mine_empty_blocks(1);
        let history = json!([scripthash(&script)]);
        let (old, get_history) = (&scene.chain, "blockchain.scripthash.get_history");
        let questions = [
            Question::new(
                get_history,
                history,
                found(old, fork + 1),
                found(&new, fork + 2),
            ),
            Question::new(
                "blockchain.headers.get_tip",
                json!([]),
                header(old, fork + 2),
                header(&new, fork + 3),
            ),
        ];
        let (addr, is_over) = (scene.addr(), &AtomicBool::new(false));
        thread::scope(|scope| {
            let clients: Vec<_> = (questions.iter().cycle())
                .take(6)
                .map(|question| {
                    let client = Client::speaking(addr, "1.6");
                    scope.spawn(move || question.ask(client, is_over))
                })
                .collect();
            let answered = |question: &Question| question.answers.load(Ordering::Acquire) > 0;
            scene.node.wait_until("answers of each", DEADLINE, |_| {
                questions.iter().all(answered) || clients.iter().any(|client| client.is_finished())
            });
            scene.peer.push_blocks(new.blocks());
            scene.node.wait_synced_to_hash(new.tip_hash(), DEADLINE);
            is_over.store(true, Ordering::Release);
        });
        let told = subscriber.notice();
        assert_eq!(told["params"], json!([header(&new, fork + 3)]));
        scene.chain = new;
    }
}

#[test]
fn a_node_that_does_not_get_its_blocks_is_busy_and_not_broken() {
    let mut scene = Scene::new();
    let script = json!([scripthash(&scene.script)]);
    let balance = json!({"confirmed": 3 * 50 * 100_000_000_u64, "unconfirmed": 0});
    let mut client = Client::speaking(scene.addr(), "1.6");
    let method = "blockchain.scripthash.get_balance";
    assert_eq!(client.call(method, script.clone()), balance);

    scene.peer.set_behaviours(&[Behaviour::StallAfter(0)]);
    scene.chain.mine_empty_blocks(5);
    scene.peer.push_blocks(scene.chain.blocks());
    scene
        .node
        .wait_until("it hears of blocks", DEADLINE, |node| {
            node.get("/health").status == 503
        });
    // All of a batch together wait no longer than one.
    let call = |id: u32, method: &str, params: &Value| json!({"id": id, "method": method, "params": params});
    let mut batch: Vec<Value> = (0..20).map(|id| call(id, method, &script)).collect();
    batch.push(call(20, "blockchain.estimatefee", &json!([2])));
    batch.push(call(21, "blockchain.headers.get_tip", &json!([])));
    let coinbase = scene.chain.blocks()[1].txdata[0].clone();
    let txid = coinbase.compute_txid();
    batch.push(call(22, "blockchain.transaction.get", &json!([txid])));
    client.send(&format!("{}\n", Value::Array(batch)));
    let answers = client.line().unwrap();
    let answers = answers.as_array().unwrap();
    for answer in &answers[..20] {
        let busy =
            json!({"code": 2, "message": "catching up: indexed 110 of 115 blocks; try again"});
        assert_eq!(answer["error"], busy);
    }
    assert_eq!(answers[20]["result"], -1);
    assert_eq!(answers[21]["result"]["height"], 110);
    assert_eq!(answers[22]["result"], serialize_hex(&coinbase));

    scene.peer.set_behaviours(&[]);
    scene.peer.disconnect_all();
    scene.node.wait_synced_to(115, DEADLINE);
    assert_eq!(client.call(method, script), balance);
}

#[test]
fn a_node_in_its_first_sync_says_at_once_that_it_is_no_server_yet() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(60);
    let halting = served(Network::Regtest, chain.blocks());
    let peer = ScriptedPeer::start(halting, &[Behaviour::StallAfter(20)]);
    let mut node = electrum_options("regtest", peer.addr()).start();
    node.wait_until("the first blocks", DEADLINE, |node| {
        node.get("/stats")
            .text()
            .contains("indexed 20 of 60 blocks")
    });
    let mut client = Client::speaking(node.electrum_addr("tcp").unwrap(), "1.6");
    let script = json!([scripthash(&ScriptBuf::from_bytes(vec![0x51]))]);
    let method = "blockchain.scripthash.subscribe";
    let text = "unavailable index: indexed 20 of 60 blocks";
    assert_eq!(
        client.error(method, script.clone()),
        (-32603, text.to_owned())
    );
    // What no later block changes, and what wallets ask of every server.
    let tip = client.call("blockchain.headers.subscribe", json!([]));
    assert_eq!(tip["height"], 20);
    let row = client.call("blockchain.block.headers", json!([15, 2016]));
    assert_eq!(row["count"], 6);
    assert_eq!(client.call("blockchain.estimatefee", json!([2])), -1);

    peer.set_behaviours(&[]);
    peer.disconnect_all();
    node.wait_synced_to(60, DEADLINE);
    assert!(client.call(method, script).is_string());
}
