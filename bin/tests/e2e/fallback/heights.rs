//! How new the other server's answers are: what it tells is passed on, and who asks for
//! nothing older than a block gets nothing older.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use pulse_primitives::bitcoin::Network;
use pulse_testkit::{Answer, Behaviour, ChainBuilder, PulseNode, ScriptedPeer};
use serde_json::Value;

use super::{Fake, UNKNOWN, answer, assert_not_synced, right, with_fallback};
use crate::e2e::common::{DEADLINE, params, served, start};

/// The height that the servers of these tests tell when they are looked at.
const THEIRS: u32 = 812;

fn get(node: &PulseNode, path: &str, least: Option<u32>) -> Answer {
    let least = least.map(|height| height.to_string());
    let headers = least.iter().map(|height| ("x-min-height", height.as_str()));
    node.call("GET", path, &headers.collect::<Vec<_>>(), "")
}

/// It is the other server's answer, which tells this height.
#[track_caller]
fn assert_theirs(answer: &Answer, tip: Option<&str>) {
    assert_eq!(answer.status, 200, "{}", answer.shown());
    assert_eq!(answer.header("x-pulse-source"), Some("fallback"));
    assert_eq!(answer.header("x-tip-height"), tip);
}

/// It is this node's own word that it cannot answer.
#[track_caller]
fn assert_refused(answer: &Answer) {
    let text = answer.shown();
    assert_eq!(answer.status, 503, "{text}");
    assert!(text.starts_with("node is not synced yet: "), "{text}");
    assert_eq!(answer.header("x-pulse-source"), None);
    assert_eq!(answer.header("retry-after"), Some("10"));
}

/// A node without peers that asks a server whose list of blocks comes with this header.
fn beside(header: &'static str) -> (PulseNode, Fake) {
    let status = match header {
        "" => "200 OK".to_owned(),
        header => format!("200 OK\r\n{header}"),
    };
    let fake = Fake::start(move |path| right(path, || answer(&status, "application/json", b"[]")));
    let mut node = with_fallback(&fake.url(), &[]);
    node.wait_until("genesis is indexed", DEADLINE, |node| {
        let genesis = get(node, "/block-height/0", None);
        genesis.status == 200 && genesis.header("x-pulse-source").is_none()
    });
    (node, fake)
}

#[test]
fn an_answer_of_the_other_server_has_its_height_or_none() {
    for (header, tip) in [
        ("x-tip-height: 813", Some("813")),
        ("X-Tip-Height: 813", Some("813")),
        ("", None),
        ("x-tip-height: soon", None),
        ("x-tip-height: -1", None),
    ] {
        let (node, _fake) = beside(header);
        assert_theirs(&get(&node, "/blocks", None), tip);
        let head = node.call("HEAD", "/blocks", &[], "");
        assert_theirs(&head, tip);
        assert_eq!(head.body, b"");
        // Our own answers have our own.
        let own = get(&node, "/block-height/0", None);
        assert_eq!(own.header("x-pulse-source"), None);
        assert_eq!(own.header("x-tip-height"), Some("0"), "{header}");
    }
}

#[test]
fn who_asks_for_nothing_older_than_a_block_gets_nothing_older_from_the_other_server() {
    let check = |header, tip, most: u32| {
        let (node, fake) = beside(header);
        assert_theirs(&get(&node, "/blocks", None), tip);
        assert_theirs(&get(&node, "/blocks", Some(0)), tip);
        assert_theirs(&get(&node, "/api/blocks", Some(most)), tip);
        let path = format!("/blocks?min_height={most}");
        assert_theirs(&get(&node, &path, None), tip);
        let refused = get(&node, "/blocks", Some(most + 1));
        assert_refused(&refused);
        assert_eq!(refused.header("x-tip-height"), Some("0"));
        // What else a query says is for this node alone.
        assert_refused(&get(&node, &format!("{path}&limit=1"), None));
        for head in fake.heads() {
            let head = head.to_lowercase();
            assert!(!head.contains("min-height"), "{head}");
            assert!(!head.contains("min_height"), "{head}");
        }
    };
    thread::scope(|scope| {
        // It tells its height when it is looked at, or with each answer.
        scope.spawn(|| check("", None, THEIRS));
        scope.spawn(|| check("x-tip-height: 813", Some("813"), 813));
        // Behind a balancer another one may answer, which is behind.
        scope.spawn(|| check("x-tip-height: 700", Some("700"), 700));
    });
}

#[test]
fn the_other_server_is_not_asked_for_a_height_that_it_cannot_have() {
    let (node, fake) = beside("");
    let asked = || {
        let heads = fake.heads();
        let blocks = heads.iter().filter(|head| head.starts_with("GET /blocks "));
        blocks.count()
    };
    // A few blocks may have come since it was looked at.
    assert_refused(&get(&node, "/blocks", Some(THEIRS + 3)));
    assert_eq!(asked(), 1);
    for height in [THEIRS + 4, u32::MAX] {
        assert_refused(&get(&node, "/blocks", Some(height)));
    }
    assert_eq!(asked(), 1);
}

