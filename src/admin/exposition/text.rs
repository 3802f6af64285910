//! How the text formats write numbers and texts.

use std::fmt::{self, Display, Formatter};

/// What the numbers of a histogram are.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    /// Nanoseconds, shown as seconds.
    Time,
    Bytes,
}

/// Milliseconds, as seconds.
pub(super) struct Millis(pub(super) i64);

/// Nanoseconds, as seconds. Both are exact: no sum is lost to a float's rounding.
pub(super) struct Nanos(pub(super) u64);

/// A bucket's bound as every client library writes it: a float, small ones with an exponent.
pub(super) struct Bound {
    pub(super) bound: u64,
    pub(super) unit: Unit,
}

pub(super) struct Escaped<'a> {
    pub(super) text: &'a str,
    /// Whether a quote ends the text: in a label, and in OpenMetrics' help.
    pub(super) quotes: bool,
}

// === Display ===

impl Display for Millis {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let (sign, millis) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        write!(out, "{sign}{}.{:03}", millis / 1000, millis % 1000)
    }
}

impl Display for Nanos {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

impl Display for Bound {
    #[expect(clippy::cast_precision_loss, reason = "the bounds are small")]
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let value = match self.unit {
            Unit::Time => self.bound as f64 / 1e9,
            Unit::Bytes => self.bound as f64,
        };
        // Below 1e-4 Go and Python write an exponent of two digits.
        if value < 1e-4 {
            let text = format!("{value:e}");
            let (digits, exponent) = text.split_once("e-").unwrap_or((&text, "0"));
            write!(out, "{digits}e-{exponent:0>2}")
        } else {
            write!(out, "{value:?}")
        }
    }
}

impl Display for Escaped<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for part in self.text.split_inclusive(['\\', '\n', '"']) {
            match part.as_bytes().last() {
                Some(b'\\') => write!(out, "{part}\\")?,
                Some(b'\n') => write!(out, "{}\\n", &part[..part.len() - 1])?,
                Some(b'"') if self.quotes => write!(out, "{}\\\"", &part[..part.len() - 1])?,
                _ => out.write_str(part)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_escaped_as_each_format_asks() {
        let help = |quotes| Escaped { text: "a\\b\nc\"d\"", quotes }.to_string();
        assert_eq!((help(false), help(true)), ("a\\\\b\\nc\"d\"".to_owned(), "a\\\\b\\nc\\\"d\\\"".to_owned()));
    }

    #[test]
    fn seconds_are_exact() {
        let millis: Vec<String> = [0, 1, -1, -1005, i64::MIN].map(|of| Millis(of).to_string()).into();
        assert_eq!(millis, ["0.000", "0.001", "-0.001", "-1.005", "-9223372036854775.808"]);
        assert_eq!(Nanos(u64::MAX).to_string(), "18446744073.709551615");
    }
}
