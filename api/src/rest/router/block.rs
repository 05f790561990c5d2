//! Routes of blocks.

use pulse_primitives::bitcoin::BlockHash;

use super::{
    Args,
    BasisKind::{Block, DeepBlock},
    Made, Route, Work, get,
};
use crate::rest::{block, error::RestError, reply::Reply, snapshot::Snapshot};

#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    get("/blocks/tip/hash", |_| Work::short_at(block::tip_hash)),
    get("/blocks/tip/height", |_| Work::short_at(block::tip_height)),
    get("/blocks", |_| Work::whole_at(|at| block::newest(at, None))),
    get("/blocks/:start_height", |args| {
        let start = args.optional(0);
        Work::whole_at(move |at| block::newest(at, start))
    }),
    get("/block-height/:height", |args| {
        let height = args.number(0)?;
        Work::short_at(move |at| block::hash_at(at, height))
    }),
    get("/block/:hash", |args| short(args, block::info)),
    get("/block/:hash/status", |args| short(args, block::status)),
    get("/block/:hash/header", |args| short(args, block::header)),
    get("/block/:hash/raw", |args| {
        let hash = args.block_hash()?;
        Work::list(move |state, outlet| block::raw(state, &hash, outlet))
    }).settled_by(Block),
    get("/block/:hash/txids", |args| {
        let hash = args.block_hash()?;
        Work::list(move |state, outlet| block::txids(state, &hash, outlet))
    }).settled_by(Block),
    get("/block/:hash/txid/:index", |args| {
        let (hash, index) = (args.block_hash()?, args.number(1)?);
        Work::whole_at(move |at| block::txid(at, &hash, index))
    }).settled_by(Block),
    get("/block/:hash/txs", |args| {
        let hash = args.block_hash()?;
        Work::list(move |state, outlet| block::txs(state, &hash, 0, outlet))
    }).settled_by(DeepBlock),
    get("/block/:hash/txs/:start_index", |args| {
        let (hash, start) = (args.block_hash()?, args.optional(1).unwrap_or(0));
        Work::list(move |state, outlet| block::txs(state, &hash, start, outlet))
    }).settled_by(DeepBlock),
    get("/block-template", |_| Work::short(|_| block::template())),
];

type Answers = fn(&Snapshot<'_>, &BlockHash) -> Result<Reply, RestError>;

fn short(args: &Args<'_>, answer: Answers) -> Made {
    let hash = args.block_hash()?;
    Work::short_at(move |at| answer(at, &hash))
}