#[test]
fn a_server_that_says_that_it_is_not_synced_is_asked_again_at_once() {
    let is_synced = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&is_synced);
    let fake = Fake::start(move |path| {
        right(path, || {
            if theirs.load(Ordering::Acquire) {
                return answer("200 OK", "application/json", b"[]");
            }
            let status = "503 Service Unavailable\r\nx-tip-height: 12";
            answer(status, "text/plain", b"node is not synced yet: no peers")
        })
    });
    let mut node = with_fallback(&fake.url(), &[]);
    node.wait_until("genesis is indexed", DEADLINE, |node| {
        get(node, "/block-height/0", None).status == 200
    });
    // More often than a server may fail before it is left alone.
    for _ in 0..5 {
        assert_refused(&get(&node, "/blocks", None));
    }
    is_synced.store(true, Ordering::Release);
    assert_theirs(&get(&node, "/blocks", None), None);
}

#[test]
fn a_server_that_is_too_busy_is_left_alone_though_it_tells_its_height() {
    let fake = Fake::start(move |path| {
        right(path, || {
            let status = "503 Service Unavailable\r\nx-tip-height: 813";
            answer(status, "text/plain", b"server is busy")
        })
    });
    let mut node = with_fallback(&fake.url(), &[]);
    node.wait_until("genesis is indexed", DEADLINE, |node| {
        get(node, "/block-height/0", None).status == 200
    });
    for _ in 0..6 {
        assert_refused(&get(&node, "/blocks", None));
    }
    let heads = fake.heads();
    let asked = heads.iter().filter(|head| head.starts_with("GET /blocks "));
    assert_eq!(asked.count(), 3);
}

#[test]
fn a_least_height_makes_no_other_question_one_for_the_other_server() {
    let (node, fake) = beside("");
    let asked = fake.heads().len();
    let malformed = get(&node, "/blocks?min_height=x", None);
    assert_eq!(
        (malformed.status, malformed.shown().as_str()),
        (400, "Invalid number")
    );
    // Neither what this node has alone, nor what cannot be read.
    let removed = format!("/tx/{UNKNOWN}/removed");
    thread::scope(|scope| {
        for path in ["/health", "/tx/xyz", &removed, "/nonsense"] {
            let node = &node;
            scope.spawn(move || {
                let refused = get(node, path, Some(THEIRS));
                assert_eq!(refused.status, 503, "{path}: {}", refused.shown());
                assert_eq!(refused.header("x-pulse-source"), None, "{path}");
            });
        }
    });
    let heads = fake.heads();
    let others = heads[asked..].iter().filter(|head| {
        !head.starts_with("GET /block-height/0 ") && !head.starts_with("GET /blocks/tip/height ")
    });
    assert_eq!(others.count(), 0, "{heads:?}");
}

#[test]
fn a_server_that_is_not_synced_itself_is_no_help_until_it_is() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(60);
    let halting = |after| {
        let chain = served(Network::Regtest, chain.blocks());
        ScriptedPeer::start(chain, &[Behaviour::StallAfter(after)])
    };
    let some_blocks = |node: &PulseNode| {
        let stats: Value = node.get_json("/stats");
        stats["index_tip"]["height"].as_u64() >= Some(5)
    };
    let (theirs, ours) = (halting(30), halting(20));
    let mut other = start("regtest", &[theirs.addr()]);
    let mut node = with_fallback(&other.api_url(), &[ours.addr()]);
    other.wait_until("it has some blocks", DEADLINE, some_blocks);
    node.wait_until("some blocks are indexed", DEADLINE, some_blocks);

    let path = "/blocks/tip/hash";
    assert_eq!(other.get(path).status, 503);
    let refused = get(&node, path, None);
    assert_refused(&refused);
    let own: Value = node.get("/health").json();
    let reason = own["reason"].as_str().unwrap();
    assert_eq!(refused.shown(), format!("node is not synced yet: {reason}"));

    theirs.set_behaviours(&[]);
    theirs.disconnect_all();
    other.wait_synced_to(60, DEADLINE);
    node.wait_until("the other server answers", DEADLINE, |node| {
        get(node, path, None).status == 200
    });
    for least in [None, Some(60)] {
        let answer = get(&node, path, least);
        assert_theirs(&answer, Some("60"));
        assert_eq!(answer.shown(), chain.tip_hash().to_string());
    }
    assert_refused(&get(&node, path, Some(61)));
    // It stops: the answer is ours again.
    assert!(other.terminate(DEADLINE).status.success());
    assert_not_synced(&node, path);
}
