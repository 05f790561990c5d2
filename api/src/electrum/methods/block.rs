//! Headers, with proofs against a checkpoint.

use std::fmt::Write;

use pulse_indexer::query::View;
use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, block::Header, consensus::encode::serialize_hex},
    tip::ChainTip,
};
use serde_json::{Value, json};

use super::Answer;
use crate::electrum::{
    Inner,
    error::ElectrumError,
    merkle::HeaderProof,
    rpc::{Params, json as text},
    version::Version,
    view::{self, At},
};

/// Most headers of one answer: those between two changes of the difficulty.
const MAX_HEADERS: u32 = 2016;

/// JSON of a header as subscribers get it.
fn header_json(height: Height, header: &Header) -> String {
    let hex = serialize_hex(header);
    format!(r#"{{"height":{height},"hex":"{hex}"}}"#)
}

/// As [`header_json`], of the tip of a view.
///
/// # Errors
/// A failed read.
pub(in crate::electrum) fn tip_json(
    view: &View<'_>,
    tip: ChainTip,
) -> Result<String, ElectrumError> {
    Ok(header_json(tip.height, &header_at(view, tip.height)?))
}

/// The header at `height`.
///
/// # Errors
/// [`ElectrumError::NoBlock`], or a failed read.
pub(super) fn header_at(view: &View<'_>, height: Height) -> Result<Header, ElectrumError> {
    let headers = view.headers(height..height.saturating_add(1))?;
    headers
        .first()
        .copied()
        .ok_or(ElectrumError::NoBlock { height })
}

fn proof(
    state: &Inner,
    at: &At<'_>,
    height: Height,
    cp_height: Height,
) -> Result<HeaderProof, ElectrumError> {
    if height > cp_height || cp_height > at.tip.height {
        if height <= cp_height {
            view::ends_at(&state.api, at.tip)?;
        }
        return Err(ElectrumError::CheckpointRange {
            height,
            cp_height,
            tip: at.tip.height,
        });
    }
    Ok(state.header_tree.proof(&at.view, height, cp_height)?)
}

pub(super) fn tip(state: &Inner, _: Version, _: &Params) -> Answer {
    let at = view::tip(&state.api)?;
    tip_json(&at.view, at.tip)
}

pub(super) fn header(state: &Inner, _: Version, params: &Params) -> Answer {
    let height = params.number(0, "height")?;
    let cp_height = params.number_or(1, "cp_height", 0)?;
    let at = view::index(&state.api)?;
    if cp_height == 0 {
        let header = known(state, &at, header_at(&at.view, height))?;
        return Ok(text(&serialize_hex(&header)));
    }
    let proof = proof(state, &at, height, cp_height)?;
    Ok(text(&json!({
        "branch": proof.branch,
        "header": serialize_hex(&header_at(&at.view, height)?),
        "root": proof.root,
    })))
}

/// By height or by hash.
pub(super) fn header_get(state: &Inner, _: Version, params: &Params) -> Answer {
    let at = view::index(&state.api)?;
    let height = match params.get(0, "height") {
        Some(Value::String(_)) => {
            let hash: BlockHash = params.hash(0, "height")?;
            let block = at.view.block_by_hash(&hash)?;
            let block = block.ok_or_else(|| ElectrumError::params("unknown block"));
            known(state, &at, block)?.height
        }
        _ => params.number(0, "height")?,
    };
    let header = known(state, &at, header_at(&at.view, height))?;
    Ok(header_json(height, &header))
}

/// What was `found` in `at`; that it is not there is said only if the chain ends there.
fn known<T>(
    state: &Inner,
    at: &At<'_>,
    found: Result<T, ElectrumError>,
) -> Result<T, ElectrumError> {
    if found.is_err() {
        view::ends_at(&state.api, at.tip)?;
    }
    found
}

pub(super) fn headers(state: &Inner, version: Version, params: &Params) -> Answer {
    let start = params.number(0, "start_height")?;
    let count = params.number(1, "count")?.min(MAX_HEADERS);
    let cp_height = params.number_or(2, "cp_height", 0)?;
    let at = view::index(&state.api)?;
    let end = start.saturating_add(count);
    if end > at.tip.height.saturating_add(1) {
        // Wallets take a row for the last one if it is shorter than what they asked for.
        view::ends_at(&state.api, at.tip)?;
    }
    let headers = at.view.headers(start..end)?;
    let mut answer = format!(r#"{{"count":{},"#, headers.len());
    let (open, between, close) = match version.is_1_6() {
        true => (r#""headers":[""#, "\",\"", r#""],"#),
        false => (r#""hex":""#, "", r#"","#),
    };
    match headers.is_empty() && version.is_1_6() {
        true => answer.push_str(r#""headers":[],"#),
        false => {
            answer.push_str(open);
            let hex: Vec<String> = headers.iter().map(serialize_hex).collect();
            answer.push_str(&hex.join(between));
            answer.push_str(close);
        }
    }
    write!(answer, r#""max":{MAX_HEADERS}"#).expect("a String takes everything");
    if let Some(last) = u32::try_from(headers.len()).unwrap_or(count).checked_sub(1)
        && cp_height > 0
    {
        let proof = proof(state, &at, start + last, cp_height)?;
        let (branch, root) = (text(&proof.branch), text(&proof.root));
        write!(answer, r#","branch":{branch},"root":{root}"#).expect("a String takes everything");
    }
    answer.push('}');
    Ok(answer)
}
