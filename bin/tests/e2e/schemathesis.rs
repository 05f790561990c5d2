//! Schemathesis, which knows nothing but the description of the API, against both listeners of
//! a node: no failure, no status or content that is not described, and no hang.
//!
//! `/events` is left out: Schemathesis reads each answer to its end, and a stream has none. Its
//! beginning is compared with the description in `e2e::openapi`, the rest is that of
//! `e2e::push`. `/labels/import` is left out because it makes no `application/jsonl`; its answers
//! are compared in `e2e::openapi` as well.

use std::{env, fmt::Write, fs, path::Path, process::Command, time::Duration};

use pulse_testkit::PulseNode;

use super::openapi::{Samples, living, standing};

/// Times for the runs in `make test`.
const SHORT: Duration = Duration::from_secs(45);
const SHORTER: Duration = Duration::from_secs(20);
/// Time for the long one.
const LONG: Duration = Duration::from_secs(600);

/// Where `ci/setup-tests.sh` has put it. `None`, with a word, where it is not installed.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn installed() -> Option<std::path::PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/schemathesis");
    let program = dir.join("venv/bin/schemathesis");
    if program.exists() {
        return Some(program);
    }
    let required = env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(
        !required,
        "schemathesis is not installed: run ci/setup-tests.sh"
    );
    eprintln!("skipped: schemathesis is not installed (ci/setup-tests.sh does it)");
    None
}

/// Statuses of answers that are no failure of a node.
const GOOD: [&str; 3] = ["2XX", "3XX", "4XX"];
/// The same for one that gets blocks: for a moment after each its mempool follows, and a
/// request may come that does not wait so long. How many may is checked afterwards.
const GOOD_MEANWHILE: [&str; 4] = ["2XX", "3XX", "4XX", "503"];

/// Its settings: what is checked, and values of the chain for most of the parameters, so that
/// it gets beyond "not found".
fn settings(node: &PulseNode, good: &[&str]) -> String {
    let mut text = format!("[checks]\nnot_a_server_error.expected-statuses = {good:?}\n");
    let mut bindings = String::from("[parameters]\n");
    for (name, values) in Samples::of(node).existing() {
        writeln!(text, "[dictionaries.{name}]\nvalues = {values:?}").unwrap();
        let binding = format!("{{ dictionary = \"{name}\", probability = 0.7 }}");
        writeln!(bindings, "\"path.{name}\" = {binding}").unwrap();
    }
    text + &bindings
}

/// Runs it for so long against the listener at `base`. Gives the numbers of answers with 200
/// and with 503.
fn run(node: &PulseNode, base: &str, good: &[&str], time: Duration) -> Option<(u64, u64)> {
    let program = installed()?;
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("schemathesis.toml");
    fs::write(&config, settings(node, good)).unwrap();
    let counted = |status: &str| count(node.get_ops("/metrics").text(), status);
    let before = [counted("200"), counted("503")];
    let ended = Command::new(program)
        .current_dir(dir.path())
        .arg("--config-file")
        .arg(&config)
        .args(["run", &format!("{base}/openapi.json"), "--url", base])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,\
             response_headers_conformance,response_schema_conformance",
        ])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--continue-on-failure",
        ])
        .args(["--exclude-path", "/events"])
        .args(["--exclude-path", "/labels/import"])
        .args(["--max-time", &time.as_secs().to_string()])
        .args(["--request-timeout", "40", "--generation-database", "none"])
        .args(["--warnings", "off", "--no-color"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    let complained = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}\n{complained}");
    assert_eq!(counted("500"), 0);
    let answered = counted("200") - before[0];
    // However slow the machine is, it has got beyond "not found".
    assert!(answered > 50, "only {answered} answers were 200\n{said}");
    Some((answered, counted("503") - before[1]))
}

/// Requests with an answer of this status.
fn count(metrics: &str, status: &str) -> u64 {
    let label = format!("status=\"{status}\"");
    let lines = metrics.lines();
    let counts = lines.filter(|line| {
        line.starts_with("pulse_rest_request_seconds_count{") && line.contains(&label)
    });
    counts
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[test]
fn nothing_happens_that_is_not_described() {
    let node = standing(4 * SHORT, &[]);
    let base = format!("http://{}", node.http_addr());
    if let Some((_, unavailable)) = run(&node, &base, &GOOD, SHORT) {
        assert_eq!(unavailable, 0);
    }
}

#[test]
fn nothing_happens_that_is_not_described_to_operators() {
    let node = standing(4 * SHORT, &["--ops-addr", "127.0.0.1:0"]);
    let base = format!("http://{}", node.ops_addr().unwrap());
    if let Some((_, unavailable)) = run(&node, &base, &GOOD, SHORTER) {
        assert_eq!(unavailable, 0);
    }
}

#[test]
#[ignore = "ten minutes"]
fn nothing_happens_that_is_not_described_for_long() {
    let node = living(&[]);
    let base = format!("http://{}", node.http_addr());
    if let Some((good, unavailable)) = run(&node, &base, &GOOD_MEANWHILE, LONG) {
        assert!(
            50 * unavailable < good,
            "{unavailable} answers were 503, {good} were 200"
        );
    }
}
