//! What a request asks for, by its method, its target and the body of a mint.

use axum::http::{HeaderMap, Method, Uri, header};

use super::answer::Refusal;
use crate::config::TemplateName;
use crate::headers;
use crate::route::reading;
use crate::session::SessionId;
use crate::session::json::Value;

/// Seconds that a caller may ask for (contract section 1.1).
const EXPIRES_IN: std::ops::RangeInclusive<i64> = 30..=315_360_000;

/// The one parameter of a mint.
const PARAM: &str = "expires_in_seconds";

/// The one parameter of a query that changes nothing of a token (contract section 1.7).
const VERSION: &str = "__clerk_api_version";

/// An endpoint of the issuer's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    /// `POST /v1/sessions/{sid}/tokens/{template}`
    Token(SessionId, TemplateName),
    /// `POST /v1/sessions/{sid}/tokens`
    SessionToken(SessionId),
    /// `POST /v1/sessions/{sid}/revoke`
    Revoke(SessionId),
    /// `GET /v1/sessions/{sid}`
    Session,
    /// `GET /v1/jwks`
    Jwks,
    /// Any other.
    Other,
}

/// What is asked of a template's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// One that lives as long as it says, or as the template says.
    Token(Option<u32>),
    /// Something of which nobody here knows what it does to a token: the name of the parameter.
    Unknown(String),
}

// === impl Call ===

impl Call {
    /// Whatever two readers could take for two paths is refused, before anything of it is looked at.
    pub(super) fn of(method: &Method, uri: &Uri) -> Result<Self, Refusal> {
        let path = uri.path();
        if reading::is_odd(path) {
            return Err(Refusal::OddPath);
        }
        let segments: Vec<String> = path
            .split('/')
            .skip(1)
            .map(|segment| decoded(segment).ok_or(Refusal::OddPath))
            .collect::<Result<_, _>>()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let session = |id: &str| SessionId::new(id).map_err(|_| Refusal::NoSession(id.to_owned()));
        let (post, get) = (*method == Method::POST, *method == Method::GET);
        Ok(match segments[..] {
            ["v1", "sessions", sid, "tokens", template] if post => {
                let sid = session(sid)?;
                let name = TemplateName::new(template).map_err(|_| Refusal::NoTemplate(template.to_owned()))?;
                Self::Token(sid, name)
            }
            ["v1", "sessions", sid, "tokens"] if post => Self::SessionToken(session(sid)?),
            ["v1", "sessions", sid, "revoke"] if post => Self::Revoke(session(sid)?),
            ["v1", "sessions", sid] if get => session(sid).map(|_| Self::Session)?,
            ["v1", "jwks"] if get => Self::Jwks,
            _ => Self::Other,
        })
    }

    /// The session of which a token is asked for.
    pub(super) fn minting(&self) -> Option<&SessionId> {
        match self {
            Self::Token(sid, _) | Self::SessionToken(sid) => Some(sid),
            Self::Revoke(_) | Self::Session | Self::Jwks | Self::Other => None,
        }
    }
}

fn decoded(segment: &str) -> Option<String> {
    String::from_utf8(reading::decode(segment.as_bytes())?).ok()
}

// === impl Wanted ===

impl Wanted {
    /// Out of the query and the body of a mint. Every SDK writes 'no parameters' in its own way: nothing at all, `{}`,
    /// `null`, or the parameter as `null` (contract section 6.2).
    pub(super) fn of(uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<Self, Refusal> {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let mut unknown = pairs.map(|pair| pair.split('=').next().unwrap_or(pair)).filter(|name| *name != VERSION);
        if let Some(name) = unknown.next() {
            return Ok(Self::Unknown(name.to_owned()));
        }
        if body.is_empty() {
            return Ok(Self::Token(None));
        }
        if !is_json(headers) {
            return Err(Refusal::NotJson);
        }
        let members = match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => members,
            Ok(Value::Null) => Vec::new(),
            Ok(_) | Err(_) => return Err(Refusal::Body),
        };
        let mut wanted = None;
        for (name, value) in &members {
            match (name.as_str(), value) {
                (PARAM, Value::Null) => {}
                (PARAM, Value::Integer(seconds)) if EXPIRES_IN.contains(seconds) => {
                    wanted = u32::try_from(*seconds).ok();
                }
                (PARAM, Value::Integer(_)) => return Err(Refusal::Expiry("form_param_value_invalid")),
                (PARAM, _) => return Err(Refusal::Expiry("form_param_type_invalid")),
                (other, _) => return Ok(Self::Unknown(other.to_owned())),
            }
        }
        Ok(Self::Token(wanted))
    }
}

