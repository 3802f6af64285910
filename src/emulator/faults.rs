//! Scripted faults: which calls they hit, how often, and what the caller gets instead of an answer.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::emulator::error::{ApiError, Row};
use crate::emulator::params::Params;

/// The faults of an instance, in the order in which they were given: the first one that fits a call hits it.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    list: Vec<Fault>,
    given: u64,
}

/// One fault.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    id: u64,
    target: Target,
    /// Calls that it still hits; `None`: until it is cleared.
    left: Option<u32>,
    hits: u64,
    pub(crate) effect: Effect,
}

/// Which calls a fault hits.
#[derive(Debug, Clone)]
struct Target {
    endpoint: Endpoint,
    session: Option<String>,
    template: Option<String>,
}

/// What happens to a call.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    /// Before anything else.
    pub(crate) delay: Duration,
    pub(crate) then: Then,
}

/// What happens after the delay.
#[derive(Debug, Clone)]
pub(crate) enum Then {
    /// The call is answered as if there were no fault.
    Nothing,
    /// An error in Clerk's shape; the call does nothing.
    Refuse { status: StatusCode, code: Option<String>, retry_after: Option<u32> },
    /// No answer, ever.
    Hang,
    /// The connection ends without an answer.
    Reset,
    /// The call is done, and its answer spoilt.
    Spoil(Malformed),
}

/// How an answer is spoilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// The first half of the JSON, as a whole answer.
    Truncated,
    /// The first half of the body, then the connection ends.
    Cut,
    /// A page of HTML with status 200.
    NotJson,
    /// `text/plain`.
    ContentType,
    /// A token object without a token.
    NoJwt,
    /// Status 200 and no body.
    Empty,
    /// A body without an end.
    Endless,
}

/// Groups of endpoints, by path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Any,
    /// Both kinds of tokens.
    Mint,
    TemplateToken,
    SessionToken,
    /// List, read, create, revoke, refresh.
    Sessions,
    Templates,
    Jwks,
}

/// What a call is about, read from its path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    endpoint: Endpoint,
    session: Option<String>,
    template: Option<String>,
}

/// Faults at a time.
const MAX_FAULTS: usize = 100;

const ENDPOINTS: [(&str, Endpoint); 7] = [
    ("any", Endpoint::Any),
    ("mint", Endpoint::Mint),
    ("template_token", Endpoint::TemplateToken),
    ("session_token", Endpoint::SessionToken),
    ("sessions", Endpoint::Sessions),
    ("templates", Endpoint::Templates),
    ("jwks", Endpoint::Jwks),
];

const MALFORMED: [(&str, Malformed); 7] = [
    ("truncated", Malformed::Truncated),
    ("cut", Malformed::Cut),
    ("not_json", Malformed::NotJson),
    ("content_type", Malformed::ContentType),
    ("no_jwt", Malformed::NoJwt),
    ("empty", Malformed::Empty),
    ("endless", Malformed::Endless),
];

// === impl Call ===

impl Call {
    /// `None`: the path is not one of the API.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let call = |endpoint| Some(Self { endpoint, session: None, template: None });
        if path == "/.well-known/jwks.json" {
            return call(Endpoint::Jwks);
        }
        let segments: Vec<Cow<'_, str>> = path.strip_prefix("/v1/")?.split('/').map(decoded).collect();
        let texts: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let about = |endpoint, session: &str, template: Option<&str>| {
            let (session, template) = (Some(session.to_owned()), template.map(str::to_owned));
            Some(Self { endpoint, session, template })
        };
        match *texts.as_slice() {
            ["jwks"] => call(Endpoint::Jwks),
            ["jwt_templates", ..] => call(Endpoint::Templates),
            ["sessions", session, "tokens"] => about(Endpoint::SessionToken, session, None),
            ["sessions", session, "tokens", template] => about(Endpoint::TemplateToken, session, Some(template)),
            ["sessions", session, ..] => about(Endpoint::Sessions, session, None),
            ["sessions"] => call(Endpoint::Sessions),
            _ => call(Endpoint::Any),
        }
    }
}

