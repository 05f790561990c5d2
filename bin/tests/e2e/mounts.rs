//! File systems of their own, in files: disks that can be full, fail, or lose their power.
//!
//! Only the superuser may mount, and not everywhere: [`are_possible`].

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

/// Whether a file system can be mounted that lies in another one. Says so if not.
pub fn are_possible() -> bool {
    let tried = try_two();
    if let Err(why) = &tried {
        // Past the harness, which keeps what a test that passes prints.
        let _ = writeln!(io::stderr(), "SKIPPED {}: {why}", module_path!());
    }
    tried.is_ok()
}

fn try_two() -> Result<(), String> {
    let place = tempfile::tempdir().unwrap();
    let large = place.path().join("large");
    try_image(&large, 16 << 20)?;
    let outer = Mounted::try_new(&large, place.path().join("outer"), "loop")?;
    let small = outer.path().join("small");
    try_image(&small, 4 << 20)?;
    Mounted::try_new(&small, place.path().join("inner"), "loop").map(drop)
}

/// A file system in a file. Unmounted when dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    pub fn new(image: &Path, at: PathBuf, options: &str) -> Self {
        Self::try_new(image, at, options).unwrap()
    }

    fn try_new(image: &Path, at: PathBuf, options: &str) -> Result<Self, String> {
        fs::create_dir_all(&at).unwrap();
        run("mount", &[Path::new("-o"), Path::new(options), image, &at])?;
        Ok(Self(at))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever used it has been killed and may take a moment to go.
        let mut tries = (0..100).map(|_| {
            let ended = run("umount", &[&self.0]);
            thread::sleep(Duration::from_millis(if ended.is_ok() { 0 } else { 50 }));
            ended
        });
        if !tries.any(|ended| ended.is_ok()) {
            let _ = writeln!(io::stderr(), "{} stays mounted", self.0.display());
        }
    }
}

/// An empty file system of so many bytes, which takes no more of the disk than it holds.
pub fn image(at: &Path, bytes: u64) {
    try_image(at, bytes).unwrap();
}

fn try_image(at: &Path, bytes: u64) -> Result<(), String> {
    File::create(at).unwrap().set_len(bytes).unwrap();
    run("mkfs.ext4", &[Path::new("-q"), at])
}

/// Copies the disk that lies in `outer`, to somewhere else, as it would be after a power cut: what
/// it was handed, and nothing that was still in memory.
pub fn copy_frozen(outer: &Mounted, disk: &Path, copy: &Path) {
    run("fsfreeze", &[Path::new("-f"), outer.path()]).unwrap();
    let copied = run("cp", &[disk, copy]);
    run("fsfreeze", &[Path::new("-u"), outer.path()]).unwrap();
    copied.unwrap();
}

/// Copies a disk, with holes where nothing is.
pub fn copy(disk: &Path, to: &Path) {
    run("cp", &[disk, to]).unwrap();
}

/// Leaves no room where `file` is to be. Gone with that file.
pub fn fill(file: &Path) {
    let filler = File::create(file).unwrap();
    let (mut len, mut more) = (0, 1 << 40);
    while more >= 1 << 10 {
        match fallocate(&filler, FallocateFlags::empty(), len, more) {
            Ok(()) => len += more,
            Err(err) => {
                assert!([Errno::NOSPC, Errno::FBIG].contains(&err), "{err}");
                more /= 2;
            }
        }
    }
}

fn run(program: &str, args: &[&Path]) -> Result<(), String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    // Where users who are not the superuser do not look.
    let command = command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    let output = command.args(args).output();
    let output = output.map_err(|err| format!("{program}: {err}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program} {args:?}: {text}")),
    }
}
