//! Request bodies: from bytes to text and lists, or the exact error.

use super::error::RestError;

/// The body as text.
///
/// # Errors
/// [`RestError::InvalidBody`] if it is not UTF-8.
pub(super) fn text(body: &[u8]) -> Result<&str, RestError> {
    str::from_utf8(body).map_err(|err| RestError::InvalidBody {
        what: err.to_string(),
    })
}

/// The strings of a JSON array.
///
/// # Errors
/// [`RestError::InvalidBody`] if it is not one.
pub(super) fn strings(body: &[u8]) -> Result<Vec<String>, RestError> {
    serde_json::from_str(text(body)?).map_err(|err| RestError::InvalidBody {
        what: err.to_string(),
    })
}
