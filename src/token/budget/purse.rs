//! What the budget needs of a bucket that all replicas share.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::token::spent::Spent;

/// How a unit is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ask {
    /// Units that the bucket holds: what all replicas together may use in a window.
    pub capacity: f64,
    /// Units that flow in, in a millisecond.
    pub rate: f64,
    /// Units that have to be left.
    pub reserve: f64,
}

/// What was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A unit was taken.
    Taken,
    /// There is none before that.
    After(Duration),
    /// A replica has heard that nothing may be sent before that.
    Paused(Duration),
}

/// Asked and not yet answered; `None`: nobody answers, and everyone decides for himself.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Option<Answer>> + Send + 'a>>;

/// A bucket that all replicas share.
pub trait Purse: fmt::Debug + Send + Sync {
    /// Asks for a unit, within what the mint may yet wait for the shared level. A wait counts from when it was asked.
    fn ask(&self, ask: Ask, spent: &Spent) -> Asking<'_>;

    /// Tells the others that nothing may be sent for so long.
    fn pause(&self, pause: Duration);
}
