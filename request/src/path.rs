//! Paths of HTTP: from a path to the parameters of a template.
//!
//! Matching is literal, as clients of the Esplora servers know it: the path is split at `/`,
//! nothing is decoded or normalised, upper and lower case differ, the first
//! [`MATCHED_SEGMENTS`] count and what follows is never looked at. `/api` in front is skipped.

/// Segments that take part in the match.
pub const MATCHED_SEGMENTS: usize = 5;
/// Most parameters of a template.
pub const MAX_PARAMS: usize = 2;

/// The first segments of a path behind `/api`.
#[must_use]
pub fn matched_part(path: &str) -> &str {
    let path = match path.strip_prefix("/api") {
        Some(behind) if behind.starts_with('/') => behind,
        _ => path,
    };
    let mut slashes = path.match_indices('/');
    match slashes.nth(MATCHED_SEGMENTS) {
        Some((end, _)) => &path[..end],
        None => path,
    }
}

/// A path with `:name` for parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    text: &'static str,
    /// Bytes before the first parameter.
    literal: usize,
}

impl Template {
    /// The template of this text.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        let bytes = text.as_bytes();
        let mut literal = 0;
        while literal < bytes.len() && bytes[literal] != b':' {
            literal += 1;
        }
        Self { text, literal }
    }

    /// Its text.
    #[must_use]
    pub const fn text(&self) -> &'static str {
        self.text
    }

    /// The parameters of a [`matched_part`], if it fits; empty where the template has none.
    #[must_use]
    pub fn params<'a>(&self, path: &'a str) -> Option<[&'a str; MAX_PARAMS]> {
        let (before, wanted) = self.text.split_at(self.literal);
        let rest = path.strip_prefix(before)?;
        let mut params = [""; MAX_PARAMS];
        if wanted.is_empty() {
            return rest.is_empty().then_some(params);
        }
        let mut free = params.iter_mut();
        let mut segments = rest.split('/');
        for name in wanted.split('/') {
            let segment = segments.next()?;
            match name.starts_with(':') {
                true => *free.next()? = segment,
                false if name == segment => {}
                false => return None,
            }
        }
        segments.next().is_none().then_some(params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_segments_as_they_stand() {
        let template = Template::new("/tx/:txid/outspend/:vout");
        for (path, wanted) in [
            ("/tx/a/outspend/0", Some(["a", "0"])),
            ("/tx//outspend/", Some(["", ""])),
            ("/tx/%61/outspend/A", Some(["%61", "A"])),
            ("/tx/a/outspend", None),
            ("/tx/a/outspend/0/", None),
            ("/tx/a/Outspend/0", None),
        ] {
            assert_eq!(template.params(path), wanted, "{path}");
        }
        assert_eq!(Template::new("/blocks").params("/blocks"), Some(["", ""]));
        assert_eq!(Template::new("/blocks").params("/blocks/"), None);
    }

    #[test]
    fn five_segments_behind_api_count() {
        for (path, wanted) in [
            ("/api/a", "/a"),
            ("/apia", "/apia"),
            ("/api", "/api"),
            ("/1/2/3/4/5/6", "/1/2/3/4/5"),
            ("/api/1/2/3/4/5/6/7", "/1/2/3/4/5"),
            ("", ""),
        ] {
            assert_eq!(matched_part(path), wanted, "{path}");
        }
    }
}
