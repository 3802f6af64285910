//! The store in Redis or Valkey: one server, the master that sentinels name, or a cluster.
//!
//! Commands for one token go out together, so that a look is one round trip. A connection that gave no answer in time
//! is never used again: a late answer cannot be taken for another one's. RESP2, in which nothing comes unasked.

pub mod examine;
mod stream;
mod vault;
mod way;

use std::sync::PoisonError;
use std::time::Duration;

use redis::{Cmd, Pipeline, RedisError, RedisResult, Value, cmd};
use tokio::sync::Mutex;

use self::way::{Way, Wire, is_read_only, is_useless, judged};
use super::seal::{EPOCHS, Epoch, LONGEST_VALUE, Names};
use super::store::{EPOCH_LIFE, Holder, Leased, Seen, Store, StoreError};
use crate::config::Shared;

/// Deletes a name that still holds what it is thought to.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// The store.
pub struct RedisStore {
    way: Way,
    /// The present connection; a new one takes its place after a failure.
    current: std::sync::Mutex<Option<Wire>>,
    /// One connects at a time.
    connecting: Mutex<()>,
}

/// Commands for one place of a cluster.
type Group = Vec<Cmd>;

/// What each of them brought.
type Answers = std::vec::IntoIter<RedisResult<Value>>;

/// The client of Redis cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the client of cache.shared")]
pub struct BuildError(#[source] RedisError);

// === impl RedisStore ===

impl RedisStore {
    /// Connects when it is first asked.
    ///
    /// # Errors
    /// When the certificates are none.
    pub fn new(shared: &Shared) -> Result<Self, BuildError> {
        let way = Way::new(shared).map_err(BuildError)?;
        Ok(Self { way, current: std::sync::Mutex::default(), connecting: Mutex::default() })
    }

    fn known(&self) -> Option<Wire> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, wire: Option<Wire>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = wire;
    }

    async fn wire(&self) -> Result<Wire, StoreError> {
        if let Some(wire) = self.known() {
            return Ok(wire);
        }
        let _one = self.connecting.lock().await;
        if let Some(wire) = self.known() {
            return Ok(wire);
        }
        let wire = self.way.connect().await.map_err(judged)?;
        self.set(Some(wire.clone()));
        Ok(wire)
    }

    /// Sends all commands at once; the groups apart where they may be at different places.
    async fn ask(&self, groups: Vec<Group>) -> Result<Answers, StoreError> {
        let mut wire = self.wire().await?;
        let answers = match &wire {
            Wire::Server(_) => query(&mut wire, groups.into_iter().flatten().collect()).await,
            Wire::Cluster(_) => {
                let each = groups.into_iter().map(|group| {
                    let mut wire = wire.clone();
                    async move { query(&mut wire, group).await }
                });
                futures_util::future::try_join_all(each).await.map(|answers| answers.into_iter().flatten().collect())
            }
        };
        let answers = answers.map_err(|error| self.failed(error))?;
        // Whoever was the master may be none any more: the sentinels know.
        if matches!(self.way, Way::Sentinel(_)) && answers.iter().any(|answer| answer.as_ref().is_err_and(is_read_only))
        {
            self.set(None);
        }
        // What is said of everything is said to everybody.
        let useless = answers.iter().filter_map(|answer| answer.as_ref().err()).find(|error| is_useless(error));
        match useless {
            Some(error) => Err(judged(error.clone())),
            None => Ok(answers.into_iter()),
        }
    }

    fn failed(&self, error: RedisError) -> StoreError {
        let error = judged(error);
        if matches!(error, StoreError::Lost(_)) {
            self.set(None);
        }
        error
    }
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisStore")
    }
}

async fn query(wire: &mut Wire, group: Group) -> RedisResult<Vec<RedisResult<Value>>> {
    let mut pipeline = Pipeline::with_capacity(group.len());
    pipeline.ignore_errors();
    for command in group {
        pipeline.add_command(command);
    }
    pipeline.query_async(wire).await
}

fn millis(of: Duration) -> u64 {
    // Redis refuses a time of none.
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX).clamp(1, i64::MAX.unsigned_abs() / 2)
}

fn command(name: &str, key: &str) -> Cmd {
    let mut command = cmd(name);
    command.arg(key);
    command
}

fn with<const N: usize>(mut command: Cmd, arguments: [&[u8]; N]) -> Cmd {
    for argument in arguments {
        command.arg(argument);
    }
    command
}

/// `SET` with a time, and with more.
fn set(key: &str, value: &[u8], life: Duration) -> Cmd {
    let mut command = command("SET", key);
    command.arg(value).arg("PX").arg(millis(life));
    command
}

