//! Where the frames of a WebSocket begin and end (RFC 6455 section 5.2): headers are read, payloads are counted.
//!
//! The reader judges nothing: reserved bits, unknown opcodes and missing masks are between the two ends. Only a length
//! that the RFC forbids stops it, since nobody can say where such a frame ends.

use aws_lc_rs::rand;

/// The opcode of a text message.
const TEXT: u8 = 0x1;
/// The opcode of a close frame.
const CLOSE: u8 = 0x8;

/// Where in the frames of one direction a stream of bytes is.
#[derive(Debug, Clone, Copy)]
pub struct Frames {
    place: Place,
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before or in a header of which so many bytes have passed.
    Header { passed: u8, first: u8, second: u8, length: u64 },
    /// In a payload of which so many bytes are left.
    Payload { opcode: u8, left: u64 },
    /// After a header that cannot be read.
    Lost,
}

const BORDER: Place = Place::Header { passed: 0, first: 0, second: 0, length: 0 };

// === impl Frames ===

impl Default for Frames {
    fn default() -> Self {
        Self { place: BORDER, closed: false }
    }
}

impl Frames {
    /// Whether a frame has just ended, or none has begun.
    pub fn at_border(&self) -> bool {
        self.place == BORDER
    }

    /// Whether a whole close frame has passed: nothing that follows means anything.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether a header could not be read: there are no borders any more.
    pub fn is_lost(&self) -> bool {
        self.place == Place::Lost
    }

    /// These bytes have passed.
    pub fn advance(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[self.step(rest)..];
        }
    }

    /// How many of the bytes that come next belong to the frame under way: none at a border, all of them when it does
    /// not end among them.
    pub fn until_border(&self, bytes: &[u8]) -> usize {
        let (mut ahead, mut taken) = (*self, 0);
        while taken < bytes.len() && !ahead.at_border() {
            taken += ahead.step(&bytes[taken..]);
        }
        taken
    }

    /// Takes some bytes of what is not empty, never beyond a border. Returns how many.
    fn step(&mut self, bytes: &[u8]) -> usize {
        match self.place {
            Place::Lost => bytes.len(),
            Place::Payload { opcode, left } => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                self.payload(opcode, left - taken as u64);
                taken
            }
            Place::Header { passed, first, second, length } => {
                self.header(passed, first, second, length, bytes[0]);
                1
            }
        }
    }

    fn header(&mut self, passed: u8, mut first: u8, mut second: u8, mut length: u64, byte: u8) {
        let extended = |second: u8| match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        match passed {
            0 => first = byte,
            1 => {
                second = byte;
                length = if extended(second) == 0 { u64::from(second & 0x7f) } else { 0 };
            }
            _ if passed < 2 + extended(second) => length = (length << 8) | u64::from(byte),
            // The mask: its bytes mean nothing here.
            _ => {}
        }
        let passed = passed + 1;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if passed < 2 || passed < 2 + extended(second) + mask {
            self.place = Place::Header { passed, first, second, length };
        } else if length >> 63 != 0 {
            self.place = Place::Lost;
        } else {
            self.payload(first & 0x0f, length);
        }
    }

    fn payload(&mut self, opcode: u8, left: u64) {
        if left > 0 {
            self.place = Place::Payload { opcode, left };
        } else {
            self.place = BORDER;
            self.closed |= opcode == CLOSE;
        }
    }
}

/// A close frame as a server sends it. `reason` has at most 123 bytes (RFC 6455 section 5.5).
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    let length = u8::try_from(reason.len() + 2).unwrap_or(u8::MAX).min(125);
    let mut frame = vec![0x80 | CLOSE, length];
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(&reason.as_bytes()[..usize::from(length) - 2]);
    frame
}

/// A close frame as a client sends it. `None`: the system has no random numbers.
pub fn masked_close(code: u16, reason: &str) -> Option<Vec<u8>> {
    masked(0x80 | CLOSE, &close(code, reason)[2..])
}

/// A text message in one frame, as a client sends it. `None`: the system has no random numbers.
pub fn masked_text(text: &str) -> Option<Vec<u8>> {
    masked(0x80 | TEXT, text.as_bytes())
}

