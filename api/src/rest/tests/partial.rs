//! Answers while blocks are missing that the node knows of.

use axum::http::{HeaderMap, StatusCode, header};
use pulse_primitives::bitcoin::{BlockHash, OutPoint, Txid};

use super::{World, script, scripthash, spend};

/// A world whose best header is far above the chain that is indexed.
fn syncing() -> World {
    let world = World::new();
    let entry = spend(&world.coins()[0], &script(0), 1);
    world.confirm(&[&entry.tx], 1);
    world.follow_index();
    let height = u32::try_from(world.chain.active().len()).unwrap();
    world.chain.set_best_header(height + 50);
    world
}

fn indexed(headers: &HeaderMap) -> Option<&str> {
    let height = headers.get("x-indexed-height")?;
    Some(height.to_str().unwrap())
}

/// What the chain holds that answers can be about.
struct Known {
    block: BlockHash,
    tip: BlockHash,
    txid: Txid,
    /// A transaction whose outputs are all spent, with one of them.
    spent: OutPoint,
    unspent: OutPoint,
    scripthash: String,
}

impl Known {
    fn of(world: &World) -> Self {
        let coins = world.coins();
        let active = world.chain.active();
        let blocks = world.chain.blocks();
        let txs = blocks.iter().flat_map(|block| &block.0.txdata);
        let all_spent = txs.clone().find(|tx| {
            let txid = tx.compute_txid();
            coins.iter().all(|(outpoint, _)| outpoint.txid != txid)
                && (tx.output.iter()).all(|output| !output.script_pubkey.is_op_return())
                && txs
                    .clone()
                    .any(|other| other.input[0].previous_output.txid == txid)
        });
        let spent = all_spent.expect("the chain spends").compute_txid();
        Self {
            block: active[1],
            tip: *active.last().unwrap(),
            txid: blocks[1].0.txdata[0].compute_txid(),
            spent: OutPoint::new(spent, 0),
            // The one output of the transaction in the last block.
            unspent: OutPoint::new(blocks.last().unwrap().0.txdata[1].compute_txid(), 0),
            scripthash: scripthash(&script(0)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_change_is_answered_while_blocks_are_missing() {
    let world = syncing();
    let known = Known::of(&world);
    let Known {
        block, txid, spent, ..
    } = &known;
    for path in [
        "/blocks/7".to_owned(),
        "/block-height/5".to_owned(),
        format!("/block/{block}"),
        format!("/block/{block}/status"),
        format!("/block/{block}/header"),
        format!("/block/{block}/raw"),
        format!("/block/{block}/txids"),
        format!("/block/{block}/txid/0"),
        format!("/block/{block}/txs"),
        format!("/block/{block}/txs/0"),
        format!("/tx/{txid}"),
        format!("/tx/{txid}/hex"),
        format!("/tx/{txid}/raw"),
        format!("/tx/{txid}/status"),
        format!("/tx/{txid}/merkle-proof"),
        format!("/tx/{txid}/merkleblock-proof"),
        format!("/tx/{}/outspend/{}", spent.txid, spent.vout),
        format!("/tx/{}/outspends", spent.txid),
    ] {
        let answer = world.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        assert_eq!(indexed(&answer.headers), None, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_change_needs_all_blocks_or_a_client_that_takes_a_part() {
    let world = syncing();
    let known = Known::of(&world);
    let (unspent, hash) = (known.unspent, &known.scripthash);
    let tip = world.chain.active().len() - 1;
    for (path, partial) in [
        ("/blocks/tip/hash".to_owned(), 200),
        ("/blocks/tip/height".to_owned(), 200),
        ("/blocks".to_owned(), 200),
        (format!("/block/{}/status", known.tip), 200),
        (
            format!("/tx/{}/outspend/{}", unspent.txid, unspent.vout),
            200,
        ),
        (format!("/tx/{}/outspends", unspent.txid), 200),
        (format!("/scripthash/{hash}"), 200),
        (format!("/scripthash/{hash}/txs"), 200),
        (format!("/scripthash/{hash}/txs/chain"), 200),
        (
            format!("/scripthash/{hash}/txs/chain/{}", unspent.txid),
            200,
        ),
        (format!("/scripthash/{hash}/utxo"), 200),
        // Unknown so far.
        (format!("/tx/{hash}/status"), 200),
        (format!("/tx/{hash}/outspend/0"), 200),
        (format!("/block/{hash}/status"), 200),
        (format!("/block/{hash}"), 404),
        (format!("/block-height/{}", tip + 1), 404),
        (format!("/blocks/{}", tip + 1), 404),
        (format!("/tx/{hash}"), 404),
        (format!("/tx/{hash}/merkle-proof"), 404),
        (format!("/tx/{hash}/outspends"), 404),
        // A part of the chain has no mempool.
        (format!("/scripthash/{hash}/txs/mempool"), 503),
        (format!("/tx/{hash}/removed"), 503),
        ("/mempool".to_owned(), 503),
        ("/mempool/txids".to_owned(), 503),
        ("/mempool/recent".to_owned(), 503),
        ("/mempool/projected-blocks".to_owned(), 503),
        ("/fee-estimates".to_owned(), 503),
        ("/broadcast?tx=00".to_owned(), 503),
    ] {
        let answer = world.get(&path).await;
        assert_eq!(answer.status.as_u16(), 503, "{path}: {}", answer.text);
        assert_eq!(answer.headers[header::RETRY_AFTER], "10", "{path}");
        let progress = format!("indexed {tip} of {} blocks", tip + 51);
        assert!(answer.text.ends_with(&progress), "{path}: {}", answer.text);

        let sign = if path.contains('?') { '&' } else { '?' };
        let answer = world.get(&format!("{path}{sign}partial=true")).await;
        assert_eq!(answer.status.as_u16(), partial, "{path}: {}", answer.text);
        if partial == 200 {
            assert_eq!(answer.cache(), "no-store", "{path}");
        }
        if !path.starts_with("/broadcast") {
            let tip = tip.to_string();
            assert_eq!(indexed(&answer.headers), Some(&*tip), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_synced_node_gives_a_client_that_would_take_a_part_the_whole() {
    let world = World::new();
    let to = script(0);
    let entry = spend(&world.coins()[0], &to, 1);
    world.mempool.change(|pool| pool.txs.push(entry.clone()));
    let path = format!("/scripthash/{}/txs?partial=true", scripthash(&to));
    let answer = world.get(&path).await;
    assert_eq!(answer.json()[0]["txid"], entry.txid.to_string());
    let tip = (world.chain.active().len() - 1).to_string();
    assert_eq!(indexed(&answer.headers), Some(&*tip));
    let mempool = world.get("/mempool/txids?partial=true").await;
    assert_eq!(mempool.json(), serde_json::json!([entry.txid.to_string()]));
}
