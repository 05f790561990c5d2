//! The `[index]` section of the configuration.

use serde::{Deserialize, Serialize};

/// Settings of the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IndexConfig {
    /// Keep an index and serve it. Without it the node only validates, which is for
    /// measuring. Default true.
    pub enabled: bool,
    /// Memory for indexing, in MiB: blocks before they are indexed, rows of the group in
    /// hand, rows not yet in table files (those being written out included) and the cache
    /// of index blocks. Fits a host of 8 GB by default, 512.
    pub memory_mib: u32,
    /// Blocks behind the best header from which on the index is loaded in bulk, without a
    /// write-ahead log; a kill then takes back what is not yet in table files. Default 500.
    pub bulk_lag_blocks: u32,
    /// Cache of the transaction ids of whole blocks, in MiB. Default 64.
    pub txids_cache_mib: u32,
    /// Most files that the index keeps open. Default 512.
    pub max_open_files: u32,
    /// Threads for flushing and compacting the index. Default 2.
    pub background_jobs: u32,
    /// Recent transactions whose numbers stay in memory, so that spending them needs
    /// no look-up in the index; about 20 bytes each. Default 524,288.
    pub recent_txs: u32,
    /// Newest blocks whose changes are stored so that they can be taken back without
    /// their block files. Default 288.
    pub undo_blocks: u32,
    /// Keep a compact filter of each block (BIP 158), about 20 kB per full block, for peers
    /// that ask. Blocks that are indexed already get theirs in the background. Default
    /// false.
    pub block_filters: bool,
    /// Salt of the row keys as 32 hex digits, for a new index only. Default: random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            memory_mib: 512,
            bulk_lag_blocks: 500,
            txids_cache_mib: 64,
            max_open_files: 512,
            background_jobs: 2,
            recent_txs: 524_288,
            undo_blocks: 288,
            block_filters: false,
            salt: None,
        }
    }
}
