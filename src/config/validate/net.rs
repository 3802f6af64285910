//! Addresses, hosts, origins, URLs and paths out of text, each by one function.

use std::net::{IpAddr, Ipv6Addr};

use http::Uri;
use http::uri::Authority;
use ipnet::IpNet;

use crate::config::{ApiUrl, HostPattern, Origin, Place, UpstreamAddress};

/// Why a text is not what it should be. The texts never hold the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bad {
    #[error("not an absolute http or https URL")]
    Url,
    #[error("a URL holds no user name or password here")]
    UserInfo,
    #[error("a URL holds no query or fragment here")]
    Query,
    #[error("http is for loopback addresses only; use https")]
    Cleartext,
    #[error("an upstream's URL has no path")]
    UpstreamPath,
    #[error("not the path of a Unix socket")]
    SocketPath,
    #[error("this URL ends before `/v1`")]
    Version,
    #[error("not an origin")]
    Origin,
    #[error("not a host name")]
    Host,
    #[error("a host is written without its port")]
    Port,
    #[error("a path begins with `/`")]
    Relative,
    #[error("a path without `/` at its end covers everything below it too")]
    TrailingSlash,
    #[error("a path that upstreams read in more than one way")]
    Odd,
    #[error("a path holds visible ASCII characters only, without `?` and `#`; write others as %XX")]
    PathCharacter,
}

/// How an upstream's URL begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpstreamScheme {
    Http,
    Https,
    Unix,
}

/// Whether a name or address literal (with or without brackets) can only be this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost") || bare.to_ascii_lowercase().ends_with(".localhost"),
    }
}

/// A host as it stands in `Host`, lower case, without port and trailing dot.
pub(crate) fn host(text: &str) -> Result<String, Bad> {
    if let Some(literal) = text.strip_prefix('[') {
        let (literal, rest) = literal.split_once(']').ok_or(Bad::Host)?;
        let address: Ipv6Addr = literal.parse().map_err(|_| Bad::Host)?;
        return if rest.is_empty() { Ok(format!("[{address}]")) } else { Err(Bad::Port) };
    }
    if text.contains(':') {
        return Err(if text.parse::<Ipv6Addr>().is_ok() { Bad::Host } else { Bad::Port });
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(label) { Ok(text.to_ascii_lowercase()) } else { Err(Bad::Host) }
}

/// `match.host`
pub(crate) fn host_pattern(text: &str) -> Result<HostPattern, Bad> {
    match text.strip_prefix("*.") {
        Some(suffix) => Ok(HostPattern::Suffix(format!(".{}", host(suffix)?))),
        None => host(text).map(HostPattern::Exact),
    }
}

/// A serialised origin, of the web or of an app.
pub(crate) fn origin(text: &str) -> Result<Origin, Bad> {
    let (scheme, rest) = text.split_once("://").ok_or(Bad::Origin)?;
    if rest.contains('@') {
        return Err(Bad::UserInfo);
    }
    let scheme = scheme.to_ascii_lowercase();
    let schemed = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if !schemed {
        return Err(Bad::Origin);
    }
    let (name, port) = split_port(rest).ok_or(Bad::Origin)?;
    let name = host(name).map_err(|_| Bad::Origin)?;
    let usual = match scheme.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    match port {
        Some(port) if Some(port) != usual => Ok(Origin(format!("{scheme}://{name}:{port}"))),
        _ => Ok(Origin(format!("{scheme}://{name}"))),
    }
}

/// A URL of the issuer: `http` to loopback alone.
pub(crate) fn api_url(text: &str) -> Result<ApiUrl, Bad> {
    let (uri, authority) = absolute(text)?;
    if uri.scheme_str() == Some("http") && !is_loopback(authority.host()) {
        return Err(Bad::Cleartext);
    }
    // The scheme and the host are lower case in what `Uri` writes; the path is as it was.
    let scheme = uri.scheme_str().unwrap_or("https");
    let authority = authority.as_str().to_ascii_lowercase();
    let path = uri.path().trim_end_matches('/');
    Ok(ApiUrl(format!("{scheme}://{authority}{path}").into()))
}

/// The base of the issuer's API.
pub(crate) fn api_base(text: &str) -> Result<ApiUrl, Bad> {
    let url = api_url(text)?;
    if url.as_str().ends_with("/v1") { Err(Bad::Version) } else { Ok(url) }
}

/// What `iss` is compared with: the text itself, when it is a URL without a slash at its end.
pub(crate) fn issuer(text: &str) -> Result<String, Bad> {
    absolute(text)?;
    if text.ends_with('/') { Err(Bad::Url) } else { Ok(text.to_owned()) }
}

/// `http://host[:port]`, `https://host[:port]`, or `unix:/path`
pub(crate) fn upstream(text: &str) -> Result<(UpstreamScheme, UpstreamAddress), Bad> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path);
    }
    let (uri, authority) = absolute(text)?;
    let (scheme, port) = match uri.scheme_str() {
        Some("http") => (UpstreamScheme::Http, 80),
        _ => (UpstreamScheme::Https, 443),
    };
    if !matches!(uri.path(), "" | "/") {
        return Err(Bad::UpstreamPath);
    }
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let place = Place::Tcp { host: bare.to_ascii_lowercase(), port: authority.port_u16().unwrap_or(port) };
    Ok((scheme, UpstreamAddress { place, loopback: is_loopback(host), authority }))
}

