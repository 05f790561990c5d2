//! Where the other server is.

use std::{fmt, str::FromStr};

use axum::http::{Uri, uri::Scheme};
use serde::{Deserialize, Serialize};

/// Base URL of an Esplora server: `http` or `https`, a host, and perhaps a path such as
/// `/api`. No user, no query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FallbackUrl {
    /// Without a slash at the end.
    base: String,
    is_https: bool,
}

/// Why a text is no such URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a URL of the form http(s)://host[:port][/path], without user and query")]
pub struct InvalidFallbackUrl;

impl FallbackUrl {
    pub(super) const fn is_https(&self) -> bool {
        self.is_https
    }

    /// The URL of a path behind the base.
    pub(super) fn with(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

impl FromStr for FallbackUrl {
    type Err = InvalidFallbackUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| InvalidFallbackUrl)?;
        let is_https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(InvalidFallbackUrl),
        };
        let authority = uri.authority().ok_or(InvalidFallbackUrl)?.as_str();
        let is_plain = !authority.contains('@') && !text.contains(['?', '#']);
        if uri.host().is_none_or(str::is_empty) || !is_plain {
            return Err(InvalidFallbackUrl);
        }
        let base = text.trim_end_matches('/').to_owned();
        Ok(Self { base, is_https })
    }
}

impl TryFrom<String> for FallbackUrl {
    type Error = InvalidFallbackUrl;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<FallbackUrl> for String {
    fn from(url: FallbackUrl) -> Self {
        url.base
    }
}

impl fmt::Display for FallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_http_or_https_without_user_and_query() {
        for (text, path) in [
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000/blocks"),
            (
                "https://host.example/api/",
                "https://host.example/api/blocks",
            ),
        ] {
            assert_eq!(text.parse::<FallbackUrl>().unwrap().with("/blocks"), path);
        }
        for text in [
            "",
            "host.example",
            "ftp://host.example",
            "http://",
            "http://user:secret@host.example",
            "http://host.example/?key=1",
            "http://host.example/#a",
            "/api",
        ] {
            assert!(text.parse::<FallbackUrl>().is_err(), "{text}");
        }
    }
}
