//! What gRPC puts around a message and its outcome (its `PROTOCOL-HTTP2` document).

use bytes::Bytes;
use http::HeaderName;

/// A call's outcome, as a trailer.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// What it says beside.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Bytes before a message: whether it is compressed, and its length.
pub const PREFIX: usize = 5;

/// What stands before an uncompressed message of this length.
pub fn prefix(length: usize) -> [u8; PREFIX] {
    // What is sent here is far below 4 GiB.
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [0, a, b, c, d]
}

/// The message of a body that is one, whole and uncompressed.
pub fn unframed(mut body: Bytes) -> Option<Bytes> {
    let whole = *body.first_chunk()? == prefix(body.len() - PREFIX);
    whole.then(|| body.split_off(PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_framed_and_found_again_and_nothing_else_is_one() {
        let message = b"a message".as_slice();
        let framed = [&prefix(message.len()), message].concat();
        assert_eq!(framed[..PREFIX], [0, 0, 0, 0, 9]);
        assert_eq!(unframed(framed.clone().into()).as_deref(), Some(message));
        assert_eq!(unframed(prefix(0).to_vec().into()).as_deref(), Some(&b""[..]));
        let mut compressed = framed.clone();
        compressed[0] = 1;
        for bad in [&framed[..13], &[&framed[..], b"x"].concat(), &compressed, &framed[..4], b""] {
            assert_eq!(unframed(Bytes::copy_from_slice(bad)), None, "{bad:?}");
        }
    }
}
