//! Which request a proxy asks about, in each of the ways in which proxies say it over HTTP.
//!
//! The way is the path that is asked, and what other ways say in headers is ignored: a proxy overwrites the headers of its
//! own way only, and the others are the caller's words. What has to be said and is not, or is said twice, is an error and
//! never a default: the caller may have said it.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Uri, uri};

use crate::headers::{FORWARDED_HOST, FORWARDED_PROTO, HTTP2_SETTINGS, KEEP_ALIVE, PROXY_CONNECTION};
use crate::proxy::error::Error;
use crate::proxy::request;

/// What nginx and HAProxy are told to say.
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
/// What Traefik and Caddy say, beside the host and the scheme.
const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Where Envoy puts the path of its HTTP dialect.
const ENVOY: &str = "/authz/envoy";
/// The one method of the gRPC service.
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// What is about the connection between proxy and gateway, or the message on it, and not about the request that is asked
/// about. `Upgrade` is: a WebSocket is judged otherwise than a GET.
const HOP: [HeaderName; 10] = [
    header::HOST,
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    HTTP2_SETTINGS,
    header::TE,
    header::TRAILER,
    header::EXPECT,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
];

/// The one protocol that a request may ask for.
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// A way of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// In headers, and the answer's headers are the request's.
    Headers(Saying),
    /// Envoy's HTTP service: the request itself, without its body, under another path.
    Envoy,
    /// Envoy's gRPC service.
    Grpc,
}

/// In which headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saying {
    /// `X-Original-*`
    Original,
    /// `X-Forwarded-*`
    Forwarded,
}

/// What is known of the request's scheme; empty where nobody says.
pub type SchemeName = &'static str;

// === impl Dialect ===

impl Dialect {
    /// The one whose path this is.
    pub fn of(path: &str) -> Option<Self> {
        match path {
            CHECK => Some(Self::Grpc),
            "/authz/original" => Some(Self::Headers(Saying::Original)),
            "/authz/forwarded" => Some(Self::Headers(Saying::Forwarded)),
            _ => path.strip_prefix(ENVOY).filter(|rest| rest.starts_with('/')).map(|_| Self::Envoy),
        }
    }
}

impl Saying {
    /// Makes of the question's head that of the request which it is about.
    ///
    /// # Errors
    /// When it says too little or too much; the head is as it was then.
    pub fn read(self, head: &mut Parts) -> Result<SchemeName, Error> {
        no_other_protocol(&head.headers)?;
        let headers = &head.headers;
        let (method, uri, scheme) = match self {
            Self::Original => {
                let url = one(headers, &ORIGINAL_URL, "X-Original-URL is missing", "two X-Original-URL")?;
                let (scheme, host, target) = split(url.as_bytes())?;
                let method = one(headers, &ORIGINAL_METHOD, "X-Original-Method is missing", "two X-Original-Method")?;
                (method, uri(host, target)?, scheme)
            }
            Self::Forwarded => {
                let host = one(headers, &FORWARDED_HOST, "X-Forwarded-Host is missing", "two X-Forwarded-Host")?;
                let target = one(headers, &FORWARDED_URI, "X-Forwarded-Uri is missing", "two X-Forwarded-Uri")?;
                let method =
                    one(headers, &FORWARDED_METHOD, "X-Forwarded-Method is missing", "two X-Forwarded-Method")?;
                (method, uri(host.as_bytes(), target.as_bytes())?, forwarded_scheme(headers)?)
            }
        };
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Error::Malformed("not a method"))?;
        (head.method, head.uri) = (method, uri);
        let said = match self {
            Self::Original => [ORIGINAL_METHOD, ORIGINAL_URL],
            Self::Forwarded => [FORWARDED_METHOD, FORWARDED_URI],
        };
        for name in &said {
            head.headers.remove(name);
        }
        without_hop(&mut head.headers);
        // Traefik shows neither `Upgrade` nor `Connection` of the request, and the rest of the handshake it does.
        let headers = &mut head.headers;
        let handshakes = [header::SEC_WEBSOCKET_KEY, header::SEC_WEBSOCKET_VERSION];
        if self == Self::Forwarded && handshakes.iter().any(|name| headers.contains_key(name)) {
            headers.insert(header::UPGRADE, WEBSOCKET);
        }
        Ok(scheme)
    }
}

