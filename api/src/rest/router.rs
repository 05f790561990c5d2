//! The one table of REST routes: from a method and a path to an endpoint with typed
//! parameters.
//!
//! Matching is literal, as clients of the Esplora servers know it: the path is split at
//! `/`, nothing is decoded or normalised, upper and lower case differ, the first five
//! segments count and a sixth is never looked at. `/api` in front is skipped.

use axum::http::Method;
use pulse_primitives::bitcoin::{BlockHash, Network, OutPoint, Txid};

use super::{
    address, block,
    error::RestError,
    list::Outlet,
    mempool,
    params::{self, Asked, Subject},
    reply::Reply,
    snapshot::Snapshot,
    submit::Submission,
    tx,
};
use crate::state::ApiState;

type Answer = Result<Reply, RestError>;

/// Segments that take part in the match.
const MATCHED_SEGMENTS: usize = 5;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    TipHash,
    TipHeight,
    Blocks { start: Option<u64> },
    BlockHashAt { height: u64 },
    Block(BlockHash),
    BlockStatus(BlockHash),
    BlockHeader(BlockHash),
    BlockRaw(BlockHash),
    BlockTxids(BlockHash),
    BlockTxid { block: BlockHash, index: u64 },
    BlockTxs { block: BlockHash, start: u32 },
    Tx(Txid),
    TxHex(Txid),
    TxRaw(Txid),
    TxStatus(Txid),
    MerkleProof(Txid),
    MerkleBlockProof(Txid),
    Outspend(OutPoint),
    Outspends(Txid),
    Removed(Txid),
    Stats(Subject),
    Txs(Subject),
    ChainTxs { of: Subject, after: Option<Txid> },
    MempoolTxs(Subject),
    Utxos(Subject),
    Mempool,
    MempoolTxids,
    MempoolRecent,
    ProjectedBlocks,
    FeeEstimates,
}

/// What a path and a method belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A question.
    Read(Endpoint),
    /// A transaction of the client.
    Submit(Submission),
}

/// A path that belongs to an endpoint.
#[derive(Debug)]
pub(super) struct Found {
    /// The route with names for its parameters, for metrics and logs.
    pub(super) template: &'static str,
    /// What it asks for, or which parameter is wrong.
    pub(super) target: Result<Target, RestError>,
}

impl Found {
    /// Whether it exists only on nodes with a mempool.
    pub(super) fn is_of_mempool(&self) -> bool {
        use Endpoint as E;
        matches!(
            self.target,
            Ok(Target::Submit(_)
                | Target::Read(
                    E::Removed(_)
                        | E::Mempool
                        | E::MempoolTxids
                        | E::MempoolRecent
                        | E::ProjectedBlocks
                        | E::FeeEstimates
                ))
        )
    }
}

/// The endpoint of `path`, `None` if there is none. Bodies of answers to HEAD are cut off
/// by axum.
pub(super) fn find(method: &Method, path: &str, network: Network) -> Option<Found> {
    match *method {
        Method::GET | Method::HEAD => find_read(path, network),
        Method::POST => find_submit(path),
        _ => None,
    }
}

#[rustfmt::skip]
fn find_submit(path: &str) -> Option<Found> {
    let (template, submission) = match segments(path).as_slice() {
        ["tx"] => ("/tx", Submission::Tx),
        ["txs", "package"] => ("/txs/package", Submission::Package),
        ["txs", "test"] => ("/txs/test", Submission::Test),
        _ => return None,
    };
    Some(Found { template, target: Ok(Target::Submit(submission)) })
}

