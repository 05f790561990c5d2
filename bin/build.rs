//! Puts the commit that is being built into `PULSE_COMMIT`.
//!
//! The environment variable of that name counts first (builds from a tarball or in a
//! container have no repository), then git, then the word "unknown".

use std::process::Command;

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn main() {
    let commit = std::env::var("PULSE_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty())
        .or_else(|| git(&["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=PULSE_COMMIT={commit}");
    println!("cargo::rerun-if-env-changed=PULSE_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    // A file that changes with every commit and checkout. Naming one that does not
    // exist would rebuild the binary every time.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && std::path::Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
}