/// The same for Envoy's HTTP service, which sends the caller's own method and host.
///
/// # Errors
/// When the host is not one; the head is as it was then.
pub fn read_envoy(head: &mut Parts) -> Result<SchemeName, Error> {
    no_other_protocol(&head.headers)?;
    let scheme = forwarded_scheme(&head.headers)?;
    let target = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
    let target = target.strip_prefix(ENVOY).unwrap_or_default();
    let uri = uri(request::host(head)?.as_str().as_bytes(), target.as_bytes())?;
    head.uri = uri;
    without_hop(&mut head.headers);
    Ok(scheme)
}

/// The target of a request to this host. Judged are the very bytes that the proxy forwards, so a fragment, which would be
/// cut off here, is an error.
///
/// # Errors
/// When it is not one.
pub fn uri(host: &[u8], target: &[u8]) -> Result<Uri, Error> {
    if !target.starts_with(b"/") || target.contains(&b'#') {
        return Err(Error::Malformed("the request's target is not a path with its query"));
    }
    let mut parts = uri::Parts::default();
    // Which it really is decides nothing here.
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(Authority::try_from(host).map_err(|_| Error::Malformed("the request's host is not one"))?);
    let target = PathAndQuery::try_from(target);
    parts.path_and_query = Some(target.map_err(|_| Error::Malformed("the request's target is not one"))?);
    Uri::from_parts(parts).map_err(|_| Error::Malformed("the request's target is not one"))
}

/// The scheme of this name. Some proxies have one of its own for a WebSocket.
///
/// # Errors
/// When it is another one.
pub fn scheme(name: &[u8]) -> Result<SchemeName, Error> {
    match name {
        b"http" | b"ws" => Ok("http"),
        b"https" | b"wss" => Ok("https"),
        _ => Err(Error::Malformed("the request's scheme is neither http nor https")),
    }
}

/// A request that asks for another protocol than WebSocket may not pass: a proxy that grants it opens a tunnel, in which
/// nobody judges the requests that follow.
///
/// # Errors
/// When it asks for another one, or for several.
pub fn no_other_protocol(headers: &HeaderMap) -> Result<(), Error> {
    let mut asked = headers.get_all(header::UPGRADE).iter();
    let other = asked.next().is_some_and(|first| !first.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()));
    if other || asked.next().is_some() || headers.contains_key(HTTP2_SETTINGS) {
        return Err(Error::Malformed("the request asks for another protocol than websocket"));
    }
    Ok(())
}

/// Removes what is not the request's.
pub fn without_hop(headers: &mut HeaderMap) {
    for name in &HOP {
        headers.remove(name);
    }
}

/// `scheme://host/path?query`, as a proxy writes it, in three.
fn split(url: &[u8]) -> Result<(SchemeName, &[u8], &[u8]), Error> {
    const NOT_ONE: Error = Error::Malformed("X-Original-URL is not an absolute URL");
    let end = url.windows(3).position(|three| three == b"://").ok_or(NOT_ONE)?;
    let rest = &url[end + 3..];
    let slash = rest.iter().position(|&byte| byte == b'/').ok_or(NOT_ONE)?;
    Ok((scheme(&url[..end])?, &rest[..slash], &rest[slash..]))
}

/// What the proxy says of the scheme.
fn forwarded_scheme(headers: &HeaderMap) -> Result<SchemeName, Error> {
    if !headers.contains_key(FORWARDED_PROTO) {
        return Ok("");
    }
    scheme(one(headers, &FORWARDED_PROTO, "", "two X-Forwarded-Proto")?.as_bytes())
}

