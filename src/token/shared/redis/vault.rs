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

/// What is not asked for in so long is full again, or is not there.
const BUCKET_LIFE: Duration = Duration::from_hours(24);

impl Vault for RedisStore {
    async fn draw(&self, at: &FundNames, ask: Ask) -> Result<Drawn, StoreError> {
        let mut asked = cmd("EVAL");
        asked.arg(DRAW).arg(2).arg(&at.bucket).arg(&at.pause);
        asked.arg(ask.capacity).arg(ask.rate).arg(1.0 + ask.reserve).arg(millis(BUCKET_LIFE));
        let answer = match self.ask(vec![vec![asked]]).await?.next() {
            Some(Ok(answer)) => answer,
            Some(Err(refused)) => return Err(judged(refused)),
            None => Value::Nil,
        };
        let Value::Array(parts) = answer else { return Ok(Drawn { wait: None, now: 0, pause: Some(Vec::new()) }) };
        let mut parts = parts.into_iter();
        let mut number = || match parts.next() {
            Some(Value::Int(number)) => u64::try_from(number).unwrap_or(0),
            _ => 0,
        };
        let (taken, wait, now) = (number() == 1, Duration::from_millis(number().max(1)), number());
        let pause = match parts.next() {
            Some(Value::BulkString(pause)) => Some(pause),
            _ => None,
        };
        Ok(Drawn { wait: (!taken).then_some(wait), now, pause })
    }

    async fn now(&self) -> Result<u64, StoreError> {
        let answer = self.ask(vec![vec![cmd("TIME")]]).await?.next();
        let Some(Ok(Value::Array(parts))) = answer else { return Ok(0) };
        let numbers: Vec<u64> = parts.into_iter().filter_map(|part| redis::from_redis_value(part).ok()).collect();
        Ok(numbers.first().zip(numbers.get(1)).map_or(0, |(seconds, micros)| seconds * 1000 + micros / 1000))
    }

    async fn pause(&self, at: &FundNames, pause: Vec<u8>, life: Duration) -> Result<(), StoreError> {
        let mut asked = command("EVAL", PAUSE);
        asked.arg(1).arg(&at.pause).arg(pause).arg(millis(life));
        done(self.ask(vec![vec![asked]]).await?)
    }
}
