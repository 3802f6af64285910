//! Reading `Cookie` lines, and taking Clerk's cookies out of them for the upstream.

use http::header::{self, HeaderMap, HeaderValue};
use memchr::memchr;
use smallvec::SmallVec;

/// One `name=value` of a `Cookie` header; a part without `=` has an empty value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    /// Without surrounding white space.
    pub name: &'a [u8],
    /// Without surrounding white space; nothing is unquoted or decoded.
    pub value: &'a [u8],
}

/// What became of a line.
enum Rewritten {
    /// Nothing had to go.
    Same,
    /// What is left; `None`: nothing.
    Changed(Option<HeaderValue>),
}

/// The pairs of all `Cookie` lines. HTTP/2 may split the header into crumbs (RFC 9113 section 8.2.3); reading line by
/// line sees the same pairs as joining them first.
pub fn pairs(headers: &HeaderMap) -> impl Iterator<Item = Pair<'_>> {
    headers.get_all(header::COOKIE).iter().flat_map(|line| parts(line.as_bytes())).map(|(_, part)| Pair::parse(part))
}

/// Whether a name is one of Clerk's (contract section 3.3): `__session`, `__client_uat`, `__refresh`, each alone or
/// with `_<suffix>`, and everything that begins with `__clerk_`. An application's `__sessions` is not.
pub fn is_clerk(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"__") else { return false };
    let ends = |base: &[u8]| matches!(rest.strip_prefix(base), Some([] | [b'_', ..]));
    rest.starts_with(b"clerk_") || [&b"session"[..], b"client_uat", b"refresh"].into_iter().any(ends)
}

/// Whether a name is one of those that hold a session token.
fn is_session(name: &[u8]) -> bool {
    matches!(name.strip_prefix(b"__session"), Some([] | [b'_', ..]))
}

/// The `Cookie` lines without the cookies that `drop` names; what stays is kept byte for byte and in order. A line that
/// loses all its cookies is left out. `None` when there is nothing to drop: then nothing was allocated.
pub fn without(headers: &HeaderMap, drop: impl Fn(&[u8]) -> bool) -> Option<Vec<HeaderValue>> {
    let lines = headers.get_all(header::COOKIE);
    let mut changed: Option<Vec<HeaderValue>> = None;
    for (index, line) in lines.iter().enumerate() {
        match (rewrite(line, &drop), &mut changed) {
            (Rewritten::Same, None) => {}
            (Rewritten::Same, Some(kept)) => kept.push(line.clone()),
            (Rewritten::Changed(rest), Some(kept)) => kept.extend(rest),
            (Rewritten::Changed(rest), None) => {
                changed = Some(lines.iter().take(index).cloned().chain(rest).collect());
            }
        }
    }
    changed
}

/// Takes Clerk's cookies out of a request, but for the one named `keep`. Says whether anything changed.
pub fn strip_clerk(headers: &mut HeaderMap, keep: Option<&[u8]>) -> bool {
    let Some(lines) = without(headers, |name| is_clerk(name) && Some(name) != keep) else { return false };
    replace(headers, lines);
    true
}

/// Takes every cookie that holds a session token out of a request, but for the one named `keep`.
pub fn strip_sessions(headers: &mut HeaderMap, keep: Option<&[u8]>) {
    if let Some(lines) = without(headers, |name| is_session(name) && Some(name) != keep) {
        replace(headers, lines);
    }
}

/// Puts these lines in the place of the request's `Cookie` lines.
fn replace(headers: &mut HeaderMap, lines: Vec<HeaderValue>) {
    let mut lines = lines.into_iter();
    match lines.next() {
        None => headers.remove(header::COOKIE),
        // Takes all others away.
        Some(first) => headers.insert(header::COOKIE, first),
    };
    for line in lines {
        headers.append(header::COOKIE, line);
    }
}

/// The pieces between semicolons, each with where it begins; an empty line is one empty piece.
fn parts(line: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let begin = next?;
        let rest = &line[begin..];
        let end = memchr(b';', rest);
        next = end.map(|end| begin + end + 1);
        Some((begin, &rest[..end.unwrap_or(rest.len())]))
    })
}

