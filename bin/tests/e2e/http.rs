//! What goes over the wire: every answer about a real chain, byte by byte, and how clients
//! and caches are told about it.

use std::fmt::Write;

use pulse_primitives::bitcoin::{Address, Block, Network, TxOut};
use pulse_testkit::{Answer, ChainData, PulseNode, ScriptedPeer};

use super::common::{DEADLINE, options, scripthash, served};

/// Headers that are part of the contract, in this order.
const HEADERS: [&str; 8] = [
    "content-type",
    "content-length",
    "cache-control",
    "access-control-allow-origin",
    "etag",
    "vary",
    "retry-after",
    "x-next-cursor",
];

fn synced(name: &str, network: Network, blocks: &[Block]) -> (PulseNode, ScriptedPeer) {
    let peer = ScriptedPeer::honest(served(network, blocks));
    let mut node = options(name).connect(peer.addr()).start();
    let height = u32::try_from(blocks.len() - 1).unwrap();
    node.wait_synced_to(height, DEADLINE);
    (node, peer)
}

fn get(node: &PulseNode, path: &str) -> Answer {
    node.call("GET", path, &[], "")
}

/// Requests and their answers, as text.
fn record<'p>(node: &PulseNode, paths: impl IntoIterator<Item = &'p String>) -> String {
    let mut text = String::new();
    for path in paths {
        let answer = get(node, path);
        let same = get(node, &format!("/api{path}"));
        assert_eq!(
            (same.status, &same.body),
            (answer.status, &answer.body),
            "{path}"
        );
        write!(text, "> GET {path}\n{}", answer.status).unwrap();
        for name in HEADERS {
            if let Some(value) = answer.header(name) {
                // What it is differs between versions of the program.
                let value = if name == "etag" { "there" } else { value };
                write!(text, " | {name}: {value}").unwrap();
            }
        }
        writeln!(text, "\n{}\n", answer.shown()).unwrap();
    }
    text
}

/// Every path of blocks, for the block at `height`.
fn block_paths(blocks: &[Block], height: usize) -> Vec<String> {
    let hash = blocks[height].block_hash();
    let mut paths = vec![
        "/blocks/tip/hash".to_owned(),
        "/blocks/tip/height".to_owned(),
        "/blocks".to_owned(),
        "/blocks/3".to_owned(),
        "/blocks/0".to_owned(),
        format!("/blocks/{height}"),
        format!("/block-height/{height}"),
        format!("/block-height/{}", blocks.len() - 1),
        format!("/block/{hash}"),
    ];
    for tail in [
        "status", "header", "raw", "txids", "txid/0", "txid/1", "txs", "txs/0",
    ] {
        paths.push(format!("/block/{hash}/{tail}"));
    }
    let tip = blocks.last().unwrap().block_hash();
    for tail in ["", "/status", "/txs"] {
        paths.push(format!("/block/{tip}{tail}"));
    }
    paths
}

/// Every path of the transactions of the block at `height`.
fn tx_paths(blocks: &[Block], height: usize) -> Vec<String> {
    let mut paths = Vec::new();
    for tx in blocks[height].txdata.iter().take(3) {
        let txid = tx.compute_txid();
        for tail in [
            "",
            "/hex",
            "/raw",
            "/status",
            "/merkle-proof",
            "/merkleblock-proof",
            "/outspend/0",
            "/outspend/9",
            "/outspends",
        ] {
            paths.push(format!("/tx/{txid}{tail}"));
        }
        paths.push(format!("/txs/outspends?txids={txid}"));
    }
    paths
}

/// Every path of the scripts of these outputs.
fn script_paths<'o>(outputs: impl IntoIterator<Item = &'o TxOut>, network: Network) -> Vec<String> {
    let mut paths = Vec::new();
    for output in outputs {
        let script = &output.script_pubkey;
        let mut bases = vec![format!("/scripthash/{}", scripthash(script.as_bytes()))];
        if let Ok(address) = Address::from_script(script, network) {
            bases.push(format!("/address/{address}"));
        }
        for base in bases {
            for tail in [
                "",
                "/txs",
                "/txs?max_txs=2",
                "/txs/chain",
                "/txs/chain?limit=1",
                "/txs/mempool",
                "/txs/summary?max_txs=3",
                "/utxo?limit=3",
            ] {
                paths.push(format!("{base}{tail}"));
            }
        }
    }
    paths
}

#[test]
fn answers_about_mainnet_are_the_golden_ones() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let blocks = data.mainnet();
    let (node, _peer) = synced("mainnet", Network::Bitcoin, &blocks);
    // The first payment, and a block with many.
    let most = (0..blocks.len()).max_by_key(|height| (blocks[*height].txdata.len(), *height));
    let most = most.unwrap();
    insta::assert_snapshot!("mainnet_block", record(&node, &block_paths(&blocks, 170)));
    insta::assert_snapshot!("mainnet_txs", record(&node, &tx_paths(&blocks, 170)));
    insta::assert_snapshot!(
        "mainnet_txs_of_many",
        record(&node, &tx_paths(&blocks, most))
    );
    let paths = script_paths(&blocks[170].txdata[1].output, Network::Bitcoin);
    insta::assert_snapshot!("mainnet_scripts", record(&node, &paths));
}

