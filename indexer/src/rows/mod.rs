//! Bytes of the rows, one file per family. Pure: no store, no chain.
//!
//! Integers in keys are big endian, so that key order is chain order. Values use
//! varints (LEB128, seven bits per byte, lowest first). docs/schema.md lists all
//! families with their sizes.

pub(crate) mod block;
pub(crate) mod checkpoint;
pub(crate) mod codec;
pub(crate) mod delta;
pub(crate) mod filter;
pub(crate) mod meta;
pub(crate) mod script;
pub(crate) mod spend;
pub(crate) mod tx;
pub(crate) mod txpos;

/// Number of a transaction in chain order; the coinbase of genesis is 0.
pub(crate) type TxNum = u32;
