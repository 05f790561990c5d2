//! Puts the Electrum server together.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc};

use pulse_api::{
    ApiState,
    electrum::{
        Certificates, ElectrumAddrs, ElectrumConfig, ElectrumListener, ElectrumState, run_notifier,
        serve,
    },
};
use tokio::net::TcpListener;

use crate::{listen, tasks::Tasks};

/// The listeners that are configured, bound.
pub struct Electrum {
    sockets: Vec<(TcpListener, ElectrumListener)>,
    certificates: Option<Arc<Certificates>>,
}

/// Binds the listeners, and makes or reads the certificate if one needs it.
///
/// # Errors
/// When an address is taken, or the certificate cannot be had.
pub async fn bind(config: &ElectrumConfig, dir: &Path) -> anyhow::Result<Electrum> {
    let certificates = match config.needs_tls() {
        true => {
            let (cert, key) = (config.tls_cert.as_deref(), config.tls_key.as_deref());
            match Certificates::given("electrum", cert, key)? {
                Some(given) => Some(given),
                None => Some(Certificates::made(&config.host, dir)?),
            }
        }
        false => None,
    };
    let mut sockets = Vec::new();
    if let Some(addr) = config.addr {
        let socket = listen::bind("electrum.addr", addr).await?;
        sockets.push((socket, ElectrumListener::tcp()));
    }
    if let Some(addr) = config.ws_addr {
        let socket = listen::bind("electrum.ws_addr", addr).await?;
        sockets.push((socket, ElectrumListener::ws()));
    }
    if let Some(certificates) = &certificates {
        if let Some(addr) = config.tls_addr {
            let socket = listen::bind("electrum.tls_addr", addr).await?;
            sockets.push((socket, ElectrumListener::tls(certificates)?));
        }
        if let Some(addr) = config.wss_addr {
            let socket = listen::bind("electrum.wss_addr", addr).await?;
            sockets.push((socket, ElectrumListener::wss(certificates)?));
        }
    }
    Ok(Electrum {
        sockets,
        certificates,
    })
}

impl Electrum {
    /// Where it listens, by transport.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn addrs(&self) -> anyhow::Result<BTreeMap<&'static str, SocketAddr>> {
        let sockets = self.sockets.iter();
        sockets
            .map(|(socket, listener)| Ok((listener.name(), socket.local_addr()?)))
            .collect()
    }

    /// Spawns the server, if it has listeners.
    ///
    /// # Errors
    /// As [`Self::addrs`].
    pub fn spawn(
        self,
        tasks: &mut Tasks,
        config: &ElectrumConfig,
        api: ApiState,
    ) -> anyhow::Result<()> {
        if self.sockets.is_empty() {
            return Ok(());
        }
        let addrs = self.addrs()?;
        let addr = |name| addrs.get(name).copied();
        let addrs = ElectrumAddrs {
            tcp: addr("tcp"),
            tls: addr("tls"),
            ws: addr("ws"),
            wss: addr("wss"),
        };
        let state = ElectrumState::new(api, config.clone(), addrs);
        tasks.spawn("electrum notifier", {
            let state = state.clone();
            |stop| async move {
                run_notifier(state, stop).await;
                Ok(())
            }
        });
        if let Some(certificates) = self.certificates {
            tasks.spawn("certificates", |stop| async move {
                certificates.watch(stop).await;
                Ok(())
            });
        }
        for (socket, listener) in self.sockets {
            let state = state.clone();
            tasks.spawn("electrum", |stop| async move {
                serve(socket, listener, state, stop).await;
                Ok(())
            });
        }
        Ok(())
    }
}