/// The one line of this name that says something.
fn one<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    missing: &'static str,
    several: &'static str,
) -> Result<&'a HeaderValue, Error> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) if !line.is_empty() => Ok(line),
        (Some(_), Some(_)) => Err(Error::Malformed(several)),
        _ => Err(Error::Malformed(missing)),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(path: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn read(saying: Saying, headers: &[(&str, &str)]) -> Result<(String, String, SchemeName), String> {
        let mut head = head("/authz", headers);
        let scheme = saying.read(&mut head).map_err(|error| error.to_string())?;
        Ok((head.method.to_string(), head.uri.to_string(), scheme))
    }

    #[test]
    fn the_path_tells_the_dialect_and_nothing_else_is_one() {
        assert_eq!(Dialect::of("/authz/original"), Some(Dialect::Headers(Saying::Original)));
        assert_eq!(Dialect::of("/authz/forwarded"), Some(Dialect::Headers(Saying::Forwarded)));
        assert_eq!(Dialect::of("/authz/envoy/"), Some(Dialect::Envoy));
        assert_eq!(Dialect::of("/authz/envoy/authz/original"), Some(Dialect::Envoy));
        assert_eq!(Dialect::of("/envoy.service.auth.v3.Authorization/Check"), Some(Dialect::Grpc));
        for none in ["/", "/authz", "/authz/original/", "/authz/envoy", "/authz/envoyage/x", "/authz/forwarded/x"] {
            assert_eq!(Dialect::of(none), None, "{none}");
        }
    }

    /// Fails without the headers of either dialect being looked at alone.
    #[test]
    fn a_dialect_reads_its_own_headers_alone() {
        let all = [
            ("x-original-method", "POST"),
            ("x-original-url", "https://a.test/a?x=1"),
            ("x-forwarded-method", "PUT"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "b.test:81"),
            ("x-forwarded-uri", "/b"),
        ];
        let answer = |method: &str, url: &str, scheme| Ok((method.to_owned(), url.to_owned(), scheme));
        assert_eq!(read(Saying::Original, &all), answer("POST", "http://a.test/a?x=1", "https"));
        assert_eq!(read(Saying::Forwarded, &all), answer("PUT", "http://b.test:81/b", "http"));
        assert!(read(Saying::Original, &all[2..]).is_err() && read(Saying::Forwarded, &all[..2]).is_err());
    }

    /// Fails without `one`.
    #[test]
    fn what_is_missing_empty_or_said_twice_is_an_error_and_no_default() {
        let original = [("x-original-method", "GET"), ("x-original-url", "https://a.test/")];
        let forwarded = [("x-forwarded-method", "GET"), ("x-forwarded-host", "a.test"), ("x-forwarded-uri", "/")];
        for (saying, good) in [(Saying::Original, &original[..]), (Saying::Forwarded, &forwarded[..])] {
            assert!(read(saying, good).is_ok());
            for at in 0..good.len() {
                let mut headers = good.to_vec();
                let said = headers.remove(at);
                assert!(read(saying, &headers).is_err(), "without {said:?}");
                headers.push((said.0, ""));
                assert!(read(saying, &headers).is_err(), "an empty {said:?}");
                let twice = [good, &[said]].concat();
                assert!(read(saying, &twice).is_err(), "two {said:?}");
            }
        }
    }

    #[test]
    fn what_would_be_read_in_another_way_than_it_is_forwarded_is_an_error() {
        for url in
            ["/path", "a.test/", "https://a.test", "https://a.test?x", "ftp://a.test/", "https:///x", "HTTPS://a.test/"]
        {
            assert!(read(Saying::Original, &[("x-original-method", "GET"), ("x-original-url", url)]).is_err(), "{url}");
        }
        for target in ["x", "*", "http://b.test/", "/a#b", "/a b", "?x"] {
            let headers = [("x-forwarded-method", "GET"), ("x-forwarded-host", "a.test"), ("x-forwarded-uri", target)];
            assert!(read(Saying::Forwarded, &headers).is_err(), "{target}");
        }
        let proto = |proto| {
            let headers = [
                ("x-forwarded-method", "GET"),
                ("x-forwarded-host", "a.test"),
                ("x-forwarded-uri", "/"),
                ("x-forwarded-proto", proto),
            ];
            read(Saying::Forwarded, &headers).map(|(.., scheme)| scheme)
        };
        assert_eq!((proto("wss"), proto("ws")), (Ok("https"), Ok("http")));
        assert!(proto("https, http").is_err() && proto("gopher").is_err());
    }

    #[test]
    fn envoy_asks_with_the_method_and_the_host_of_the_request() {
        let mut head = head(
            "/authz/envoy/a//b?x=/authz/envoy",
            &[("host", "a.test"), ("te", "trailers"), ("upgrade", "websocket")],
        );
        head.method = Method::PATCH;
        assert_eq!(read_envoy(&mut head).unwrap(), "");
        assert_eq!(
            (head.method.as_str(), head.uri.to_string().as_str()),
            ("PATCH", "http://a.test/a//b?x=/authz/envoy")
        );
        let left: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["upgrade"]);
    }
}