#[rustfmt::skip]
fn find_read(path: &str, network: Network) -> Option<Found> {
    use Endpoint as E;
    use params::{block_hash, number, txid};

    let address = |text| params::address(text, network);
    let scripthash = params::scripthash;

    let (template, endpoint) = match segments(path).as_slice() {
        ["blocks", "tip", "hash"] => ("/blocks/tip/hash", Ok(E::TipHash)),
        ["blocks", "tip", "height"] => ("/blocks/tip/height", Ok(E::TipHeight)),
        ["blocks"] => ("/blocks", Ok(E::Blocks { start: None })),
        ["blocks", start] => ("/blocks/:start_height", Ok(E::Blocks { start: start.parse().ok() })),
        ["block-height", height] => ("/block-height/:height", number(height).map(|height| E::BlockHashAt { height })),
        ["block", hash] => ("/block/:hash", block_hash(hash).map(E::Block)),
        ["block", hash, "status"] => ("/block/:hash/status", block_hash(hash).map(E::BlockStatus)),
        ["block", hash, "header"] => ("/block/:hash/header", block_hash(hash).map(E::BlockHeader)),
        ["block", hash, "raw"] => ("/block/:hash/raw", block_hash(hash).map(E::BlockRaw)),
        ["block", hash, "txids"] => ("/block/:hash/txids", block_hash(hash).map(E::BlockTxids)),
        ["block", hash, "txid", index] => ("/block/:hash/txid/:index",
            block_hash(hash).and_then(|block| Ok(E::BlockTxid { block, index: number(index)? }))),
        ["block", hash, "txs"] => ("/block/:hash/txs", block_hash(hash).map(|block| E::BlockTxs { block, start: 0 })),
        ["block", hash, "txs", start] => ("/block/:hash/txs/:start_index",
            block_hash(hash).map(|block| E::BlockTxs { block, start: start.parse().unwrap_or(0) })),

        ["tx", id] => ("/tx/:txid", txid(id).map(E::Tx)),
        ["tx", id, "hex"] => ("/tx/:txid/hex", txid(id).map(E::TxHex)),
        ["tx", id, "raw"] => ("/tx/:txid/raw", txid(id).map(E::TxRaw)),
        ["tx", id, "status"] => ("/tx/:txid/status", txid(id).map(E::TxStatus)),
        ["tx", id, "merkle-proof"] => ("/tx/:txid/merkle-proof", txid(id).map(E::MerkleProof)),
        ["tx", id, "merkleblock-proof"] => ("/tx/:txid/merkleblock-proof", txid(id).map(E::MerkleBlockProof)),
        ["tx", id, "outspend", vout] => ("/tx/:txid/outspend/:vout",
            txid(id).and_then(|txid| Ok(E::Outspend(OutPoint { txid, vout: number(vout)? })))),
        ["tx", id, "outspends"] => ("/tx/:txid/outspends", txid(id).map(E::Outspends)),

        ["tx", id, "removed"] => ("/tx/:txid/removed", txid(id).map(E::Removed)),

        ["address", a] => ("/address/:address", address(a).map(E::Stats)),
        ["address", a, "txs"] => ("/address/:address/txs", address(a).map(E::Txs)),
        ["address", a, "txs", "chain"] => ("/address/:address/txs/chain",
            address(a).map(|of| E::ChainTxs { of, after: None })),
        ["address", a, "txs", "chain", after] => ("/address/:address/txs/chain/:last_seen_txid",
            address(a).map(|of| E::ChainTxs { of, after: after.parse().ok() })),
        ["address", a, "txs", "mempool"] => ("/address/:address/txs/mempool", address(a).map(E::MempoolTxs)),
        ["address", a, "utxo"] => ("/address/:address/utxo", address(a).map(E::Utxos)),

        ["scripthash", s] => ("/scripthash/:hash", scripthash(s).map(E::Stats)),
        ["scripthash", s, "txs"] => ("/scripthash/:hash/txs", scripthash(s).map(E::Txs)),
        ["scripthash", s, "txs", "chain"] => ("/scripthash/:hash/txs/chain",
            scripthash(s).map(|of| E::ChainTxs { of, after: None })),
        ["scripthash", s, "txs", "chain", after] => ("/scripthash/:hash/txs/chain/:last_seen_txid",
            scripthash(s).map(|of| E::ChainTxs { of, after: after.parse().ok() })),
        ["scripthash", s, "txs", "mempool"] => ("/scripthash/:hash/txs/mempool", scripthash(s).map(E::MempoolTxs)),
        ["scripthash", s, "utxo"] => ("/scripthash/:hash/utxo", scripthash(s).map(E::Utxos)),

        ["mempool"] => ("/mempool", Ok(E::Mempool)),
        ["mempool", "txids"] => ("/mempool/txids", Ok(E::MempoolTxids)),
        ["mempool", "recent"] => ("/mempool/recent", Ok(E::MempoolRecent)),
        ["mempool", "projected-blocks"] => ("/mempool/projected-blocks", Ok(E::ProjectedBlocks)),
        ["fee-estimates"] => ("/fee-estimates", Ok(E::FeeEstimates)),
        ["broadcast"] => return Some(Found {
            template: "/broadcast",
            target: Ok(Target::Submit(Submission::Broadcast)),
        }),

        _ => return None,
    };
    Some(Found { template, target: endpoint.map(Target::Read) })
}

