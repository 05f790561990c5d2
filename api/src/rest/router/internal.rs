//! Routes for a backend of the operator, on the operator's listener only.

use super::{Args, BasisKind, Made, Route, Work, get, post};
use crate::{
    rest::{body::strings, error::RestError, internal, list::Outlet, outspends, reply::Reply},
    state::ApiState,
};

#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    get("/internal/block/:hash/txs", |args| {
        let hash = args.block_hash()?;
        Work::list(move |state, outlet| internal::block_txs(state, &hash, outlet))
    }).settled_by(BasisKind::DeepBlock),
    get("/internal/mempool/txs/all", |_| Work::list(internal::whole_mempool)).of_mempool(),
    get("/internal/mempool/txs", mempool_page).of_mempool(),
    get("/internal/mempool/txs/:last_txid", mempool_page).of_mempool(),
    post("/internal/mempool/txs", |args| named(args, internal::mempool_txs)).of_mempool(),
    post("/internal/txs", |args| named(args, internal::txs)),
    post("/internal/txs/outspends/by-txid", |args| {
        let body = args.body.clone();
        Work::whole(move |state| {
            let txids = strings(&body)?;
            outspends::of_txids(state, txids.iter().map(String::as_str))
        })
    }),
    post("/internal/txs/outspends/by-outpoint", |args| {
        let body = args.body.clone();
        Work::whole(move |state| outspends::of_outpoints(state, &strings(&body)?))
    }),
];

fn mempool_page(args: &Args<'_>) -> Made {
    let (after, max_txs) = (args.optional(0), args.asked.max_txs);
    Work::list(move |state, outlet| internal::mempool_page(state, after.as_ref(), max_txs, outlet))
}

fn named(
    args: &Args<'_>,
    answer: fn(&ApiState, &[u8], Outlet) -> Result<Reply, RestError>,
) -> Made {
    let body = args.body.clone();
    Work::list(move |state, outlet| answer(state, &body, outlet))
}
