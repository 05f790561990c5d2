//! From a connected block to an answer. Knows no HTTP and no peers.

pub mod query;
