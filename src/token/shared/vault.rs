//! What a budget that replicas share needs of a store.

use std::sync::Arc;
use std::time::Duration;

use super::seal::FundNames;
use super::store::StoreError;
use crate::token::budget::purse::Ask;

/// What the store says of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drawn {
    /// A unit was taken.
    Taken,
    /// There is none before that.
    After(Duration),
    /// Nothing was taken: something stands where a pause does.
    Paused {
        /// As somebody has put it there.
        sealed: Vec<u8>,
        /// The store's clock, in milliseconds.
        now: u64,
    },
}

/// Keeps a bucket.
pub trait Vault: Send + Sync + 'static {
    /// Takes a unit, unless a pause is there or too few are left.
    fn draw(&self, at: &FundNames, ask: Ask) -> impl Future<Output = Result<Drawn, StoreError>> + Send;

    /// The store's clock, in milliseconds.
    fn now(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Puts a pause there, unless a longer one is.
    fn pause(
        &self,
        at: &FundNames,
        pause: Vec<u8>,
        life: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl<S: Vault> Vault for Arc<S> {
    fn draw(&self, at: &FundNames, ask: Ask) -> impl Future<Output = Result<Drawn, StoreError>> + Send {
        S::draw(self, at, ask)
    }

    fn now(&self) -> impl Future<Output = Result<u64, StoreError>> + Send {
        S::now(self)
    }

    fn pause(
        &self,
        at: &FundNames,
        pause: Vec<u8>,
        life: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        S::pause(self, at, pause, life)
    }
}
