//! Keys by which clients of the API are told apart, from the metadata to the API. No
//! implementations.

use serde::{Deserialize, Serialize};

/// Most keys that are kept.
pub const MAX_API_KEYS: usize = 1_000;
/// Longest name of a key, in bytes.
pub const MAX_KEY_NAME_LEN: usize = 100;

/// A key as it is kept: what it looks like is known to its holder only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Names it: eight hex digits, a part of the key.
    pub id: String,
    /// Whose it is, for the operator.
    pub name: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Requests per second that it may make; `None`: what the configuration says.
    pub requests_per_second: Option<u32>,
    /// SHA-256 of the key, as hex. The key has 192 random bits, which no search finds.
    pub sha256: String,
}

/// A key that was just made. The only time that it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApiKey {
    /// What is kept of it.
    pub kept: ApiKey,
    /// The key.
    pub key: String,
}

/// Why keys could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// Something about a key cannot be.
    #[error("{what}")]
    Invalid {
        /// What is wrong.
        what: &'static str,
    },
    /// There would be more than [`MAX_API_KEYS`].
    #[error("there are {MAX_API_KEYS} keys already")]
    TooMany,
    /// The store failed.
    #[error("the keys cannot be written")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Keeps keys. Changes touch the disk: not for async code.
pub trait ApiKeyStore: Send + Sync + 'static {
    /// The key that a client has sent, if it is one of them. In memory, and fit for every
    /// request.
    fn find_key(&self, key: &str) -> Option<ApiKey>;

    /// All keys, by id.
    fn api_keys(&self) -> Vec<ApiKey>;

    /// Makes a key; it is on the disk when this returns. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`ApiKeyError`].
    fn create_key(
        &self,
        name: &str,
        requests_per_second: Option<u32>,
        now: u64,
    ) -> Result<NewApiKey, ApiKeyError>;

    /// Forgets a key; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`ApiKeyError::Store`].
    fn revoke_key(&self, id: &str) -> Result<bool, ApiKeyError>;

    /// Takes keys as [`ApiKeyStore::api_keys`] gives them, all or none; one with the same id is
    /// replaced.
    ///
    /// # Errors
    /// [`ApiKeyError`].
    fn import_keys(&self, keys: &[ApiKey]) -> Result<(), ApiKeyError>;
}
