//! The `[http.access]` section of the configuration.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Who may ask how often, section `[http.access]`. Everything is off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessConfig {
    /// What API keys are for. Default `off`.
    pub api_keys: KeyUse,
    /// Most requests per second of one address (IPv6: of a /64 network) without a key, with
    /// those of ten seconds at once; 0 is no limit. Default 0.
    pub requests_per_second_per_address: u32,
    /// The same for each key that has no number of its own. Default 0.
    pub requests_per_second_per_key: u32,
    /// Networks of proxies whose `X-Forwarded-For` is believed. Default: none.
    pub trusted_proxies: Vec<IpNet>,
}

/// What API keys are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyUse {
    /// Nothing: they are not looked at.
    #[default]
    Off,
    /// Requests with a key have its limit; those without have that of their address.
    Optional,
    /// Requests without a key are refused (401).
    Required,
}
