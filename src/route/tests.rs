//! Tests of routing: which route a path finds, and that no other spelling of it finds another.

use proptest::prelude::*;

use super::*;

fn router(rules: &[(HostPattern, &str, bool, &[Method])]) -> Router {
    let matcher = |(host, path, exact, methods): &(HostPattern, &str, bool, &[Method])| {
        let (host, path) = (host.clone(), (*path).to_owned());
        Matcher { host, path, exact: *exact, methods: methods.to_vec(), listener: None }
    };
    let matchers: Vec<Matcher> = rules.iter().map(matcher).collect();
    routing(&matchers)
}

fn routing(matchers: &[Matcher]) -> Router {
    Router::of(&matchers.iter().enumerate().map(|(index, matcher)| (matcher, RouteId::new(index), false)))
}

fn listener() -> ListenerId {
    ListenerId::new(0)
}

fn found(router: &Router, host: &str, path: &str) -> Option<usize> {
    router.find(listener(), host, path, &Method::GET).ok().map(RouteId::index)
}

#[test]
fn exact_host_beats_suffix_beats_none() {
    let exact = HostPattern::Exact("api.example.com".to_owned());
    let suffix = HostPattern::Suffix(".example.com".to_owned());
    let router = router(&[(HostPattern::Any, "/", false, &[]), (suffix, "/", false, &[]), (exact, "/a", false, &[])]);
    assert_eq!(found(&router, "API.example.com.:443", "/a/b"), Some(2));
    assert_eq!(found(&router, "api.example.com", "/b"), Some(1));
    assert_eq!(found(&router, "example.com", "/b"), Some(0));
    assert_eq!(found(&router, "xexample.com", "/b"), Some(0));
    assert_eq!(found(&router, "[::1]:80", "/b"), Some(0));
}

#[test]
fn the_longest_path_wins_on_segment_borders() {
    let any = HostPattern::Any;
    let router = router(&[
        (any.clone(), "/a", false, &[]),
        (any.clone(), "/a/b", false, &[]),
        (any.clone(), "/a/b/c", true, &[]),
        (any, "/e/", true, &[]),
    ]);
    for (path, route) in [
        ("/a", Some(0)),
        ("/a/", Some(0)),
        ("/ab", None),
        ("/a/b", Some(1)),
        ("/a/b/c", Some(2)),
        ("/a/b/c/d", Some(1)),
        ("/a/bc", Some(0)),
        ("/", None),
        ("/e/", Some(3)),
        ("/e", None),
    ] {
        assert_eq!(found(&router, "h", path), route, "{path}");
    }
}

#[test]
fn a_path_without_that_method_is_405_and_never_a_shorter_path() {
    let any = HostPattern::Any;
    let router = router(&[(any.clone(), "/", false, &[]), (any, "/a", false, &[Method::POST, Method::PUT])]);
    let error = router.find(listener(), "h", "/a/x", &Method::GET);
    assert_eq!(error, Err(RouteError::MethodNotAllowed { allow: vec![Method::POST, Method::PUT] }));
    assert!(router.find(listener(), "h", "/a", &Method::POST).is_ok());
}

fn on(listener: usize, path: &str, methods: &[Method]) -> Matcher {
    let listener = Some(ListenerId::new(listener));
    Matcher { host: HostPattern::Any, path: path.to_owned(), exact: false, methods: methods.to_vec(), listener }
}

