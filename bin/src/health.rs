//! `pulse-node health`: asks the node of a data directory how it is, over HTTP like any
//! balancer. For container engines, whose images have no other client.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::data_dir::{LISTEN_FILE, Listen};

/// Limit for the connection, for each read and for each write.
const WAIT: Duration = Duration::from_secs(5);
/// Longest status line that is read.
const LINE_BYTES: u64 = 256;

/// Prints the node's answer; `ready` asks `/health` instead of `/health/live`.
///
/// # Errors
/// When no node runs there, when it does not answer, and when its answer is not 200.
pub fn ask(data_dir: &Path, ready: bool, mut out: impl Write) -> anyhow::Result<()> {
    let path = data_dir.join(LISTEN_FILE);
    let text = fs::read(&path).with_context(|| format!("no node runs: {}", path.display()))?;
    let listen: Listen =
        serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    let addr: SocketAddr = listen.http.parse().context("address of the node")?;
    let path = if ready { "/health" } else { "/health/live" };
    let status = status_of(reachable(addr), path)
        .with_context(|| format!("{addr} does not answer {path}"))?;
    if status != "200" {
        bail!("{path} is {status}");
    }
    writeln!(out, "ok").context("standard output")
}

/// A listener on all addresses is reached on loopback.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    addr
}

fn status_of(addr: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
    )?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES)).read_line(&mut line)?;
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    Ok(status.context("no answer of HTTP")?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// What `ask` makes of a node that answers `reply`.
    fn outcome(reply: &'static str, ready: bool) -> (String, anyhow::Result<()>) {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let listen = format!(
            r#"{{"http":"{}","ops":null,"p2p":null,"electrum":{{}},"pid":1}}"#,
            listener.local_addr().unwrap()
        );
        fs::write(dir.path().join(LISTEN_FILE), listen).unwrap();
        let node = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(&stream);
            let mut asked = String::new();
            reader.read_line(&mut asked).unwrap();
            let mut line = asked.clone();
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).unwrap();
            }
            (&stream).write_all(reply.as_bytes()).unwrap();
            asked
        });
        let result = ask(dir.path(), ready, Vec::new());
        (node.join().unwrap(), result)
    }

    #[test]
    fn two_hundred_is_well_and_everything_else_is_not() {
        let (asked, result) = outcome("HTTP/1.1 200 OK\r\n\r\nok", false);
        assert_eq!(asked, "GET /health/live HTTP/1.1\r\n");
        result.unwrap();
        let (asked, result) = outcome("HTTP/1.1 503 Service Unavailable\r\n\r\n", true);
        assert_eq!(asked, "GET /health HTTP/1.1\r\n");
        assert_eq!(result.unwrap_err().to_string(), "/health is 503");
        let (_, result) = outcome("SSH-2.0\r\n", false);
        assert!(result.is_err());
    }

    #[test]
    fn a_directory_without_a_node_is_not_well() {
        let dir = tempfile::tempdir().unwrap();
        let err = ask(dir.path(), false, Vec::new()).unwrap_err();
        assert!(err.to_string().starts_with("no node runs: "), "{err:#}");
    }
}
