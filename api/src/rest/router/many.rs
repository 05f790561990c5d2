//! Routes about many things at once: bulk requests, and wallets by descriptor. All are POST,
//! with what they are about in the body.

use super::{Args, Made, Route, Work, post};
use crate::rest::{
    bulk::{self, OfScripts, OfTxs},
    params::SubjectKind::{self, Address, Scripthash},
    wallet,
};

#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    post("/bulk/addresses/stats", |args| scripts(args, Address, OfScripts::Stats)),
    post("/bulk/addresses/utxo", |args| scripts(args, Address, OfScripts::Utxos)),
    post("/bulk/addresses/txs", |args| scripts(args, Address, OfScripts::Txs)),
    post("/bulk/scripthashes/stats", |args| scripts(args, Scripthash, OfScripts::Stats)),
    post("/bulk/scripthashes/utxo", |args| scripts(args, Scripthash, OfScripts::Utxos)),
    post("/bulk/scripthashes/txs", |args| scripts(args, Scripthash, OfScripts::Txs)),

    post("/bulk/txs", |args| txs(args, OfTxs::Info)),
    post("/bulk/txs/hex", |args| txs(args, OfTxs::Hex)),
    post("/bulk/txs/status", |args| txs(args, OfTxs::Status)),
    post("/bulk/txs/outspends", |args| txs(args, OfTxs::Outspends)),

    post("/descriptors", |args| {
        let body = args.body.clone();
        Work::list(move |state, outlet| wallet::totals(state, &body, outlet))
    }),
    post("/descriptors/utxo", |args| {
        let body = args.body.clone();
        Work::list(move |state, outlet| wallet::utxos(state, &body, outlet))
    }),
    post("/descriptors/txs", |args| {
        let (body, asked) = (args.body.clone(), args.asked.clone());
        Work::list(move |state, outlet| wallet::txs(state, &body, &asked, outlet))
    }),
];

fn scripts(args: &Args<'_>, kind: SubjectKind, what: OfScripts) -> Made {
    let (body, asked) = (args.body.clone(), args.asked.clone());
    Work::list(move |state, outlet| {
        let texts = bulk::entries(&body)?;
        bulk::scripts(state, (kind, what), &texts, &asked, outlet)
    })
}

fn txs(args: &Args<'_>, what: OfTxs) -> Made {
    let body = args.body.clone();
    Work::list(move |state, outlet| {
        let texts = bulk::entries(&body)?;
        bulk::transactions(state, what, &texts, outlet)
    })
}
