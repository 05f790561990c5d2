//! Routes of addresses and scripthashes: each exists once for both.

use std::collections::HashSet;

use super::{Args, Made, Route, Work, get};
use crate::rest::{address, balance, merged, params::Subject};

#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    get("/address/:address", |args| stats(args.address()?)),
    get("/address/:address/txs", |args| txs(args, args.address()?)),
    get("/address/:address/txs/chain", |args| chain_txs(args, args.address()?)),
    get("/address/:address/txs/chain/:last_seen_txid", |args| chain_txs(args, args.address()?)),
    get("/address/:address/txs/mempool", |args| mempool_txs(args, args.address()?)),
    get("/address/:address/utxo", |args| utxos(args, args.address()?)),

    get("/address/:address/balance", |args| balance(args, args.address()?)),
    get("/address/:address/balance/history", |args| balances(args, args.address()?)),

    get("/scripthash/:hash", |args| stats(args.scripthash()?)),
    get("/scripthash/:hash/txs", |args| txs(args, args.scripthash()?)),
    get("/scripthash/:hash/txs/chain", |args| chain_txs(args, args.scripthash()?)),
    get("/scripthash/:hash/txs/chain/:last_seen_txid", |args| chain_txs(args, args.scripthash()?)),
    get("/scripthash/:hash/txs/mempool", |args| mempool_txs(args, args.scripthash()?)),
    get("/scripthash/:hash/utxo", |args| utxos(args, args.scripthash()?)),

    get("/scripthash/:hash/balance", |args| balance(args, args.scripthash()?)),
    get("/scripthash/:hash/balance/history", |args| balances(args, args.scripthash()?)),

    get("/address-prefix/:prefix", |_| Work::short(|_| address::by_prefix())),
];

fn stats(of: Subject) -> Made {
    Work::short(move |state| address::stats(state, &of))
}

fn txs(args: &Args<'_>, of: Subject) -> Made {
    let asked = args.asked.clone();
    if asked.wants_budget() {
        let of = HashSet::from([of.hash]);
        return Work::list(move |state, outlet| merged::txs(state, &of, &asked, outlet));
    }
    Work::list(move |state, outlet| address::txs(state, &of, &asked, outlet))
}

fn chain_txs(args: &Args<'_>, of: Subject) -> Made {
    let (after, asked) = (args.optional(1), args.asked.clone());
    Work::list(move |state, outlet| address::chain_txs(state, &of, after.as_ref(), &asked, outlet))
}

fn mempool_txs(args: &Args<'_>, of: Subject) -> Made {
    let asked = args.asked.clone();
    Work::whole(move |state| address::mempool_txs(state, &of, &asked))
}

fn balance(args: &Args<'_>, of: Subject) -> Made {
    let height = args.asked.height()?;
    Work::whole(move |state| balance::at_height(state, &of, height))
}

fn balances(args: &Args<'_>, of: Subject) -> Made {
    let asked = args.asked.clone();
    Work::list(move |state, outlet| balance::history(state, &of, &asked, outlet))
}

fn utxos(args: &Args<'_>, of: Subject) -> Made {
    let asked = args.asked.clone();
    Work::list(move |state, outlet| address::utxos(state, &of, &asked, outlet))
}