/// Whether the body is JSON as it stands there, or nothing is said of it.
fn is_json(headers: &HeaderMap) -> bool {
    let essence = |line: &[u8]| line.split(|&byte| byte == b';').next().unwrap_or(line).trim_ascii().to_vec();
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter().map(|line| essence(line.as_bytes()));
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter().flat_map(headers::elements);
    kinds.all(|kind| kind.eq_ignore_ascii_case(b"application/json"))
        && codings.all(|coding| coding.eq_ignore_ascii_case(b"identity"))
}

/// Whether a caller wants no token out of a cache.
pub(super) fn is_forced(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CACHE_CONTROL).iter();
    lines.flat_map(headers::elements).any(|directive| directive.eq_ignore_ascii_case(b"no-cache"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, target: &str) -> Result<Call, Refusal> {
        Call::of(&method.parse().unwrap(), &target.parse().unwrap())
    }

    fn token(sid: &str, template: &str) -> Call {
        Call::Token(SessionId::new(sid).unwrap(), TemplateName::new(template).unwrap())
    }

    #[test]
    fn an_endpoint_is_told_by_method_and_path_alone() {
        let sid = || SessionId::new("sess_1").unwrap();
        for (method, target, expected) in [
            ("POST", "/v1/sessions/sess_1/tokens/custom_hasura", token("sess_1", "custom_hasura")),
            ("POST", "/v1/sessions/sess_1/tokens/custom%5fhasura?a=b", token("sess_1", "custom_hasura")),
            ("POST", "http://other.example/v1/sessions/s/tokens/t", token("s", "t")),
            ("POST", "/v1/sessions/sess_1/tokens", Call::SessionToken(sid())),
            ("POST", "/v1/sessions/sess_1/revoke", Call::Revoke(sid())),
            ("GET", "/v1/sessions/sess_1", Call::Session),
            ("GET", "/v1/jwks?x", Call::Jwks),
            ("GET", "/v1/sessions/sess_1/tokens/t", Call::Other),
            ("POST", "/v1/sessions/sess_1/tokens/t/u", Call::Other),
            ("POST", "/v1/sessions/sess_1/tokens/t/", Call::Other),
            ("POST", "/v2/sessions/sess_1/tokens/t", Call::Other),
            ("POST", "/V1/sessions/sess_1/tokens/t", Call::Other),
            ("POST", "/v1/sessions", Call::Other),
            ("POST", "/m2m_tokens", Call::Other),
            ("GET", "/", Call::Other),
        ] {
            assert_eq!(call(method, target).unwrap(), expected, "{method} {target}");
        }
    }

    /// Fails without the look at how a path could be read.
    #[test]
    fn a_path_that_can_be_read_in_two_ways_is_refused() {
        for path in [
            "/v1/sessions/s/tokens/../revoke",
            "/v1/sessions/s/tokens/%2e%2e/revoke",
            "/v1/sessions/s/tokens/./t",
            "/v1//sessions/s/tokens/t",
            "/v1/sessions/s%2ftokens%2ft",
            "/v1/sessions/s/tokens/a%2Fb",
            "/v1/sessions/s/tokens/a%5cb",
            "/v1/sessions/s/tokens/a%00",
            "/v1/sessions/s/tokens/%252e%252e",
            "/v1/sessions/s/tokens/%ff",
            "/v1/sessions/s/tokens/%zz",
            "*",
        ] {
            for method in ["POST", "GET"] {
                assert!(matches!(call(method, path), Err(Refusal::OddPath)), "{method} {path}");
            }
        }
    }

    #[test]
    fn ids_that_could_not_stand_in_a_url_are_nobodys() {
        assert!(matches!(call("POST", "/v1/sessions/s.1/tokens/t"), Err(Refusal::NoSession(_))));
        assert!(matches!(call("GET", "/v1/sessions/s%201"), Err(Refusal::NoSession(_))));
        assert!(matches!(call("POST", "/v1/sessions/s/tokens/a%20b"), Err(Refusal::NoTemplate(name)) if name == "a b"));
        assert!(matches!(call("POST", "/v1/sessions/s/tokens/%25"), Err(Refusal::NoTemplate(name)) if name == "%"));
    }

    fn wanted(query: &str, kind: Option<&'static str>, body: &str) -> Result<Wanted, Refusal> {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        }
        Wanted::of(&format!("/x{query}").parse().unwrap(), &headers, body.as_bytes())
    }

    #[test]
    fn every_way_to_write_no_parameters_is_one() {
        let json = Some("application/json");
        for (kind, body) in [
            (json, ""),
            (None, ""),
            (Some("application/x-www-form-urlencoded"), ""),
            (json, "{}"),
            (None, "{}"),
            (Some("Application/JSON; charset=utf-8"), "null"),
            (json, r#"{"expires_in_seconds":null}"#),
        ] {
            assert_eq!(wanted("", kind, body).unwrap(), Wanted::Token(None), "{kind:?} {body}");
        }
        let with = r#"{"expires_in_seconds":120}"#;
        assert_eq!(wanted("?__clerk_api_version=2026-05-12", json, with).unwrap(), Wanted::Token(Some(120)));
    }

    #[test]
    fn what_is_no_life_time_is_refused_and_what_is_unknown_is_told() {
        let json = Some("application/json");
        for (seconds, code) in [
            ("29", "form_param_value_invalid"),
            ("315360001", "form_param_value_invalid"),
            ("-60", "form_param_value_invalid"),
            ("99999999999999999999", "form_param_type_invalid"),
            ("60.0", "form_param_type_invalid"),
            ("\"60\"", "form_param_type_invalid"),
            ("true", "form_param_type_invalid"),
        ] {
            let refused = wanted("", json, &format!(r#"{{"expires_in_seconds":{seconds}}}"#));
            assert!(matches!(refused, Err(Refusal::Expiry(own)) if own == code), "{seconds} {refused:?}");
        }
        for body in ["[]", "1", "\"\"", "{", r#"{"expires_in_seconds":60,"expires_in_seconds":90}"#] {
            assert!(matches!(wanted("", json, body), Err(Refusal::Body)), "{body}");
        }
        assert!(matches!(wanted("", Some("text/plain"), "{}"), Err(Refusal::NotJson)));
        let body = r#"{"expires_in_seconds":60,"organization_id":"org_1"}"#;
        assert_eq!(wanted("", json, body).unwrap(), Wanted::Unknown("organization_id".to_owned()));
        assert_eq!(wanted("?organization_id=org_1", json, "").unwrap(), Wanted::Unknown("organization_id".to_owned()));
    }

    #[test]
    fn a_forced_mint_is_asked_for_by_no_cache() {
        for (lines, forced) in [
            (&["no-cache"][..], true),
            (&["max-age=0, No-Cache"], true),
            (&["max-age=0", "no-cache"], true),
            (&["no-store"], false),
            (&["x-no-cache"], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::CACHE_CONTROL, line.parse().unwrap());
            }
            assert_eq!(is_forced(&headers), forced, "{lines:?}");
        }
    }
}
