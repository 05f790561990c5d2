//! The launcher with a shell script in the place of the node.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::PathBuf,
    thread,
    time::Duration,
};

use pulse_testkit::{NodeOptions, PulseNode};

const TIMEOUT: Duration = Duration::from_secs(20);

/// A script that runs `body` with the data directory in `$dir`.
fn script(dir: &tempfile::TempDir, body: &str) -> PathBuf {
    let path = dir.path().join("node.sh");
    let text = format!("#!/bin/sh\n[ \"$1\" = --data-dir ] || exit 9\ndir=$2\n{body}\n");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A script that says that it listens where `listener` does, and then waits.
fn listening(dir: &tempfile::TempDir, listener: &TcpListener) -> PathBuf {
    let addr = listener.local_addr().unwrap();
    script(
        dir,
        &format!(
            "mkdir -p $dir; echo \"args $@\"; echo started >&2\n\
             echo \"{{\\\"http\\\":\\\"{addr}\\\",\\\"pid\\\":$$}}\" > $dir/listen.json\n\
             exec sleep 1000"
        ),
    )
}

#[test]
fn node_is_started_asked_stopped_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = listening(&dir, &listener);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let body = "42";
            write!(
                stream,
                "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
        }
    });
    let mut node: PulseNode = NodeOptions::new(path).network("regtest").start();
    let reply = node.get("/api/blocks/tip/height");
    assert_eq!((reply.status, reply.text()), (503, "42"));
    assert_eq!(reply.retry_after.as_deref(), Some("5"));
    assert_eq!(reply.json::<u32>(), 42);
    assert_eq!(node.tip_height(), None, "503 is no height");
    node.wait_until("the log", TIMEOUT, |node| node.log().contains("started"));
    assert!(node.log().contains("--network regtest"));
    let (first, data_dir) = (node.pid(), node.data_dir().to_owned());
    assert_eq!(node.terminate(TIMEOUT).status.signal(), Some(15));

    let mut node = node.restart();
    assert_ne!(node.pid(), first);
    assert_eq!(node.data_dir(), data_dir);
    assert_eq!(node.kill().status.signal(), Some(9));
    drop(node);
    assert!(!data_dir.exists(), "the temporary directory is gone");
}

#[test]
fn refused_start_tells_status_and_output() {
    let dir = tempfile::tempdir().unwrap();
    let path = script(&dir, "echo out; echo 'key: wrong' >&2; exit 3");
    let exit = NodeOptions::new(&path).run_to_exit(TIMEOUT);
    assert_eq!(exit.status.code(), Some(3));
    assert_eq!(
        (exit.stdout.as_str(), exit.stderr.as_str()),
        ("out\n", "key: wrong\n")
    );

    let panic = std::panic::catch_unwind(|| NodeOptions::new(&path).start()).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("key: wrong"), "{message}");
}
