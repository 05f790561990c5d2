//! Real clients, unmodified, through the mempool, blocks and reorganisations.

mod bdk;
mod daemon;
mod esplora;
mod ldk;
