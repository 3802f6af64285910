//! What `explain` tells, as text for a person or as JSON. It holds names, never a token, a secret or a header's value.

use std::io::{self, Write};

use http::request::Parts;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::clock::Wall;
use crate::proxy::error::{Code, Error};

/// Everything that can be said of one request.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) method: String,
    pub(super) host: String,
    /// Without the query.
    pub(super) path: String,
    pub(super) verdict: Verdict,
    pub(super) route: Option<Matched>,
    /// A CORS preflight, which passes without a session.
    pub(super) preflight: bool,
    /// `None`: the route is public, or there is none.
    pub(super) session: Option<Session>,
    /// `None`: it does not ask for another protocol.
    pub(super) websocket: Option<WebSocket>,
    /// What was given and changes nothing, and the like.
    pub(super) notes: Vec<String>,
    pub(super) removed: Vec<String>,
    pub(super) injected: Vec<Injection>,
    #[serde(serialize_with = "with_statuses")]
    pub(super) may_follow: Vec<Code>,
}

/// The end of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Forwarded,
    Refused { step: Step, code: &'static str, status: u16, reason: Option<&'static str>, because: String },
}

/// Where a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    Head,
    Route,
    Session,
    Guard,
    Clean,
    Inject,
}

/// What comes of an `Upgrade`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WebSocket {
    /// A tunnel, when the upstream agrees.
    Opens {
        close_at: &'static str,
        /// Seconds.
        max_lifetime: Option<u64>,
        /// Whether there is a verified session, so that `close_at` has something to go by.
        verified: bool,
        /// What is done with the first message; `None`: it passes like every other.
        first_message: Option<String>,
    },
    /// The request goes on as an ordinary one.
    Ordinary { because: &'static str },
}

/// A route and why it is this one.
#[derive(Debug, Serialize)]
pub(super) struct Matched {
    pub(super) name: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) methods: String,
    pub(super) listener: String,
    pub(super) upstream: String,
    pub(super) path_there: String,
}

/// What is known of the session.
#[derive(Debug, Serialize)]
pub(super) struct Session {
    /// Where the route looks, in order.
    looked_for: Vec<String>,
    found_in: Option<String>,
    /// Whether it is a session that the route takes.
    pub(super) valid: bool,
    /// Why it is nobody's, where that is no error.
    pub(super) counts_as_none: Option<&'static str>,
    signature: Signature,
    token: Option<Facts>,
    /// Where a session is only named: what the caller token came to.
    pub(super) caller_token: Option<&'static str>,
    /// What the configuration asks for, where the token says otherwise.
    pub(super) expected: Option<String>,
}

/// What a token says that is no secret; it is not believed.
#[derive(Debug, Serialize)]
struct Facts {
    iss: Option<String>,
    azp: Option<String>,
    /// Seconds; negative when that is over.
    expires_in: Option<i64>,
}

/// What the signature was checked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Signature {
    JwtKey,
    Jwks,
    Unchecked,
    /// A session that is only named has none.
    Absent,
}

/// One header that is set.
#[derive(Debug, Serialize)]
pub(super) struct Injection {
    pub(super) header: String,
    pub(super) prefix: String,
    pub(super) from: String,
    /// Seconds that are asked for.
    pub(super) expires_in: Option<u32>,
    /// Why there is no value; `None`: there is one.
    pub(super) state: Option<String>,
}

fn with_statuses<S: Serializer>(codes: &[Code], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(codes.iter().map(|code| (code.as_str(), code.status().as_u16())))
}

/// A text out of a token, which nobody has verified: a terminal must not obey it.
fn harmless(text: &str) -> String {
    let cut: String = text.chars().take(200).collect();
    cut.escape_debug().to_string()
}

// === impl Session ===

impl Session {
    pub(super) fn new(looked_for: Vec<String>, signature: Signature) -> Self {
        Self {
            looked_for,
            found_in: None,
            valid: false,
            counts_as_none: None,
            signature,
            token: None,
            caller_token: None,
            expected: None,
        }
    }