/// A frame with a mask of its own (RFC 6455 section 5.3) and the shortest form of its length.
fn masked(first: u8, payload: &[u8]) -> Option<Vec<u8>> {
    let mut key = [0; 4];
    rand::fill(&mut key).ok()?;
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(first);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => frame.push(0x80 | short),
        (_, Ok(length)) => {
            frame.push(0x80 | 0x7e);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 0x7f);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    Some(frame)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame with a header in the given form.
    fn frame(first: u8, masked: bool, length: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![first];
        match u16::try_from(length) {
            Ok(short) if short < 126 => frame.push(mask | u8::try_from(short).unwrap()),
            Ok(short) => {
                frame.push(mask | 0x7e);
                frame.extend(short.to_be_bytes());
            }
            Err(_) => {
                frame.push(mask | 0x7f);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend([1, 2, 3, 4]);
        }
        frame.resize(frame.len() + length, 0x88);
        frame
    }

    proptest! {
        #[test]
        fn borders_are_where_frames_end_however_the_bytes_come(
            frames in prop::collection::vec(
                (any::<u8>(), any::<bool>(), prop_oneof![0usize..130, 65_530usize..65_540]), 1..6),
            cuts in prop::collection::vec(1usize..70_000, 1..50),
        ) {
            let frames: Vec<Vec<u8>> = frames.into_iter().map(|(first, masked, length)| frame(first, masked, length)).collect();
            let bytes = frames.concat();
            let mut borders = vec![0];
            for one in &frames {
                borders.push(borders.last().unwrap() + one.len());
            }
            let (mut reader, mut at, mut cuts) = (Frames::default(), 0, cuts.into_iter().cycle());
            while at < bytes.len() {
                prop_assert_eq!(reader.at_border(), borders.contains(&at));
                let next = *borders.iter().find(|&&border| border >= at).unwrap();
                prop_assert_eq!(reader.until_border(&bytes[at..]), next - at);
                let end = (at + cuts.next().unwrap()).min(bytes.len());
                reader.advance(&bytes[at..end]);
                at = end;
            }
            prop_assert!(reader.at_border() && !reader.is_lost());
            prop_assert_eq!(reader.is_closed(), frames.iter().any(|one| one[0] & 0x0f == CLOSE));
        }

        #[test]
        fn no_bytes_stop_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Frames::default();
            reader.advance(&bytes);
            let _ = reader.until_border(&bytes);
        }
    }

    #[test]
    fn a_close_frame_counts_when_it_is_whole() {
        let close = close(1000, "bye");
        let mut reader = Frames::default();
        reader.advance(&close[..close.len() - 1]);
        assert!(!reader.is_closed());
        reader.advance(&close[close.len() - 1..]);
        assert!(reader.is_closed() && reader.at_border());
    }

    #[test]
    fn a_length_of_more_than_63_bits_loses_the_borders() {
        let mut reader = Frames::default();
        reader.advance(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 1]);
        assert!(reader.is_lost());
        reader.advance(&close(1000, ""));
        assert!(reader.is_lost() && !reader.at_border() && !reader.is_closed());
        assert_eq!(reader.until_border(&[1, 2]), 2);
        let mut reader = Frames::default();
        reader.advance(&[0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert!(!reader.is_lost() && !reader.at_border());
    }

    #[test]
    fn a_close_frame_of_a_client_is_masked_with_a_key_of_its_own() {
        let plain = close(4401, "token expired");
        assert_eq!(plain, [&[0x88, 0x0f, 0x11, 0x31][..], b"token expired"].concat());
        let masked = masked_close(4401, "token expired").unwrap();
        assert_eq!(masked[..2], [0x88, 0x8f]);
        let unmasked: Vec<u8> = masked[6..].iter().zip(masked[2..6].iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(unmasked, plain[2..]);
        let keys: std::collections::HashSet<_> =
            (0..8).map(|_| masked_close(1001, "").unwrap()[2..6].to_vec()).collect();
        assert!(keys.len() > 1);
    }

    #[test]
    fn a_message_of_ours_has_the_shortest_form_of_its_length() {
        for (length, head) in [
            (0, &[0x81, 0x80][..]),
            (125, &[0x81, 0xfd]),
            (126, &[0x81, 0xfe, 0, 126]),
            (65_535, &[0x81, 0xfe, 0xff, 0xff]),
            (65_536, &[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let text = "a".repeat(length);
            let framed = masked_text(&text).unwrap();
            assert_eq!(framed[..head.len()], *head);
            let (key, payload) = framed[head.len()..].split_at(4);
            let unmasked: Vec<u8> = payload.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b).collect();
            assert!(unmasked == text.as_bytes(), "{length}");
        }
    }
}
