//! Durations, sizes and rates out of text.

use std::time::Duration;

use bytesize::ByteSize;

use crate::config::Rate;

/// Ten years: nothing here lasts longer, and no deadline overflows. Clerk's own limit for `expires_in_seconds`.
pub(crate) const LONGEST: Duration = Duration::from_hours(87_600);

/// `"off"` and a zero of any unit mean: no limit, or no feature.
pub(crate) fn is_off(text: &str) -> bool {
    text == "off"
}

/// `"30s"`, `"1h 30m"`; `"0"` is zero.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    humantime::parse_duration(text).ok().filter(|duration| *duration <= LONGEST)
}

/// `"64KiB"`, `"1MB"`; a number alone counts bytes.
pub(crate) fn size(text: &str) -> Option<u64> {
    text.parse::<ByteSize>().ok().map(|size| size.as_u64())
}

/// `"20/10s"`
pub(crate) fn rate(text: &str) -> Option<Rate> {
    let (count, per) = text.split_once('/')?;
    let rate = Rate { count: count.trim().parse().ok()?, per: duration(per.trim())? };
    (rate.count > 0 && !rate.per.is_zero()).then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, seconds) in
            [("0", 0.0), ("0s", 0.0), ("30s", 30.0), ("1h 30m", 5400.0), ("250ms", 0.25), ("1d", 86400.0)]
        {
            assert_eq!(duration(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for bad in ["", "30", "s", "-1s", "11y", "1e9s", "99999999999999999999s", "30 s s", "off"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_may_have_a_unit() {
        for (text, bytes) in [("0", 0), ("512", 512), ("32KiB", 32768), ("1 MiB", 1 << 20), ("1MB", 1_000_000)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for bad in ["", "KiB", "-1", "1 apple", "off"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_rate_is_a_count_in_a_time() {
        assert_eq!(rate("20/10s"), Some(Rate { count: 20, per: Duration::from_secs(10) }));
        for bad in ["", "20", "20/", "/10s", "0/10s", "20/0s", "20/10", "-1/1s"] {
            assert_eq!(rate(bad), None, "{bad}");
        }
    }
}
