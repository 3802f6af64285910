//! The first message that a caller says on a WebSocket, held back until it is whole (RFC 6455 section 5).
//!
//! Where it is asked for, what comes before its end is judged as strictly as a server would: the upstream does not see it
//! as it was sent. Control frames may stand between its fragments, and are no part of it.

use std::fmt;
use std::mem;

use super::frames::Frames;

/// Bytes of the message, all its fragments together; of the control frames before it as many, where they are kept.
pub const MOST: usize = 64 * 1024;

/// The longest payload of a control frame.
const MOST_CONTROL: u64 = 125;

/// A header: two bytes, eight of length, four of mask.
const HEAD: usize = 14;

/// Reads the frames of a caller up to the end of its first message.
pub struct First {
    /// Where in the frames that is which was read.
    frames: Frames,
    /// The header under way, of which so many bytes are there.
    head: ([u8; HEAD], usize),
    payload: Option<Payload>,
    /// A fragment has come that is not the last one.
    begun: bool,
    text: Vec<u8>,
    /// Control frames, as they came; the last one may not be whole.
    control: Vec<u8>,
    /// So much of it is whole.
    whole: usize,
    keeps_control: bool,
    /// What came after the message.
    rest: Vec<u8>,
    status: Status,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is not whole.
    Awaited,
    /// All of it is there.
    Whole,
    /// The caller has said farewell instead. Whatever follows is thrown away.
    Closed,
    /// It is none that could be passed on. Whatever follows is thrown away.
    Wrong(Wrong),
}

/// What is wrong with what the caller sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It breaks a rule of the protocol.
    Frame(&'static str),
    /// It is not UTF-8.
    Text,
    /// It is longer than [`MOST`].
    Long,
    /// It is binary: well said, but nothing in which a token could stand.
    Binary,
}

/// The payload of the frame under way.
#[derive(Debug, Clone, Copy)]
struct Payload {
    opcode: u8,
    last: bool,
    mask: [u8; 4],
    /// Where in the mask the next byte stands.
    turn: usize,
    left: usize,
}

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PONG: u8 = 0xa;

// === impl Wrong ===

impl Wrong {
    /// The code of the close frame (RFC 6455 section 7.4.1) and its reason. `None`: it is for who wanted the message to say.
    pub fn close(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Frame(rule) => Some((1002, rule)),
            Self::Text => Some((1007, "the message is not UTF-8")),
            Self::Long => Some((1009, "the first message is too long")),
            Self::Binary => None,
        }
    }
}

// === impl First ===

/// The message holds a token.
impl fmt::Debug for First {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("First").field("status", &self.status).finish_non_exhaustive()
    }
}

impl First {
    /// Before the first byte. `keeps_control`: the control frames before the message wait with it.
    pub fn new(keeps_control: bool) -> Self {
        Self {
            frames: Frames::default(),
            head: ([0; HEAD], 0),
            payload: None,
            begun: false,
            text: Vec::new(),
            control: Vec::new(),
            whole: 0,
            keeps_control,
            rest: Vec::new(),
            status: Status::Awaited,
        }
    }

    /// How far it is.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Where in the caller's frames that is which was read.
    pub fn frames(&self) -> Frames {
        self.frames
    }

    /// The message, once it is whole.
    pub fn take_message(&mut self) -> String {
        // Never empty by this: it was looked at when it became whole.
        String::from_utf8(mem::take(&mut self.text)).unwrap_or_default()
    }

    /// The control frames that may be passed on by now.
    pub fn take_control(&mut self) -> Vec<u8> {
        if self.keeps_control || self.whole == 0 {
            return Vec::new();
        }
        let rest = self.control.split_off(mem::take(&mut self.whole));
        mem::replace(&mut self.control, rest)
    }

    /// What the upstream gets, where `message` is the frame of the first message: with what was kept before it, and what
    /// came after it.
    pub fn pass(self, message: &[u8]) -> Vec<u8> {
        [&self.control[..self.whole], message, &self.rest].concat()
    }

    /// These bytes have come.
    pub fn read(&mut self, bytes: &[u8]) {
        self.frames.advance(bytes);
        let mut rest = bytes;
        while !rest.is_empty() && self.status == Status::Awaited {
            let (taken, wrong) = self.step(rest);
            rest = &rest[taken..];
            if let Err(wrong) = wrong {
                self.status = Status::Wrong(wrong);
            }
        }
        if self.status == Status::Whole {
            self.rest.extend_from_slice(rest);
        }
    }