fn unix(path: &str) -> Result<(UpstreamScheme, UpstreamAddress), Bad> {
    if path.is_empty() || path.contains('\0') || path.starts_with("//") {
        return Err(Bad::SocketPath);
    }
    let place = Place::Unix(path.into());
    let authority = Authority::from_static("localhost");
    Ok((UpstreamScheme::Unix, UpstreamAddress { place, loopback: true, authority }))
}

/// `trusted_proxies`: a network, an address, or the name of a group.
pub(crate) fn networks(text: &str) -> Option<Vec<IpNet>> {
    let named: &[&str] = match text {
        "loopback" => &["127.0.0.0/8", "::1/128"],
        "private" => &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
        _ => {
            let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
            return Some(vec![network.trunc()]);
        }
    };
    named.iter().map(|network| network.parse().ok()).collect()
}

/// A path that is matched or written as it is: nothing in it may be read in two ways.
pub(crate) fn path(text: &str) -> Result<(), Bad> {
    let Some(rest) = text.strip_prefix('/') else { return Err(Bad::Relative) };
    if !text.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'?' | b'#' | b'"' | b'<' | b'>')) {
        return Err(Bad::PathCharacter);
    }
    let lower = text.to_ascii_lowercase();
    let dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    if lower.contains("//") || lower.contains('\\') || rest.split('/').any(dots) {
        return Err(Bad::Odd);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else { return Err(Bad::Odd) };
        match u8::try_from(high * 16 + low) {
            Ok(byte) if !matches!(byte, b'/' | b'\\' | b'.' | b'%' | 0) => decoded.push(byte),
            _ => return Err(Bad::Odd),
        }
    }
    if std::str::from_utf8(&decoded).is_err() { Err(Bad::Odd) } else { Ok(()) }
}

/// A path that stands for itself and everything below it.
pub(crate) fn prefix(text: &str) -> Result<(), Bad> {
    path(text)?;
    if text.len() > 1 && text.ends_with('/') { Err(Bad::TrailingSlash) } else { Ok(()) }
}

/// Whether `prefix` is `path` or ends in it at a border of segments.
pub(crate) fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
}

/// An absolute URL without user info, query and fragment.
pub(crate) fn absolute(text: &str) -> Result<(Uri, Authority), Bad> {
    // Before anything else: `Uri` cuts a fragment off in silence.
    if text.contains(['?', '#']) {
        return Err(Bad::Query);
    }
    let uri: Uri = text.parse().map_err(|_| Bad::Url)?;
    let authority = uri.authority().cloned().ok_or(Bad::Url)?;
    if authority.as_str().contains('@') {
        return Err(Bad::UserInfo);
    }
    let sound = matches!(uri.scheme_str(), Some("http" | "https"))
        && !uri.path().contains("//")
        && host(authority.host()).is_ok()
        && split_port(authority.as_str()).is_some();
    if sound { Ok((uri, authority)) } else { Err(Bad::Url) }
}

