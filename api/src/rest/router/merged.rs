//! Routes of several addresses or scripthashes together, and of summaries.

use std::collections::HashSet;

use pulse_indexer::query::ScriptHash;

use super::{Args, Made, Route, Work, get, post};
use crate::rest::{
    merged,
    params::{Subject, SubjectKind},
};

#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    get("/address/:address/txs/summary", |args| summary(args, args.address()?)),
    get("/address/:address/txs/summary/:last_txid", |args| summary(args, args.address()?)),
    get("/scripthash/:hash/txs/summary", |args| summary(args, args.scripthash()?)),
    get("/scripthash/:hash/txs/summary/:last_txid", |args| summary(args, args.scripthash()?)),

    post("/addresses/txs", |args| txs(args, SubjectKind::Address)),
    post("/addresses/txs/summary", |args| summaries(args, SubjectKind::Address)),
    post("/addresses/txs/summary/:last_txid", |args| summaries(args, SubjectKind::Address)),
    post("/scripthashes/txs", |args| txs(args, SubjectKind::Scripthash)),
    post("/scripthashes/txs/summary", |args| summaries(args, SubjectKind::Scripthash)),
    post("/scripthashes/txs/summary/:last_txid", |args| summaries(args, SubjectKind::Scripthash)),
];

fn summary(args: &Args<'_>, of: Subject) -> Made {
    let (after, asked) = (args.optional(1), args.asked.clone());
    Work::list(move |state, outlet| {
        let of = HashSet::<ScriptHash>::from([of.hash]);
        merged::summary(state, &of, after.as_ref(), &asked, outlet)
    })
}

fn txs(args: &Args<'_>, kind: SubjectKind) -> Made {
    let (asked, body) = (args.asked.clone(), args.body.clone());
    Work::list(move |state, outlet| {
        let of = merged::scripts(&body, kind, state.params().network)?;
        merged::txs(state, &of, &asked, outlet)
    })
}

fn summaries(args: &Args<'_>, kind: SubjectKind) -> Made {
    let (after, asked, body) = (args.optional(0), args.asked.clone(), args.body.clone());
    Work::list(move |state, outlet| {
        let of = merged::scripts(&body, kind, state.params().network)?;
        merged::summary(state, &of, after.as_ref(), &asked, outlet)
    })
}