/// A path segment without its percent signs; one that is not UTF-8 is no name of anything.
fn decoded(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return segment.into();
    }
    let (mut bytes, mut rest) = (Vec::new(), segment.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

// === impl Target, Fault, Effect ===

impl Target {
    fn fits(&self, call: &Call) -> bool {
        let endpoint = match self.endpoint {
            Endpoint::Any => true,
            Endpoint::Mint => matches!(call.endpoint, Endpoint::SessionToken | Endpoint::TemplateToken),
            one => one == call.endpoint,
        };
        let fits = |wanted: &Option<String>, has: &Option<String>| wanted.is_none() || wanted == has;
        endpoint && fits(&self.session, &call.session) && fits(&self.template, &call.template)
    }
}

impl Fault {
    /// Out of the body of `POST /_emulator/faults`.
    pub(crate) fn read(mut params: Params) -> Result<Self, ApiError> {
        let endpoint = word(&mut params, "endpoint", &ENDPOINTS)?.unwrap_or(Endpoint::Any);
        let (session, template) = (params.text("session")?, params.text("template")?);
        if template.is_some() && !matches!(endpoint, Endpoint::Any | Endpoint::Mint | Endpoint::TemplateToken) {
            return Err(bad("template", "only mint and template_token have one"));
        }
        if session.is_some() && matches!(endpoint, Endpoint::Templates | Endpoint::Jwks) {
            return Err(bad("session", "templates and jwks have none"));
        }
        let left = params.integer("times", 1..=1_000_000)?;
        let delay = params.integer("delay_ms", 0..=600_000)?;
        let status = params.integer("status", 300..=599)?;
        let (code, retry_after) = (params.text("code")?, params.integer("retry_after", 0..=86_400)?);
        let (hang, reset) = (params.flag("hang")? == Some(true), params.flag("reset")? == Some(true));
        let malformed = word(&mut params, "malformed", &MALFORMED)?;
        params.end()?;
        if status.is_none() && (code.is_some() || retry_after.is_some()) {
            return Err(bad("status", "code and retry_after belong to a status"));
        }
        let status = status.and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
        let then = match (status, hang, reset, malformed) {
            (None, false, false, None) if delay.is_none() => {
                return Err(bad("status", "give one of status, hang, reset, malformed, or delay_ms"));
            }
            (None, false, false, None) => Then::Nothing,
            (Some(status), false, false, None) => Then::Refuse { status, code, retry_after },
            (None, true, false, None) => Then::Hang,
            (None, false, true, None) => Then::Reset,
            (None, false, false, Some(malformed)) => Then::Spoil(malformed),
            _ => return Err(bad("status", "give only one of status, hang, reset and malformed")),
        };
        let effect = Effect { delay: Duration::from_millis(delay.unwrap_or(0).into()), then };
        Ok(Self { id: 0, target: Target { endpoint, session, template }, left, hits: 0, effect })
    }

    /// As the helper shows it.
    pub(crate) fn to_json(&self) -> Value {
        let name = |endpoint| ENDPOINTS.iter().find(|(_, other)| *other == endpoint).map(|(name, _)| *name);
        let mut shown = json!({
            "id": self.id,
            "endpoint": name(self.target.endpoint),
            "session": self.target.session,
            "template": self.target.template,
            "left": self.left,
            "hits": self.hits,
            "delay_ms": u64::try_from(self.effect.delay.as_millis()).unwrap_or(u64::MAX),
        });
        match &self.effect.then {
            Then::Nothing => {}
            Then::Refuse { status, code, retry_after } => {
                shown["status"] = status.as_u16().into();
                shown["code"] = json!(code);
                shown["retry_after"] = json!(retry_after);
            }
            Then::Hang => shown["hang"] = true.into(),
            Then::Reset => shown["reset"] = true.into(),
            Then::Spoil(how) => {
                shown["malformed"] = json!(MALFORMED.iter().find(|(_, other)| other == how).map(|(name, _)| *name));
            }
        }
        shown
    }
}

fn bad(param: &'static str, reason: &str) -> ApiError {
    ApiError::Helper { param, reason: reason.to_owned() }
}

fn word<T: Copy>(params: &mut Params, param: &'static str, words: &[(&str, T)]) -> Result<Option<T>, ApiError> {
    let Some(text) = params.text(param)? else { return Ok(None) };
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, meant)| *meant);
    let all = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    found.map(Some).ok_or_else(|| bad(param, &format!("it is one of {}", all())))
}

// === impl Faults ===

impl Faults {
    /// Takes one in.
    pub(crate) fn add(&mut self, mut fault: Fault) -> Result<Value, ApiError> {
        if self.list.len() == MAX_FAULTS {
            return Err(bad("endpoint", &format!("there are {MAX_FAULTS} faults already; clear some")));
        }
        self.given += 1;
        fault.id = self.given;
        let shown = fault.to_json();
        self.list.push(fault);
        Ok(shown)
    }

    /// Those that are left, and those that have been used up.
    pub(crate) fn shown(&self) -> Value {
        self.list.iter().map(Fault::to_json).collect()
    }

