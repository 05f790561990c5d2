//! Commands over the stores of a node that is not running.

pub mod reindex;
pub mod verify;

use std::{
    io::{self, Write},
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use pulse_node::{
    chain::{Chain, ChainConfig},
    headers::HeaderStore,
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::{config::Config, data_dir::DataDir};

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Exit code when a second signal ends the process at once, as shells count SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// Becomes true at SIGINT or SIGTERM. A second signal ends the process at once.
pub fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order, so that the first signal does not end the process.
        flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Locks the data directory. It must be there: making one would only hide a mistyped path.
pub fn open_dir(config: &Config) -> anyhow::Result<DataDir> {
    anyhow::ensure!(
        config.data_dir.join("kernel").exists(),
        "{} holds no blocks. Hint: give the --data-dir and --network of the node",
        config.data_dir.display()
    );
    let seed = config.simulate.map(|simulate| simulate.seed);
    Ok(DataDir::open(&config.data_dir, &config.chain, seed)?)
}

/// Opens the kernel for its blocks. Nothing is downloaded.
pub fn open_chain(config: &Config, data_dir: &DataDir) -> anyhow::Result<Chain> {
    let headers = Arc::new(HeaderStore::open(&data_dir.headers(), &config.chain)?);
    Ok(Chain::open(
        &ChainConfig {
            dir: data_dir.kernel(),
            params: config.chain.clone(),
            script_threads: super::script_threads(),
            is_second: false,
        },
        headers,
    )?)
}

/// Shows progress now and then, on standard error.
pub struct Progress {
    started: Instant,
    shown: Instant,
}

impl Progress {
    /// Shows nothing for the first interval.
    pub fn new() -> Self {
        let started = Instant::now();
        Self {
            started,
            shown: started,
        }
    }

    /// Shows `text` if nothing was for a while. Progress may be lost: it is for people.
    pub fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.shown.elapsed() >= PROGRESS_INTERVAL {
            self.shown = Instant::now();
            let elapsed = self.started.elapsed().as_secs();
            let _ = writeln!(io::stderr(), "{} ({elapsed} s)", text());
        }
    }
}

/// Name of a path's last part, for messages.
fn name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
