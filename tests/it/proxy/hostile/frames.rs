//! HTTP/2 by hand: frames that no library would send.

use crate::support::wire::Wire;

/// Kinds of frames.
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// Flags of a head.
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// `:method GET`, `:scheme http`, `:path /` out of the static table, and `:authority a`.
pub(super) const ROOT: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Ok,
    Malformed,
    /// Another status.
    Other,
    /// This stream alone.
    Reset,
    /// The whole connection.
    Gone,
}

/// The preface and empty settings.
pub(super) fn hello() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, b"")].concat()
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What came in a frame.
pub(super) struct Arrived {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// The next frame; `None` at the end. Every ping is answered at once, and is none.
pub(super) async fn arrived(client: &mut Wire) -> Option<Arrived> {
    loop {
        let head = client.take(9).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = client.take(length).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let arrived = Arrived { kind: head[3], flags: head[4], stream, payload };
        if (arrived.kind, arrived.flags) != (PING, 0) {
            return Some(arrived);
        }
        client.send(frame(PING, 1, 0, &arrived.payload)).await;
    }
}

/// A header field that enters no table, not Huffman-coded.
pub(super) fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0][..], &string(name), &string(value)].concat()
}

/// A header field that is put into the dynamic table.
pub(super) fn indexed(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0x40][..], &string(name), &string(value)].concat()
}

fn string(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if text.len() < 127 {
        bytes.push(u8::try_from(text.len()).unwrap());
    } else {
        // RFC 7541 section 5.1.
        bytes.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    [&bytes, text].concat()
}

/// Reads up to the answer on the stream 1.
pub(super) async fn fate(client: &mut Wire) -> Fate {
    fate_of(client, 1).await
}

/// Reads up to the answer on a stream.
pub(super) async fn fate_of(client: &mut Wire, stream: u32) -> Fate {
    loop {
        let Ok(head) = client.take(9).await else { return Fate::Gone };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Ok(payload) = client.take(length).await else { return Fate::Gone };
        let ours = head[5..] == stream.to_be_bytes();
        match (head[3], payload.first()) {
            (GOAWAY, _) => return Fate::Gone,
            // Out of the static table.
            (HEADERS, Some(0x88)) if ours => return Fate::Ok,
            (HEADERS, Some(0x8c)) if ours => return Fate::Malformed,
            (HEADERS, _) if ours => return Fate::Other,
            (RST_STREAM, _) if ours => return Fate::Reset,
            _ => {}
        }
    }
}