    /// Forgets all, or one.
    pub(crate) fn clear(&mut self, id: Option<u64>) {
        self.list.retain(|fault| id.is_some_and(|id| id != fault.id));
    }

    /// What happens to this call; it is counted.
    pub(crate) fn hit(&mut self, call: &Call) -> Option<Effect> {
        let fits = |fault: &&mut Fault| fault.left != Some(0) && fault.target.fits(call);
        let fault = self.list.iter_mut().find(fits)?;
        fault.hits += 1;
        fault.left = fault.left.map(|left| left - 1);
        Some(fault.effect.clone())
    }
}

/// The error of Clerk's that has this status.
pub(crate) fn refusal(status: StatusCode, code: Option<String>) -> Row {
    let (usual, message, long) = match status.as_u16() {
        401 => ("authentication_invalid", "Invalid authentication", "Unable to authenticate the request"),
        403 => ("authorization_invalid", "Unauthorized request", "You are not authorized to perform this request"),
        404 => ("resource_not_found", "not found", "The resource was not found"),
        409 => ("conflict", "Conflict", "The resource is busy. Please try again."),
        422 => ("form_param_value_invalid", "is invalid", "A parameter is invalid"),
        429 => ("too_many_requests", "Too many requests", "Too many requests, retry later"),
        503 => ("service_unavailable", "Service unavailable", "The service is unavailable, retry later"),
        500.. => ("internal_clerk_error", "Oops, an unexpected error occurred", "There was an internal error"),
        _ => ("bad_request", "Bad request", "The request could not be served"),
    };
    Row::new(status, code.map_or(Cow::Borrowed(usual), Cow::Owned), message, long)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Fault, ApiError> {
        Fault::read(Params::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn a_call_is_known_by_its_path() {
        let about = |path: &str| {
            let call = Call::of(path).unwrap();
            (call.endpoint, call.session, call.template)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(about("/v1/sessions/s/tokens/a%20b%2Fc"), (Endpoint::TemplateToken, some("s"), some("a b/c")));
        assert_eq!(about("/v1/sessions/s/tokens"), (Endpoint::SessionToken, some("s"), None));
        assert_eq!(about("/v1/sessions/s/revoke"), (Endpoint::Sessions, some("s"), None));
        assert_eq!(about("/v1/sessions"), (Endpoint::Sessions, None, None));
        assert_eq!(about("/v1/jwt_templates/x"), (Endpoint::Templates, None, None));
        assert_eq!(about("/.well-known/jwks.json"), (Endpoint::Jwks, None, None));
        assert_eq!(about("/v1/users"), (Endpoint::Any, None, None));
        assert_eq!(about("/v1/sessions/%/tokens"), (Endpoint::SessionToken, some("%"), None));
        assert_eq!(Call::of("/_emulator/faults"), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "{}",
            r#"{"endpoint":"x","hang":true}"#,
            r#"{"hang":false}"#,
            r#"{"hang":true,"status":500}"#,
            r#"{"status":200}"#,
            r#"{"status":600}"#,
            r#"{"retry_after":1,"hang":true}"#,
            r#"{"malformed":"x"}"#,
            r#"{"times":0,"hang":true}"#,
            r#"{"delay_ms":600001}"#,
            r#"{"endpoint":"jwks","template":"x","hang":true}"#,
            r#"{"endpoint":"jwks","session":"x","hang":true}"#,
            r#"{"hang":true,"more":1}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_fault_that_fits_hits_as_often_as_it_says() {
        let mut faults = Faults::default();
        faults.add(read(r#"{"endpoint":"mint","template":"plain","times":2,"status":500}"#).unwrap()).unwrap();
        faults.add(read(r#"{"session":"s","hang":true}"#).unwrap()).unwrap();
        let mut hit = |path: &str| faults.hit(&Call::of(path).unwrap()).map(|effect| matches!(effect.then, Then::Hang));
        assert_eq!(hit("/v1/sessions/t/tokens/plain"), Some(false));
        assert_eq!(hit("/v1/sessions/t/tokens/other"), None);
        assert_eq!(hit("/v1/sessions/s/tokens/plain"), Some(false));
        assert_eq!(hit("/v1/sessions/s/tokens/plain"), Some(true));
        assert_eq!(hit("/v1/jwks"), None);
        assert_eq!((faults.shown()[0]["hits"].clone(), faults.shown()[0]["left"].clone()), (json!(2), json!(0)));
        faults.clear(Some(1));
        assert_eq!(faults.shown()[0]["id"], 2);
        faults.clear(None);
        assert_eq!(faults.shown(), json!([]));
    }
}
