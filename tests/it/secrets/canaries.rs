//! Texts that must not be seen, looked for in each form in which they could be.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// Bytes of a piece by which it is found in the map.
const START: usize = 8;

/// Bytes of a canary in one piece: a part of it is found too, when it is twice as long.
const PIECE: usize = 16;

/// The texts. A long one is cut into pieces, so that a part of it is found as well.
#[derive(Default)]
pub(crate) struct Canaries {
    /// By their first bytes.
    pieces: HashMap<[u8; START], Vec<Piece>>,
}

struct Piece {
    name: String,
    form: &'static str,
    bytes: Vec<u8>,
}

// === impl Canaries ===

impl Canaries {
    /// Looks for this text too.
    ///
    /// # Panics
    /// When it is so short that it could be there by chance.
    pub(crate) fn add(&mut self, name: &str, text: &str) {
        assert!(text.len() >= 12, "{name}: {text:?} is too short");
        let mut decimal = String::new();
        let mut percent = String::new();
        for byte in text.bytes() {
            write!(decimal, "{byte}, ").unwrap();
            match byte {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => percent.push(char::from(byte)),
                _ => write!(percent, "%{byte:02X}").unwrap(),
            }
        }
        let hex = text.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        self.cut(name, "as it is", text, PIECE);
        self.cut(name, "percent-encoded", &percent, PIECE);
        self.cut(name, "percent-encoded", &percent.to_lowercase(), PIECE);
        self.cut(name, "in hexadecimal", &hex, 2 * PIECE);
        self.cut(name, "in hexadecimal", &hex.to_uppercase(), 2 * PIECE);
        self.cut(name, "as a list of bytes", decimal.trim_end_matches([' ', ',']), 4 * PIECE);
        for before in 0..3 {
            // The characters that are made of bytes of the text alone.
            let whole = [&vec![0; before][..], text.as_bytes()].concat();
            let inside = (before * 8).div_ceil(6)..whole.len() * 8 / 6;
            self.cut(name, "in base64", &STANDARD.encode(&whole)[inside.clone()], PIECE);
            self.cut(name, "in base64url", &URL_SAFE.encode(&whole)[inside], PIECE);
        }
    }

    /// Looks for a token too: whoever has its payload and its signature has the token.
    pub(crate) fn add_token(&mut self, name: &str, token: &str) {
        let token = token.trim_start_matches("Bearer ");
        let mut parts = token.split('.').skip(1);
        self.add(&format!("the payload of {name}"), parts.next().unwrap());
        // A stand-in's signature is no secret of anybody.
        if let Some(signature) = parts.next().filter(|signature| signature.len() > PIECE) {
            self.add(&format!("the signature of {name}"), signature);
        }
    }

    /// Looks for those as well.
    pub(crate) fn extend(&mut self, others: Self) {
        for (start, pieces) in others.pieces {
            self.pieces.entry(start).or_default().extend(pieces);
        }
    }

    /// # Panics
    /// When one of them is in the text.
    pub(crate) fn assert_clean(&self, place: &str, text: &str) {
        let found = self.found(place, text);
        assert!(found.is_empty(), "{found:#?}");
    }

    /// Which of them are in the text, with the lines: some of each.
    pub(crate) fn found(&self, place: &str, text: &str) -> Vec<String> {
        let mut found = BTreeMap::new();
        for (at, window) in text.as_bytes().windows(START).enumerate() {
            let begun = <[u8; START]>::try_from(window).ok().and_then(|start| self.pieces.get(&start));
            for piece in begun.into_iter().flatten() {
                if text.as_bytes()[at..].starts_with(&piece.bytes) {
                    found.entry(format!("{place}: {} is there, {}", piece.name, piece.form)).or_insert(at);
                }
            }
        }
        let line = |at: usize| {
            let begin = text.as_bytes()[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
            String::from_utf8_lossy(&text.as_bytes()[begin..]).lines().next().unwrap_or_default().to_owned()
        };
        found.into_iter().map(|(what, at)| format!("{what}: {}", line(at))).collect()
    }

    fn cut(&mut self, name: &str, form: &'static str, text: &str, size: usize) {
        let bytes = text.as_bytes();
        let whole = bytes.chunks(size).filter(|piece| piece.len() == size);
        let last = &bytes[bytes.len().saturating_sub(size)..];
        for piece in whole.chain([last]) {
            let start = piece[..START].try_into().unwrap();
            let piece = Piece { name: name.to_owned(), form, bytes: piece.to_vec() };
            self.pieces.entry(start).or_default().push(piece);
        }
    }
}

/// Without this the search could find nothing and all would seem well.
#[test]
fn a_canary_is_found_in_each_of_its_forms_and_in_part() {
    const TEXT: &str = "canary+/=Q7x9Zk2Vw4mN8rT1yB6";
    let found = |seen: &str| {
        let mut canaries = Canaries::default();
        canaries.add("a secret", TEXT);
        !canaries.found("here", seen).is_empty()
    };
    assert!(!found("nothing of it, nor of Y2FuYXJ5, 99, 97, 110, canary"));
    for seen in [
        TEXT.to_owned(),
        format!("a line\nauthorization: Bearer {TEXT}\n"),
        TEXT[..20].to_owned(),
        TEXT[12..].to_owned(),
        "canary%2B%2F%3DQ7x9Zk2Vw4mN8rT1yB6".to_owned(),
        "canary%2b%2f%3dq7x9zk2vw4mn8rt1yb6".to_owned(),
        format!("{:?}", TEXT.as_bytes()),
        format!("{:?}", bytes::Bytes::from_static(TEXT.as_bytes())),
        STANDARD.encode(TEXT),
        STANDARD.encode(format!("u:{TEXT}")),
        STANDARD.encode(format!("{{\"{TEXT}")),
        URL_SAFE.encode(format!("{TEXT}\n")),
        TEXT.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat(),
    ] {
        assert!(found(&seen), "{seen}");
    }
}