/// `host[:port]`, taken apart.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let after_literal = text.rfind(']').map_or(0, |end| end + 1);
    match text[after_literal..].find(':') {
        None => Some((text, None)),
        Some(colon) => {
            let (host, port) = text.split_at(after_literal + colon);
            let digits = &port[1..];
            let port = digits.parse().ok().filter(|port| *port > 0 && !digits.starts_with('+'))?;
            Some((host, Some(port)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for (text, serialised) in [
            ("https://app.example.com", "https://app.example.com"),
            ("HTTPS://App.Example.com:443", "https://app.example.com"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ] {
            assert_eq!(origin(text).unwrap().as_str(), serialised, "{text}");
        }
        for bad in
            ["", "null", "*", "app.example.com", "https://", "https://a/", "https://*.a", "https://a:0", "https://a:x"]
        {
            assert_eq!(origin(bad), Err(Bad::Origin), "{bad}");
        }
        assert_eq!(origin("https://me@a"), Err(Bad::UserInfo));
    }

    #[test]
    fn the_issuer_is_reached_in_the_clear_on_loopback_alone() {
        for (text, url) in [
            ("https://api.clerk.com", "https://api.clerk.com"),
            ("https://API.clerk.com/", "https://api.clerk.com"),
            ("http://127.0.0.1:6470", "http://127.0.0.1:6470"),
            ("http://[::1]:1/base/", "http://[::1]:1/base"),
            ("http://localhost", "http://localhost"),
        ] {
            assert_eq!(api_url(text).unwrap().as_str(), url, "{text}");
        }
        for (text, bad) in [
            ("http://api.clerk.com", Bad::Cleartext),
            ("http://127.0.0.1.example.com", Bad::Cleartext),
            ("http://10.0.0.1", Bad::Cleartext),
            ("https://user:pass@api.clerk.com", Bad::UserInfo),
            ("https://a/?x=1", Bad::Query),
            ("https://a/#x", Bad::Query),
            ("ftp://a", Bad::Url),
            ("//a", Bad::Url),
            ("https://", Bad::Url),
            ("a", Bad::Url),
            ("", Bad::Url),
            ("https://a:99999", Bad::Url),
        ] {
            assert_eq!(api_url(text), Err(bad), "{text}");
        }
        assert_eq!(api_base("https://api.clerk.com/v1/"), Err(Bad::Version));
    }

    #[test]
    fn an_upstream_is_a_host_and_a_port() {
        let tcp = |host: &str, port| Place::Tcp { host: host.to_owned(), port };
        let (scheme, address) = upstream("http://[::1]:8080/").unwrap();
        assert_eq!((scheme, address.place, address.loopback), (UpstreamScheme::Http, tcp("::1", 8080), true));
        assert_eq!(address.authority.as_str(), "[::1]:8080");
        let (_, address) = upstream("http://hasura").unwrap();
        assert_eq!((address.place, address.loopback), (tcp("hasura", 80), false));
        let (scheme, address) = upstream("https://api.example.com").unwrap();
        assert_eq!((scheme, address.place), (UpstreamScheme::Https, tcp("api.example.com", 443)));
        assert_eq!(address.authority.as_str(), "api.example.com");
        let (scheme, address) = upstream("unix:run/app.sock").unwrap();
        assert_eq!((scheme, address.place), (UpstreamScheme::Unix, Place::Unix("run/app.sock".into())));
        assert_eq!((address.authority.as_str(), address.loopback), ("localhost", true));
        for (text, bad) in [
            ("http://a/b", Bad::UpstreamPath),
            ("ftp://a", Bad::Url),
            ("http://u@a", Bad::UserInfo),
            ("a:80", Bad::Url),
            ("unix:", Bad::SocketPath),
            ("unix://host/a", Bad::SocketPath),
            ("unix:/a\0b", Bad::SocketPath),
        ] {
            assert_eq!(upstream(text), Err(bad), "{text}");
        }
    }

    #[test]
    fn a_host_is_matched_without_case_port_and_dot() {
        assert_eq!(host_pattern("API.Example.com."), Ok(HostPattern::Exact("api.example.com".to_owned())));
        assert_eq!(host_pattern("*.example.com"), Ok(HostPattern::Suffix(".example.com".to_owned())));
        assert_eq!(host_pattern("[::1]"), Ok(HostPattern::Exact("[::1]".to_owned())));
        for (text, bad) in [
            ("a:80", Bad::Port),
            ("[::1]:80", Bad::Port),
            ("::1", Bad::Host),
            ("*", Bad::Host),
            ("a.*", Bad::Host),
            ("", Bad::Host),
            ("a..b", Bad::Host),
            ("bücher.example", Bad::Host),
        ] {
            assert_eq!(host_pattern(text), Err(bad), "{text}");
        }
    }

    #[test]
    fn a_path_has_one_reading() {
        for good in ["/", "/v1/graphql", "/v1/", "/a;b/c", "/a%20b", "/%c3%a4", "/.well-known/x", "/a..b"] {
            assert_eq!(path(good), Ok(()), "{good}");
        }
        for bad in [
            "/a/../b", "/..", "/.", "/..;x/a", "//", "/a//b", "/a\\b", "/%2f", "/%5C", "/%2e%2e", "/%00", "/%ff",
            "/%2", "/%+1",
        ] {
            assert_eq!(path(bad), Err(Bad::Odd), "{bad}");
        }
        for bad in ["/ä", "/a b", "/a?b", "/a#b", "/\u{7f}"] {
            assert_eq!(path(bad), Err(Bad::PathCharacter), "{bad}");
        }
        assert_eq!(
            (path("a"), path(""), prefix("/a/")),
            (Err(Bad::Relative), Err(Bad::Relative), Err(Bad::TrailingSlash))
        );
    }

    #[test]
    fn a_prefix_ends_at_a_border_of_segments() {
        assert!(covers("/v1", "/v1") && covers("/v1", "/v1/x") && covers("/", "/v1"));
        assert!(!covers("/v1", "/v10") && !covers("/v1/x", "/v1"));
    }

    #[test]
    fn named_networks_are_known() {
        assert_eq!(networks("10.1.2.3"), Some(vec!["10.1.2.3/32".parse().unwrap()]));
        assert_eq!(networks("10.1.2.3/8"), Some(vec!["10.0.0.0/8".parse().unwrap()]));
        assert_eq!(networks("private").map(|all| all.len()), Some(4));
        assert_eq!(networks("loopback").map(|all| all.len()), Some(2));
        assert_eq!((networks("everybody"), networks("10.0.0.0/33")), (None, None));
    }
}