    /// Takes some bytes of what is not empty, never beyond the end of a frame. Returns how many.
    fn step(&mut self, bytes: &[u8]) -> (usize, Result<(), Wrong>) {
        match self.payload {
            None => (1, self.header(bytes[0])),
            Some(payload) => {
                let taken = payload.left.min(bytes.len());
                (taken, self.payload(payload, &bytes[..taken]))
            }
        }
    }

    fn header(&mut self, byte: u8) -> Result<(), Wrong> {
        let (head, known) = &mut self.head;
        head[*known] = byte;
        *known += 1;
        let (head, known) = (*head, *known);
        if known == 2 {
            self.judge(head[0], head[1])?;
        }
        let extended = match head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if known < 2 || known < 2 + extended + 4 {
            return Ok(());
        }
        let length = match extended {
            0 => u64::from(head[1] & 0x7f),
            _ => head[2..2 + extended].iter().fold(0, |length, byte| (length << 8) | u64::from(*byte)),
        };
        let shortest = match extended {
            0 => 0,
            2 => 126,
            _ => 1 << 16,
        };
        if length < shortest || length >> 63 != 0 {
            return Err(Wrong::Frame("the length of a frame is not written in its shortest form"));
        }
        let control = head[0] & 0x08 != 0;
        let before = if control { self.control.len() } else { self.text.len() };
        let left = usize::try_from(length).ok().filter(|length| before + length <= MOST);
        // Control frames that are passed on do not add up.
        let left = left.or(if control && !self.keeps_control { usize::try_from(length).ok() } else { None });
        let left = left.ok_or(Wrong::Long)?;
        self.head = ([0; HEAD], 0);
        if control {
            self.control.extend_from_slice(&head[..known]);
        }
        let mut mask = [0; 4];
        mask.copy_from_slice(&head[known - 4..known]);
        let payload = Payload { opcode: head[0] & 0x0f, last: head[0] & 0x80 != 0, mask, turn: 0, left };
        if left == 0 {
            self.end(payload)
        } else {
            self.payload = Some(payload);
            Ok(())
        }
    }

    /// The first two bytes of a header.
    fn judge(&self, first: u8, second: u8) -> Result<(), Wrong> {
        let opcode = first & 0x0f;
        if first & 0x70 != 0 {
            return Err(Wrong::Frame("a reserved bit is set, and no extension was agreed to"));
        }
        if second & 0x80 == 0 {
            return Err(Wrong::Frame("a frame of a client is not masked"));
        }
        match opcode {
            CONTINUATION if self.begun => Ok(()),
            CONTINUATION => Err(Wrong::Frame("a continuation continues nothing")),
            TEXT | BINARY if self.begun => Err(Wrong::Frame("a message begins within another")),
            TEXT => Ok(()),
            BINARY => Err(Wrong::Binary),
            CLOSE..=PONG if first & 0x80 == 0 => Err(Wrong::Frame("a control frame is fragmented")),
            CLOSE..=PONG if u64::from(second & 0x7f) > MOST_CONTROL => Err(Wrong::Frame("a control frame is too long")),
            CLOSE..=PONG => Ok(()),
            _ => Err(Wrong::Frame("an opcode is reserved")),
        }
    }

