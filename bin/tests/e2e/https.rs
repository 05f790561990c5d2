//! HTTPS on the listener of HTTP, asked by curl.

use std::{env, fs, net::SocketAddr, path::Path, process::Command};

use super::common::{DEADLINE, options};

/// Whether there is a curl. Where there is none the test is skipped, with a word on stderr;
/// with `CI=true` it fails.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
pub fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").output().is_ok();
    if !found {
        let required = env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!required, "curl is not installed: run ci/setup-tests.sh");
        eprintln!("skipped: curl is not installed (ci/setup-tests.sh does it)");
    }
    found
}

/// Puts a new certificate where the node reads it.
pub fn certify(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for (name, text) in [
        ("key.pem", made.signing_key.serialize_pem()),
        ("cert.pem", made.cert.pem()),
    ] {
        let new = dir.join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, dir.join(name)).unwrap();
    }
}

/// Asks for a path, trusting one certificate; writes the body and `|` with the version of HTTP.
pub fn curl(addr: SocketAddr, trusted: &Path, scheme: &str, path: &str) -> Command {
    let port = addr.port();
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--noproxy", "*"])
        .args(["--max-time", "20", "--write-out", "|%{http_version}"])
        .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
        .arg("--cacert")
        .arg(trusted)
        .arg(format!("{scheme}://localhost:{port}{path}"));
    command
}

#[test]
fn one_listener_speaks_https_of_both_versions_and_http_and_reads_new_certificates() {
    if !has_curl() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    certify(dir.path());
    let mut node = options("regtest")
        .env("PULSE_HTTP__TLS_CERT", cert.to_str().unwrap())
        .env("PULSE_HTTP__TLS_KEY", key.to_str().unwrap())
        .start();
    let addr = node.http_addr();
    let first = dir.path().join("first.pem");
    fs::copy(&cert, &first).unwrap();
    for (scheme, args, want) in [
        ("https", &["--http2"][..], "ok|2"),
        ("https", &["--http1.1"], "ok|1.1"),
        ("https", &["--http1.1", "--tls-max", "1.2"], "ok|1.1"),
        ("http", &[], "ok|1.1"),
    ] {
        let mut asked = curl(addr, &first, scheme, "/health/live");
        let output = asked.args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(text, want, "{scheme} {args:?}: {err}");
    }
    for packed in [None, Some("--compressed")] {
        let mut asked = curl(addr, &first, "https", "/metrics");
        let output = asked.args(packed).output().unwrap();
        assert!(output.stdout.starts_with(b"# HELP"));
    }

    certify(dir.path());
    let speaks = |trusted: &Path| {
        let mut asked = curl(addr, trusted, "https", "/health/live");
        asked.output().unwrap().stdout.starts_with(b"ok")
    };
    node.wait_until("the new certificate", DEADLINE, |_| speaks(&cert));
    assert!(!speaks(&first));
}
