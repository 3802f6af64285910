//! The ways in which a path can be read: what readers after us decode, normalise and cut.

use std::collections::HashSet;

/// Readings of one path that are looked at; a path with more is nobody's honest one.
const MOST: usize = 128;

/// Layers of escapes that some reader takes off.
const LAYERS: u8 = 2;

/// Bytes of a path of which every reading is looked at.
const LONGEST: usize = 4096;

/// Whether a reader after us could take the path for another one: dot segments (also encoded, also with `;`), empty
/// segments (also those that only parameters fill), backslashes, encoded slashes, NUL, or bytes that are not UTF-8 once decoded.
pub fn is_odd(path: &str) -> bool {
    let bytes = path.as_bytes();
    let mut before = 0;
    for &byte in bytes {
        // Nothing else makes a path odd, and few paths have any of these.
        if matches!(byte, b'%' | b'\\' | b'"' | b'<' | b'>' | b'{' | b'}' | b'|' | b'^' | b'`')
            || !byte.is_ascii_graphic()
        {
            return is_odd_in_detail(path);
        }
        if before == b'/' && matches!(byte, b'/' | b'.' | b';') {
            return is_odd_in_detail(path);
        }
        before = byte;
    }
    bytes.first() != Some(&b'/')
}

fn is_odd_in_detail(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return true };
    let last = rest.split('/').count() - 1;
    rest.split('/').enumerate().any(|(index, segment)| (index < last && vanishes(segment)) || is_odd_segment(segment))
}

/// Whether nothing is left of a segment where its parameters are cut off: `;x` between two slashes is an empty segment
/// then, which some reader merges away.
fn vanishes(segment: &str) -> bool {
    let mut reading = segment.as_bytes().to_vec();
    for _ in 0..LAYERS {
        if is_nameless(&reading) {
            break;
        }
        reading = lenient(&reading);
    }
    is_nameless(&reading)
}

fn is_nameless(segment: &[u8]) -> bool {
    matches!(segment.first(), None | Some(b';'))
}

fn is_odd_segment(segment: &str) -> bool {
    let Some(decoded) = decode(segment.as_bytes()) else { return true };
    if decoded.iter().any(|&byte| matches!(byte, b'/' | b'\\') || byte.is_ascii_control()) {
        return true;
    }
    if std::str::from_utf8(&decoded).is_err() {
        return true;
    }
    // Twice encoded dots and slashes become dots and slashes for a reader that decodes twice, also beside what is no escape.
    // Overlong ones too, which old decoders take.
    let twice = overlong(&lenient(&decoded));
    let odd = |&byte: &u8| matches!(byte, b'/' | b'\\') || byte.is_ascii_control();
    is_dots(&decoded) || is_dots(&twice) || twice.iter().any(odd)
}

/// `.` and `..`, also followed by what some servers cut off: path parameters, or a query or fragment that was encoded.
fn is_dots(segment: &[u8]) -> bool {
    let name = segment.split(|byte| matches!(byte, b';' | b'?' | b'#')).next().unwrap_or(segment);
    name == b"." || name == b".."
}

/// Percent-decodes once; `None` when an escape is not one.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<&u8>| byte.and_then(|&digit| char::from(digit).to_digit(16));
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

/// Every way in which some reader takes the path: escapes decoded once or twice (with those of IIS and without, those of
/// unreserved characters alone, and the overlong ones that old decoders took), backslashes as slashes, slashes merged, or taken for the beginning of an authority, path parameters cut off, dot segments removed, cut at
/// a NUL, `?` or `#` that was encoded; all of them in any order. `None` where there are too many.
pub(super) fn all(path: &str) -> Option<Vec<Vec<u8>>> {
    if !path.starts_with('/') || path.len() > LONGEST {
        return None;
    }
    let mut seen = HashSet::from([path.as_bytes().to_vec()]);
    let mut readings = vec![(path.as_bytes().to_vec(), 0)];
    let mut next = 0;
    while let Some((reading, layers)) = readings.get(next).cloned() {
        next += 1;
        for decoded in [lenient(&reading), plain(&reading)] {
            if decoded == reading {
                continue;
            }
            if layers == LAYERS {
                return None;
            }
            if seen.insert(decoded.clone()) {
                readings.push((decoded, layers + 1));
            }
        }
        for rewrite in [unreserved, overlong, slashes, merged, without_authority, without_parameters, without_dots, cut]
        {
            let rewritten = rewrite(&reading);
            if seen.insert(rewritten.clone()) {
                readings.push((rewritten, layers));
            }
        }
        if readings.len() > MOST {
            return None;
        }
    }
    Some(readings.into_iter().map(|(reading, _)| reading).collect())
}

/// Decodes once; what is no escape stays as it is, and hides none of the others.
pub(super) fn lenient(text: &[u8]) -> Vec<u8> {
    decoded_where(text, |_, _| true)
}