/// No more than can be of use, whatever somebody has put there.
fn get(key: &str, most: usize) -> Cmd {
    let mut command = command("GETRANGE", key);
    command.arg(0).arg(most);
    command
}

fn epoch(key: &str) -> Cmd {
    get(key, size_of::<Epoch>())
}

/// The lease before the value: one that is gone has left its value before.
fn look(at: &Names) -> Group {
    vec![command("EXISTS", &at.lease), get(&at.value, LONGEST_VALUE), command("PTTL", &at.value), epoch(&at.epochs[0])]
}

fn release(at: &Names, holder: &Holder) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(RELEASE).arg(1).arg(&at.lease).arg(&holder[..]);
    command
}

/// The first refusal among answers of which none matters otherwise.
fn done(mut answers: Answers) -> Result<(), StoreError> {
    answers.try_for_each(|answer| answer.map(drop)).map_err(judged)
}

fn bytes(answer: Option<RedisResult<Value>>) -> Option<Vec<u8>> {
    match answer {
        Some(Ok(Value::BulkString(bytes))) if !bytes.is_empty() => Some(bytes),
        _ => None,
    }
}

fn epoch_in(answer: Option<RedisResult<Value>>) -> Option<Epoch> {
    bytes(answer)?.try_into().ok()
}

/// What [`look`] brought.
fn seen(answers: &mut Answers) -> Seen {
    let leased = matches!(answers.next(), Some(Ok(Value::Int(1))));
    let value = bytes(answers.next());
    // A name that is there without an end was planted: it lives no longer than now.
    let kept_for = match answers.next() {
        Some(Ok(Value::Int(left))) => Duration::from_millis(u64::try_from(left).unwrap_or(0)),
        _ => Duration::ZERO,
    };
    Seen { leased, value: value.map(|value| (value, kept_for)), epochs: [epoch_in(answers.next()), None, None] }
}

impl Store for RedisStore {
    async fn look(&self, at: &Names) -> Result<Seen, StoreError> {
        let [_, user, all] = &at.epochs;
        let mut answers = self.ask(vec![look(at), vec![epoch(user)], vec![epoch(all)]]).await?;
        let mut seen = seen(&mut answers);
        for epoch in &mut seen.epochs[1..] {
            *epoch = epoch_in(answers.next());
        }
        Ok(seen)
    }

    async fn lease(
        &self,
        at: &Names,
        holder: &Holder,
        life: Duration,
        fresh: &[Epoch; EPOCHS],
    ) -> Result<Leased, StoreError> {
        let kept = |index: usize| {
            let name = &at.epochs[index];
            let made = with(set(name, &fresh[index], EPOCH_LIFE), [b"NX"]);
            let mut renewed = command("PEXPIRE", name);
            renewed.arg(millis(EPOCH_LIFE));
            [made, renewed]
        };
        let mut first = vec![with(set(&at.lease, holder, life), [b"NX"])];
        first.extend(kept(0));
        first.extend(look(at));
        let rest = |index: usize| kept(index).into_iter().chain([epoch(&at.epochs[index])]).collect();
        let mut answers = self.ask(vec![first, rest(1), rest(2)]).await?;
        let granted = match answers.next() {
            Some(Ok(answer)) => answer == Value::Okay,
            Some(Err(refused)) => return Err(judged(refused)),
            None => false,
        };
        // That an epoch was made and renewed is of no interest; what it is, is.
        answers.by_ref().take(2).for_each(drop);
        let mut seen = seen(&mut answers);
        for epoch in &mut seen.epochs[1..] {
            *epoch = epoch_in(answers.nth(2));
        }
        Ok(Leased { granted, seen })
    }

    async fn put(&self, at: &Names, holder: &Holder, value: Vec<u8>, life: Duration) -> Result<(), StoreError> {
        done(self.ask(vec![vec![set(&at.value, &value, life), release(at, holder)]]).await?)
    }

    async fn release(&self, at: &Names, holder: &Holder) -> Result<(), StoreError> {
        done(self.ask(vec![vec![release(at, holder)]]).await?)
    }

    async fn renew(&self, epochs: &[(String, Epoch)]) -> Result<(), StoreError> {
        done(self.ask(epochs.iter().map(|(name, epoch)| vec![set(name, epoch, EPOCH_LIFE)]).collect()).await?)
    }

    /// On a new connection: the one before may have been given up by somebody who had no time.
    async fn ping(&self) -> Result<(), StoreError> {
        let _one = self.connecting.lock().await;
        let mut wire = self.way.connect().await.map_err(judged)?;
        cmd("PING").exec_async(&mut wire).await.map_err(judged)?;
        self.set(Some(wire));
        Ok(())
    }
}
