//! What a token says of itself before anything is verified: read to choose between two cookies and for nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use memchr::memchr_iter;
use serde::Deserialize;

use crate::session::json::Text;
use crate::session::tag::Tag;

/// A session token is not longer; a longer text is not looked at.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// What the choice depends on. Follows from the text and the instance's hosts alone; believed by nobody else.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Peek {
    /// Whom `iss` names.
    pub issuer: Issuer,
    /// `iat`, in seconds since the epoch.
    pub iat: Option<f64>,
    /// `exp`, in seconds since the epoch.
    pub exp: Option<f64>,
}

/// Whom a token names as its issuer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Issuer {
    /// Nobody, or the text is not a JWT.
    #[default]
    Nobody,
    /// The configured instance.
    Ours,
    /// Another one.
    Other,
}

/// What a look at a text came to.
#[derive(Debug, Clone, Copy)]
pub struct Peeked {
    /// What it says.
    pub peek: Peek,
    /// What it may be remembered under, where that was found out on the way.
    pub tag: Option<Tag>,
}

/// Who may know what a text says without reading it again.
pub trait Peeks {
    /// What `read` would return for this text; `read` is not called where that is known.
    fn peek(&self, token: &str, read: impl FnOnce() -> Peek) -> Peeked;
}

/// Knows no text.
#[derive(Debug, Clone, Copy)]
pub struct NothingRead;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Claims<'a> {
    #[serde(borrow)]
    iss: Option<Text<'a>>,
    iat: Option<f64>,
    exp: Option<f64>,
}

/// An issuer or a host without `http://` and `https://`.
pub(super) fn without_scheme(issuer: &str) -> &str {
    let scheme_end = issuer.find("://").filter(|&end| matches!(&issuer.as_bytes()[..end], b"http" | b"https"));
    scheme_end.map_or(issuer, |end| &issuer[end + 3..])
}

// === impl Peek ===

impl Peek {
    /// Reads a text; `hosts` are those that the instance's tokens name as their issuer. Empty when it is not a JWT.
    pub fn of(token: &str, hosts: &[String]) -> Self {
        let mut dots = memchr_iter(b'.', token.as_bytes());
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Self::default();
        };
        if token.len() > MAX_TOKEN_BYTES {
            return Self::default();
        }
        let payload = URL_SAFE_NO_PAD.decode(&token.as_bytes()[first + 1..second]).unwrap_or_default();
        // What is no JSON says nothing.
        let claims: Claims<'_> = serde_json::from_slice(&payload).unwrap_or_default();
        let issuer = match claims.iss.as_ref().map(Text::as_str) {
            None | Some("") => Issuer::Nobody,
            Some(issuer) if hosts.iter().any(|host| host == without_scheme(issuer)) => Issuer::Ours,
            Some(_) => Issuer::Other,
        };
        Self { issuer, iat: claims.iat, exp: claims.exp }
    }
}

// === impl NothingRead ===

impl Peeks for NothingRead {
    fn peek(&self, _: &str, read: impl FnOnce() -> Peek) -> Peeked {
        Peeked { peek: read(), tag: None }
    }
}