#[test]
fn answers_about_witnesses_are_the_golden_ones() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let blocks = data.regtest_kernel();
    let (node, _peer) = synced("regtest", Network::Regtest, &blocks);
    let height = blocks.iter().rposition(|block| block.txdata.len() > 2);
    let height = height.unwrap();
    insta::assert_snapshot!(
        "regtest_block",
        record(&node, &block_paths(&blocks, height))
    );
    insta::assert_snapshot!("regtest_txs", record(&node, &tx_paths(&blocks, height)));
    let outputs = &blocks[height].txdata[1].output;
    let p2tr = (blocks.iter().flat_map(|block| &block.txdata))
        .flat_map(|tx| &tx.output)
        .find(|output| output.script_pubkey.is_p2tr());
    let paths = script_paths(outputs.iter().take(2).chain(p2tr), Network::Regtest);
    insta::assert_snapshot!("regtest_scripts", record(&node, &paths));
    let mempool = [
        "/mempool",
        "/mempool/txids",
        "/mempool/txids/page",
        "/mempool/recent",
        "/fee-estimates",
        "/address-prefix/bcrt1",
        "/block-template",
    ];
    let mempool = mempool.map(str::to_owned);
    insta::assert_snapshot!("regtest_mempool", record(&node, &mempool));

    conditional_requests(&node, &blocks, height);
    compressed_answers(&node, &blocks, height);
    other_methods(&node);
}

fn conditional_requests(node: &PulseNode, blocks: &[Block], height: usize) {
    let deep = blocks[height.min(blocks.len() - 20)].block_hash();
    for path in [
        format!("/block/{deep}"),
        format!("/block/{deep}/raw"),
        format!("/block/{deep}/txids"),
        format!("/block-height/{}", 5),
        format!("/tx/{}", blocks[5].txdata[0].compute_txid()),
    ] {
        let answer = get(node, &path);
        let cache = "public, max-age=157784630";
        assert_eq!(answer.header("cache-control"), Some(cache), "{path}");
        let tag = answer.header("etag").expect(&path);
        let again = node.call("GET", &path, &[("if-none-match", tag)], "");
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        assert_eq!(again.header("etag"), Some(tag));
        assert_eq!(again.header("content-length"), None);
        assert_eq!(again.header("cache-control"), Some(cache));
        let other = node.call("GET", &path, &[("if-none-match", "\"0\"")], "");
        assert_eq!((other.status, &other.body), (200, &answer.body), "{path}");
    }
    for path in ["/blocks/tip/height", "/blocks", "/mempool"] {
        assert_eq!(get(node, path).header("etag"), None, "{path}");
    }
}

fn compressed_answers(node: &PulseNode, blocks: &[Block], height: usize) {
    let path = format!("/block/{}/txs", blocks[height].block_hash());
    let plain = get(node, &path);
    assert!(plain.body.len() > 1024);
    assert_eq!(plain.header("vary"), Some("accept-encoding"));
    for (asked, magic) in [
        ("gzip", &[0x1f, 0x8b][..]),
        ("zstd", &[0x28, 0xb5, 0x2f, 0xfd]),
    ] {
        let answer = node.call("GET", &path, &[("accept-encoding", asked)], "");
        assert_eq!(answer.header("content-encoding"), Some(asked));
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        assert!(answer.body.starts_with(magic), "{asked}");
        assert!(answer.body.len() < plain.body.len() / 2, "{asked}");
    }
    let short = "/blocks/tip/height";
    let answer = node.call("GET", short, &[("accept-encoding", "gzip")], "");
    assert_eq!(answer.header("content-encoding"), None);
}

fn other_methods(node: &PulseNode) {
    for path in ["/blocks/tip/hash", "/blocks", "/nonsense"] {
        let (head, answer) = (node.call("HEAD", path, &[], ""), get(node, path));
        assert_eq!((head.status, head.body.len()), (answer.status, 0), "{path}");
        for name in ["content-type", "content-length", "cache-control"] {
            assert_eq!(head.header(name), answer.header(name), "{name} of {path}");
        }
        // Also when it would be compressed.
        let gzip = [("accept-encoding", "gzip")];
        let (head, answer) = (
            node.call("HEAD", path, &gzip, ""),
            node.call("GET", path, &gzip, ""),
        );
        for name in ["content-encoding", "vary", "etag"] {
            assert_eq!(head.header(name), answer.header(name), "{name} of {path}");
        }
    }
    let asked = [
        ("origin", "https://wallet.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    let preflight = node.call("OPTIONS", "/txs/package", &asked, "");
    assert_eq!((preflight.status, preflight.body.len()), (204, 0));
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, HEAD, POST, OPTIONS"),
        ("access-control-allow-headers", "*"),
    ] {
        assert_eq!(preflight.header(name), Some(value), "{name}");
    }
    let missing = get(node, "/nonsense");
    assert_eq!(missing.header("access-control-allow-origin"), Some("*"));
    assert_eq!(missing.header("cache-control"), None);
    let large = node.call("POST", "/tx", &[], &"0".repeat(1_000_001));
    assert_eq!(
        (large.status, large.shown().as_str()),
        (413, "Request body too large")
    );
}