fn segments(path: &str) -> Vec<&str> {
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    segments.next_if_eq(&"api");
    segments.take(MATCHED_SEGMENTS).collect()
}

impl Endpoint {
    /// Whether its answer is a list that may be long: [`Endpoint::list`] makes it.
    pub(super) fn is_list(&self) -> bool {
        matches!(self, Self::Txs(_) | Self::ChainTxs { .. } | Self::Utxos(_))
    }

    /// The answer of an endpoint that is a list.
    pub(super) fn list(&self, state: &ApiState, asked: &Asked, outlet: Outlet) -> Answer {
        match self {
            Self::Txs(of) => address::txs(state, of, asked, outlet),
            Self::ChainTxs { of, after } => {
                address::chain_txs(state, of, after.as_ref(), asked, outlet)
            }
            Self::Utxos(of) => address::utxos(state, of, asked, outlet),
            _ => self.answer(state),
        }
    }

    /// Whether it reads a few rows and pieces of the block files, however much the script
    /// or the block holds.
    pub(super) fn is_short(&self) -> bool {
        match self {
            Self::TipHash
            | Self::TipHeight
            | Self::BlockHashAt { .. }
            | Self::Block(_)
            | Self::BlockStatus(_)
            | Self::BlockHeader(_)
            | Self::Tx(_)
            | Self::TxHex(_)
            | Self::TxRaw(_)
            | Self::TxStatus(_)
            | Self::MerkleProof(_)
            | Self::Outspend(_)
            | Self::Outspends(_)
            | Self::Stats(_) => true,
            Self::Blocks { .. }
            | Self::BlockRaw(_)
            | Self::BlockTxids(_)
            | Self::BlockTxid { .. }
            | Self::BlockTxs { .. }
            | Self::MerkleBlockProof(_)
            | Self::Removed(_)
            | Self::Txs(_)
            | Self::ChainTxs { .. }
            | Self::MempoolTxs(_)
            | Self::Utxos(_)
            | Self::Mempool
            | Self::MempoolTxids
            | Self::MempoolRecent
            | Self::ProjectedBlocks
            | Self::FeeEstimates => false,
        }
    }

