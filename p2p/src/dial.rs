//! From a configured address to a TCP connection.

use std::{io, time::Duration};

use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use crate::PeerAddr;

/// Resolves `addr` and connects to the first of its addresses that answers.
/// `limit` is for the resolution and again for each address.
///
/// # Errors
/// Of the last address tried, or of the resolution.
pub async fn connect(addr: &PeerAddr, limit: Duration) -> io::Result<TcpStream> {
    let lookup = timeout(limit, lookup_host((addr.host.as_str(), addr.port))).await;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for socket_addr in lookup.map_err(|_| timed_out())?? {
        match timeout(limit, TcpStream::connect(socket_addr)).await {
            Ok(Ok(stream)) => {
                // Requests are small and waited for.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(err)) => last = err,
            Err(_) => last = timed_out(),
        }
    }
    Err(last)
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}
