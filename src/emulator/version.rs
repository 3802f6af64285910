//! Versions of the API that a call can ask for (contract section 1.7), and of the session tokens that follow from them.

use http::Uri;
use http::header::{HeaderMap, HeaderName};

use crate::emulator::error::ApiError;

/// Which claims a session token has (contract section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenVersion {
    /// `org_id`, `org_role`, `org_permissions`; deprecated by Clerk in April 2025.
    V1,
    /// `v: 2`, and the organization packed into `o`.
    #[default]
    V2,
}

/// What the call asked for, left with the request; nothing when it named no version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked(pub(crate) Option<TokenVersion>);

/// The versions that Clerk has published.
const VERSIONS: [&str; 6] = ["2021-02-05", "2024-10-01", "2025-03-12", "2025-04-10", "2025-11-10", "2026-05-12"];
/// The one that brought session tokens of version 2. Dates of this form compare as text.
const SECOND_TOKENS: &str = "2025-04-10";

const HEADER: HeaderName = HeaderName::from_static("clerk-api-version");
const QUERY: &str = "__clerk_api_version";

/// The version that a call names, in the header or in the query.
///
/// # Errors
/// Both at once, the same one twice, or one that does not exist.
pub(crate) fn asked(headers: &HeaderMap, uri: &Uri) -> Result<Asked, ApiError> {
    let in_header = headers.get_all(HEADER).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let in_query = pairs.filter(|(name, _)| *name == QUERY).map(|(_, value)| value.to_owned());
    let mut named = in_header.chain(in_query);
    let Some(version) = named.next() else { return Ok(Asked(None)) };
    if named.next().is_some() {
        return Err(ApiError::ApiVersion(
            "it is given more than once; use the header or the query parameter".to_owned(),
        ));
    }
    if !VERSIONS.contains(&version.as_str()) {
        let shown: String = version.chars().take(32).flat_map(char::escape_default).collect();
        return Err(ApiError::ApiVersion(format!("{shown} is not one of {}", VERSIONS.join(", "))));
    }
    let second = version.as_str() >= SECOND_TOKENS;
    Ok(Asked(Some(if second { TokenVersion::V2 } else { TokenVersion::V1 })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(header: Option<&'static str>, query: &str) -> Result<Option<TokenVersion>, ApiError> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(HEADER, http::HeaderValue::from_static(header));
        }
        asked(&headers, &format!("/v1/sessions?{query}").parse().unwrap()).map(|asked| asked.0)
    }

    #[test]
    fn a_version_stands_in_the_header_or_in_the_query() {
        assert_eq!(ask(None, "limit=1").unwrap(), None);
        for (version, token) in [("2025-03-12", TokenVersion::V1), ("2025-04-10", TokenVersion::V2)] {
            assert_eq!(ask(Some(version), "").unwrap(), Some(token));
            assert_eq!(ask(None, &format!("a=b&__clerk_api_version={version}")).unwrap(), Some(token));
        }
        assert_eq!(ask(Some("2021-02-05"), "").unwrap(), Some(TokenVersion::V1));
        assert_eq!(ask(Some("2026-05-12"), "").unwrap(), Some(TokenVersion::V2));
    }

    #[test]
    fn two_versions_and_unknown_ones_are_refused() {
        for (header, query) in [
            (Some("2025-11-10"), "__clerk_api_version=2025-11-10"),
            (None, "__clerk_api_version=2025-11-10&__clerk_api_version=2025-11-10"),
            (Some("2025-11-11"), ""),
            (Some("v1"), ""),
            (Some(""), ""),
            (None, "__clerk_api_version="),
        ] {
            assert!(matches!(ask(header, query), Err(ApiError::ApiVersion(_))), "{header:?} {query}");
        }
    }
}