/// The same for a reader that knows nothing of IIS.
fn plain(text: &[u8]) -> Vec<u8> {
    decoded_where(text, |_, digits| digits == 2)
}

/// Decodes what RFC 3986 section 6.2.2.2 lets everybody decode: a dot, but no slash. WHATWG URLs take `%2e%2e` so.
fn unreserved(text: &[u8]) -> Vec<u8> {
    let free = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    decoded_where(text, |byte, digits| digits == 2 && free(byte))
}

/// Decodes the escapes of which the byte, and how much stands behind the `%`, are as wanted.
fn decoded_where(text: &[u8], wanted: impl Fn(u8, usize) -> bool) -> Vec<u8> {
    let (mut decoded, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((&byte, after)) = rest.split_first() {
        let escape = if byte == b'%' { unescape(after).filter(|&(byte, length)| wanted(byte, length)) } else { None };
        let (byte, length) = escape.unwrap_or((byte, 0));
        decoded.push(byte);
        rest = &after[length..];
    }
    decoded
}

/// The byte that an escape without its `%` means, and how long it is; `u002f` is how IIS writes it.
fn unescape(text: &[u8]) -> Option<(u8, usize)> {
    let digits = |text: Option<&[u8]>| {
        let text = text.filter(|text| text.iter().all(u8::is_ascii_hexdigit))?;
        u8::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
    };
    match text.first() {
        Some(b'u' | b'U') if text.get(1..3) == Some(b"00") => Some((digits(text.get(3..5))?, 5)),
        _ => Some((digits(text.get(..2))?, 2)),
    }
}

/// ASCII characters in the two to six bytes that UTF-8 forbids for them.
fn overlong(text: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, length) = match rest {
            [0xfc, 0x80, 0x80, 0x80, high @ 0x80..=0x81, low @ 0x80..=0xbf, ..] => ((high & 1) << 6 | (low & 0x3f), 5),
            [0xf8, 0x80, 0x80, high @ 0x80..=0x81, low @ 0x80..=0xbf, ..] => ((high & 1) << 6 | (low & 0x3f), 4),
            [0xf0, 0x80, high @ 0x80..=0x81, low @ 0x80..=0xbf, ..] => ((high & 1) << 6 | (low & 0x3f), 3),
            [0xe0, high @ 0x80..=0x81, low @ 0x80..=0xbf, ..] => ((high & 1) << 6 | (low & 0x3f), 2),
            [lead @ 0xc0..=0xc1, low @ 0x80..=0xbf, ..] => ((lead & 1) << 6 | (low & 0x3f), 1),
            _ => (byte, 0),
        };
        plain.push(byte);
        rest = &after[length..];
    }
    plain
}

fn slashes(text: &[u8]) -> Vec<u8> {
    text.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect()
}

fn merged(text: &[u8]) -> Vec<u8> {
    let mut merged = text.to_vec();
    merged.dedup_by(|later, earlier| *later == b'/' && *earlier == b'/');
    merged
}

/// What a reader makes of it that takes it for a URL relative to its own, in which two slashes begin an authority.
fn without_authority(text: &[u8]) -> Vec<u8> {
    let is_slash = |byte: &u8| matches!(byte, b'/' | b'\\');
    if !text.iter().take(2).all(is_slash) || text.len() < 2 {
        return text.to_vec();
    }
    let name = text.iter().position(|byte| !is_slash(byte)).unwrap_or(text.len());
    let path = text[name..].iter().position(is_slash).map_or(text.len(), |length| name + length);
    if path == text.len() { b"/".to_vec() } else { text[path..].to_vec() }
}

/// How many segments deep a path stays wherever its dot segments lead it on the way; `None`: it leaves the root.
pub(super) fn shallowest(path: &[u8]) -> Option<usize> {
    let (mut depth, mut shallowest) = (0_usize, usize::MAX);
    for segment in path.split(|&byte| byte == b'/').skip(1) {
        match segment {
            b".." => {
                depth = depth.checked_sub(1)?;
                shallowest = shallowest.min(depth);
            }
            b"." => {}
            _ => depth += 1,
        }
    }
    Some(shallowest)
}

fn without_parameters(text: &[u8]) -> Vec<u8> {
    let names = text.split(|&byte| byte == b'/').map(|part| part.split(|&byte| byte == b';').next().unwrap_or(part));
    names.collect::<Vec<_>>().join(&b'/')
}

/// RFC 3986 section 5.2.4.
fn without_dots(text: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = text.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let dots = segment == b"." || segment == b"..";
        if segment == b".." {
            kept.pop();
        }
        if !dots {
            kept.push(segment);
        } else if segments.peek().is_none() {
            kept.push(b"");
        }
    }
    [b"/".as_slice(), &kept.join(&b'/')].concat()
}

