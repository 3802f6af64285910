//! A JSON Web Signature in compact form (RFC 7515), as far as Clerk uses it: three parts, RS256, nothing critical.

use aws_lc_rs::signature::ParsedPublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::session::Reason;
use crate::session::json::{self, Text};

/// A token in its three parts, of which none was read yet.
pub(super) struct Jws<'a> {
    /// `header.payload`: what is signed.
    signed: &'a str,
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
}

/// What a header says that may be a session token's. Nothing vouches for it before the signature fits.
pub(super) struct Judged {
    kid: Option<Box<str>>,
    category: Category,
}

/// What the `cat` header says (contract section 3.2): one key signs several kinds of token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Category {
    /// A session token, or one of an instance that does not tell.
    Session,
    /// A template's, a machine's or an unknown one.
    Other,
}

/// The header parameters that count; others are ignored, as RFC 7515 section 4 demands.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow, default, deserialize_with = "json::present")]
    alg: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    typ: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    kid: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    cat: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "json::present")]
    crit: Option<IgnoredAny>,
}

// === impl Jws ===

impl<'a> Jws<'a> {
    /// Splits the token.
    pub(super) fn split(token: &'a str, max_bytes: usize) -> Result<Self, Reason> {
        if token.len() > max_bytes {
            return Err(Reason::Malformed);
        }
        let mut dots = memchr::memchr_iter(b'.', token.as_bytes());
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(Reason::Malformed);
        };
        let (signed, signature) = (&token[..second], &token[second + 1..]);
        let (header, payload) = (&signed[..first], &signed[first + 1..]);
        Ok(Self { signed, header, payload, signature })
    }

    /// The header as it stands there.
    pub(super) fn header(&self) -> &'a str {
        self.header
    }

    /// Judges the header. Keys that it brings along (`jwk`, `jku`, `x5c`, `x5u`) are never looked at.
    pub(super) fn judge(&self) -> Result<Judged, Reason> {
        let mut header = Vec::new();
        decode(self.header, &mut header)?;
        let header = String::from_utf8(header).map_err(|_| Reason::Malformed)?;
        if !json::is_strict_object(&header) {
            return Err(Reason::Malformed);
        }
        let header: Header<'_> = serde_json::from_str(&header).map_err(|_| Reason::Malformed)?;
        if header.crit.is_some() || header.alg.as_ref().map(Text::as_str) != Some("RS256") {
            return Err(Reason::Algorithm);
        }
        // `at+jwt` is an OAuth access token of the same instance (RFC 9068).
        if header.typ.as_ref().is_some_and(|typ| typ.as_str() != "JWT") {
            return Err(Reason::NotASessionToken);
        }
        let category = header.cat.map_or(Category::Session, |cat| Category::of(cat.get()));
        Ok(Judged { kid: header.kid.map(|kid| kid.as_str().into()), category })
    }

    /// The payload, once the signature fits.
    pub(super) fn open(&self, key: &ParsedPublicKey) -> Result<Vec<u8>, Reason> {
        // One piece of memory for both.
        let mut bytes = Vec::with_capacity(self.payload.len().max(self.signature.len()));
        decode(self.signature, &mut bytes)?;
        key.verify_sig(self.signed.as_bytes(), &bytes).map_err(|_| Reason::Signature)?;
        bytes.clear();
        decode(self.payload, &mut bytes)?;
        Ok(bytes)
    }
}

/// Base64url without padding (RFC 7515 section 2) in its one canonical form: trailing bits must be zero, so no two
/// texts are the same token.
fn decode(part: &str, into: &mut Vec<u8>) -> Result<(), Reason> {
    URL_SAFE_NO_PAD.decode_vec(part, into).map_err(|_| Reason::Malformed)
}

// === impl Judged ===

impl Judged {
    /// Which key signed it, as it says.
    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether it may be a session token. Means something only once the signature fits.
    pub(super) fn may_be_session(&self) -> bool {
        self.category == Category::Session
    }
}

// === impl Category ===

impl Category {
    /// From the JSON of a `cat` that is there; `null` is not absent.
    fn of(json: &str) -> Self {
        match serde_json::from_str::<Text<'_>>(json) {
            Ok(cat) if matches!(cat.as_str(), "cl_B7d4PD111AAA" | "cl_I7d4PD111III") => Self::Session,
            _ => Self::Other,
        }
    }
}
