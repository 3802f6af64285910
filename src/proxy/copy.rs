//! The head of a request, kept until its answer has come, so that it can be sent again.

use std::fmt;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri, Version};

/// A head by itself. Its values stand in one buffer of its own: nearly every copy is thrown away unused, and neither
/// counts handles on its way nor keeps the buffer that the head was read into.
pub struct Copy {
    method: Method,
    uri: Uri,
    version: Version,
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
        let headers = request.headers();
        let mut values = Vec::with_capacity(headers.iter().map(|(_, value)| value.len()).sum());
        let mut lines = Vec::with_capacity(headers.len());
        for (name, value) in headers {
            values.extend_from_slice(value.as_bytes());
            lines.push(Line { name: name.clone(), end: values.len(), sensitive: value.is_sensitive() });
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        Self { method, uri, version: request.version(), lines, values }
    }

    /// The head.
    pub fn into_head(self) -> Parts {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = self.method;
        head.uri = self.uri;
        head.version = self.version;
        head.headers = read(self.lines, &self.values.into());
        head
    }
}

fn read(lines: Vec<Line>, values: &Bytes) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(lines.len());
    let mut begin = 0;
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
            of in proptest::collection::vec(("[a-c]{1,2}", proptest::collection::vec(prop_oneof![32u8..127, 128u8..], 0..8), any::<bool>()), 0..30),
        ) {
            let mut request = Request::put("/a?b").version(Version::HTTP_2).body(()).unwrap();
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
    fn a_copy_does_not_print() {
        let request = Request::get("/path").header("a", "canary").body(()).unwrap();
        assert_eq!(format!("{:?}", Copy::of(&request)), "Copy { method: GET, .. }");
    }
}
