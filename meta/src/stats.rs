//! Statistics of the runs of this node.

use serde::{Deserialize, Serialize};

/// What this data directory has been through. Starts again from zero when the
/// metadata database had to be replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunStats {
    /// Starts so far, the current one included.
    pub starts: u64,
    /// Starts that found the run before them without a recorded stop.
    pub unclean_stops: u64,
    /// Time of the latest start, in seconds since 1970.
    pub last_start: Option<u64>,
    /// Time of the latest clean stop, in seconds since 1970.
    pub last_stop: Option<u64>,
    /// Blocks applied to the index in all runs, those applied again after a
    /// reorganisation included.
    pub blocks_indexed: u64,
    /// Whether a run is on: set at a start, cleared at a clean stop.
    pub running: bool,
}
