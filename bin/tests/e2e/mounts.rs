//! File systems of their own, in files: disks that can be full, fail, or lose their power.
//!
//! Only the superuser may mount, and not everywhere; elsewhere the scene is left out.

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

/// A file system in a file. Unmounted when dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    /// `None`, which it says, where nothing can be mounted.
    pub fn new(image: &Path, at: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mut mount = Command::new("mount");
        let output = mount.args(["-o", options]).arg(image).arg(&at).output();
        let output = output.unwrap();
        if output.status.success() {
            return Some(Self(at));
        }
        let why = String::from_utf8_lossy(&output.stderr);
        // Past the harness, which keeps what a test that passes prints.
        let _ = writeln!(io::stderr(), "SKIPPED {}: {why}", module_path!());
        None
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever used it has been killed and may take a moment to go.
        for _ in 0..100 {
            let ended = Command::new("umount").arg(&self.0).status();
            if ended.is_ok_and(|status| status.success()) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// An empty file system of so many bytes, which takes no more of the disk than it holds.
pub fn image(at: &Path, bytes: u64) {
    File::create(at).unwrap().set_len(bytes).unwrap();
    run("mkfs.ext4", &[Path::new("-q"), at]);
}

/// Copies the disk that lies in `outer`, to somewhere else, as it would be after a power cut: what
/// it was handed, and nothing that was still in memory.
pub fn copy_frozen(outer: &Mounted, disk: &Path, copy: &Path) {
    run("fsfreeze", &[Path::new("-f"), outer.path()]);
    let copied = Command::new("cp").arg(disk).arg(copy).status();
    run("fsfreeze", &[Path::new("-u"), outer.path()]);
    assert!(copied.unwrap().success());
}

/// Copies a disk, with holes where nothing is.
pub fn copy(disk: &Path, to: &Path) {
    run("cp", &[disk, to]);
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

fn run(program: &str, args: &[&Path]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|err| panic!("{program}: {err}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}");
}
