//! Routes of the mempool and of fees.

use super::{Args, Made, Route, Work, get};
use crate::rest::{mempool, relatives};

#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    get("/mempool", |_| Work::whole(mempool::backlog)).of_mempool(),
    get("/mempool/txids", |_| Work::list(mempool::txids)).of_mempool(),
    get("/mempool/txids/page", txids_page).of_mempool(),
    get("/mempool/txids/page/:last_txid", txids_page).of_mempool(),
    get("/mempool/recent", |_| Work::whole(mempool::recent)).of_mempool(),
    get("/mempool/projected-blocks", |_| Work::whole(mempool::projected_blocks)).of_mempool(),
    get("/fees/recommended", |_| Work::whole(relatives::recommended_fees)).of_mempool(),
    get("/fee-estimates", |_| Work::whole(mempool::fee_estimates)).of_mempool(),
];

fn txids_page(args: &Args<'_>) -> Made {
    let (after, asked) = (args.optional(0), args.asked.clone());
    Work::whole(move |state| mempool::txids_page(state, after.as_ref(), &asked))
}