#[test]
fn a_listeners_own_route_beats_a_shared_one_and_no_other_listener_sees_it() {
    let shared = |path: &str, methods: &[Method]| Matcher { listener: None, ..on(0, path, methods) };
    let matchers = [
        shared("/a", &[Method::GET]),
        on(1, "/a", &[]),
        on(2, "/a", &[Method::POST]),
        on(1, "/", &[]),
        shared("/a/b", &[]),
    ];
    let router = routing(&matchers);
    let find = |listener, path: &str, method: &Method| {
        router.find(ListenerId::new(listener), "h", path, method).map(RouteId::index)
    };
    assert_eq!([0, 1, 2].map(|on| find(on, "/a", &Method::GET)), [Ok(0), Ok(1), Ok(0)]);
    assert_eq!(find(2, "/a", &Method::POST), Ok(2));
    assert_eq!([0, 1, 2].map(|on| find(on, "/a/b", &Method::GET)), [Ok(4), Ok(4), Ok(4)], "the longest path first");
    assert_eq!([0, 1].map(|on| find(on, "/x", &Method::GET)), [Err(RouteError::NoRoute), Ok(3)]);
    assert!(matches!(find(0, "/a", &Method::POST), Err(RouteError::MethodNotAllowed { .. })));
}

#[test]
fn a_spelling_that_leads_to_another_route_is_refused() {
    let any = HostPattern::Any;
    let router = router(&[(any.clone(), "/", false, &[]), (any, "/admin", false, &[])]);
    for spelling in [
        "/%61dmin",
        "/admi%6e/x",
        "/%2561dmin",
        "/admin;x/y",
        "/admin%3bx",
        "/admin%3fx",
        "/admin%23",
        "/admin%253f/x",
        "/%61dmin%3f",
        "/%252561dmin",
    ] {
        assert_eq!(router.find(listener(), "h", spelling, &Method::GET), Err(RouteError::OddPath), "{spelling}");
    }
    for (path, route) in
        [("/admin/%61", 1), ("/a%20b", 0), ("/x;y=1", 0), ("/admin/x;y", 1), ("/x%3fy", 0), ("/admin/%23", 1)]
    {
        assert_eq!(found(&router, "h", path), Some(route), "{path}");
    }
}

/// Fails where a reading ends at the first escape that is none, or at bytes that are no text.
#[test]
fn what_cannot_be_decoded_hides_no_other_escape() {
    let any = HostPattern::Any;
    let router = router(&[(any.clone(), "/", false, &[]), (any, "/admin", false, &[])]);
    for spelling in [
        "/%2561dmin/%256g",
        "/%2561dmin/%25",
        "/%2561dmin/%25zz",
        "/%2561dmin/%25ff",
        "/%2561dmin/x%25u",
        "/%25u0061dmin",
        "/%2561dmin;%256g/x",
        "/%2561dmin%253f%256g",
    ] {
        assert_eq!(router.find(listener(), "h", spelling, &Method::GET), Err(RouteError::OddPath), "{spelling}");
    }
    for (path, route) in
        [("/%256g", 0), ("/%2561dmin%25", 0), ("/100%25", 0), ("/admin/%256g", 1), ("/admin/100%25ff", 1)]
    {
        assert_eq!(found(&router, "h", path), Some(route), "{path}");
    }
}

#[test]
fn a_host_is_one_thing_only() {
    for good in ["a", "a.b:1", "[::1]", "[::1]:80", "127.0.0.1:6468", "a.", "a_b"] {
        assert!(check_host(good).is_ok(), "{good}");
    }
    for bad in ["", "a@b", "a b", "a/b", "a:b", "[::1", "a:123456", "é", "[]", ":80", "a?b", "a#b", "a,b"] {
        assert_eq!(check_host(bad), Err(RouteError::OddHost), "{bad}");
    }
}

/// `/files` takes odd paths; what lies below and beside it does not.
fn with_odd_files() -> Router {
    let any = HostPattern::Any;
    let paths = ["/", "/admin", "/files", "/files/private", "/b"];
    let rules: Vec<(_, _, _, &[Method])> = paths.iter().map(|path| (any.clone(), *path, false, &[][..])).collect();
    let mut router = router(&rules);
    router.shared.odd = true;
    router.shared.any.by_path.entry("/files").prefix[0].odd = true;
    router
}

#[test]
fn parameters_alone_at_the_end_are_an_honest_path() {
    assert!(!is_odd("/files/;jsessionid=1"));
    assert_eq!(found(&with_odd_files(), "h", "/files/;jsessionid=1"), Some(2));
}

