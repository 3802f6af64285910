//! `[cache.shared]`

use super::*;
use crate::config::Shared;
use crate::config::shared::{Node, Reach};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

const ROUTE: &str = "[[routes]]\nname = \"api\"\nupstream = \"http://127.0.0.1:1\"\nsession = []\n";

fn source(lines: &str) -> String {
    format!("[cache.shared]\n{lines}\n{ROUTE}")
}

fn read(lines: &str) -> Result<Shared, Diagnostics> {
    let outside = outside().var("KEY", KEY).var("OTHER", &KEY.replace('A', "B")).var("PASSWORD", "canary");
    parse_in(&outside, &source(lines)).map(|(config, _)| config.shared.unwrap())
}

fn url(url: &str) -> Result<Shared, Diagnostics> {
    read(&format!("url = \"{url}\"\nencryption_key = {{ env = \"KEY\" }}"))
}

fn node(host: &str, port: u16) -> Node {
    Node { host: host.to_owned(), port }
}

#[test]
fn the_shared_cache_is_off_without_its_section_and_has_the_defaults_of_the_design() {
    assert!(parse_in(&outside(), ROUTE).unwrap().0.shared.is_none());
    let shared = url("redis://127.0.0.1").unwrap();
    assert_eq!((shared.prefix.as_str(), shared.timeout), ("mintgate:", Duration::from_millis(50)));
    assert!(shared.password.is_none() && shared.previous.is_none());
}

#[test]
fn a_url_says_where_redis_is() {
    for (text, reach, tls, database) in [
        ("redis://cache.example:6380/2", Reach::Server(node("cache.example", 6380)), false, 2),
        ("rediss://[::1]", Reach::Server(node("::1", 6379)), true, 0),
        ("redis://[::1]:7000/", Reach::Server(node("::1", 7000)), false, 0),
        ("unix:/run/redis.sock", Reach::Socket("/run/redis.sock".into()), false, 0),
        ("unix:redis.sock", Reach::Socket("/etc/mintgate/redis.sock".into()), false, 0),
        ("redis+unix:///run/redis.sock?db=3", Reach::Socket("/run/redis.sock".into()), false, 3),
        ("rediss-cluster://a,b:7001", Reach::Cluster(vec![node("a", 6379), node("b", 7001)]), true, 0),
        (
            "redis-sentinel://a,b:1/4#main",
            Reach::Sentinel { sentinels: vec![node("a", 26379), node("b", 1)], master: "main".to_owned() },
            false,
            4,
        ),
    ] {
        let redis = url(text).unwrap_or_else(|problems| panic!("{text}: {problems}")).redis;
        assert_eq!((redis.reach, redis.tls, redis.database), (reach, tls, database), "{text}");
    }
    for text in [
        "127.0.0.1:6379",
        "http://a",
        "redis://",
        "redis://a,b",
        "redis://a/x",
        "redis://a:0",
        "redis://a b",
        "unix:",
        "redis-cluster://a/1",
        "redis-sentinel://a",
        "redis-sentinel://a#",
        "redis://a#b",
        "redis://user:canary@a",
    ] {
        let problems = url(text).expect_err(text).render(false);
        assert!(problems.contains("write \"redis://host:6379/0\"") && !problems.contains("canary"), "{problems}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let whole = "url = \"rediss://a\"\nencryption_key = { env = \"KEY\" }\n";
    for (lines, said) in [
        ("", "[cache.shared] needs `url`"),
        ("url = \"redis://a\"", "[cache.shared] needs `encryption_key`"),
        ("url = \"redis://a\"\nencryption_key = { env = \"PASSWORD\" }", "not a key"),
        (&format!("{whole}encryption_key_previous = {{ env = \"KEY\" }}"), "both keys are the same"),
        (&format!("{whole}timeout = \"6s\""), "Redis would hold up every mint"),
        (&format!("{whole}timeout = \"0\""), "the duration is too short"),
        (&format!("{whole}prefix = \"{{a}}\""), "not a prefix of names"),
        (&format!("{whole}username = \"a\""), "a user logs in with a `password`"),
        (&format!("{}ca_file = \"ca.pem\"", whole.replace("rediss", "redis")), "cannot read the file"),
    ] {
        let problems = read(lines).expect_err(lines).render(false);
        assert!(problems.contains(said) && !problems.contains("canary"), "{problems}");
    }
}

#[test]
fn a_password_in_clear_text_is_warned_of() {
    let outside = outside().var("KEY", KEY).var("PASSWORD", "canary");
    for (url, warned) in [
        ("redis://cache.example", true),
        ("rediss://cache.example", false),
        ("redis://127.0.0.1", false),
        ("redis://10.0.0.7", false),
        ("unix:/run/redis.sock", false),
    ] {
        let lines =
            format!("url = \"{url}\"\npassword = {{ env = \"PASSWORD\" }}\nencryption_key = {{ env = \"KEY\" }}");
        let (_, warnings) = parse_in(&outside, &source(&lines)).unwrap();
        assert_eq!(warnings.render(false).contains("the password goes to Redis in clear text"), warned, "{url}");
    }
}

/// Fails where webhooks are said to reach one process while all of them hear it.
#[test]
fn with_it_webhooks_reach_every_replica() {
    let outside = outside().var("KEY", KEY).var("WHSEC", "whsec_ZG9jdW1lbnRz");
    let webhooks = "[webhooks]\nlisten = \"127.0.0.1:1\"\nsigning_secret = { env = \"WHSEC\" }\n";
    let lines = "url = \"redis://127.0.0.1\"\nencryption_key = { env = \"KEY\" }";
    for (text, alone) in [(format!("{webhooks}{ROUTE}"), true), (format!("{webhooks}{}", source(lines)), false)] {
        let (_, warnings) = parse_in(&outside, &text).unwrap();
        assert_eq!(warnings.render(false).contains("webhooks reach this process only"), alone);
    }
}

/// Under `check` a key need not be there.
#[test]
fn a_key_that_is_not_there_is_told_of() {
    let source = source("url = \"redis://127.0.0.1\"\nencryption_key = { env = \"NONE\" }");
    let path = Path::new("/etc/mintgate/a.toml");
    let (config, warnings) = parse(&source, path, &outside(), Secrets::Optional).unwrap();
    assert!(warnings.render(false).contains("the environment variable is not set"));
    let (one, other) = (config.shared.unwrap().key, parse(&source, path, &outside(), Secrets::Optional).unwrap().0);
    assert!(one != other.shared.unwrap().key, "what stands in for it is nobody else's");
    assert!(parse(&source, path, &outside(), Secrets::Replaced).unwrap().0.shared.is_none());
    assert!(parse(&source, path, &outside(), Secrets::Required).is_err());
}

#[test]
fn what_a_url_says_is_told_again() {
    for text in [
        "redis://cache.example:6380/2",
        "rediss://[::1]:6379",
        "unix:/run/redis.sock",
        "unix:/run/redis.sock?db=3",
        "rediss-cluster://a:6379,b:7001",
        "redis-sentinel://a:26379,b:1/4#main",
    ] {
        assert_eq!(url(text).unwrap().redis.to_string(), text);
    }
}
