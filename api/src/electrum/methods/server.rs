//! What the server says of itself.

use serde_json::{Map, Value, json};

use super::Answer;
use crate::electrum::{
    Inner, SOFTWARE,
    rpc::{Params, json as text},
    version::{NEWEST, OLDEST, Version},
};

pub(super) fn ping(_: &Inner, _: Version, _: &Params) -> Answer {
    Ok("null".to_owned())
}

pub(super) fn banner(state: &Inner, _: Version, _: &Params) -> Answer {
    Ok(match state.config.banner.as_str() {
        "" => text(&format!("Welcome to {SOFTWARE}")),
        banner => text(banner),
    })
}

pub(super) fn donation_address(state: &Inner, _: Version, _: &Params) -> Answer {
    Ok(text(&state.config.donation_address))
}

/// No other servers are known here.
pub(super) fn peers(_: &Inner, _: Version, _: &Params) -> Answer {
    Ok("[]".to_owned())
}

/// Nor wanted.
pub(super) fn add_peer(_: &Inner, _: Version, _: &Params) -> Answer {
    Ok("false".to_owned())
}

pub(super) fn features(state: &Inner, _: Version, _: &Params) -> Answer {
    let mut hosts = Map::new();
    if !state.config.host.is_empty() {
        let ports = [
            ("tcp_port", state.addrs.tcp),
            ("ssl_port", state.addrs.tls),
            ("ws_port", state.addrs.ws),
            ("wss_port", state.addrs.wss),
        ];
        let ports: Map<String, Value> = ports
            .into_iter()
            .filter_map(|(name, addr)| Some((name.to_owned(), addr?.port().into())))
            .collect();
        hosts.insert(state.config.host.clone(), Value::Object(ports));
    }
    Ok(text(&json!({
        "genesis_hash": state.api.params().genesis_hash().to_string(),
        "hosts": hosts,
        "protocol_max": NEWEST.to_string(),
        "protocol_min": OLDEST.to_string(),
        "pruning": null,
        "server_version": SOFTWARE,
        "hash_function": "sha256",
        "broadcast_package": true,
    })))
}
