//! Puts the commit that is being built into `PULSE_COMMIT`, and libstdc++ into the
//! executable, so that it runs where that library is older or missing.
//!
//! The environment variable of that name counts first (builds from a tarball or in a
//! container have no repository), then git, then the word "unknown".

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn name_the_commit() {
    let commit = env::var("PULSE_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty())
        .or_else(|| git(&["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=PULSE_COMMIT={commit}");
    println!("cargo::rerun-if-env-changed=PULSE_COMMIT");
    // A file that changes with every commit and checkout. Naming one that does not
    // exist would rebuild the binary every time.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// The static libstdc++ of the compiler that RocksDB and the kernel are built with, if that
/// compiler has one.
fn archive_of_cxx_runtime() -> Option<PathBuf> {
    let compiler = cc::Build::new().cpp(true).try_get_compiler().ok()?;
    let output = compiler
        .to_command()
        .arg("-print-file-name=libstdc++.a")
        .output()
        .ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    // A bare name is the answer of a compiler that has none.
    (path.is_absolute() && path.exists()).then_some(path)
}

/// The native libraries ask the linker for `-lstdc++`. In a folder that holds nothing but
/// the archive, and is searched before those of the system, it finds the archive.
fn link_cxx_runtime_statically() -> io::Result<()> {
    println!("cargo::rerun-if-changed=native/arc4random.c");
    let is = |variable: &str, value: &str| env::var(variable).as_deref() == Ok(value);
    if !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return Ok(());
    }
    let Some(archive) = archive_of_cxx_runtime() else {
        println!("cargo::warning=no libstdc++.a: the executable will need libstdc++.so");
        return Ok(());
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let folder = out.join("cxx");
    let link = folder.join("libstdc++.a");
    fs::create_dir_all(&folder)?;
    match fs::remove_file(&link) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    symlink(&archive, &link)?;
    println!("cargo::rustc-link-search=native={}", folder.display());
    for object in cc::Build::new()
        .file("native/arc4random.c")
        .compile_intermediates()
    {
        println!("cargo::rustc-link-arg-bins={}", object.display());
    }
    Ok(())
}

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    name_the_commit();
    link_cxx_runtime_statically()
}
