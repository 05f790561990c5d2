//! The `[mempool]` section of the configuration.

use serde::{Deserialize, Serialize};

/// Settings of the mempool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MempoolConfig {
    /// Memory that the mempool may take, in MiB; the worst transactions leave above it.
    /// At least 5. Default 300.
    pub max_mib: u32,
    /// How long a transaction may wait for its block, in hours. Default 336.
    pub expiry_hours: u32,
    /// Lowest fee rate that is accepted, in sat per 1000 vB. Default 100.
    pub min_relay_fee_sat_kvb: u64,
    /// By how much a replacement, or a transaction after an eviction, must pay more, in
    /// sat per 1000 vB. Default 100.
    pub incremental_fee_sat_kvb: u64,
}

impl Default for MempoolConfig {
    fn default() -> Self {
        Self {
            max_mib: 300,
            expiry_hours: 336,
            min_relay_fee_sat_kvb: 100,
            incremental_fee_sat_kvb: 100,
        }
    }
}

impl MempoolConfig {
    /// The cap on memory, in bytes.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        u64::from(self.max_mib.max(5)) << 20
    }

    /// How long a transaction may wait, in seconds.
    #[must_use]
    pub fn expiry_secs(&self) -> u64 {
        u64::from(self.expiry_hours) * 3600
    }
}