    /// The answer, from one snapshot of the index and the mempool of the same block.
    pub(super) fn answer(&self, state: &ApiState) -> Result<Reply, RestError> {
        let at = || Snapshot::take(state);
        match self {
            Self::TipHash => block::tip_hash(&at()?),
            Self::TipHeight => block::tip_height(&at()?),
            Self::Blocks { start } => block::newest(&at()?, *start),
            Self::BlockHashAt { height } => block::hash_at(&at()?, *height),
            Self::Block(hash) => block::info(&at()?, hash),
            Self::BlockStatus(hash) => block::status(&at()?, hash),
            Self::BlockHeader(hash) => block::header(&at()?, hash),
            Self::BlockRaw(hash) => block::raw(&at()?, hash),
            Self::BlockTxids(hash) => block::txids(&at()?, hash),
            Self::BlockTxid { block, index } => block::txid(&at()?, block, *index),
            Self::BlockTxs { block, start } => block::txs(&at()?, block, *start),
            Self::Tx(txid) => tx::info(state, txid),
            Self::TxHex(txid) => tx::hex(state, txid),
            Self::TxRaw(txid) => tx::raw(state, txid),
            Self::TxStatus(txid) => tx::status(&at()?, txid),
            Self::MerkleProof(txid) => tx::merkle_proof(&at()?, txid),
            Self::MerkleBlockProof(txid) => tx::merkle_block_proof(&at()?, txid),
            Self::Outspend(outpoint) => tx::outspend(state, outpoint),
            Self::Outspends(txid) => tx::outspends(state, txid),
            Self::Removed(txid) => tx::removed(state, txid),
            Self::Stats(of) => address::stats(state, of),
            Self::MempoolTxs(of) => address::mempool_txs(state, of),
            // Made by `list`.
            Self::Txs(_) | Self::ChainTxs { .. } | Self::Utxos(_) => Err(RestError::Internal),
            Self::Mempool => mempool::backlog(state),
            Self::MempoolTxids => mempool::txids(state),
            Self::MempoolRecent => mempool::recent(state),
            Self::ProjectedBlocks => mempool::projected_blocks(state),
            Self::FeeEstimates => mempool::fee_estimates(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: &str = "1c45a447627cbd0003b94a77a48f5746dac20551805150cfb23d2b2f9b5fbc53";
    const A: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";

    fn target(method: &Method, path: &str) -> Option<Result<Target, String>> {
        let found = find(method, path, Network::Bitcoin)?;
        Some(found.target.map_err(|e| e.to_string()))
    }

    fn endpoint(path: &str) -> Option<Result<Endpoint, String>> {
        Some(target(&Method::GET, path)?.map(|target| match target {
            Target::Read(endpoint) => endpoint,
            Target::Submit(submission) => panic!("{submission:?}"),
        }))
    }

    fn found(path: &str) -> Endpoint {
        endpoint(path).expect(path).expect(path)
    }

    #[test]
    fn paths_match_literally() {
        let newest = Endpoint::Blocks { start: None };
        for path in [
            "/blocks",
            "/blocks/",
            "/blocks/abc",
            "/blocks/tip",
            "/blocks/-1",
        ] {
            assert_eq!(found(path), newest, "{path}");
        }
        assert_eq!(found("/blocks/3"), Endpoint::Blocks { start: Some(3) });

        let block = H.parse().unwrap();
        let first_page = Endpoint::BlockTxs { block, start: 0 };
        for tail in ["", "/", "/abc", "/-25", "/0"] {
            assert_eq!(
                found(&format!("/block/{H}/txs{tail}")),
                first_page,
                "{tail}"
            );
        }
        assert_eq!(
            found(&format!("/block/{H}/txs/50")),
            Endpoint::BlockTxs { block, start: 50 }
        );

        let of = params::address(A, Network::Bitcoin).unwrap();
        let after = |txid: Option<&str>| Endpoint::ChainTxs {
            of: of.clone(),
            after: txid.map(|txid| txid.parse().unwrap()),
        };
        for (tail, want) in [
            ("", after(None)),
            ("/", after(None)),
            ("/zzz", after(None)),
            (&format!("/{H}"), after(Some(H))),
            (&format!("/{H}/anything"), after(Some(H))),
            (&format!("/{H}/any/thing/"), after(Some(H))),
        ] {
            assert_eq!(
                found(&format!("/address/{A}/txs/chain{tail}")),
                want,
                "{tail}"
            );
        }

        for path in [
            "",
            "/",
            "/api",
            "/api/",
            "/explorer/",
            "//blocks",
            "/Blocks",
            "/%62locks",
            "/api/api/blocks",
            "/blocks/1/2",
            "/blocks/tip/hash/",
            &format!("/tx/{H}/"),
            &format!("/block/{H}/"),
            &format!("/block/{H}/txs/0/1"),
            &format!("/address/{A}/"),
            &format!("/address/{A}/txs/"),
            &format!("/address/{A}/txs/summary"),
            &format!("/address-prefix/{A}"),
            "/mempool/",
            "/fee-estimates/",
            "/mempool/txids/",
            "/broadcast/",
            "/txs/package",
            "/tx",
            "/block-template",
        ] {
            assert!(endpoint(path).is_none(), "{path}");
        }
    }

    #[test]
    fn every_route_is_also_under_api_and_has_a_template_of_its_own() {
        let mut templates = std::collections::HashSet::new();
        for path in [
            "/blocks/tip/hash",
            "/blocks/tip/height",
            "/blocks",
            "/blocks/7",
            "/block-height/7",
            "/block/H",
            "/block/H/status",
            "/block/H/header",
            "/block/H/raw",
            "/block/H/txids",
            "/block/H/txid/0",
            "/block/H/txs",
            "/block/H/txs/25",
            "/tx/H",
            "/tx/H/hex",
            "/tx/H/raw",
            "/tx/H/status",
            "/tx/H/merkle-proof",
            "/tx/H/merkleblock-proof",
            "/tx/H/outspend/0",
            "/tx/H/outspends",
            "/tx/H/removed",
            "/mempool",
            "/mempool/txids",
            "/mempool/recent",
            "/mempool/projected-blocks",
            "/fee-estimates",
            "/address/A",
            "/address/A/txs",
            "/address/A/txs/chain",
            "/address/A/txs/chain/H",
            "/address/A/txs/mempool",
            "/address/A/utxo",
            "/scripthash/H",
            "/scripthash/H/txs",
            "/scripthash/H/txs/chain",
            "/scripthash/H/txs/chain/H",
            "/scripthash/H/txs/mempool",
            "/scripthash/H/utxo",
        ] {
            let path = path
                .replace("/H", &format!("/{H}"))
                .replace("/A", &format!("/{A}"));
            let find = |path: &str| find(&Method::GET, path, Network::Bitcoin).expect(path);
            let (root, api) = (find(&path), find(&format!("/api{path}")));
            assert_eq!(root.target.unwrap(), api.target.unwrap());
            assert_eq!(root.template, api.template);
            assert!(templates.insert(root.template), "{path}");
        }
    }

    #[test]
    fn submissions_have_methods_of_their_own() {
        for (method, path, want) in [
            (Method::POST, "/tx", Submission::Tx),
            (Method::POST, "/api/tx", Submission::Tx),
            (Method::POST, "/txs/package", Submission::Package),
            (Method::POST, "/txs/test", Submission::Test),
            (Method::GET, "/broadcast", Submission::Broadcast),
        ] {
            let target = target(&method, path).expect(path);
            assert_eq!(target, Ok(Target::Submit(want)), "{path}");
        }
        for (method, path) in [
            (Method::POST, "/broadcast"),
            (Method::POST, "/blocks"),
            (Method::POST, "/tx/"),
            (Method::PUT, "/tx"),
            (Method::GET, "/txs/test"),
        ] {
            assert_eq!(target(&method, path), None, "{path}");
        }
    }

    #[test]
    fn malformed_parameters_have_their_texts() {
        let long = format!("{H}0");
        for (path, want) in [
            (format!("/block/{}", &H[1..]), "Invalid hex string"),
            (format!("/block/{long}/status"), "Invalid hex string"),
            ("/block/".to_owned(), "Invalid hex string"),
            ("/tx/xyz".to_owned(), "Invalid hex string"),
            ("/tx/".to_owned(), "Invalid hex string"),
            (format!("/tx/{long}/outspend/0"), "Invalid hex string"),
            (format!("/tx/{H}/outspend/-1"), "Invalid number"),
            (format!("/tx/{H}/outspend/"), "Invalid number"),
            (format!("/tx/{H}/outspend/4294967296"), "Invalid number"),
            (format!("/block/{H}/txid/x"), "Invalid number"),
            ("/block-height/".to_owned(), "Invalid number"),
            ("/block-height/-1".to_owned(), "Invalid number"),
            (
                "/block-height/18446744073709551616".to_owned(),
                "Invalid number",
            ),
            ("/scripthash/abc/utxo".to_owned(), "Invalid scripthash"),
            ("/address/".to_owned(), "base58 error"),
        ] {
            assert_eq!(endpoint(&path).unwrap().unwrap_err(), want, "{path}");
        }
    }
}
