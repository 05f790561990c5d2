//! Makes snapshots for siblings on a schedule (`fleet.snapshot_every_hours`).
//!
//! `auto-TIME-HEIGHT` in `fleet.snapshots_dir`, TIME in seconds since 1970. A new one is made
//! when the newest is older than the interval and the node has caught up; the newest two
//! stay, the others are removed. Folders of other names are the operator's.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use pulse_primitives::status::SYNCED_LAG_BLOCKS;
use pulse_snapshot::Progress;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{blocking, now};
use crate::snapshot::{self, PATIENCE, Source};

/// Snapshots that are kept: the newest, and the one before for those who are fetching it.
const KEPT: usize = 2;
/// Time between two looks at whether one is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// After one that failed.
const RETRY: Duration = Duration::from_secs(600);

/// Where and how often.
pub struct Schedule {
    /// Folder of the snapshots.
    pub dir: PathBuf,
    /// Time between two.
    pub every: Duration,
    /// Whether this node has computed its state itself.
    pub vouches: Arc<AtomicBool>,
}

/// Works until `stop`.
///
/// # Errors
/// None: what fails is logged and tried again.
pub async fn run(
    source: Source,
    schedule: Schedule,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut tick = interval(LOOK_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed = None::<Instant>;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = tick.tick() => {}
        }
        let waits = failed.is_some_and(|at| at.elapsed() < RETRY);
        if waits || !schedule.vouches.load(Ordering::Acquire) || !has_caught_up(&source) {
            continue;
        }
        let progress = Arc::new(Progress::default());
        let made = blocking({
            let (source, dir, every) = (source.clone(), schedule.dir.clone(), schedule.every);
            let progress = Arc::clone(&progress);
            move || make_if_due(&source, &dir, every, now(), &progress)
        });
        tokio::pin!(made);
        let made = tokio::select! {
            made = &mut made => made,
            () = stop.cancelled() => {
                progress.cancel();
                // It ends soon, and leaves nothing behind.
                let _ = made.await;
                return Ok(());
            }
        };
        failed = match made {
            Ok(()) => None,
            Err(err) => {
                warn!(err = format!("{err:#}"), "no snapshot made for siblings");
                Some(Instant::now())
            }
        };
    }
}

/// Whether there is anything worth a snapshot.
fn has_caught_up(source: &Source) -> bool {
    let height = source.chain.active_height();
    let index = source.index.as_ref();
    let indexed = index.is_none_or(|index| {
        let tip = *index.tip().borrow();
        tip.is_some_and(|tip| tip.height + SYNCED_LAG_BLOCKS >= height)
    });
    height > 0 && indexed && height + SYNCED_LAG_BLOCKS >= source.headers.best().tip.height
}

fn make_if_due(
    source: &Source,
    dir: &Path,
    every: Duration,
    now: u64,
    progress: &Arc<Progress>,
) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let newest = made_at(dir)?.first().map(|(time, _)| *time);
    if newest.is_some_and(|time| now < time.saturating_add(every.as_secs())) {
        return Ok(());
    }
    let height = source.chain.active_height();
    let place = dir.join(format!("auto-{now}-{height}"));
    snapshot::create(source, &place, PATIENCE, progress)?;
    for (_, old) in made_at(dir)?.into_iter().skip(KEPT) {
        fs::remove_dir_all(&old).with_context(|| old.display().to_string())?;
        info!(dir = %old.display(), "an old snapshot removed");
    }
    Ok(())
}

/// The snapshots of the schedule, newest first. What a kill has left of one is removed.
fn made_at(dir: &Path) -> anyhow::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some((time, rest)) = name
            .strip_prefix("auto-")
            .and_then(|name| name.split_once('-'))
        else {
            continue;
        };
        let Ok(time) = time.parse() else { continue };
        if rest.ends_with(".partial") {
            fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
        } else if path.join("manifest.json").is_file() {
            found.push((time, path.clone()));
        }
    }
    found.sort_unstable_by(|one, other| other.cmp(one));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_of_the_schedule_are_found_newest_first_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "auto-9-1",
            "auto-10-2",
            "auto-7-3",
            "mine",
            "auto-8-4.partial",
            "auto-x-1",
        ] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("manifest.json"), b"").unwrap();
        }
        let times: Vec<_> = made_at(dir.path())
            .unwrap()
            .into_iter()
            .map(|(time, _)| time)
            .collect();
        assert_eq!(times, [10, 9, 7]);
        assert!(!dir.path().join("auto-8-4.partial").exists());
        assert!(dir.path().join("mine").exists() && dir.path().join("auto-x-1").exists());
    }
}