    fn payload(&mut self, mut payload: Payload, bytes: &[u8]) -> Result<(), Wrong> {
        if payload.opcode & 0x08 == 0 {
            let mask = payload.mask.iter().cycle().skip(payload.turn);
            self.text.extend(bytes.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
            payload.turn = (payload.turn + bytes.len()) % 4;
        } else {
            self.control.extend_from_slice(bytes);
        }
        payload.left -= bytes.len();
        if payload.left == 0 {
            return self.end(payload);
        }
        self.payload = Some(payload);
        Ok(())
    }

    /// A frame is whole.
    fn end(&mut self, payload: Payload) -> Result<(), Wrong> {
        self.payload = None;
        if payload.opcode & 0x08 != 0 {
            self.whole = self.control.len();
            if payload.opcode == CLOSE {
                self.status = Status::Closed;
            }
        } else if !payload.last {
            self.begun = true;
        } else if str::from_utf8(&self.text).is_ok() {
            self.status = Status::Whole;
        } else {
            return Err(Wrong::Text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A frame of a client.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut head = vec![first];
        match payload.len() {
            length @ 0..126 => head.push(0x80 | u8::try_from(length).unwrap()),
            length @ 126..65_536 => {
                head.push(0xfe);
                head.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                head.push(0xff);
                head.extend((length as u64).to_be_bytes());
            }
        }
        let masked = payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key);
        head.into_iter().chain(KEY).chain(masked).collect()
    }

    /// What comes of these reads: the status, the message, the control frames that passed before its end, and what follows
    /// the message.
    fn read<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> (Status, String, Vec<u8>, Vec<u8>) {
        let (mut first, mut passed, mut after) = (First::new(false), Vec::new(), Vec::new());
        for bytes in reads {
            if first.status() == Status::Whole {
                after.extend_from_slice(bytes);
                continue;
            }
            first.read(bytes);
            passed.extend(first.take_control());
        }
        let (status, text) = (first.status(), first.take_message());
        let mut rest = first.pass(b"");
        rest.extend(after);
        (status, text, passed, rest)
    }

    fn status(bytes: &[u8]) -> Status {
        let at_once = read([bytes]).0;
        assert_eq!(read(bytes.chunks(1)).0, at_once, "bytewise");
        at_once
    }

    fn wrong(bytes: &[u8]) -> Wrong {
        match status(bytes) {
            Status::Wrong(wrong) => wrong,
            other => panic!("{other:?}"),
        }
    }

    /// Fails without the turn of the mask that a payload keeps between two reads.
    #[test]
    fn a_message_is_the_same_wherever_it_is_split() {
        let control = [frame(0x89, b"hello"), frame(0x8a, b"")];
        let bytes = [
            &frame(0x01, "één ".as_bytes())[..],
            &control[0],
            &frame(0x00, b""),
            &control[1],
            &frame(0x80, b"bericht"),
            &frame(0x81, b"next"),
        ]
        .concat();
        let expected = (Status::Whole, "één bericht".to_owned(), control.concat(), frame(0x81, b"next"));
        assert_eq!(read([&bytes[..]]), expected);
        assert_eq!(read(bytes.chunks(1)), expected);
        for split in 0..bytes.len() {
            assert_eq!(read([&bytes[..split], &bytes[split..]]), expected, "{split}");
        }
    }

    #[test]
    fn every_length_is_read_up_to_the_limit() {
        for length in [0, 1, 125, 126, 127, 65_535, MOST] {
            let text = "a".repeat(length);
            let bytes = frame(0x81, text.as_bytes());
            assert!(read([&bytes[..]]) == (Status::Whole, text.clone(), Vec::new(), Vec::new()), "{length}");
            assert!(read(bytes.chunks(7)) == (Status::Whole, text, Vec::new(), Vec::new()), "{length}");
        }
    }

    /// Its header says how long it is: nothing of a message that is too long is kept. Fails without the sum in `header`.
    #[test]
    fn a_message_over_the_limit_is_refused_at_its_header() {
        assert_eq!(wrong(&frame(0x81, &vec![b'a'; MOST + 1])[..14]), Wrong::Long);
        let halves =
            [frame(0x01, &vec![b'a'; MOST / 2]), frame(0x80, &vec![b'a'; MOST / 2 + 1])[..8].to_vec()].concat();
        assert_eq!(wrong(&halves), Wrong::Long);
        assert_eq!(wrong(&[0x81, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]), Wrong::Long);
        let mut first = First::new(false);
        first.read(&frame(0x81, &vec![b'a'; MOST + 1]));
        assert_eq!((first.status(), first.text.capacity()), (Status::Wrong(Wrong::Long), 0));
    }

    /// Kept ones count; those that pass do not.
    #[test]
    fn control_frames_do_not_pile_up() {
        let pings = frame(0x89, &[0; 125]).repeat(1000);
        let (mut keeping, mut passing) = (First::new(true), First::new(false));
        keeping.read(&pings);
        assert_eq!(keeping.status(), Status::Wrong(Wrong::Long));
        let mut passed = 0;
        for some in pings.chunks(16 * 1024) {
            passing.read(some);
            passed += passing.take_control().len();
        }
        assert_eq!((passing.status(), passed), (Status::Awaited, pings.len()));
        let mut keeping = First::new(true);
        keeping.read(&[&frame(0x89, b"a")[..], &frame(0x81, b"b"), &frame(0x89, b"c")].concat());
        assert_eq!(keeping.take_control(), b"");
        assert_eq!(keeping.pass(b"-"), [&frame(0x89, b"a")[..], b"-", &frame(0x89, b"c")].concat());
    }

    #[test]
    fn what_breaks_the_protocol_is_named() {
        let rule = |bytes: &[u8]| match wrong(bytes) {
            Wrong::Frame(rule) => rule,
            other => panic!("{other:?}"),
        };
        for reserved in [0xc1, 0xa1, 0x91] {
            assert!(rule(&[reserved, 0x80]).contains("reserved bit"), "{reserved}");
        }
        for opcode in [0x83, 0x87, 0x8b, 0x8f] {
            assert!(rule(&[opcode, 0x80]).contains("opcode"), "{opcode}");
        }
        assert!(rule(&[0x81, 0x05]).contains("not masked"));
        assert!(rule(&frame(0x80, b"")).contains("continues nothing"));
        assert!(rule(&[frame(0x01, b"a"), frame(0x81, b"b")].concat()).contains("within another"));
        assert!(rule(&[frame(0x01, b"a"), frame(0x82, b"b")].concat()).contains("within another"));
        assert!(rule(&frame(0x09, b"")).contains("fragmented"));
        assert!(rule(&frame(0x89, &[0; 126])).contains("too long"));
        assert!(rule(&[0x81, 0xfe, 0, 125, 1, 2, 3, 4]).contains("shortest"));
        assert!(rule(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4]).contains("shortest"));
        assert!(rule(&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]).contains("shortest"));
        assert_eq!(wrong(&frame(0x82, b"a")), Wrong::Binary);
        assert_eq!(wrong(&frame(0x81, b"\xc3")), Wrong::Text);
        assert_eq!(wrong(&[frame(0x01, b"\xc3"), frame(0x80, b"(")].concat()), Wrong::Text);
        assert_eq!(status(&[frame(0x01, b"\xc3"), frame(0x80, b"\xa9")].concat()), Status::Whole);
    }