    /// A session is named here.
    pub(super) fn named(&mut self, place: String) {
        self.found_in = Some(place);
    }

    /// A credential was found here; its token says this.
    pub(super) fn found(&mut self, place: &str, claims: &Value, now: Wall) {
        self.found_in = Some(place.to_owned());
        self.token = claims.as_object().map(|claims| {
            let text = |name: &str| claims.get(name).and_then(Value::as_str).map(harmless);
            let exp = claims.get("exp").and_then(Value::as_i64);
            Facts {
                iss: text("iss"),
                azp: text("azp"),
                expires_in: exp.map(|exp| exp.saturating_sub(now.as_seconds())),
            }
        });
    }
}

// === impl Facts ===

impl Facts {
    fn text(&self) -> String {
        let name = |name: &str, value: &Option<String>| match value {
            Some(value) => format!("{name} \"{value}\""),
            None => format!("no {name}"),
        };
        let expiry = match self.expires_in {
            None => "no exp".to_owned(),
            Some(seconds @ 0..) => format!("expires in {seconds} s"),
            Some(seconds) => format!("expired {} s ago", seconds.saturating_neg()),
        };
        format!("{}, {}, {expiry}", name("iss", &self.iss), name("azp", &self.azp))
    }
}

// === impl Report ===

impl Report {
    pub(super) fn new(head: &Parts) -> Self {
        Self {
            method: head.method.to_string(),
            host: String::new(),
            path: head.uri.path().to_owned(),
            verdict: Verdict::Forwarded,
            route: None,
            preflight: false,
            session: None,
            websocket: None,
            notes: Vec::new(),
            removed: Vec::new(),
            injected: Vec::new(),
            may_follow: Vec::new(),
        }
    }