#[test]
fn an_odd_path_passes_where_every_reading_is_the_routes_own() {
    let router = with_odd_files();
    for path in [
        "/files//a",
        "/files/a%2fb",
        "/files/a/../b",
        "/files/a/./b",
        "/files/a\\b",
        "/files/%ff",
        "/files/%zz",
        "/files/a%00b",
        "/files/x%5cy",
        "/files/%252f",
        "/files/;x/a",
    ] {
        assert!(is_odd(path));
        assert_eq!(found(&router, "h", path), Some(2), "{path}");
    }
    for path in [
        "//files/a",
        "/files/..",
        "/files/../admin",
        "/files/%2e%2e/admin",
        "/files/%252e%252e/admin",
        "/files/..;/admin",
        "/files/..%2fadmin",
        "/files/..\\admin",
        "/files/a/..//../admin",
        "/files//private",
        "/files/;x/private",
        "/files/%3bx/private",
        "/files/%253b/private",
        "/files/./private/x",
        "/files/%70rivate//",
        "/files/a%2f..%2fprivate",
        "/files\\..\\admin",
        "/files%2f..%2fadmin",
        "/files%00/../admin",
        "/files/%c0%ae%c0%ae/admin",
        "/files/%u002e%u002e/admin",
        "/files//%25252e%25252e/admin",
        "/%66iles//a",
        "/admin/..//files",
        "/admin//x",
        "/x//y",
    ] {
        assert_eq!(router.find(listener(), "h", path, &Method::GET), Err(RouteError::OddPath), "{path}");
    }
}

/// Readers that were written for this test alone, each one step of what a server may do.
fn read(path: &str, step: u8) -> String {
    let segments = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    match step {
        0 => {
            let mut bytes = Vec::new();
            let mut rest = path.as_bytes();
            while let [first, after @ ..] = rest {
                let text = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
                match text.and_then(|two| u8::from_str_radix(two, 16).ok()) {
                    Some(byte) if *first == b'%' => {
                        bytes.push(byte);
                        rest = &after[2..];
                    }
                    _ => {
                        bytes.push(*first);
                        rest = after;
                    }
                }
            }
            String::from_utf8_lossy(&bytes).into_owned()
        }
        1 => path.replace('\\', "/"),
        2 => {
            let mut path = path.to_owned();
            while path.contains("//") {
                path = path.replace("//", "/");
            }
            path
        }
        3 => segments(path).iter().map(|part| part.split(';').next().unwrap().to_owned()).collect::<Vec<_>>().join("/"),
        _ => {
            let mut kept = Vec::new();
            for part in segments(path).into_iter().skip(1) {
                match part.as_str() {
                    ".." => drop(kept.pop()),
                    "." => {}
                    _ => kept.push(part),
                }
            }
            format!("/{}", kept.join("/"))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whoever reads a path after us, in whatever order: what was let in as a file is a file, and not a private one.
    #[test]
    fn no_spelling_of_another_routes_path_gets_in(
        parts in prop::collection::vec(
            prop_oneof![
                Just("/"), Just("files"), Just("admin"), Just("private"), Just(".."), Just("."), Just("%2e"),
                Just("%2f"), Just("\\"), Just("%5c"), Just("%252e"), Just(";x"), Just("%3b"), Just("a"),
                Just("%25"), Just("2f"), Just("%66iles"), Just("%ff"), Just("%00"),
            ],
            0..10,
        ),
        steps in prop::collection::vec(0_u8..5, 0..8),
    ) {
        let path = format!("/files/{}", parts.concat());
        if found(&with_odd_files(), "h", &path) == Some(2) {
            let (mut reading, mut decoded) = (path.clone(), 0);
            for step in steps {
                decoded += u8::from(step == 0);
                if step != 0 || decoded <= 2 {
                    reading = read(&reading, step);
                }
                let below = |prefix: &str| reading == prefix || reading.starts_with(&format!("{prefix}/"));
                prop_assert!(below("/files") && !below("/files/private"), "{} is read as {}", path, reading);
            }
        }
    }
}
