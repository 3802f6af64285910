//! Whoever asks: users with a session each, what they ask, and whether an answer is theirs.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::json;

use crate::support::gateway::PARTY;
use crate::support::issuer::Issuer;

/// How many there are.
pub(crate) const USERS: usize = 48;

/// All of them, with their session tokens of this moment.
pub(crate) struct Users {
    issuer: Arc<Issuer>,
    tokens: RwLock<Vec<Arc<str>>>,
}

/// Something that a user asks.
pub(crate) struct Question {
    pub(crate) user: usize,
    pub(crate) marker: String,
    pub(crate) target: String,
    pub(crate) body: Vec<u8>,
    pub(crate) session_token: Arc<str>,
}

/// What comes back, whatever the protocol.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    /// `x-mintgate-error`
    pub(crate) code: &'a str,
    pub(crate) marker: &'a str,
    pub(crate) body: &'a [u8],
}

/// What an answer is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Own,
    /// The gateway's own error.
    Refused(String),
    /// Not the asker's, and why.
    Crossing(String),
}

#[derive(Deserialize)]
struct Claims {
    sid: String,
    sub: String,
}

pub(crate) fn session_of(user: usize) -> String {
    format!("sess_soak{user:04}")
}

pub(crate) fn name_of(user: usize) -> String {
    format!("user_soak{user:04}")
}

// === impl Users ===

impl Users {
    pub(crate) fn new(issuer: &Arc<Issuer>) -> Arc<Self> {
        let users = Self { issuer: Arc::clone(issuer), tokens: RwLock::default() };
        let tokens = (0..USERS).map(|user| users.sign(user)).collect();
        *users.tokens.write().unwrap() = tokens;
        Arc::new(users)
    }

    fn sign(&self, user: usize) -> Arc<str> {
        self.issuer.session(&json!({ "sid": session_of(user), "sub": name_of(user) })).into()
    }

    /// Gives one after the other a new session token, each about every 15 s.
    pub(crate) async fn renew(self: Arc<Self>) {
        for user in (0..USERS).cycle() {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let fresh = self.sign(user);
            self.tokens.write().unwrap()[user] = fresh;
        }
    }

    /// A question of anybody's; `number` makes it one of its kind.
    pub(crate) fn ask(&self, number: u64) -> Question {
        let user = fastrand::usize(0..USERS);
        let session_token = Arc::clone(&self.tokens.read().unwrap()[user]);
        let place = if fastrand::u8(0..4) == 0 { "two" } else { "one" };
        let answer = match fastrand::u8(0..40) {
            0 => "large",
            1..8 => "chunked",
            _ => "plain",
        };
        let marker = format!("u{user}-n{number}");
        let target = format!("/{place}/{answer}/{marker}");
        let length = if fastrand::bool() { 0 } else { fastrand::usize(0..2000) };
        let body = format!("{marker}:").bytes().cycle().take(length).collect();
        Question { user, marker, target, body, session_token }
    }
}

// === impl Question ===

impl Question {
    /// Its head in HTTP/1.1, without the lines of its body.
    pub(crate) fn lines(&self) -> String {
        let Self { marker, session_token, .. } = self;
        // A cookie is believed beside the origin of the application alone.
        if fastrand::u8(0..4) == 0 {
            return format!("Origin: {PARTY}\r\nCookie: {}\r\nX-Marker: {marker}\r\n", self.cookie());
        }
        format!("Authorization: Bearer {session_token}\r\nX-Marker: {marker}\r\n")
    }

    /// The cookies of a browser that has signed in long ago.
    pub(crate) fn cookie(&self) -> String {
        format!("theme=dark; __session={}; __client_uat=1", self.session_token)
    }

    pub(crate) fn judge(&self, answer: &Answer<'_>) -> Verdict {
        let Answer { status, code, marker, body } = *answer;
        if !code.is_empty() {
            return Verdict::Refused(code.to_owned());
        }
        if status != 200 || marker != self.marker {
            return self.crossing(&format!("status {status}, marked {marker:?}"));
        }
        self.judge_body(body)
    }

    /// Judges the body of an answer, or a message on a WebSocket.
    pub(crate) fn judge_body(&self, body: &[u8]) -> Verdict {
        let token = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let Ok(token) = std::str::from_utf8(token) else { return self.crossing("no token comes first") };
        let claims = token.strip_prefix("Bearer ").and_then(|token| {
            let part = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
            serde_json::from_slice::<Claims>(&part).ok()
        });
        let Some(claims) = claims else { return self.crossing("what was injected is no token") };
        if claims.sid != session_of(self.user) || claims.sub != name_of(self.user) {
            return self.crossing(&format!("the token of {} of {}", claims.sid, claims.sub));
        }
        let Self { marker, target, .. } = self;
        let mut whole = format!("{token}\n{}\n{marker}\n{target}\n", name_of(self.user)).into_bytes();
        whole.extend_from_slice(&self.body);
        let mut own = body == whole;
        if self.target.contains("large") {
            whole.push(b'\n');
            own = !body.is_empty() && body.chunks(whole.len()).all(|part| part == whole);
        }
        if own { Verdict::Own } else { self.crossing("another body") }
    }

    pub(crate) fn crossing(&self, what: &str) -> Verdict {
        Verdict::Crossing(format!("{} of user {} got: {what}", self.target, self.user))
    }
}
