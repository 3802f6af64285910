//! The other ways in: `[authz]`, `[token_api]` and `[webhooks]`, each on a listener of its own.

use super::listening::{Tls, Trusted};
use super::route::TemplateName;
use crate::address::ListenAddress;
use crate::secret::Secret;

/// Where one of them listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The address.
    pub listen: ListenAddress,
    /// On TCP. Absent: none, and under `check` where a key is not there.
    pub tls: Option<Tls>,
}

/// `[authz]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authz {
    /// Where it listens.
    pub way: Way,
    /// Who may ask: the answers hold tokens.
    pub allow_from: Trusted,
}

/// `[token_api]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenApi {
    /// Where it listens.
    pub way: Way,
    /// Who may ask beside those who hold the secret key. No two have one name or one token.
    pub callers: Vec<ApiCaller>,
}

/// A caller of `[token_api]` that does not hold the secret key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiCaller {
    /// What the log calls it.
    pub name: String,
    /// What it shows, as a bearer.
    pub token: Secret,
    /// What it may ask for; at least one.
    pub templates: Vec<TemplateName>,
}

/// `[webhooks]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhooks {
    /// Where it listens.
    pub way: Way,
    /// Where Clerk sends to.
    pub path: String,
    /// `whsec_` and base64, each. Empty only under `check` without secrets.
    pub signing_secrets: Vec<Secret>,
}
