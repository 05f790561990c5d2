//! The methods that are the same for every session: name -> function.
//!
//! Those that depend on the session (version, subscriptions) are in [`super::session`].

mod block;
mod fee;
mod script;
mod server;
mod tx;

use super::{Inner, Told, Topic, error::ElectrumError, rpc::Params, version::Version};

pub(super) use block::tip_json;
pub(super) use script::script_param;
pub(super) use tx::tx_param;

use script::statuses;
use tx::heights;

/// The state of each topic.
///
/// # Errors
/// That of the index and mempool as a whole, or of each topic.
#[allow(
    clippy::type_complexity,
    reason = "a name would hide more than it tells"
)]
pub(super) fn states(
    state: &Inner,
    topics: &[Topic],
) -> Result<Vec<Result<Told, ElectrumError>>, ElectrumError> {
    let (mut scripts, mut txids) = (Vec::new(), Vec::new());
    for topic in topics {
        match topic {
            Topic::Script(script) => scripts.push(*script),
            Topic::Tx(txid) => txids.push(*txid),
        }
    }
    let mut statuses = match scripts.is_empty() {
        true => Vec::new(),
        false => statuses(state, &scripts)?,
    }
    .into_iter();
    let mut heights = match txids.is_empty() {
        true => Vec::new(),
        false => heights(state, &txids)?,
    }
    .into_iter();
    let missing = "each has its state";
    let states = topics.iter().map(|topic| match topic {
        Topic::Script(_) => statuses.next().expect(missing).map(Told::Status),
        Topic::Tx(_) => heights.next().expect(missing).map(Told::Height),
    });
    Ok(states.collect())
}

/// Answers with JSON.
pub(super) type Answer = Result<String, ElectrumError>;

/// A method: what it is called (for metrics), and how it is answered.
#[derive(Clone, Copy)]
pub(super) struct Method {
    pub(super) name: &'static str,
    pub(super) answer: fn(&Inner, Version, &Params) -> Answer,
    /// Whether it hands something in, which has slots of its own.
    pub(super) submits: bool,
}

const fn read(name: &'static str, answer: fn(&Inner, Version, &Params) -> Answer) -> Method {
    Method {
        name,
        answer,
        submits: false,
    }
}

const fn submit(name: &'static str, answer: fn(&Inner, Version, &Params) -> Answer) -> Method {
    Method {
        name,
        answer,
        submits: true,
    }
}

/// All of them.
const METHODS: [Method; 28] = [
    read("server.add_peer", server::add_peer),
    read("server.banner", server::banner),
    read("server.donation_address", server::donation_address),
    read("server.features", server::features),
    read("server.peers.subscribe", server::peers),
    read("blockchain.block.header", block::header),
    read("blockchain.block.headers", block::headers),
    read("blockchain.header.get", block::header_get),
    read("blockchain.headers.get_tip", block::tip),
    read("blockchain.estimatefee", fee::estimate),
    read("blockchain.relayfee", fee::relay),
    read("mempool.get_info", fee::info),
    read("mempool.get_fee_histogram", fee::histogram),
    read("blockchain.scripthash.get_balance", script::balance),
    read("blockchain.scripthash.get_first_use", script::first_use),
    read("blockchain.scripthash.get_history", script::history),
    read("blockchain.scripthash.get_mempool", script::mempool),
    read("blockchain.scripthash.get_status", script::status),
    read("blockchain.scripthash.listunspent", script::unspent),
    submit("blockchain.transaction.broadcast", tx::broadcast),
    submit(
        "blockchain.transaction.broadcast_package",
        tx::broadcast_package,
    ),
    read("blockchain.transaction.get", tx::get),
    read(
        "blockchain.transaction.get_confirmed_blockhash",
        tx::blockhash,
    ),
    read("blockchain.transaction.get_height", tx::height),
    read("blockchain.transaction.get_merkle", tx::merkle),
    read("blockchain.transaction.id_from_pos", tx::id_from_pos),
    read("blockchain.utxo.get_info", tx::utxo),
    read("server.ping", server::ping),
];

/// The method of that name in that version of the protocol.
pub(super) fn find(name: &str, version: Version) -> Option<Method> {
    let method = METHODS.into_iter().find(|method| method.name == name)?;
    let exists = match name {
        "blockchain.relayfee" => !version.is_1_6(),
        "mempool.get_info" | "blockchain.transaction.broadcast_package" => version.is_1_6(),
        _ => true,
    };
    exists.then_some(method)
}
