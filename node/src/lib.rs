//! From a socket to a valid chain. Knows neither the index nor JSON.

pub mod chain;
pub mod headers;
