//! The values on the command line of `mintgate simulate`.

use std::time::Duration;

use crate::config::Rate;
use crate::simulate::case::Window;

/// `--limit`; `None`: there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit(pub(super) Option<Rate>);

/// A whole number, 1 to a million.
pub(super) fn small(text: &str) -> Result<u32, &'static str> {
    text.parse().ok().filter(|number| (1..=1_000_000).contains(number)).ok_or("a whole number, 1 to 1000000")
}

/// A whole number, also in thousands and millions: `20k`, `10M`.
pub(super) fn count(text: &str) -> Result<u64, &'static str> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    number.filter(|number| (1..=1_000_000_000).contains(number)).ok_or("a whole number, as 5000, 20k or 10M")
}

/// A time that is not zero and at most a year.
pub(super) fn positive(text: &str) -> Result<Duration, &'static str> {
    let longest = Duration::from_hours(24 * 365);
    let parsed = humantime::parse_duration(text).ok();
    parsed.filter(|time| !time.is_zero() && *time <= longest).ok_or("a time with its unit, as 90s or 5m")
}

/// `250ms-300ms`, or one time.
pub(super) fn range(text: &str) -> Result<(Duration, Duration), &'static str> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (humantime::parse_duration(from), humantime::parse_duration(to)) {
        (Ok(from), Ok(to)) if from <= to => Ok((from, to)),
        _ => Err("two times, the shorter first: 250ms-300ms"),
    }
}

/// `1000/10s`, or `off`.
pub(super) fn limit(text: &str) -> Result<Limit, &'static str> {
    if text == "off" {
        return Ok(Limit(None));
    }
    let parsed = text.split_once('/').and_then(|(calls, per)| {
        let calls = u32::try_from(count(calls).ok()?).ok()?;
        Some(Rate { count: calls, per: positive(per).ok()? })
    });
    parsed.map(|rate| Limit(Some(rate))).ok_or("calls in a time, as 1000/10s, or off")
}

/// `1m@2m`
pub(super) fn window(text: &str) -> Result<Window, &'static str> {
    let parsed = text.split_once('@').and_then(|(length, at)| {
        Some(Window { length: positive(length).ok()?, at: humantime::parse_duration(at).ok()? })
    });
    parsed.ok_or("how long, and when: 1m@2m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_in_thousands_and_millions() {
        assert_eq!(["1", "20k", "10M"].map(count), [Ok(1), Ok(20_000), Ok(10_000_000)]);
        for bad in ["", "0", "k", "-1", "1.5M", "10G", "99999999999999999999M", "2000M", "\u{fc}"] {
            assert!(count(bad).is_err(), "{bad}");
        }
        assert!(small("0").is_err() && small("1000001").is_err());
    }

    #[test]
    fn times_have_a_unit_and_an_order() {
        let seconds = Duration::from_secs;
        assert_eq!(range("1s-2s"), Ok((seconds(1), seconds(2))));
        assert_eq!(range("1s"), Ok((seconds(1), seconds(1))));
        assert_eq!(window("30s@2m"), Ok(Window { at: seconds(120), length: seconds(30) }));
        assert_eq!(limit("1k/10s"), Ok(Limit(Some(Rate { count: 1000, per: seconds(10) }))));
        assert_eq!(limit("off"), Ok(Limit(None)));
        for bad in ["2s-1s", "1", "1s-", ""] {
            assert!(range(bad).is_err(), "{bad}");
        }
        assert!(
            window("30s").is_err() && window("0s@1m").is_err() && limit("1000").is_err() && positive("0s").is_err()
        );
    }
}
