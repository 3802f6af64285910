//! Paths: whatever a reader after us decodes, cuts or normalises, it ends at a path of the route that was found.
#![no_main]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use http::Method;
use libfuzzer_sys::fuzz_target;
use mintgate::metrics::ListenerId;
use mintgate::route::Router;
use mintgate_fuzz::gateway;

/// Path and whether it stands alone, in the order of the configuration.
const ROUTES: &[(&str, bool)] = &[("/", false), ("/a", false), ("/a/b", false), ("/c", true), ("/d", false)];

/// The route at `/d` takes odd paths.
static ROUTER: LazyLock<Router> = LazyLock::new(|| {
    let route = |(index, (path, exact)): (usize, &(&str, bool))| {
        let odd = if *path == "/d" { "allow_odd_paths = true\n" } else { "" };
        let matcher = format!("{{ path = \"{path}\", exact = {exact} }}");
        format!("[[routes]]\nname = \"r{index}\"\nmatch = {matcher}\nupstream = \"up\"\n{odd}")
    };
    let text: String = ROUTES.iter().enumerate().map(route).collect();
    Router::new(&gateway(&text).routes)
});

/// The longest route path, tried one after the other.
fn slow(path: &[u8]) -> Option<usize> {
    let fits = |(route, exact): (&str, bool)| {
        let route = route.trim_end_matches('/').as_bytes();
        path == route || (!exact && path.strip_prefix(route).is_some_and(|rest| rest.first() == Some(&b'/')))
    };
    let fitting = ROUTES.iter().enumerate().filter(|(_, route)| fits(**route));
    fitting.max_by_key(|(_, (route, _))| route.len()).map(|(index, _)| index)
}

fn decoded(path: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < path.len() {
        let digits =
            path.get(at + 1..at + 3).filter(|digits| path[at] == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        match digits {
            Some(digits) => {
                out.push(u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap());
                at += 3;
            }
            None => {
                out.push(path[at]);
                at += 1;
            }
        }
    }
    out
}

/// The escapes of letters, digits and `-._~` taken off, as everybody may (RFC 3986 section 6.2.2.2).
fn unreserved(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, part) in path.split(|&byte| byte == b'%').enumerate() {
        let digits = part.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|text| text.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = byte.and_then(|text| u8::from_str_radix(text, 16).ok());
        match byte.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            Some(byte) if index > 0 => out.extend([&[byte], &part[2..]].concat()),
            _ if index > 0 => out.extend([b"%", part].concat()),
            _ => out.extend(part),
        }
    }
    out
}

/// What a reader may make of a path, in one step that takes no escape off, or only one that means nothing.
fn rewritten(path: &[u8]) -> [Vec<u8>; 8] {
    let slashes = path.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect();
    let cut = path.iter().copied().take_while(|byte| !matches!(byte, 0 | b'?' | b'#')).collect();
    let segments: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
    let names: Vec<&[u8]> = segments.iter().map(|part| part.split(|&byte| byte == b';').next().unwrap()).collect();
    let (mut merged, mut plain) = (vec![], vec![]);
    for (index, segment) in segments.iter().enumerate().skip(1) {
        let last = index + 1 == segments.len();
        if !segment.is_empty() || last {
            merged.push(*segment);
        }
        match *segment {
            b".." => drop(plain.pop()),
            b"." => {}
            other => plain.push(other),
        }
        if last && matches!(*segment, b"." | b"..") {
            plain.push(b"");
        }
    }
    let rooted = |parts: Vec<&[u8]>| [b"/", &*parts.join(&b'/')].concat();
    // Two slashes begin a host, for a reader that takes this for a URL.
    let is_slash = |byte: &u8| b"/\\".contains(byte);
    let mut hostless = path.to_vec();
    if path.len() > 1 && path[..2].iter().all(is_slash) {
        let behind: Vec<u8> = path.iter().copied().skip_while(is_slash).skip_while(|byte| !is_slash(byte)).collect();
        hostless = if behind.is_empty() { b"/".to_vec() } else { behind };
    }
    [
        path.to_ascii_lowercase(),
        hostless,
        unreserved(path),
        slashes,
        cut,
        names.join(&b'/'),
        rooted(merged),
        rooted(plain),
    ]
}

/// Every reading with up to two layers of escapes taken off, in any order.
fn readings(path: &[u8]) -> BTreeSet<(Vec<u8>, u8)> {
    let mut seen = BTreeSet::from([(path.to_vec(), 0)]);
    let mut todo = vec![(path.to_vec(), 0)];
    while let Some((reading, layers)) = todo.pop() {
        let mut next: Vec<_> = rewritten(&reading).into_iter().map(|path| (path, layers)).collect();
        if layers < 2 {
            next.push((decoded(&reading), layers + 1));
        }
        for one in next {
            if seen.insert(one.clone()) {
                todo.push(one);
            }
        }
        assert!(seen.len() < 20_000, "too many readings");
    }
    seen
}

fuzz_target!(|path: &str| {
    // hyper lets no other through.
    if path.len() > 64
        || !path.starts_with('/')
        || !path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
    {
        return;
    }
    let found = ROUTER.find(ListenerId::new(0), "h", path, &Method::GET).ok().map(|route| route.index());
    if let Some(route) = found {
        for (reading, _) in readings(path.as_bytes()) {
            assert_eq!(slow(&reading), Some(route), "{path:?} as {:?}", String::from_utf8_lossy(&reading));
        }
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'/' | b'-' | b'_');
    if path.bytes().all(plain) && segments[..segments.len() - 1].iter().all(|segment| !segment.is_empty()) {
        assert_eq!(found, slow(path.as_bytes()), "{path:?} is plain");
    }
});
