//! The Electrum server: protocol 1.4 to 1.6 over TCP, TLS and WebSocket.
//!
//! ```text
//! listener -> server -> transport -> session -> patience -> methods -> view -> query -> JSON
//! index and mempool -> notifier -> registry -> session
//! ```
//!
//! # Correctness
//! - Each answer is drawn from one snapshot of the index, and its unconfirmed part from the
//!   mempool that builds upon the same block ([`view`]).
//! - A subscriber hears of every script and transaction that a block, a reorganisation or the
//!   mempool has touched ([`notifier`]), and only when its state is another than the last one
//!   sent ([`session`]).
//!
//! # Limits
//! Everything that a client can make grow has a limit ([`ElectrumConfig`]), which answers
//! with an error.

mod config;
mod core_json;
mod error;
mod histories;
mod limits;
mod merkle;
mod methods;
mod notifier;
mod patience;
mod server;
mod session;
mod status;
mod transport;
mod version;
mod view;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pulse_primitives::{
    Height,
    bitcoin::{Txid, hashes::Hash},
    mempool::ScriptHash,
};
use pulse_request::rpc;

pub use crate::tls::{Certificates, TlsError};
pub use config::ElectrumConfig;
pub use notifier::run as run_notifier;
pub use server::{ElectrumListener, serve};

use self::{
    error::ElectrumError, histories::Histories, limits::Shares, merkle::HeaderTree,
    patience::Patience, status::Status,
};
use crate::{blocking::Blocking, places::Places, registry, state::ApiState};

/// Name and version of the program, as clients see them.
const SOFTWARE: &str = concat!("pulse-node ", env!("CARGO_PKG_VERSION"));
/// Seconds that a request waits for its turn to read the index.
const QUEUE_WAIT: Duration = Duration::from_secs(30);
/// Seconds that it may take then.
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the server listens, for `server.features`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ElectrumAddrs {
    /// Plain TCP.
    pub tcp: Option<SocketAddr>,
    /// TLS.
    pub tls: Option<SocketAddr>,
    /// WebSocket.
    pub ws: Option<SocketAddr>,
    /// WebSocket over TLS.
    pub wss: Option<SocketAddr>,
}

/// What all sessions share. Cheap to clone.
#[derive(Clone)]
pub struct ElectrumState(Arc<Inner>);

/// What clients subscribe to, besides tips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Topic {
    Script(ScriptHash),
    Tx(Txid),
}

/// What they are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Status(Status),
    /// Of a transaction: 0 in the mempool, `None` if it is unknown.
    Height(Option<Height>),
}

/// Who wants to hear of what.
type Registry = registry::Registry<Topic, Told>;
/// What a session has to tell its client.
type Outbox = registry::Outbox<Topic, Told>;

struct Inner {
    api: ApiState,
    config: ElectrumConfig,
    addrs: ElectrumAddrs,
    registry: Registry,
    histories: Histories,
    header_tree: HeaderTree,
    shares: Arc<Shares>,
    blocking: Blocking,
    /// Those of the connections of all listeners.
    places: Places,
}

impl ElectrumState {
    /// State for answers from what `api` reads.
    #[must_use]
    pub fn new(api: ApiState, config: ElectrumConfig, addrs: ElectrumAddrs) -> Self {
        Self(Arc::new(Inner {
            registry: Registry::default(),
            histories: Histories::new(config.max_history),
            header_tree: HeaderTree::default(),
            shares: Arc::default(),
            blocking: Blocking::new(config.max_queries, QUEUE_WAIT, QUERY_TIMEOUT),
            places: Places::new(
                config.max_connections.get(),
                config.max_connections_per_address,
            ),
            // Who waits for the mempool waits without a slot.
            api: api.impatient(),
            config,
            addrs,
        }))
    }

    /// Result of `work`, which reads the index.
    async fn read<T: Send + 'static>(
        &self,
        patience: &Patience,
        work: impl Fn(&Inner) -> Result<T, ElectrumError> + Send + Sync + 'static,
    ) -> Result<T, ElectrumError> {
        self.run(&self.0.blocking, patience, work).await
    }

    /// Result of `work`, which hands in transactions unless the node is between two states.
    async fn submit<T: Send + 'static>(
        &self,
        patience: &Patience,
        work: impl Fn(&Inner) -> Result<T, ElectrumError> + Send + Sync + 'static,
    ) -> Result<T, ElectrumError> {
        self.run(self.0.api.submitting(), patience, work).await
    }

    async fn run<T: Send + 'static>(
        &self,
        slots: &Blocking,
        patience: &Patience,
        work: impl Fn(&Inner) -> Result<T, ElectrumError> + Send + Sync + 'static,
    ) -> Result<T, ElectrumError> {
        let work = Arc::new(work);
        let attempt = || {
            let (state, work) = (self.clone(), Arc::clone(&work));
            async move {
                let done = slots.run(move || work(&state.0)).await;
                done.unwrap_or_else(|error| Err(error.into()))
            }
        };
        patience.result(attempt).await
    }
}

/// The script that a client names by its reversed hash.
fn script_of(mut hash: [u8; 32]) -> ScriptHash {
    hash.reverse();
    ScriptHash::from_byte_array(hash)
}

/// How clients name a script.
fn name_of(script: &ScriptHash) -> String {
    let mut hash = script.to_byte_array();
    hash.reverse();
    hex::encode(hash)
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::ScriptBuf;

    use super::*;

    #[test]
    fn scripts_have_the_names_of_the_contract() {
        let script = ScriptBuf::from_hex("76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac");
        let hash = ScriptHash::hash(script.unwrap().as_bytes());
        let name = "8b01df4e368ea28f8dc0423bcf7a4923e3a12d307c875e47a0cfbf90b5c39161";
        assert_eq!(name_of(&hash), name);
        let bytes = <[u8; 32]>::try_from(hex::decode(name).unwrap()).unwrap();
        assert_eq!(script_of(bytes), hash);
    }
}
