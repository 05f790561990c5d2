//! Peers that stall, lie, hang up, or send what nobody asked for: the sync completes
//! with an honest one beside them.

use pulse_primitives::bitcoin::Network;
use pulse_testkit::{Behaviour, ChainData, ScriptedPeer};
use serde_json::Value;

use super::common::{DEADLINE, options, params, served, start};

fn completes_beside(behaviour: Behaviour, is_dropped: bool) {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let blocks = data.regtest_kernel();
    let chain = served(Network::Regtest, &blocks);
    let bad = ScriptedPeer::start(chain.clone(), &[behaviour]);
    let good = ScriptedPeer::start(
        chain,
        &[Behaviour::Delay(std::time::Duration::from_millis(5))],
    );
    let mut node = options("regtest")
        .connect(bad.addr())
        .connect(good.addr())
        .env("PULSE_P2P__STALL_TIMEOUT_SECS", "1")
        .env("PULSE_P2P__HANDSHAKE_TIMEOUT_SECS", "3")
        .env("PULSE_P2P__BLOCK_TIMEOUT_SECS", "5")
        .env("PULSE_P2P__HEADERS_TIMEOUT_SECS", "5")
        .start();
    node.wait_synced_to(206, DEADLINE);
    assert_eq!(
        node.get("/blocks/tip/hash").text(),
        blocks[206].block_hash().to_string()
    );
    if is_dropped {
        node.wait_until("the bad peer is dropped", DEADLINE, |node| {
            let stats: Value = node.get_json("/stats");
            let peers = stats["peers"].as_array().unwrap().clone();
            let bad = bad.addr().to_string();
            peers.iter().all(|peer| peer["addr"] != bad)
        });
    }
}

macro_rules! scenes {
    ($($name:ident: $behaviour:expr, $dropped:expr;)*) => {
        $(#[test]
        fn $name() {
            completes_beside($behaviour, $dropped);
        })*
    };
}

scenes! {
    a_peer_that_stalls: Behaviour::StallAfter(3), false;
    a_peer_that_hangs_up_in_the_middle_of_a_block: Behaviour::HangUpMidBlock(2), false;
    a_peer_that_truncates_a_frame: Behaviour::TruncatedFrame(2), true;
    a_peer_that_announces_80_mb: Behaviour::HugeMessage(2), true;
    a_peer_that_sends_noise: Behaviour::Garbage(2), true;
    a_peer_that_sends_what_nobody_asked_for: Behaviour::UnrequestedBlock(2), true;
    a_peer_with_a_bad_merkle_root: Behaviour::BadMerkleRoot { height: 5 }, false;
    a_peer_with_a_header_without_work: Behaviour::BadPowHeader { height: 100 }, false;
    a_peer_that_never_says_a_word: Behaviour::Silent, true;
    a_peer_that_gives_no_headers: Behaviour::NoHeaders, false;
    a_peer_of_another_network: Behaviour::WrongMagic, true;
    a_peer_that_has_no_block_after_all: Behaviour::NotFound, false;
}

#[test]
fn a_peer_whose_headers_lack_work_is_dropped_even_if_it_is_the_only_one() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let chain = served(Network::Regtest, &data.regtest_kernel());
    let bad = ScriptedPeer::start(chain, &[Behaviour::BadPowHeader { height: 100 }]);
    let mut node = start("regtest", &[bad.addr()]);
    node.wait_until("the bad peer is dropped", DEADLINE, |node| {
        let stats: Value = node.get_json("/stats");
        stats["peers_dropped"].as_u64().unwrap() > 0
    });
    assert_eq!(node.get("/health").status, 503);
}

#[test]
fn invalid_blocks_are_refused_where_core_refuses_them_and_the_peer_is_dropped() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    // The first file has a chain from genesis, the others go on from it.
    let mut blocks = data.invalid("armory-blk_0_to_4.dat.bz2");
    for name in data.invalid_names() {
        if !name.contains("0_to_4") {
            blocks.extend(data.invalid(&name));
        }
        let peer = ScriptedPeer::honest(served(Network::Bitcoin, &blocks));
        assert!(peer.height() >= 2, "{name}");
        let mut node = start("mainnet", &[peer.addr()]);
        node.wait_until("the peer is dropped", DEADLINE, |node| {
            let stats: Value = node.get_json("/stats");
            stats["peers_dropped"].as_u64().unwrap() > 0
        });
        // Core accepts height 1 and refuses height 2.
        node.wait_until("the valid block is indexed", DEADLINE, |node| {
            node.tip_height() == Some(1)
        });
        let genesis = params(Network::Bitcoin).genesis_hash();
        let valid = blocks
            .iter()
            .find(|block| block.header.prev_blockhash == genesis)
            .unwrap();
        assert_eq!(
            node.get("/blocks/tip/hash").text(),
            valid.block_hash().to_string(),
            "{name}"
        );
    }
}