    /// The same, ended by this error.
    pub(super) fn refused(mut self, step: Step, error: &Error) -> Self {
        let code = error.code();
        let mut because = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            because = format!("{because}: {cause}");
            source = cause.source();
        }
        let (status, reason) = (code.status().as_u16(), error.reason());
        self.verdict = Verdict::Refused { step, code: code.as_str(), status, reason, because };
        self
    }

    /// The token says something else than this.
    pub(super) fn expects(&mut self, expected: String) {
        if let Some(session) = &mut self.session {
            session.expected = Some(expected);
        }
    }

    pub(super) fn is_forwarded(&self) -> bool {
        matches!(self.verdict, Verdict::Forwarded)
    }

    /// For a person.
    pub(super) fn write(&self, out: &mut dyn Write, colours: bool) -> io::Result<()> {
        let row = |out: &mut dyn Write, label: &str, text: &str| writeln!(out, "{label:<13}{text}");
        row(out, "request", &format!("{} {}{}", self.method, self.host, self.path))?;
        match &self.route {
            None => row(out, "route", "none")?,
            Some(route) => {
                row(out, "route", &route.name)?;
                let Matched { host, path, methods, listener, .. } = route;
                row(out, "  matched", &format!("host {host}, path {path}, methods {methods}, listener {listener}"))?;
                row(out, "  goes to", &format!("{} as {}", route.upstream, route.path_there))?;
            }
        }
        self.write_session(out)?;
        self.write_websocket(out)?;
        for note in &self.notes {
            row(out, "note", note)?;
        }
        if self.is_forwarded() {
            let none = || "nothing".to_owned();
            row(out, "removed", &if self.removed.is_empty() { none() } else { self.removed.join(", ") })?;
            let width = self.injected.iter().map(|injection| injection.header.len()).max().unwrap_or_default();
            let mut label = "injected";
            for injection in &self.injected {
                row(out, label, &format!("{:<width$}  {}", injection.header, injection.text()))?;
                label = "";
            }
            if self.injected.is_empty() {
                row(out, "injected", "nothing")?;
            }
            let mut label = "may follow";
            for codes in self.may_follow.chunks(4) {
                let codes: Vec<_> =
                    codes.iter().map(|code| format!("{} {}", code.status().as_u16(), code.as_str())).collect();
                row(out, label, &codes.join(", "))?;
                label = "";
            }
        }
        let (colour, text) = match &self.verdict {
            Verdict::Forwarded => ("\x1b[32m", "it would be forwarded".to_owned()),
            Verdict::Refused { code, status, because, .. } => {
                ("\x1b[31m", format!("it would be refused: {status} {code} ({because})"))
            }
        };
        let (begin, end) = if colours { (colour, "\x1b[0m") } else { ("", "") };
        row(out, "verdict", &format!("{begin}{text}{end}"))
    }

    fn write_websocket(&self, out: &mut dyn Write) -> io::Result<()> {
        let row = |out: &mut dyn Write, label: &str, text: &str| writeln!(out, "{label:<13}{text}");
        match &self.websocket {
            None => Ok(()),
            Some(WebSocket::Ordinary { because }) => {
                row(out, "websocket", &format!("none: {because}; without Upgrade it is a request like any other"))
            }
            Some(WebSocket::Opens { close_at, max_lifetime, verified, first_message }) => {
                row(
                    out,
                    "websocket",
                    "a valid handshake, sent on as one: a tunnel opens when the upstream answers 101",
                )?;
                let expiry = match (*close_at, verified) {
                    ("never", _) => "at no expiry (close_at = \"never\")",
                    (_, false) => "at no expiry: close_at needs a verified session",
                    ("token", true) => {
                        "4401, or 3000 over graphql-transport-ws, when the first injected token that was minted expires (close_at = \"token\")"
                    }
                    (_, true) => {
                        "4401, or 3000 over graphql-transport-ws, when the session token expires (close_at = \"session\")"
                    }
                };
                let oldest = max_lifetime.map(|seconds| format!(", 1001 after {seconds} s (max_lifetime)"));
                row(out, "  is closed", &format!("{expiry}{}", oldest.unwrap_or_default()))?;
                first_message.as_ref().map_or(Ok(()), |done| row(out, "  first", done))
            }
        }
    }

    fn write_session(&self, out: &mut dyn Write) -> io::Result<()> {
        let row = |out: &mut dyn Write, label: &str, text: &str| writeln!(out, "{label:<13}{text}");
        let Some(session) = &self.session else {
            return match (&self.route, self.preflight) {
                (None, _) => Ok(()),
                (Some(_), true) => row(out, "session", "not looked at: a CORS preflight passes without one"),
                (Some(_), false) => row(out, "session", "not looked at: the route is public"),
            };
        };
        match &session.found_in {
            None => row(
                out,
                "session",
                &format!("no usable credential; looked for: {}", session.looked_for.join(", then ")),
            )?,
            Some(place) => row(out, "session", &format!("found in {place}"))?,
        }
        if let Some(token) = &session.token {
            row(out, "  says", &token.text())?;
        }
        if let Some(expected) = &session.expected {
            row(out, "  expected", expected)?;
        }
        if let Some(caller_token) = session.caller_token {
            row(out, "  caller", caller_token)?;
        }
        if session.found_in.is_some() {
            let signature = match session.signature {
                Signature::JwtKey => "checked with clerk.jwt_key",
                Signature::Jwks => "checked with the issuer's keys",
                Signature::Unchecked => "NOT checked: no key is here; --online fetches the issuer's",
                Signature::Absent => "none: the session is only named, and the caller is believed",
            };
            row(out, "  signature", signature)?;
        }
        if let Some(why) = session.counts_as_none {
            row(out, "  counts as", &format!("none ({why}); the route lets such requests pass"))?;
        }
        Ok(())
    }
}

impl Injection {
    fn text(&self) -> String {
        let prefix = if self.prefix.is_empty() { String::new() } else { format!("\"{}\" and ", self.prefix) };
        let life = self.expires_in.map(|seconds| format!(", for {seconds} s"));
        let state = self.state.as_ref().map(|state| format!(" ({state})"));
        [prefix, self.from.clone(), life.unwrap_or_default(), state.unwrap_or_default()].concat()
    }
}
