//! W3C Trace Context, Levels 1 and 2: the `traceparent` of a request, read as strictly as the recommendation has it, and
//! written anew. `tracestate` belongs to whoever wrote it: it passes unread, or leaves with a trace that is not gone on with.

use std::fmt;

use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};

/// Names the trace, and the span below which the receiver's is.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What vendors add to it.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `version "-" trace-id "-" parent-id "-" trace-flags` of version 00.
const LENGTH: usize = 55;

/// Of the flags: the trace is recorded.
const SAMPLED: u8 = 0x01;
/// Of the flags, Level 2: the trace id is random.
const RANDOM: u8 = 0x02;

/// Names a trace; never all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

/// Names a span of a trace; never all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId(pub [u8; 8]);

/// A span as it is told to the next program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// Those flags that the recommendation knows; all others leave, as it demands.
    flags: u8,
}

// === impl TraceId, SpanId ===

impl TraceId {
    /// Another one each time.
    pub fn random() -> Self {
        Self(fastrand::u128(1..).to_be_bytes())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl SpanId {
    /// Another one each time.
    pub fn random() -> Self {
        Self(fastrand::u64(1..).to_be_bytes())
    }
}

// === impl Context ===

impl Context {
    /// The root of a new trace. Without Level 2's flag for random ids, although they are: who reads Level 1 knows no such flag.
    pub fn root(sampled: bool) -> Self {
        Self { trace: TraceId::random(), span: SpanId::random(), flags: if sampled { SAMPLED } else { 0 } }
    }

    /// Out of a request. `None`: there is none, there are several, or it is none that may be gone on with.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(TRACEPARENT).iter();
        match (lines.next(), lines.next()) {
            // HTTP/2 keeps white space around a value.
            (Some(value), None) => Self::parse(value.as_bytes().trim_ascii()),
            _ => None,
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let [version] = unhex(text.get(..2)?)?;
        let longer = text.get(LENGTH);
        // A later version may say more, behind another dash.
        let sound = match version {
            0xff => false,
            0 => longer.is_none(),
            _ => longer.is_none_or(|byte| *byte == b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|at| text.get(*at) == Some(&b'-'));
        if !sound || !dashes {
            return None;
        }
        let (trace, span) = (unhex(text.get(3..35)?)?, unhex(text.get(36..52)?)?);
        let [flags] = unhex(text.get(53..LENGTH)?)?;
        if trace == [0; 16] || span == [0; 8] {
            return None;
        }
        // Of a later version no other flag means what it means here.
        let known = if version == 0 { SAMPLED | RANDOM } else { SAMPLED };
        Some(Self { trace: TraceId(trace), span: SpanId(span), flags: flags & known })
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Another span of the same trace, which is recorded or not.
    pub fn child(self, sampled: bool) -> Self {
        let flags = if sampled { self.flags | SAMPLED } else { self.flags & !SAMPLED };
        Self { span: SpanId::random(), flags, ..self }
    }

    /// The same trace from another span of it on.
    pub fn at(self, span: SpanId) -> Self {
        Self { span, ..self }
    }

    /// The flags, as they are told.
    pub fn flags(self) -> u8 {
        self.flags
    }

    /// The header of version 00.
    #[expect(clippy::expect_used, reason = "hexadecimal digits and dashes are a valid header value")]
    pub fn to_header(self) -> HeaderValue {
        let mut text = *b"00-................................-................-..";
        hex(&self.trace.0, &mut text[3..35]);
        hex(&self.span.0, &mut text[36..52]);
        hex(&[self.flags], &mut text[53..]);
        HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes")
    }
}

fn hex(bytes: &[u8], out: &mut [u8]) {
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
}

/// Lower case alone: the recommendation knows no other digits.
fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-12345678901234567890123456789012-1234567890123456-01";

    fn of(lines: &[&str]) -> Option<Context> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(TRACEPARENT, HeaderValue::from_str(line).unwrap());
        }
        Context::of(&headers)
    }

    /// The cases of the recommendation's own test suite that are about one header, and what it says of each.
    #[test]
    fn a_traceparent_is_read_as_the_recommendations_test_suite_has_it() {
        for good in [
            GOOD,
            "00-12345678901234567890123456789012-1234567890123456-00",
            "00-12345678901234567890123456789012-1234567890123456-ff",
            " 00-12345678901234567890123456789012-1234567890123456-01\t",
            // A later version: as long, or with more behind a dash.
            "cc-12345678901234567890123456789012-1234567890123456-01",
            "cc-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like",
            "cc-12345678901234567890123456789012-1234567890123456-01-",
        ] {
            let read = of(&[good]).unwrap_or_else(|| panic!("{good}"));
            assert_eq!(read.trace.to_string(), "12345678901234567890123456789012", "{good}");
            assert_eq!(read.span, SpanId([0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x34, 0x56]), "{good}");
        }
        for bad in [
            "",
            "ff-12345678901234567890123456789012-1234567890123456-01",
            ".0-12345678901234567890123456789012-1234567890123456-01",
            "0.-12345678901234567890123456789012-1234567890123456-01",
            "0-12345678901234567890123456789012-1234567890123456-01",
            "000-12345678901234567890123456789012-1234567890123456-01",
            "00-00000000000000000000000000000000-1234567890123456-01",
            "00-.2345678901234567890123456789012-1234567890123456-01",
            "00-1234567890123456789012345678901.-1234567890123456-01",
            "00-1234567890123456789012345678901-1234567890123456-01",
            "00-123456789012345678901234567890123-1234567890123456-01",
            "00-12345678901234567890123456789012-0000000000000000-01",
            "00-12345678901234567890123456789012-.234567890123456-01",
            "00-12345678901234567890123456789012-123456789012345.-01",
            "00-12345678901234567890123456789012-123456789012345-01",
            "00-12345678901234567890123456789012-12345678901234567-01",
            "00-12345678901234567890123456789012-1234567890123456-.0",
            "00-12345678901234567890123456789012-1234567890123456-0.",
            "00-12345678901234567890123456789012-1234567890123456-1",
            "00-12345678901234567890123456789012-1234567890123456-001",
            "00-12345678901234567890123456789012-1234567890123456-01.",
            "00-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-not-be-like",
            "cc-12345678901234567890123456789012-1234567890123456-01.what-the-future-will-not-be-like",
            "cc-12345678901234567890123456789012-1234567890123456-0",
            // Digits are lower case, and dashes are dashes.
            "00-ABCDEF78901234567890123456789012-1234567890123456-01",
            "00-12345678901234567890123456789012-ABCDEF7890123456-01",
            "00-12345678901234567890123456789012-1234567890123456-0A",
            "00_12345678901234567890123456789012_1234567890123456_01",
        ] {
            assert_eq!(of(&[bad]), None, "{bad}");
        }
        assert_eq!(of(&[GOOD, GOOD]), None, "two of them, although they are alike");
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn flags_that_nobody_knows_do_not_pass() {
        let flags = |text: &str| of(&[text]).unwrap().child(true).to_header().to_str().unwrap()[53..].to_owned();
        assert_eq!(flags("00-12345678901234567890123456789012-1234567890123456-ff"), "03");
        assert_eq!(flags("00-12345678901234567890123456789012-1234567890123456-fe"), "03");
        // What the second flag of a later version means, that version says.
        assert_eq!(flags("01-12345678901234567890123456789012-1234567890123456-ff"), "01");
        assert_eq!(of(&[GOOD]).unwrap().child(false).flags(), 0);
    }

    #[test]
    fn a_root_is_new_and_can_be_read() {
        for sampled in [true, false] {
            let (one, other) = (Context::root(sampled), Context::root(sampled));
            assert!(one.trace != other.trace && one.span != other.span);
            assert_eq!(of(&[one.to_header().to_str().unwrap()]), Some(one));
            assert_eq!(one.is_sampled(), sampled);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_as_it_was(trace in 1..=u128::MAX, span in 1..=u64::MAX, flags in 0..4u8) {
            let text = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
            let written = of(&[&text]).unwrap().to_header();
            prop_assert_eq!(written.to_str().unwrap(), text);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Context::parse(&bytes);
        }
    }
}
