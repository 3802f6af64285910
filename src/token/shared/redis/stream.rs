//! The streams of words in Redis.

use std::time::Duration;

use redis::{Value, cmd};

use super::way::{Wire, judged};
use super::{Answers, RedisStore, command, millis};
use crate::token::shared::journal::{Entries, Journal, Place};
use crate::token::shared::store::{EPOCH_LIFE, StoreError};

/// Words that a stream keeps.
const LONGEST_STREAM: usize = 100_000;

/// A connection of its own, on which something is waited for.
pub struct Line(Wire);

impl Journal for RedisStore {
    type Line = Line;

    async fn append(&self, stream: &str, entry: &[u8]) -> Result<(), StoreError> {
        let mut added = command("XADD", stream);
        added.arg("MAXLEN").arg("~").arg(LONGEST_STREAM).arg("*").arg("w").arg(entry);
        let mut renewed = command("PEXPIRE", stream);
        renewed.arg(millis(EPOCH_LIFE));
        let mut answers = self.ask(vec![vec![added, renewed]]).await?;
        let place = match answers.next() {
            Some(Ok(Value::BulkString(place))) => place_in(&place),
            Some(Err(refused)) => return Err(judged(refused)),
            _ => None,
        };
        // By Redis' own clock. That old ones leave is worth no failure.
        if let Some(oldest) = place.map(|place| place.before(EPOCH_LIFE).millis) {
            let mut trimmed = command("XTRIM", stream);
            trimmed.arg("MINID").arg("~").arg(oldest);
            let _trimmed: Result<Answers, StoreError> = self.ask(vec![vec![trimmed]]).await;
        }
        Ok(())
    }

    async fn open(&self) -> Result<Line, StoreError> {
        self.way.line().await.map(Line).map_err(judged)
    }

    async fn last(&self, Line(wire): &mut Line, stream: &str) -> Result<Option<Place>, StoreError> {
        let mut asked = command("XREVRANGE", stream);
        asked.arg("+").arg("-").arg("COUNT").arg(1);
        let answer = asked.query_async::<Value>(wire).await.map_err(judged)?;
        Ok(entries(answer).last().map(|(place, _)| *place))
    }

    async fn read(
        &self,
        Line(wire): &mut Line,
        stream: &str,
        after: Place,
        patience: Duration,
    ) -> Result<Entries, StoreError> {
        let mut asked = cmd("XREAD");
        asked.arg("COUNT").arg(1000).arg("BLOCK").arg(millis(patience));
        asked.arg("STREAMS").arg(stream).arg(format!("{}-{}", after.millis, after.number));
        match asked.query_async::<Value>(wire).await.map_err(judged)? {
            // One stream was asked for: its name, and its entries.
            Value::Array(streams) => Ok(match streams.into_iter().next() {
                Some(Value::Array(named)) => named.into_iter().nth(1).map(entries).unwrap_or_default(),
                _ => Entries::new(),
            }),
            _ => Ok(Entries::new()),
        }
    }
}

/// Each with the first value of its fields.
fn entries(answer: Value) -> Entries {
    let Value::Array(all) = answer else { return Entries::new() };
    let entry = |entry: Value| {
        let Value::Array(parts) = entry else { return None };
        let mut parts = parts.into_iter();
        let (Some(Value::BulkString(place)), Some(Value::Array(fields))) = (parts.next(), parts.next()) else {
            return None;
        };
        let value = match fields.into_iter().nth(1) {
            Some(Value::BulkString(value)) => value,
            _ => Vec::new(),
        };
        Some((place_in(&place)?, value))
    };
    all.into_iter().filter_map(entry).collect()
}

fn place_in(text: &[u8]) -> Option<Place> {
    let (millis, number) = std::str::from_utf8(text).ok()?.split_once('-')?;
    Some(Place { millis: millis.parse().ok()?, number: number.parse().ok()? })
}
