//! The head of a request, kept until its answer has come, so that it can be sent again.

use std::fmt;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};

/// A head by itself. Its path and its values stand in one buffer of its own: nearly every copy is thrown away unused, and
/// neither counts handles on its way nor keeps the buffer that the head was read into.
pub struct Copy {
    method: Method,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    version: Version,
    /// Where path and query end in `values`, in front of which they stand; `None`: the target has none.
    path: Option<usize>,
    lines: Vec<Line>,
    values: Vec<u8>,
}

struct Line {
    name: HeaderName,
    /// Where its value ends; it begins where the one before ends.
    end: usize,
    sensitive: bool,
}

// === impl Copy ===

impl Copy {
    /// Copies the head of a request.
    pub fn of<B>(request: &Request<B>) -> Self {
        let (headers, uri) = (request.headers(), request.uri());
        let path = uri.path_and_query().map(PathAndQuery::as_str);
        let length: usize = headers.values().map(HeaderValue::len).sum();
        let mut values = Vec::with_capacity(path.map_or(0, str::len) + length);
        values.extend_from_slice(path.unwrap_or_default().as_bytes());
        let path = path.map(str::len);
        let mut lines = Vec::with_capacity(headers.len());
        for (name, value) in headers {
            values.extend_from_slice(value.as_bytes());
            lines.push(Line { name: name.clone(), end: values.len(), sensitive: value.is_sensitive() });
        }
        // Towards HTTP/2 alone, where they are the upstream's, or made of the caller's `Host` anew.
        let (scheme, authority) = (uri.scheme().cloned(), uri.authority().cloned());
        Self { method: request.method().clone(), scheme, authority, version: request.version(), path, lines, values }
    }

    /// The head.
    pub fn into_head(self) -> Parts {
        let values = Bytes::from(self.values);
        let mut target = uri::Parts::default();
        target.scheme = self.scheme;
        target.authority = self.authority;
        target.path_and_query = self.path.map(|end| {
            let path = PathAndQuery::from_maybe_shared(values.slice(..end));
            path.unwrap_or_else(|_| unreachable!("it was the path of a target"))
        });
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = self.method;
        head.uri = Uri::from_parts(target).unwrap_or_else(|_| unreachable!("it was a target"));
        head.version = self.version;
        head.headers = read(self.lines, &values, self.path.unwrap_or_default());
        head
    }
}

fn read(lines: Vec<Line>, values: &Bytes, mut begin: usize) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(lines.len());
    for Line { name, end, sensitive } in lines {
        let value = HeaderValue::from_maybe_shared(values.slice(begin..end));
        let mut value = value.unwrap_or_else(|_| unreachable!("it was the value of a header"));
        value.set_sensitive(sensitive);
        headers.append(name, value);
        begin = end;
    }
    headers
}

impl fmt::Debug for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copy").field("method", &self.method).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_copy_is_what_was_copied(
            target in prop_oneof![
                "/[!-\"$-~]{0,20}".prop_filter("one that http takes", |path| path.parse::<PathAndQuery>().is_ok()),
                "https?://[a-z]{1,5}(:80)?(/[a-z/]{0,5}([?][a-z&]{0,5})?)?",
                Just("*".to_owned()),
                Just("example.com:443".to_owned()),
                Just(String::new()),
            ],
            of in proptest::collection::vec(("[a-c]{1,2}", proptest::collection::vec(prop_oneof![32u8..127, 128u8..], 0..8), any::<bool>()), 0..30),
        ) {
            let uri = if target.is_empty() { Uri::default() } else { Uri::try_from(target).unwrap() };
            let mut request = Request::put(uri).version(Version::HTTP_2).body(()).unwrap();
            for (name, value, sensitive) in of {
                let mut value = HeaderValue::from_bytes(&value).unwrap();
                value.set_sensitive(sensitive);
                request.headers_mut().append(HeaderName::try_from(name).unwrap(), value);
            }
            let copy = Copy::of(&request).into_head();
            let (head, ()) = request.into_parts();
            let sensitive = |of: &HeaderMap| of.values().map(HeaderValue::is_sensitive).collect::<Vec<_>>();
            prop_assert_eq!(sensitive(&copy.headers), sensitive(&head.headers));
            prop_assert!(copy.headers.iter().eq(head.headers.iter()));
            prop_assert_eq!((copy.method, copy.uri, copy.version), (head.method, head.uri, head.version));
        }
    }

    #[test]
    fn a_copy_keeps_nothing_of_the_buffer_that_the_head_was_read_into() {
        let buffer = Bytes::from(b"/a?bvalue".to_vec());
        let value = HeaderValue::from_maybe_shared(buffer.slice(4..)).unwrap();
        let request =
            Request::put(Uri::from_maybe_shared(buffer.slice(..4)).unwrap()).header("a", value).body(()).unwrap();
        let copy = Copy::of(&request);
        assert!(!buffer.is_unique(), "the request is made of it");
        drop(request);
        assert!(buffer.is_unique());
        let head = copy.into_head();
        assert_eq!((head.uri.to_string(), &head.headers["a"]), ("/a?b".to_owned(), &HeaderValue::from_static("value")));
    }

    #[test]
    fn a_copy_does_not_print() {
        let request = Request::get("/path").header("a", "canary").body(()).unwrap();
        assert_eq!(format!("{:?}", Copy::of(&request)), "Copy { method: GET, .. }");
    }
}
