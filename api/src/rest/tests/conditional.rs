//! Clients that name the answer that they have.

use std::sync::{atomic::Ordering, mpsc};

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use pulse_primitives::bitcoin::ScriptBuf;
use tower::ServiceExt;

use super::{Answer, World, spend};
use crate::ScriptTypes;

impl World {
    async fn get_unless(&self, path: &str, known: &str) -> Answer {
        let request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(header::IF_NONE_MATCH, known);
        let request = request.body(Body::empty()).unwrap();
        Answer::of(self.router.clone().oneshot(request).await.unwrap()).await
    }
}

impl Answer {
    fn tag(&self) -> Option<&str> {
        let tag = self.headers.get(header::ETAG)?;
        Some(tag.to_str().unwrap())
    }
}

/// Paths whose answers follow from a block that is now deep in the chain.
fn settled(world: &World) -> Vec<String> {
    let tx = spend(&world.coins()[0], &super::script(1), 0);
    world.confirm(&[&tx.tx], 70);
    let hash = *world.chain.active().last().unwrap();
    (71..83).for_each(|nonce| world.confirm(&[], nonce));
    world.follow_index();
    world.follow_mempool();
    let txid = tx.txid;
    let of_block = ["raw", "txids", "txid/0", "txs", "txs/0"];
    let of_tx = ["", "/hex", "/raw", "/merkle-proof", "/merkleblock-proof"];
    let of_block = of_block.map(|tail| format!("/block/{hash}/{tail}"));
    let of_tx = of_tx.map(|tail| format!("/tx/{txid}{tail}"));
    of_block.into_iter().chain(of_tx).collect()
}

#[tokio::test]
async fn nodes_that_name_scripts_differently_do_not_take_each_other_s_answers() {
    let answer = async |types| {
        let world = World::with(|config| config.script_types = types, true);
        let anchor = ScriptBuf::from_hex("51024e73").unwrap();
        let tx = spend(&world.coins()[0], &anchor, 0);
        world.confirm(&[&tx.tx], 70);
        (71..83).for_each(|nonce| world.confirm(&[], nonce));
        world.follow_index();
        world.follow_mempool();
        let path = format!("/tx/{}", tx.txid);
        (path.clone(), world.get(&path).await, world)
    };
    let (path, ours, _) = answer(ScriptTypes::Blockstream).await;
    let (same, others, world) = answer(ScriptTypes::Mempool).await;
    assert_eq!(path, same);
    let types =
        [&ours, &others].map(|answer| answer.json()["vout"][0]["scriptpubkey_type"].clone());
    assert_eq!(types, ["unknown", "anchor"]);
    assert_ne!(ours.tag(), others.tag());
    let known = ours.tag().unwrap();
    assert_eq!(world.get_unless(&path, known).await.status, 200);
    let known = others.tag().unwrap();
    assert_eq!(world.get_unless(&path, known).await.status, 304);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_is_settled_is_known_to_be_the_same_without_being_read() {
    let world = World::with(
        |config| {
            config.max_queries = std::num::NonZeroUsize::MIN;
            config.queue_wait_secs = std::num::NonZeroU64::MIN;
        },
        true,
    );
    let mut tags = Vec::new();
    for path in settled(&world) {
        let answer = world.get(&path).await;
        assert_eq!(answer.status, 200, "{path}");
        let tag = answer.tag().expect(&path).to_owned();
        let same = world.get(&format!("/api{path}")).await;
        assert_eq!(same.tag(), Some(&*tag), "{path}");
        tags.push((path, tag));
    }
    let state = world.state.clone();
    let (done, wait) = mpsc::channel::<()>();
    let (took, taken) = tokio::sync::oneshot::channel();
    let slot = tokio::spawn(async move {
        let work = move || {
            took.send(()).unwrap();
            // Until the test is over.
            let _ = wait.recv();
        };
        state.blocking().run(work).await
    });
    taken.await.unwrap();
    for (path, tag) in &tags {
        for known in [tag.clone(), format!("\"0\", W/{tag}")] {
            let before = world.chain.reads.load(Ordering::SeqCst);
            let answer = world.get_unless(path, &known).await;
            assert_eq!(answer.status, 304, "{path}: {}", answer.text);
            let after = world.chain.reads.load(Ordering::SeqCst);
            assert_eq!(after, before, "{path} was read");
            assert_eq!((answer.tag(), answer.text.as_str()), (Some(&**tag), ""));
            assert_eq!(answer.cache(), "public, max-age=157784630");
        }
        // What reads more than a few rows has to wait for the slot.
        let is_short = path.starts_with("/tx/") && !path.ends_with("/merkleblock-proof");
        let answer = world.get_unless(path, "\"0\"").await;
        let wanted = if is_short { 200 } else { 503 };
        assert_eq!(answer.status, wanted, "{path}: {}", answer.text);
    }
    drop(done);
    slot.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_good_for_one_path_and_one_block() {
    let world = World::new();
    let paths = settled(&world);
    let tags = {
        let mut tags = Vec::new();
        for path in &paths {
            tags.push(world.get(path).await.tag().unwrap().to_owned());
        }
        tags
    };
    for (path, next) in paths.iter().zip(tags.iter().skip(1)) {
        assert_eq!(world.get_unless(path, next).await.status, 200, "{path}");
    }
    // `*` stands for any answer, if there is one.
    assert_eq!(world.get_unless(&paths[0], "*").await.status, 304);
    let wrong = format!("{}/1", paths[3]);
    (world.get_unless(&wrong, "*").await).is_error(400, "start index must be a multiple of 25");
    // A part of the chain is taken for no whole.
    let part = world
        .get_unless(&format!("{}?partial=true", paths[3]), "*")
        .await;
    assert_eq!((part.status.as_u16(), part.tag()), (200, None));

    // The newest blocks may go, and with them what follows from them.
    let tip = *world.chain.active().last().unwrap();
    let newest = world.get(&format!("/block/{tip}/txs")).await;
    assert_eq!((newest.status.as_u16(), newest.tag()), (200, None));
    let coin = &world.coins()[0];
    let tx = spend(coin, &super::script(0), 0);
    world.confirm(&[&tx.tx], 1);
    (2..13).for_each(|nonce| world.confirm(&[], nonce));
    world.follow_index();
    let path = format!("/tx/{}", tx.txid);
    let first = world.get(&path).await;
    let tag = first.tag().unwrap().to_owned();
    assert_eq!(world.get_unless(&path, &tag).await.status, 304);
    world.chain.disconnect(12);
    world.confirm(&[], 20);
    world.confirm(&[&tx.tx], 21);
    (22..34).for_each(|nonce| world.confirm(&[], nonce));
    world.follow_index();
    let second = world.get_unless(&path, &tag).await;
    assert_eq!(second.status, 200);
    assert_ne!(second.tag(), Some(&*tag));
    assert_ne!(second.text, first.text);
}
