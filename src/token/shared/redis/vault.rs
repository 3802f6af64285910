//! The bucket of all replicas in Redis, by Redis' own clock.

use std::time::Duration;

use redis::{Value, cmd};

use super::way::judged;
use super::{RedisStore, command, done, millis};
use crate::token::budget::purse::Ask;
use crate::token::shared::seal::FundNames;
use crate::token::shared::store::StoreError;
use crate::token::shared::vault::{Drawn, Vault};

/// Takes a unit, or says how long until there is one, in one step: whether it was taken, the milliseconds, the clock, and the
/// pause where one is. Never below none and never above all, whatever stands there.
const DRAW: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local pause = redis.call('GET', KEYS[2])
if pause then return {0, 0, now, pause} end
local capacity, rate, needed = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local there = redis.call('HMGET', KEYS[1], 'units', 'at')
local units, at = tonumber(there[1]) or capacity, tonumber(there[2]) or now
units = math.min(capacity, math.max(0, units) + math.max(0, now - at) * rate)
local taken, wait = 1, 0
if needed - units > 0.001 then
  taken, wait = 0, math.ceil((needed - units) / rate)
else
  units = units - 1
end
redis.call('HSET', KEYS[1], 'units', string.format('%.6f', units), 'at', string.format('%d', now))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {taken, wait, now}
";

/// Puts a pause there, unless a longer one is.
const PAUSE: &str = "
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 0
";

/// What [`DRAW`] brought.
fn drawn(answer: Value) -> Option<Drawn> {
    let Value::Array(parts) = answer else { return None };
    let mut parts = parts.into_iter();
    let mut number = || match parts.next()? {
        Value::Int(number) => u64::try_from(number).ok(),
        _ => None,
    };
    let (taken, wait, now) = (number()?, number()?, number()?);
    match (taken, parts.next()) {
        (1, None) => Some(Drawn::Taken),
        (0, None) => Some(Drawn::After(Duration::from_millis(wait.max(1)))),
        (0, Some(Value::BulkString(sealed))) => Some(Drawn::Paused { sealed, now }),
        _ => None,
    }
}

/// What is not asked for in so long is full again, or is not there.
const BUCKET_LIFE: Duration = Duration::from_hours(24);

impl Vault for RedisStore {
    async fn draw(&self, at: &FundNames, ask: Ask) -> Result<Drawn, StoreError> {
        let mut asked = cmd("EVAL");
        asked.arg(DRAW).arg(2).arg(&at.bucket).arg(&at.pause);
        asked.arg(ask.capacity).arg(ask.rate).arg(1.0 + ask.reserve).arg(millis(BUCKET_LIFE));
        let answer = self.ask(vec![vec![asked]]).await?.next().ok_or(StoreError::Unreadable)?;
        drawn(answer.map_err(judged)?).ok_or(StoreError::Unreadable)
    }

    async fn now(&self) -> Result<u64, StoreError> {
        let answer = self.ask(vec![vec![cmd("TIME")]]).await?.next().ok_or(StoreError::Unreadable)?;
        let (seconds, micros): (u64, u64) =
            redis::from_redis_value(answer.map_err(judged)?).map_err(|_| StoreError::Unreadable)?;
        Ok(seconds * 1000 + micros / 1000)
    }

    async fn pause(&self, at: &FundNames, pause: Vec<u8>, life: Duration) -> Result<(), StoreError> {
        let mut asked = command("EVAL", PAUSE);
        asked.arg(1).arg(&at.pause).arg(pause).arg(millis(life));
        done(self.ask(vec![vec![asked]]).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails where an answer that makes no sense stands for one that does.
    #[test]
    fn an_answer_is_a_unit_a_wait_a_pause_or_none_of_them() {
        let int = Value::Int;
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let of = |parts: &[Value]| drawn(Value::Array(parts.to_vec()));
        assert_eq!(of(&[int(1), int(0), int(7)]), Some(Drawn::Taken));
        assert_eq!(of(&[int(0), int(0), int(7)]), Some(Drawn::After(Duration::from_millis(1))));
        assert_eq!(of(&[int(0), int(0), int(7), text("")]), Some(Drawn::Paused { sealed: Vec::new(), now: 7 }));
        for answer in [
            &[][..],
            &[int(1), int(0)],
            &[int(2), int(0), int(7)],
            &[int(0), int(-1), int(7)],
            &[int(1), int(0), int(7), text("p")],
            &[int(0), int(0), int(7), int(1)],
            &[text("1"), int(0), int(7)],
        ] {
            assert_eq!(of(answer), None, "{answer:?}");
        }
        assert_eq!(drawn(Value::Nil), None);
    }
}
