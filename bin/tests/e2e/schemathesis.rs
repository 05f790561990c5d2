//! Schemathesis, which knows nothing but the description of the API, against a living node:
//! no failure, no status or content that is not described, and no hang.

use std::{env, fmt::Write, fs, path::Path, process::Command, time::Duration};

use pulse_testkit::PulseNode;

use super::openapi::{Samples, living};

/// Time for the run in `make test`.
const SHORT: Duration = Duration::from_secs(45);
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

/// Its settings: what is checked, and values of the chain for most of the parameters, so that
/// it gets beyond "not found".
fn settings(node: &PulseNode) -> String {
    let mut text = String::from(
        "[checks]\n\
         # 503 is described, with its Retry-After; how many there may be is checked afterwards.\n\
         not_a_server_error.expected-statuses = [\"2XX\", \"3XX\", \"4XX\", \"503\"]\n",
    );
    let mut bindings = String::from("[parameters]\n");
    for (name, values) in Samples::of(node).existing() {
        writeln!(text, "[dictionaries.{name}]\nvalues = {values:?}").unwrap();
        let binding = format!("{{ dictionary = \"{name}\", probability = 0.7 }}");
        writeln!(bindings, "\"path.{name}\" = {binding}").unwrap();
    }
    text + &bindings
}

fn run(time: Duration) {
    let Some(program) = installed() else {
        return;
    };
    let node = living();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("schemathesis.toml");
    fs::write(&config, settings(&node)).unwrap();
    let base = format!("http://{}", node.http_addr());
    let ended = Command::new(program)
        .current_dir(dir.path())
        .arg("--config-file")
        .arg(&config)
        .args(["run", &format!("{base}/openapi.json"), "--url", &base])
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
        // Its answer has no end.
        .args(["--exclude-path", "/events"])
        .args(["--max-time", &time.as_secs().to_string()])
        .args(["--request-timeout", "40", "--generation-database", "none"])
        .args(["--warnings", "off", "--no-color"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    let complained = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}\n{complained}");
    let counted = |status: &str| count(node.get("/metrics").text(), status);
    let (good, unavailable) = (counted("200"), counted("503"));
    assert!(good > 200, "only {good} answers were 200\n{said}");
    assert!(
        50 * unavailable < good,
        "{unavailable} answers were 503, {good} were 200"
    );
    assert_eq!(counted("500"), 0);
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
    run(SHORT);
}

#[test]
#[ignore = "ten minutes"]
fn nothing_happens_that_is_not_described_for_long() {
    run(LONG);
}
