//! What of a request's body is left when nobody reads it any more.

use http_body::Body;

/// What a frame of HTTP/2 holds unless more was agreed to (RFC 9113 section 4.2), and how many of them may be under way
/// when a stream ends: its window.
const FRAME: u32 = 16 * 1024;
const WINDOW_FRAMES: u32 = 32;

/// What is still to come of a request's body, in bytes; more than can be counted when its length is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rest(u32);

// === impl Rest ===

impl Rest {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// More than is known.
    pub const UNKNOWN: Self = Self(u32::MAX);

    /// So much comes together with its head, or right behind: hyper reads it once the answer is written.
    pub const ARRIVES_WITH_ITS_HEAD: Self = Self(4096);

    /// Of a body that nobody has begun to read.
    pub fn of(body: &impl Body) -> Self {
        match (body.is_end_stream(), body.size_hint().exact()) {
            (true, _) => Self::NONE,
            (false, Some(length)) => Self(u32::try_from(length).unwrap_or(u32::MAX)),
            (false, None) => Self::UNKNOWN,
        }
    }

    /// In frames of HTTP/2, at most.
    pub fn frames(self) -> u32 {
        if self == Self::NONE { 0 } else { (self.0 / FRAME + 1).min(WINDOW_FRAMES) }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{Empty, Full, StreamBody};

    use super::*;

    #[test]
    fn what_is_left_of_a_body_is_its_length_or_more_than_is_known() {
        assert_eq!(Rest::of(&Empty::<Bytes>::new()), Rest::NONE);
        assert!(Rest::of(&Full::new(Bytes::from(vec![0; 4096]))) <= Rest::ARRIVES_WITH_ITS_HEAD);
        assert!(Rest::of(&Full::new(Bytes::from(vec![0; 4097]))) > Rest::ARRIVES_WITH_ITS_HEAD);
        let streamed = StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<Bytes>, ()>>());
        assert_eq!(Rest::of(&streamed), Rest::UNKNOWN);
    }

    #[test]
    fn no_more_frames_are_late_than_a_window_holds() {
        let frames = |length: usize| Rest::of(&Full::new(Bytes::from(vec![0; length]))).frames();
        assert_eq!([frames(0), frames(1), frames(16 * 1024), frames(1 << 20)], [0, 1, 2, 32]);
        assert_eq!(Rest::UNKNOWN.frames(), 32);
    }
}
