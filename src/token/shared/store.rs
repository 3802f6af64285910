//! What the shared level needs of a store: names, bytes and times. It learns no token, no session and no user.

use std::sync::Arc;
use std::time::Duration;

use super::seal::{EPOCHS, Epoch, Names};
use crate::session::revoked;

/// How long epochs and words are kept: an epoch outlives every value that was made under it, a word the tombstone that it
/// is about.
pub const EPOCH_LIFE: Duration = revoked::LIFE;

/// Who holds a lease: random, so that nobody gives back another one's.
pub type Holder = [u8; 16];

/// What is there under the names of one token, read in this order: a lease that is gone has left its value before.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Whether somebody holds the lease.
    pub leased: bool,
    /// The sealed value, and how long the store will keep it.
    pub value: Option<(Vec<u8>, Duration)>,
    /// The epochs, in the order of [`Names::epochs`]; `None` for one that is absent or none.
    pub epochs: [Option<Epoch>; EPOCHS],
}

/// What came of asking for a lease.
#[derive(Debug, Clone, Default)]
pub struct Leased {
    /// Whether it is ours.
    pub granted: bool,
    /// What was there after that.
    pub seen: Seen,
}

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// There is no connection.
    #[error("there is no connection to the shared cache")]
    Lost(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// It answers, and is of no use to anybody: the password is wrong, it loads its data, its cluster is down.
    #[error("the shared cache is of no use")]
    Unusable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// It refused this one thing: it takes no writes, has no room, or forbids the command.
    #[error("the shared cache refused")]
    Refused(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// It answered something else than what was asked.
    #[error("the answer of the shared cache makes no sense")]
    Unreadable,
}

/// Keeps sealed values for a while, and grants leases. Whoever calls it bounds how long a call takes, and may drop it.
pub trait Store: Send + Sync + 'static {
    /// What is there.
    fn look(&self, at: &Names) -> impl Future<Output = Result<Seen, StoreError>> + Send;

    /// Takes the lease for `life` unless somebody holds it, creates the epochs that are absent out of `fresh`, and looks.
    fn lease(
        &self,
        at: &Names,
        holder: &Holder,
        life: Duration,
        fresh: &[Epoch; EPOCHS],
    ) -> impl Future<Output = Result<Leased, StoreError>> + Send;

    /// Keeps a value for `life`, and then gives `holder`'s lease back.
    fn put(
        &self,
        at: &Names,
        holder: &Holder,
        value: Vec<u8>,
        life: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Gives the lease back, if it is `holder`'s.
    fn release(&self, at: &Names, holder: &Holder) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Sets epochs anew: what was kept under the ones before counts for nothing.
    fn renew(&self, epochs: &[(String, Epoch)]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Whether it is there and of use.
    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl<S: Store> Store for Arc<S> {
    fn look(&self, at: &Names) -> impl Future<Output = Result<Seen, StoreError>> + Send {
        S::look(self, at)
    }

    fn lease(
        &self,
        at: &Names,
        holder: &Holder,
        life: Duration,
        fresh: &[Epoch; EPOCHS],
    ) -> impl Future<Output = Result<Leased, StoreError>> + Send {
        S::lease(self, at, holder, life, fresh)
    }

    fn put(
        &self,
        at: &Names,
        holder: &Holder,
        value: Vec<u8>,
        life: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        S::put(self, at, holder, value, life)
    }

    fn release(&self, at: &Names, holder: &Holder) -> impl Future<Output = Result<(), StoreError>> + Send {
        S::release(self, at, holder)
    }

    fn renew(&self, epochs: &[(String, Epoch)]) -> impl Future<Output = Result<(), StoreError>> + Send {
        S::renew(self, epochs)
    }

    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        S::ping(self)
    }
}
