//! What Redis says of itself, and whether it does what is asked of it: for who looks before anything runs.

use redis::{Value, cmd};

use super::{RedisStore, done};
use crate::token::shared::store::{Store as _, StoreError};

/// What was found of a Redis that answers.
#[derive(Debug, Clone)]
pub struct Examined {
    /// What it calls itself, and its version; `None` where it does not tell.
    pub version: Option<String>,
    /// Whether it is too old to be of use.
    pub too_old: bool,
    /// Whether it may be written to.
    pub writes: Result<(), StoreError>,
    /// What it throws away when it is full, where it has a limit and throws anything away.
    pub evicts: Option<String>,
}

/// Writes what leaves at once by itself.
const TRY: &str = "return redis.call('SET', KEYS[1], '', 'PX', 1)";

/// The oldest that can trim a stream by time.
const OLDEST: (u32, u32) = (6, 2);

impl RedisStore {
    /// Asks it. What is written for that has this name.
    ///
    /// # Errors
    /// When it cannot be asked, or is of no use to anybody.
    pub async fn examine(&self, name: &str) -> Result<Examined, StoreError> {
        self.ping().await?;
        let mut write = cmd("EVAL");
        write.arg(TRY).arg(1).arg(name);
        let writes = match self.ask(vec![vec![write]]).await {
            Ok(answers) => done(answers),
            Err(error) => return Err(error),
        };
        // Whoever may not ask for that may use it all the same.
        let told = self.ask(vec![vec![cmd("INFO")]]).await?.next().and_then(Result::ok).map_or_else(String::new, text);
        let field = |name: &str| {
            let value = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map(|value| value.trim().to_owned())
        };
        let redis = field("redis_version");
        let version = match (field("valkey_version"), &redis) {
            (Some(valkey), _) => Some(format!("Valkey {valkey}")),
            (None, Some(redis)) => Some(format!("Redis {redis}")),
            (None, None) => None,
        };
        let limited = field("maxmemory").is_some_and(|bytes| bytes != "0");
        let evicts = field("maxmemory_policy").filter(|policy| limited && policy != "noeviction");
        let too_old = redis.as_deref().and_then(number).is_some_and(|number| number < OLDEST);
        Ok(Examined { version, too_old, writes, evicts })
    }
}

fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// Of one server, or of each in a cluster.
fn text(answer: Value) -> String {
    match answer {
        Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text,
        Value::Map(nodes) => nodes.into_iter().map(|(_, node)| text(node)).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_two_numbers() {
        for (version, expected) in [("7.0.15", Some((7, 0))), ("6.2", Some((6, 2))), ("7", None), ("x.1", None)] {
            assert_eq!(number(version), expected, "{version}");
        }
        assert!(number("6.0.16") < Some(OLDEST) && number("6.2.0") >= Some(OLDEST));
    }
}
