//! The second level of the token cache, which all replicas share: what one of them has minted, no other one mints.
//!
//! It stands between the cache in memory and the issuer, as a [`Mint`]: a token that is there is given in place of a mint.
//! Whatever fails there, requests go on from memory and by mints of their own.

pub mod follow;
pub mod fund;
pub mod gate;
pub mod herald;
pub mod journal;
pub mod level;
pub mod memory;
pub mod outbox;
pub mod redis;
pub mod seal;
pub mod store;
pub mod vault;

use std::sync::Arc;

use self::level::{Found, Level};
use self::store::Store;
use crate::token::freshness::Rules;
use crate::token::{Mint, MintError, MintRequest, Token};

/// A [`Mint`] that looks into the shared level first, where there is one, and leaves there what it has minted.
#[derive(Debug)]
pub struct Shared<M, S> {
    inner: M,
    level: Option<Arc<Level<S>>>,
    rules: Rules,
}

// === impl Shared ===

impl<M, S> Shared<M, S> {
    /// Puts the level, if there is one, before `inner`.
    pub fn new(inner: M, level: Option<Arc<Level<S>>>, rules: Rules) -> Self {
        Self { inner, level, rules }
    }
}

impl<M: Mint, S: Store> Mint for Shared<M, S> {
    async fn mint(&self, request: MintRequest) -> Result<Token, MintError> {
        let Some(level) = &self.level else { return self.inner.mint(request).await };
        let ticket = match level.find(&request, &self.rules).await {
            Found::Token(token) => return Ok(token),
            Found::Nothing(ticket) => ticket,
        };
        // Failed, or dropped, it gives the lease back: the others wait for nothing.
        let token = self.inner.mint(request.clone()).await?;
        level.learn(&token);
        if let Some(ticket) = ticket {
            ticket.put(&request, &token, &self.rules);
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests;