/// What stays is copied in as few pieces as it has: a browser's lines are long, and Clerk's cookies mostly stand together.
fn rewrite(line: &HeaderValue, drop: impl Fn(&[u8]) -> bool) -> Rewritten {
    let bytes = line.as_bytes();
    let mut runs: SmallVec<[&[u8]; 4]> = SmallVec::new();
    // Where the run begins that is being read; beyond the end: what was read last is dropped.
    let mut run = 0;
    let mut same = true;
    for (begin, part) in parts(bytes) {
        if drop(Pair::parse(part).name) {
            if run < begin {
                runs.push(&bytes[run..begin - 1]);
            }
            run = begin + part.len() + 1;
            same = false;
        }
    }
    if same {
        return Rewritten::Same;
    }
    if run <= bytes.len() {
        runs.push(&bytes[run..]);
    }
    let length = runs.iter().map(|run| run.len() + 1).sum::<usize>().saturating_sub(1);
    let mut kept = Vec::with_capacity(length);
    for run in runs {
        if kept.is_empty() {
            // Nor does a line begin with semicolons that stood between what has gone.
            kept.extend_from_slice(trim_start(run));
        } else {
            kept.push(b';');
            kept.extend_from_slice(run);
        }
    }
    // The bytes come from a header value, so they make one; an impossible failure drops the line.
    let value = if kept.is_empty() { None } else { HeaderValue::from_maybe_shared(bytes::Bytes::from(kept)).ok() };
    Rewritten::Changed(value.map(|mut value| {
        value.set_sensitive(line.is_sensitive());
        value
    }))
}

fn trim_start(run: &[u8]) -> &[u8] {
    let empty = |byte: &u8| byte.is_ascii_whitespace() || *byte == b';';
    &run[run.iter().take_while(|byte| empty(byte)).count()..]
}

// === impl Pair ===

