//! Request bodies: from bytes to text and lists, or the exact error.

use crate::RequestError;

/// The body as text.
///
/// # Errors
/// [`RequestError::InvalidBody`] if it is not UTF-8.
pub fn text(body: &[u8]) -> Result<&str, RequestError> {
    str::from_utf8(body).map_err(|err| RequestError::InvalidBody {
        what: err.to_string(),
    })
}

/// The strings of a JSON array.
///
/// # Errors
/// [`RequestError::InvalidBody`] if it is not one.
pub fn strings(body: &[u8]) -> Result<Vec<String>, RequestError> {
    serde_json::from_str(text(body)?).map_err(|err| RequestError::InvalidBody {
        what: err.to_string(),
    })
}