/// What is left of a path for a reader that takes an encoded NUL for its end, or looks for the query after decoding.
fn cut(text: &[u8]) -> Vec<u8> {
    text.split(|byte| matches!(byte, 0 | b'?' | b'#')).next().unwrap_or(text).to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn odd_paths_are_refused() {
        for odd in [
            "/a/../b",
            "/a/./b",
            "/..",
            "/.",
            "//",
            "/a//b",
            "/a\\b",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/%2e%2e/b",
            "/.%2e/b",
            "/..;/b",
            "/..;x=1/b",
            "/a%00b",
            "/%ff",
            "/%zz",
            "/%2",
            "/%252e%252e/b",
            "/%252f",
            "a",
            "",
            "*",
            "/a%0ab",
            "/a/..%3f",
            "/a/.%23x",
            "/a/..%253f/b",
            // Decoded twice, with an escape in it that is none after the first time.
            "/a%252f%256g",
            "/a%255c%25zz",
            "/%253b%256g/b",
            "/..%253b%25/b",
            "/a/%25u002e%25u002e/b",
            "/a%25u002fb",
            "/a/%25c0%25ae%25c0%25ae%25c0%25afb",
            "/a%250ab",
        ] {
            assert!(is_odd(odd), "{odd:?}");
        }
        for fine in [
            "/",
            "/a",
            "/a/",
            "/.well-known/x",
            "/...",
            "/a;b",
            "/%20",
            "/%C3%A9",
            "/a.b/..c",
            "/~a!$&'()*+,;=:@",
            "/%256g",
            "/100%25",
        ] {
            assert!(!is_odd(fine), "{fine:?}");
        }
    }

    #[test]
    fn every_reading_is_found() {
        for (path, readings) in [
            ("/a//b", &["/a/b"][..]),
            ("/a/%2e%2e/b", &["/a/../b", "/b"]),
            ("/a/%252e%252e/b", &["/a/%2e%2e/b", "/a/../b", "/b"]),
            ("/a\\..\\b", &["/a/../b", "/b"]),
            ("/a/..;x/b", &["/a/../b", "/b"]),
            ("/a%2f..%2fb", &["/b"]),
            ("/a/%c0%ae%c0%ae%c0%afb", &["/b"]),
            ("/a/%e0%80%ae./b", &["/b"]),
            ("/a/%f0%80%80%ae./b", &["/b"]),
            ("/a/%f8%80%80%80%ae.%fc%80%80%80%80%afb", &["/b"]),
            ("/a/%u002e%u002e%u002fb", &["/b"]),
            ("/b%00/../a", &["/a", "/b"]),
            ("/b%3f/../a", &["/a", "/b"]),
            ("/a//../b", &["/a/b", "/b"]),
            ("/a/%zz", &["/a/%zz"]),
            ("//x/admin", &["/admin", "/x/admin"]),
            ("/\\x/admin/y", &["/admin/y"]),
            ("//x", &["/"]),
            ("/d/%2e%2e/a/..%2fd", &["/a/..%2fd"]),
            ("/d/%2e%2e/a/%u002e%u002e/d", &["/a/%u002e%u002e/d"]),
        ] {
            let found = all(path).unwrap();
            for reading in readings {
                assert!(found.iter().any(|own| own == reading.as_bytes()), "{path} as {reading}");
            }
        }
        assert_eq!(all("/a/%25252e"), None, "three layers");
        assert_eq!(all("a"), None);
        assert_eq!(all(&format!("/{}", "a".repeat(LONGEST))), None);
    }

    #[test]
    fn how_far_up_dot_segments_lead_is_told() {
        for (path, depth) in [
            ("/a/b", Some(usize::MAX)),
            ("/a/../b", Some(0)),
            ("/a/b/../../a/b", Some(0)),
            ("/a/b/../c", Some(1)),
            ("/../a", None),
            ("/a/../../a", None),
        ] {
            assert_eq!(shallowest(path.as_bytes()), depth, "{path}");
        }
    }

    proptest! {
        /// Whatever decoding and normalising a reader does, it ends at a path of the same route.
        #[test]
        fn no_spelling_of_a_path_gets_another_route(path in "/([a-c./;%25eEfF\\\\-]|%2[eEfF]|\\.\\.){0,12}") {
            if !is_odd(&path) {
                let mut once = String::from_utf8(decode(path.as_bytes()).unwrap()).unwrap();
                for _ in 0..2 {
                    let segments: Vec<_> = once.split('/').skip(1).collect();
                    let (last, middle) = segments.split_last().unwrap();
                    prop_assert!(middle.iter().all(|segment| !segment.is_empty()), "{path} -> {once}");
                    prop_assert!(segments.iter().all(|segment| !is_dots(segment.as_bytes())), "{path} -> {once} {last}");
                    let Some(twice) = decode(once.as_bytes()).and_then(|twice| String::from_utf8(twice).ok()) else { break };
                    prop_assert_eq!(twice.matches('/').count(), once.matches('/').count());
                    once = twice;
                }
            }
        }
    }
}
