//! What a route puts into a request: compiled once, so that a request only looks up and clones.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::config::{Claim, Injection, MintSpec, Requirement, SessionRules, Source};
use crate::secret::{self, NotHeaderSafe};
use crate::token::Token;

/// The headers that one request gets.
pub type Injected = SmallVec<[(HeaderName, HeaderValue); 3]>;

/// One injection of a route.
#[derive(Debug)]
pub struct Slot {
    /// The header that is set.
    pub header: HeaderName,
    /// What stands before the value.
    pub prefix: Prefix,
    /// Without a value the request fails.
    pub required: bool,
    /// Where the value comes from.
    pub source: SlotSource,
}

/// Where an injected value comes from, with its place in a remembered session.
#[derive(Debug)]
pub enum SlotSource {
    /// A minted token.
    Token {
        /// What to mint.
        spec: MintSpec,
        /// Index of the session's key for it.
        key: usize,
    },
    /// A value of the session.
    Claim {
        /// Which one.
        claim: Claim,
        /// Index of the session's header value for it.
        value: usize,
    },
    /// The caller's own session token.
    SessionToken,
    /// A fixed value.
    Value(HeaderValue),
}

/// What stands before a value. `Bearer ` and nothing are built once per token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prefix {
    /// Nothing.
    None,
    /// `Bearer `
    Bearer,
    /// Any other text.
    Other(String),
}

/// Hands out the indexes of slots while a configuration is compiled: equal things share one.
#[derive(Debug, Default)]
pub struct SlotIndex {
    specs: Vec<MintSpec>,
    claims: Vec<(Claim, Prefix)>,
    guards: Vec<(Vec<Requirement>, bool)>,
}

// === impl SlotIndex ===

impl SlotIndex {
    /// Compiles an injection. A fixed value that is not known (only under `check`) has no slot.
    ///
    /// # Errors
    /// When a fixed value cannot stand in a header.
    pub fn compile(&mut self, injection: &Injection) -> Result<Option<Slot>, NotHeaderSafe> {
        let prefix = Prefix::new(&injection.prefix);
        let source = match &injection.source {
            Source::Minted(spec) => SlotSource::Token { spec: spec.clone(), key: place(&mut self.specs, spec.clone()) },
            Source::Claim(claim) => {
                let value = place(&mut self.claims, (claim.clone(), prefix.clone()));
                SlotSource::Claim { claim: claim.clone(), value }
            }
            Source::SessionToken => SlotSource::SessionToken,
            Source::Value(Some(value)) => SlotSource::Value(value.header(&injection.prefix)?),
            Source::Value(None) => return Ok(None),
        };
        Ok(Some(Slot { header: injection.header.clone(), prefix, required: injection.required, source }))
    }

    /// The place of what a route asks of a session; `None` where it asks nothing.
    pub fn guard(&mut self, rules: &SessionRules) -> Option<usize> {
        let asked = (rules.require.clone(), rules.allow_impersonation);
        rules.are_guarding().then(|| place(&mut self.guards, asked))
    }

    /// Distinct sets of what routes ask of a session.
    pub fn verdicts(&self) -> usize {
        self.guards.len()
    }

    /// Distinct things that are minted.
    pub fn keys(&self) -> usize {
        self.specs.len()
    }

    /// Distinct session values that are injected.
    pub fn values(&self) -> usize {
        self.claims.len()
    }
}

fn place<T: PartialEq>(places: &mut Vec<T>, wanted: T) -> usize {
    places.iter().position(|own| *own == wanted).unwrap_or_else(|| {
        places.push(wanted);
        places.len() - 1
    })
}

// === impl Prefix ===

impl Prefix {
    fn new(text: &str) -> Self {
        match text {
            "" => Self::None,
            "Bearer " => Self::Bearer,
            other => Self::Other(other.to_owned()),
        }
    }

    /// A minted token behind this prefix.
    ///
    /// # Errors
    /// When the two together cannot stand in a header.
    pub fn token(&self, token: &Token) -> Result<HeaderValue, NotHeaderSafe> {
        match self {
            Self::None => Ok(token.bare().clone()),
            Self::Bearer => Ok(token.bearer().clone()),
            Self::Other(prefix) => secret::sensitive([prefix.as_bytes(), token.bare().as_bytes()].concat()),
        }
    }

    /// A text behind this prefix, marked sensitive.
    ///
    /// # Errors
    /// When the two together cannot stand in a header.
    pub fn text(&self, text: &str) -> Result<HeaderValue, NotHeaderSafe> {
        let prefix = match self {
            Self::None => "",
            Self::Bearer => "Bearer ",
            Self::Other(prefix) => prefix,
        };
        secret::sensitive([prefix, text].concat())
    }
}

/// Sets the headers; each replaces every copy that was there.
pub fn inject(headers: &mut HeaderMap, injected: Injected) {
    for (name, value) in injected {
        headers.insert(name, value);
    }
}