impl<'a> Pair<'a> {
    fn parse(part: &'a [u8]) -> Self {
        let (name, value) = match memchr(b'=', part) {
            Some(at) => (&part[..at], &part[at + 1..]),
            None => (part, &part[part.len()..]),
        };
        Self { name: name.trim_ascii(), value: value.trim_ascii() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(of: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in of {
            headers.append(header::COOKIE, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn stripped(of: &[&str]) -> Vec<String> {
        let mut headers = lines(of);
        strip_clerk(&mut headers, None);
        headers.get_all(header::COOKIE).iter().map(|line| line.to_str().unwrap().to_owned()).collect()
    }

    /// HTTP/2 says of a field that it must stay secret on its way. Fails without `set_sensitive`.
    #[test]
    fn what_is_left_of_a_secret_line_is_secret() {
        let mut headers = HeaderMap::new();
        let mut line = HeaderValue::from_static("a=1; __session=x");
        line.set_sensitive(true);
        headers.insert(header::COOKIE, line);
        assert!(strip_clerk(&mut headers, None));
        assert!(headers[header::COOKIE] == "a=1" && headers[header::COOKIE].is_sensitive());
    }

    #[test]
    fn clerks_names_are_told_from_an_applications() {
        for clerk in
            ["__session", "__session_QvfNY2dr", "__client_uat", "__client_uat_x", "__refresh_a", "__clerk_db_jwt"]
        {
            assert!(is_clerk(clerk.as_bytes()), "{clerk}");
        }
        for other in
            ["session", "_session", "__sessions", "__sessionid", "__client", "__refresher", "__clerk", "__Session", ""]
        {
            assert!(!is_clerk(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn what_is_not_clerks_stays_byte_for_byte() {
        assert_eq!(stripped(&["a=1; __session=t; b=\"2;3\" ;c"]), ["a=1; b=\"2;3\" ;c"]);
        assert_eq!(stripped(&["__session=t; a=1"]), ["a=1"]);
        assert_eq!(stripped(&["a=1;__client_uat_x=5"]), ["a=1"]);
        assert_eq!(stripped(&["__session=t;__refresh=r", "x = y", "__clerk_a=b"]), ["x = y"]);
        assert_eq!(stripped(&["a=__session=t; \t__session =t"]), ["a=__session=t"]);
    }

    #[test]
    fn nothing_is_made_when_nothing_is_clerks() {
        assert_eq!(without(&lines(&["a=1; b=2", "c"]), is_clerk), None);
        assert_eq!(without(&HeaderMap::new(), is_clerk), None);
    }

    #[test]
    fn the_named_cookie_is_kept() {
        let mut headers = lines(&["__session=t; __client_uat=5; a=1"]);
        assert!(strip_clerk(&mut headers, Some(b"__session")));
        assert_eq!(headers[header::COOKIE], "__session=t; a=1");
    }

    /// `rewrite` as it is meant: piece by piece.
    fn piece_by_piece(line: &[u8]) -> Option<Vec<u8>> {
        let dropped = |part: &&[u8]| {
            let end = part.iter().position(|&byte| byte == b'=').unwrap_or(part.len());
            is_clerk(part[..end].trim_ascii())
        };
        let parts: Vec<&[u8]> = line.split(|&byte| byte == b';').collect();
        if !parts.iter().any(dropped) {
            return Some(line.to_vec());
        }
        let mut kept = Vec::new();
        for part in parts.into_iter().filter(|part| !dropped(part)) {
            if kept.is_empty() {
                kept.extend_from_slice(part.trim_ascii_start());
            } else {
                kept.push(b';');
                kept.extend_from_slice(part);
            }
        }
        Some(kept).filter(|kept| !kept.is_empty())
    }

    fn some_lines() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let piece = prop_oneof![
            4 => "(__session|__client_uat_a|__sessions|a|b| c |)[ \t]?(=[ -~]{0,5})?".prop_map(String::into_bytes),
            1 => proptest::collection::vec(prop_oneof![Just(b' '), Just(b'\t'), Just(b'='), Just(b'"'), 128u8..=255], 0..5),
        ];
        proptest::collection::vec(proptest::collection::vec(piece, 0..7).prop_map(|pieces| pieces.join(&b';')), 0..4)
    }

    proptest! {
        #[test]
        fn lines_read_and_lose_cookies_as_if_piece_by_piece(of in some_lines()) {
            let mut headers = HeaderMap::new();
            for line in &of {
                headers.append(header::COOKIE, HeaderValue::from_bytes(line).unwrap());
            }
            let plain: Vec<(Vec<u8>, Vec<u8>)> = of
                .iter()
                .flat_map(|line| line.split(|&byte| byte == b';'))
                .map(|part| match part.iter().position(|&byte| byte == b'=') {
                    Some(at) => (part[..at].trim_ascii().to_vec(), part[at + 1..].trim_ascii().to_vec()),
                    None => (part.trim_ascii().to_vec(), Vec::new()),
                })
                .collect();
            let read: Vec<_> = pairs(&headers).map(|pair| (pair.name.to_vec(), pair.value.to_vec())).collect();
            prop_assert_eq!(read, plain);
            let expected: Vec<Vec<u8>> = of.iter().filter_map(|line| piece_by_piece(line)).collect();
            let changed = strip_clerk(&mut headers, None);
            let left: Vec<Vec<u8>> = headers.get_all(header::COOKIE).iter().map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(changed, left != of);
            prop_assert_eq!(left, expected);
        }

        #[test]
        fn no_clerk_cookie_survives_and_no_other_is_lost(parts in proptest::collection::vec("(__session|__client_uat_a|a|b| c )(=[ -:<-~]{0,5})?", 0..6)) {
            let line = parts.join(";");
            let headers = lines(&[&line]);
            let names = |headers: &HeaderMap| -> Vec<Vec<u8>> {
                pairs(headers).map(|pair| pair.name.to_vec()).filter(|name| !name.is_empty()).collect()
            };
            let expected: Vec<_> = names(&headers).into_iter().filter(|name| !is_clerk(name)).collect();
            let mut after = headers.clone();
            strip_clerk(&mut after, None);
            prop_assert_eq!(names(&after), expected);
        }
    }
}
