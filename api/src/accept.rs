//! How listeners take connections.

use std::{io, net::IpAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tracing::warn;

/// Pause after a failed accept, which is most often a lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The next connection and its address, whatever happens to others before it. `server` is told
/// in the log.
pub(crate) async fn accept(listener: &TcpListener, server: &'static str) -> (TcpStream, IpAddr) {
    loop {
        let accepted: io::Result<_> = async {
            let (stream, addr) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok((stream, addr.ip()))
        }
        .await;
        match accepted {
            Ok(accepted) => return accepted,
            // The client was gone before it was served: no reason to pause for others.
            Err(err) if err.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(err) => {
                warn!(server, %err, "connection not accepted");
                sleep(PAUSE).await;
            }
        }
    }
}
