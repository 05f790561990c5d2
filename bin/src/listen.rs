//! Listeners, bound before anything is started.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::net::TcpListener;

/// Listens on `addr`; an error names `key`, the key of the configuration that holds it.
///
/// # Errors
/// When the address is taken or not ours.
pub async fn bind(key: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr)
        .await
        .with_context(|| format!("{key}: cannot listen on {addr}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_key() {
        let first = bind("http.addr", "127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let addr = first.local_addr().unwrap();
        let err = bind("http.ops_addr", addr).await.unwrap_err();
        let text = format!("{err:#}");
        assert!(
            text.starts_with(&format!("http.ops_addr: cannot listen on {addr}: ")),
            "{text}"
        );
    }
}
