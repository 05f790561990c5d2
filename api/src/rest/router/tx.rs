//! Routes of transactions, those that clients hand in included.

use pulse_primitives::bitcoin::{OutPoint, Txid};

use super::{Args, BasisKind, Made, Route, Work, get, post};
use crate::{
    rest::{error::RestError, outspends, params, relatives, reply::Reply, submit, tx},
    state::ApiState,
};

#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    get("/tx/:txid", |args| short(args, tx::info)).settled_by(BasisKind::Tx),
    get("/tx/:txid/hex", |args| short(args, tx::hex)).settled_by(BasisKind::Tx),
    get("/tx/:txid/raw", |args| short(args, tx::raw)).settled_by(BasisKind::Tx),
    get("/tx/:txid/status", |args| {
        let txid = args.txid()?;
        Work::short_at(move |at| tx::status(at, &txid))
    }),
    get("/tx/:txid/merkle-proof", |args| {
        let txid = args.txid()?;
        Work::short_at(move |at| tx::merkle_proof(at, &txid))
    }).settled_by(BasisKind::Tx),
    get("/tx/:txid/merkleblock-proof", |args| {
        let txid = args.txid()?;
        Work::whole_at(move |at| tx::merkle_block_proof(at, &txid))
    }).settled_by(BasisKind::Tx),
    get("/tx/:txid/outspend/:vout", |args| {
        let outpoint = OutPoint { txid: args.txid()?, vout: args.number(1)? };
        Work::short(move |state| tx::outspend(state, &outpoint))
    }),
    get("/tx/:txid/outspends", |args| short(args, tx::outspends)),
    get("/tx/:txid/replacement", |args| {
        let txid = args.txid()?;
        Work::whole(move |state| relatives::replacement(state, &txid))
    }).of_mempool(),
    get("/tx/:txid/cpfp", |args| {
        let txid = args.txid()?;
        Work::whole(move |state| relatives::cpfp(state, &txid))
    }).of_mempool(),
    get("/tx/:txid/removed", |args| {
        let txid = args.txid()?;
        Work::whole(move |state| tx::removed(state, &txid))
    }).of_mempool(),

    get("/txs/outspends", |args| {
        let txids = params::value(args.query, "txids");
        Work::whole(move |state| outspends::of_query(state, txids.as_deref()))
    }),

    post("/tx", |args| submission(args, submit::tx)).of_mempool(),
    get("/broadcast", |args| submission(args, submit::broadcast)).of_mempool(),
    post("/txs/package", |args| submission(args, submit::package)).of_mempool(),
    post("/txs/test", |args| submission(args, submit::test)).of_mempool(),
];

fn short(args: &Args<'_>, answer: fn(&ApiState, &Txid) -> Result<Reply, RestError>) -> Made {
    let txid = args.txid()?;
    Work::short(move |state| answer(state, &txid))
}

/// Answers from a query and a body.
type Submission = fn(&ApiState, Option<&str>, &[u8]) -> Result<Reply, RestError>;

fn submission(args: &Args<'_>, answer: Submission) -> Made {
    let (query, body) = (args.query.map(str::to_owned), args.body.clone());
    Work::submission(move |state| answer(state, query.as_deref(), &body))
}
