//! The beginning of an answer's body, read before it is known what becomes of the answer.
//!
//! Whatever was found in it, it passes on byte for byte: what was read, then its end, or what has not come yet.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use hyper::body::Incoming;

use super::room::{Room, Share};

/// What was read of a body.
#[derive(Debug)]
pub struct Ahead {
    kept: Kept,
    /// What has come behind it, and was too much to be kept.
    last: Option<Bytes>,
    end: End,
    /// Whether what came before a break has had its chance to be written.
    written: bool,
}

/// Bytes in one piece, and where they are counted.
struct Kept {
    bytes: Vec<u8>,
    share: Share,
}

/// How a body goes on behind what was read of it.
#[derive(Debug)]
enum End {
    /// There is more to come.
    Open,
    /// It is over.
    Whole,
    /// Trailers, and then it is over.
    Trailers(HeaderMap),
    /// It broke off.
    Broken(hyper::Error),
}

/// What comes next of a body that was read ahead.
#[derive(Debug)]
pub(super) enum Next {
    /// These bytes.
    Data(Bytes),
    /// These trailers, and nothing more.
    Trailers(HeaderMap),
    /// Nothing more.
    Over,
    /// It breaks off here, as soon as what came before has been written: a connection that is given up writes nothing more.
    Breaking,
    /// It broke off here.
    Broken(hyper::Error),
    /// What has not been read yet.
    Rest,
}

// === impl Ahead ===

impl Ahead {
    /// Nothing yet; what will be kept takes of this room.
    pub fn new(room: &Arc<Room>) -> Self {
        Self { kept: Kept { bytes: Vec::new(), share: Share::new(room) }, last: None, end: End::Open, written: false }
    }

    /// Reads until the body is over, or longer than `limit`, or there is no room for more of it. Given up in between, it
    /// has lost nothing.
    pub async fn read(&mut self, body: &mut Incoming, limit: usize) {
        while let (End::Open, None) = (&self.end, &self.last) {
            match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
                None => self.end = End::Whole,
                Some(Err(error)) => self.end = End::Broken(error),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if !self.kept.push(&data, limit) {
                            self.last = Some(data);
                        }
                        if body.is_end_stream() {
                            self.end = End::Whole;
                        }
                    }
                    Err(frame) => self.end = frame.into_trailers().map_or(End::Whole, End::Trailers),
                },
            }
        }
    }

    /// The whole body, where it has come whole and was not too long.
    pub fn whole(&self) -> Option<&[u8]> {
        let whole = self.last.is_none() && matches!(self.end, End::Whole | End::Trailers(_));
        whole.then_some(&self.kept.bytes)
    }

    /// Bytes that were read and have not passed on.
    pub(super) fn len(&self) -> usize {
        self.kept.bytes.len() + self.last.as_ref().map_or(0, Bytes::len)
    }

    /// Whether nothing more comes, not even trailers.
    pub(super) fn is_over(&self) -> bool {
        self.len() == 0 && matches!(self.end, End::Whole)
    }

    /// What comes next. After trailers and a break there is nothing more.
    pub(super) fn next(&mut self) -> Next {
        if let Some(bytes) = self.kept.take() {
            return Next::Data(bytes);
        }
        if let Some(last) = self.last.take() {
            return Next::Data(last);
        }
        match &self.end {
            End::Open => return Next::Rest,
            End::Broken(_) if !self.written => {
                self.written = true;
                return Next::Breaking;
            }
            _ => {}
        }
        match std::mem::replace(&mut self.end, End::Whole) {
            End::Trailers(trailers) => Next::Trailers(trailers),
            End::Broken(error) => Next::Broken(error),
            End::Whole | End::Open => Next::Over,
        }
    }
}

// === impl Kept ===

impl Kept {
    /// Whether it fitted. What is counted is what it takes, not what is in it.
    fn push(&mut self, data: &[u8], limit: usize) -> bool {
        let length = self.bytes.len().saturating_add(data.len());
        if length > limit {
            return false;
        }
        if length > self.share.held() {
            let larger = length.max(self.share.held() * 2).min(limit);
            if !self.share.grow(larger - self.share.held()) {
                return false;
            }
            self.bytes.reserve_exact(larger - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        true
    }

    /// All of it, if there is something. Its room is given back with the last handle on the bytes.
    fn take(&mut self) -> Option<Bytes> {
        if self.bytes.is_empty() {
            return None;
        }
        let (bytes, share) = (std::mem::take(&mut self.bytes), self.share.pass_on());
        Some(Bytes::from_owner(Self { bytes, share }))
    }
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What an upstream answers is its caller's alone.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(room: &Arc<Room>) -> Kept {
        Kept { bytes: Vec::new(), share: Share::new(room) }
    }

    /// Fails where a piece that did not fit is kept in part, and where more is taken than is counted.
    #[test]
    fn what_is_kept_is_counted_as_what_it_takes_and_has_two_bounds() {
        let room = Arc::new(Room::new(100));
        let mut one = kept(&room);
        for piece in [&b"abc"[..], b"", b"d", &[b'x'; 40]] {
            assert!(one.push(piece, 64));
            assert!(one.bytes.capacity() <= one.share.held() && one.share.held() <= 64, "{one:?}");
        }
        assert!(!one.push(&[0; 21], 64), "longer than the limit");
        assert!(one.push(&[0; 20], 64) && one.bytes.len() == 64);
        let mut other = kept(&room);
        assert!(!other.push(&[0; 37], 64), "no room is left for it");
        assert!(other.push(&[0; 36], 64) && other.bytes.len() == 36);
        // Held as long as somebody has the bytes.
        let bytes = one.take().unwrap();
        drop(one);
        assert!(!kept(&room).push(b"x", 64));
        drop(bytes);
        assert!(kept(&room).push(&[0; 64], 64));
    }

    #[test]
    fn what_was_read_does_not_print() {
        let mut ahead = Ahead::new(&Arc::new(Room::new(100)));
        ahead.kept.push(b"canary", 64);
        assert!(!format!("{ahead:?}").contains("99"), "{ahead:?}");
    }
}
