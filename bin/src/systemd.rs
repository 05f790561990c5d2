//! What systemd is told when it runs the node as `Type=notify`: that the process answers,
//! that it is alive, that it stops. Elsewhere nothing is sent.
//!
//! Ready means that `/health/live` answers, not that the node is synced: a first sync takes
//! hours, and a service that is not ready within `TimeoutStartSec` is killed.
//!
//! Source: sd_notify(3), sd_watchdog_enabled(3).

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Says that the node is ready, pings the watchdog at twice the rate that it asks for, and
/// says that the node stops when `stop` is cancelled. To be called when the listeners
/// answer.
///
/// # Errors
/// None: a lost message is logged, and systemd acts on it as the unit says.
pub async fn run(stop: CancellationToken) -> anyhow::Result<()> {
    tell(NotifyState::Ready);
    match sd_notify::watchdog_enabled() {
        Some(limit) if !limit.is_zero() => {
            let mut pings = interval(limit / 2);
            pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stop.run_until_cancelled(pings.tick()).await.is_some() {
                tell(NotifyState::Watchdog);
            }
        }
        _ => stop.cancelled().await,
    }
    tell(NotifyState::Stopping);
    Ok(())
}

fn tell(state: NotifyState<'_>) {
    if let Err(err) = sd_notify::notify(&[state]) {
        warn!(%err, "systemd could not be told the state of the node");
    }
}
