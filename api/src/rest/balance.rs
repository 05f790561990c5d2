//! What an address or scripthash was worth at a block, and block by block (docs/api.md). Not
//! Esplora. Confirmed only: what a later block or the mempool does to it is another question.

use pulse_indexer::query::NoBalance;
use pulse_primitives::Height;
use pulse_request::RequestError;
use serde_json::json;

use super::{
    error::RestError,
    list::{List, Outlet},
    model::{BalanceChangeJson, BalanceJson},
    openapi::Paths,
    params::{Asked, Subject},
    reply::{Cache, Reply},
    snapshot::Snapshot,
};
use crate::state::ApiState;

/// Blocks in one list.
const BLOCKS_PER_PAGE: usize = 100;
/// Most of them that a client can ask for at once.
const MOST_BLOCKS: usize = 1_000;

type Answer = Result<Reply, RestError>;

/// Its balance with the block at a height, or at the tip.
///
/// # Errors
/// [`RestError::BlockNotFound`], [`RestError::TooManyTxsAround`], or a failed read.
pub(super) fn at_height(state: &ApiState, of: &Subject, height: Option<Height>) -> Answer {
    let at = Snapshot::take(state)?;
    let tip = at.tip()?;
    let height = match height {
        Some(height) => height,
        None => {
            at.require_synced()?;
            tip.height
        }
    };
    let found = at.view.balance_at(&of.hash, height)?;
    let found = found.ok_or_else(|| at.absent(RestError::BlockNotFound))?;
    let (block, balance) = found.map_err(refused)?;
    Ok(Reply::json(
        &BalanceJson::new(block, balance),
        at.cache_at(height),
    ))
}

/// Its balances in the blocks that touch it, newest first.
///
/// # Errors
/// Malformed parameters, [`RestError::CursorGone`], [`RestError::TooManyTxsAround`], or a
/// failed read.
pub(super) fn history(state: &ApiState, of: &Subject, asked: &Asked, outlet: Outlet) -> Answer {
    let (limit, place) = asked.balances(BLOCKS_PER_PAGE, MOST_BLOCKS)?;
    let heights = asked.heights()?;
    let at = Snapshot::take(state)?;
    at.require_synced()?;
    let page = (at.view).balance_page(&of.hash, heights, place.as_ref(), limit)?;
    let page = page.map_err(refused)?;
    let mut list = List::from_place(outlet, Cache::Short, page.next);
    for change in page.changes {
        list.push(&BalanceChangeJson::from(change))?;
    }
    list.finish()
}

fn refused(why: NoBalance) -> RestError {
    match why {
        NoBalance::Gone => RestError::CursorGone,
        NoBalance::TooMany => RestError::TooManyTxsAround,
    }
}

/// The description of these routes.
pub(super) fn describe(paths: &mut Paths) {
    paths.tag("Balances", "What a script was worth. Not Esplora");
    for (balance, history) in [
        (
            "/address/:address/balance",
            "/address/:address/balance/history",
        ),
        (
            "/scripthash/:hash/balance",
            "/scripthash/:hash/balance/history",
        ),
    ] {
        paths
            .get(
                balance,
                "What it was worth with a block, or is with the last one",
            )
            .query(
                "height",
                "Height of the block; the tip's if absent",
                &json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
            )
            .json::<BalanceJson>(&[Cache::Short, Cache::Long])
            .error(RequestError::InvalidNumber)
            .error(RestError::BlockNotFound)
            .error(RestError::TooManyTxsAround);
        paths
            .get(
                history,
                "What each block that touches it changed, newest first",
            )
            .list::<BalanceChangeJson>(None, &[Cache::Short])
            .pages()
            .heights()
            .error(RestError::TooManyTxsAround);
    }
}