    /// An upstream that reads on after a close frame would get a message that nobody has looked at.
    #[test]
    fn nothing_passes_after_a_close_frame() {
        let close = frame(0x88, b"\x03\xe8bye");
        let bytes = [&frame(0x01, b"a")[..], &close, &frame(0x80, b"b"), &frame(0x81, b"c")].concat();
        for some in [bytes.len(), 1] {
            let (status, text, passed, rest) = read(bytes.chunks(some));
            assert_eq!((status, text.as_str(), passed, rest), (Status::Closed, "a", close.clone(), Vec::new()));
        }
    }

    #[test]
    fn the_text_of_a_message_is_not_printed() {
        let mut first = First::new(false);
        first.read(&frame(0x81, b"canary"));
        assert!(!format!("{first:?}").contains("canary"));
    }

    proptest! {
        /// What is passed on is frames that a server takes, whatever was read: the reader of borders agrees.
        #[test]
        fn any_bytes_in_any_pieces_end_alike(
            pieces in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200), any::<bool>()), 1..8),
            cuts in prop::collection::vec(1usize..100, 1..20),
        ) {
            let bytes: Vec<u8> = pieces
                .into_iter()
                .flat_map(|(first, payload, valid)| if valid { frame([0x01, 0x00, 0x80, 0x81, 0x89][usize::from(first % 5)], &payload) } else { payload })
                .collect();
            let (mut reads, mut at, mut cuts) = (Vec::new(), 0, cuts.into_iter().cycle());
            while at < bytes.len() {
                let end = (at + cuts.next().unwrap()).min(bytes.len());
                reads.push(&bytes[at..end]);
                at = end;
            }
            let (status, text, passed, rest) = read(reads);
            let expected = read([&bytes[..]]);
            prop_assert_eq!(&(status, text, passed.clone(), rest), &expected);
            let mut borders = Frames::default();
            borders.advance(&passed);
            prop_assert!(borders.at_border());
        }
    }
}
