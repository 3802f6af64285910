//! The configuration as a whole: defaults, samples, hostile files, and what is never shown.

mod bad;
mod described;
mod guards;
mod retry;
mod shared;
mod traces;
mod upstreams;
mod ways;
mod websocket;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::address::ListenAddress;
use crate::config::raw::describe::Describe as _;
use crate::config::{
    Access, HostPattern, Identity, KeySource, LogFormat, OnMintError, OnNoSession, Preflight, Rewrite, SessionSource,
    Source, Wire,
};

const PEM: &str = include_str!("tests/public.pem");
const HASURA: &str = include_str!("../../../config/hasura.toml");
const EGRESS: &str = include_str!("../../../config/egress.toml");
const FULL: &str = include_str!("../../../config/full.toml");

/// An outside that is made of two maps.
#[derive(Default)]
struct Outside {
    vars: BTreeMap<String, String>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Outside {
    fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.insert(name.to_owned(), value.to_owned());
        self
    }

    fn file(mut self, path: &str, text: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), text.into());
        self
    }
}

impl Environment for Outside {
    fn var(&self, name: &str) -> Option<String> {
        self.vars.get(name).cloned()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn exists(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }
}

fn outside() -> Outside {
    Outside::default()
        .var("CLERK_SECRET_KEY", "sk_live_fromenv")
        .var("BILLING_API_KEY", "billing")
        .var("HASURA_ADMIN_SECRET", "admin")
        .var("MINTGATE_CALLER_TOKEN", "caller")
        .var("MINTGATE_CONTROL_TOKEN", "control")
        .var("BILLING_TOKEN", "billing-token")
        .var("CLERK_WEBHOOK_SIGNING_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        .var("OTLP_AUTHORIZATION", "Basic b3RscDpjYW5hcnk=")
        .file("/etc/mintgate/clerk-jwt.pem", PEM)
        .file("/etc/mintgate/secret", "sk_test_fromfile\n")
}

fn parse_in(outside: &Outside, source: &str) -> Result<(Config, Diagnostics), Diagnostics> {
    parse(source, Path::new("/etc/mintgate/mintgate.toml"), outside, Secrets::Required)
}

#[track_caller]
fn good(source: &str) -> Config {
    match parse_in(&outside(), source) {
        Ok((config, warnings)) => {
            assert!(warnings.is_empty(), "{warnings}");
            config
        }
        Err(diagnostics) => panic!("{diagnostics}"),
    }
}

/// What is said about a file, errors or warnings.
fn said(source: &str) -> String {
    match parse_in(&outside(), source) {
        Ok((_, warnings)) => warnings.to_string(),
        Err(diagnostics) => diagnostics.to_string(),
    }
}

/// The least that takes sessions and mints.
const LEAST: &str = r#"
[clerk]
secret_key = { env = "CLERK_SECRET_KEY" }
[[routes]]
name = "api"
upstream = "http://127.0.0.1:8090"
session = ["bearer"]
inject = [{ header = "authorization", prefix = "Bearer ", template = "custom_hasura" }]
"#;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn the_defaults_of_clerk_are_those_of_the_design() {
    let clerk = good(LEAST).clerk;
    assert_eq!(clerk.secret_keys.len(), 1);
    assert_eq!(clerk.secret_keys[0].expose(), "sk_live_fromenv");
    assert!(clerk.publishable_key.is_none() && clerk.authorized_parties.is_empty());
    assert!(clerk.issuer.is_none() && clerk.audience.is_empty() && clerk.ca.is_none());
    assert_eq!(clerk.api_url.as_str(), "https://api.clerk.com");
    assert_eq!(clerk.api_version, "2026-05-12");
    assert_eq!((clerk.clock_skew, clerk.connect_timeout, clerk.timeout), (seconds(5), seconds(2), seconds(5)));
    let KeySource::Jwks { url, with_secret, refresh } = clerk.keys else { panic!("{:?}", clerk.keys) };
    assert_eq!((url.as_str(), with_secret, refresh), ("https://api.clerk.com/v1/jwks", true, seconds(300)));
    let budget = clerk.budget;
    assert_eq!((budget.requests, budget.per, budget.replicas), (1000, seconds(10), 1));
    assert!((budget.share - 0.8).abs() < 1e-9 && (budget.reserve - 0.2).abs() < 1e-9);
    assert_eq!((budget.per_session.count, budget.per_session.per), (20, seconds(10)));
    assert_eq!((budget.max_concurrent, budget.max_waiting), (32, 1024));
}

#[test]
fn the_defaults_of_the_process_are_those_of_the_design() {
    let config = good(LEAST);
    let server = config.server;
    let own = ListenAddress::Tcp("127.0.0.1:6468".parse().unwrap());
    assert_eq!(
        (server.listen[0].address.clone(), server.listen[0].name.as_str(), server.workers),
        (own, "127.0.0.1:6468", 0)
    );
    let limits = server.limits;
    assert_eq!((limits.max_connections, limits.max_header_bytes, limits.max_uri_bytes), (10_000, 32 << 10, 16 << 10));
    assert_eq!((limits.first_byte, limits.header_read), (Some(seconds(10)), Some(seconds(10))));
    assert_eq!(limits.idle, Some(seconds(75)));
    assert_eq!((limits.body_progress, limits.write_stall), (Some(seconds(30)), Some(seconds(30))));
    assert_eq!((limits.request_body, limits.max_age), (None, None));
    assert!(server.tls.is_none());
    assert_eq!((server.drain_delay, server.drain_timeout), (Duration::ZERO, seconds(25)));
    assert!(server.trusted_proxies.networks.is_empty());
    assert_eq!(config.admin, None);
    let log = config.log;
    assert_eq!((log.filter.as_str(), log.format), ("info", LogFormat::Auto));
    assert_eq!((log.access, log.identity), (Access::Errors, Identity::Hash));
    let cache = config.cache;
    assert_eq!((cache.max_bytes, cache.max_session_bytes), (64 << 20, 32 << 20));
    assert_eq!((cache.min_remaining, cache.max_lifetime), (seconds(5), seconds(3600)));
    assert_eq!((cache.refresh_at, cache.missing_ttl), (Some(0.8), Some(seconds(5))));
}

#[test]
fn the_defaults_of_upstreams_and_routes_are_those_of_the_design() {
    let config = good(&LEAST.replace("session = [\"bearer\"]\n", "session = [\"bearer\"]\nmatch = {}\n"));
    let upstream = &config.upstreams[0];
    assert_eq!((upstream.name.as_str(), &upstream.wire), ("http://127.0.0.1:8090", &Wire::Http1));
    assert_eq!((upstream.connect_timeout, upstream.response_timeout), (Some(seconds(2)), Some(seconds(60))));
    let pool = &upstream.pool;
    assert_eq!(
        (pool.max_idle, pool.idle_timeout, pool.max_connections, pool.max_streams),
        (1024, Some(seconds(4)), None, 100)
    );
    assert_eq!(upstream.max_header_bytes, 16 << 10);
    assert!(upstream.remove_headers.is_empty());
    let route = &config.routes[0];
    assert_eq!((&route.matcher.host, route.matcher.path.as_str()), (&HostPattern::Any, "/"));
    assert!(!route.matcher.exact && route.matcher.methods.is_empty());
    assert_eq!(route.rewrite, Rewrite::Keep);
    assert!(route.preserve_host, "a loopback upstream");
    assert_eq!((route.on_no_session, route.on_mint_error), (OnNoSession::Reject, OnMintError::Fail));
    assert_eq!((route.preflight, route.timeout, route.log_access), (Preflight::Pass, None, true));
    assert!(!route.rules.allow_pending && !route.forward_credential && !route.forward_clerk_cookies);
    assert!(route.keep_headers.is_empty() && !route.inject[0].required);
    let Source::Minted(spec) = &route.inject[0].source else { panic!() };
    assert_eq!((spec.kind.label(), spec.expires_in, spec.id.index()), ("custom_hasura", None, 0));
    let by_default = said(&LEAST.replace("session = [\"bearer\"]\n", ""));
    assert!(by_default.contains("takes the session cookie"), "bearer and cookie are the default: {by_default}");
    let far = good(&LEAST.replace("127.0.0.1:8090", "hasura:8090"));
    assert!(!far.routes[0].preserve_host);
}

#[test]
fn the_budget_follows_the_kind_of_key() {
    let test = good(
        &LEAST.replace("{ env = \"CLERK_SECRET_KEY\" }", "[{ file = \"secret\" }, { env = \"CLERK_SECRET_KEY\" }]"),
    );
    assert_eq!(test.clerk.budget.requests, 100);
    let keys: Vec<_> = test.clerk.secret_keys.iter().map(crate::secret::Secret::expose).collect();
    assert_eq!(keys, ["sk_test_fromfile", "sk_live_fromenv"], "in order, without the file's newline");
    // Behind a hub the key is no secret key of Clerk's, and the instance is the publishable key's.
    for (publishable, requests) in [("pk_test_Y2xlcmsuY2xlcmsuZGV2JA", 100), ("pk_live_Y2xlcmsuY2xlcmsuZGV2JA", 1000)] {
        let behind = "secret_key = { env = \"BILLING_TOKEN\" }\napi_url = \"http://127.0.0.1:6474\"";
        let source = LEAST.replace("secret_key = { env = \"CLERK_SECRET_KEY\" }", behind);
        let source = source.replace("[clerk]", &format!("[clerk]\npublishable_key = \"{publishable}\""));
        assert!(source.contains("BILLING_TOKEN") && source.contains(publishable), "{source}");
        assert_eq!(good(&source).clerk.budget.requests, requests, "{publishable}");
    }
    let written = good(&format!("{LEAST}[clerk.budget]\nrequests = 7\nshare = 1\nper = \"1m\"\n"));
    assert_eq!((written.clerk.budget.requests, written.clerk.budget.per), (7, seconds(60)));
}

#[test]
fn what_is_off_is_none() {
    let config = good(&format!(
        "{LEAST}timeout = \"off\"\n[server]\nidle_timeout = \"off\"\nfirst_byte_timeout = \"0\"\nrequest_body_limit = \"off\"\n\
         drain_timeout = \"0\"\nmax_connection_age = \"0\"\n[cache]\nrefresh_at = \"off\"\nmissing_ttl = \"0s\"\n"
    ));
    let limits = config.server.limits;
    assert_eq!((limits.idle, limits.first_byte, limits.request_body), (None, None, None));
    assert_eq!(config.server.drain_timeout, Duration::ZERO);
    assert_eq!((config.cache.refresh_at, config.cache.missing_ttl), (None, None));
}

#[test]
fn keys_come_from_where_the_file_says() {
    let pinned = good(&LEAST.replace("[clerk]", "[clerk]\njwt_key = { file = \"clerk-jwt.pem\" }"));
    assert!(matches!(pinned.clerk.keys, KeySource::Pinned(der) if der.len() == 294));
    let elsewhere =
        good(&LEAST.replace("[clerk]", "[clerk]\njwks_url = \"https://clerk.example.com/.well-known/jwks.json\""));
    assert!(
        matches!(elsewhere.clerk.keys, KeySource::Jwks { with_secret: false, .. }),
        "the secret goes to the API alone"
    );
    let near = good(&LEAST.replace("[clerk]", "[clerk]\njwks_url = \"https://api.clerk.com.example.com/v1/jwks\""));
    assert!(matches!(near.clerk.keys, KeySource::Jwks { with_secret: false, .. }));
    let own = good(&LEAST.replace("[clerk]", "[clerk]\njwks_url = \"https://api.clerk.com/v1/jwks\""));
    assert!(matches!(own.clerk.keys, KeySource::Jwks { with_secret: true, .. }));
    let public = good("[[routes]]\nname = \"a\"\nupstream = \"http://a\"\nsession = []\n");
    assert!(matches!(public.clerk.keys, KeySource::None));
}

#[test]
fn the_publishable_key_gives_the_issuer() {
    let key = "publishable_key = \"pk_live_Y2xlcmsuZXhhbXBsZS5jb20k\"";
    let config = good(&LEAST.replace("[clerk]", &format!("[clerk]\n{key}")));
    assert_eq!(config.clerk.issuer.as_deref(), Some("https://clerk.example.com"));
    let config = good(&LEAST.replace("[clerk]", &format!("[clerk]\n{key}\nissuer = \"https://other.example\"")));
    assert_eq!(config.clerk.issuer.as_deref(), Some("https://other.example"));
}

#[test]
fn upstreams_and_templates_are_shared_by_what_they_are() {
    let routes = |index: usize, upstream: &str, template: &str| {
        format!(
            "[[routes]]\nname = \"r{index}\"\nmatch = {{ path = \"/{index}\" }}\nupstream = \"{upstream}\"\nsession = [\"bearer\"]\n\
             inject = [{{ header = \"authorization\", template = \"{template}\" }}]\n"
        )
    };
    let config = good(&format!(
        "[clerk]\nsecret_key = {{ env = \"CLERK_SECRET_KEY\" }}\n[upstreams.z]\nurl = \"http://z\"\n[upstreams.a]\nurl = \"http://a\"\n{}{}{}",
        routes(0, "a", "two"),
        routes(1, "http://z/", "one"),
        routes(2, "http://z", "two"),
    ));
    let names: Vec<_> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names, ["z", "a", "http://z"], "named ones in the order of the file, then those of routes");
    let used: Vec<_> = config.routes.iter().map(|route| route.upstream.unwrap().index()).collect();
    assert_eq!(used, [1, 2, 2]);
    let templates: Vec<_> = config.templates().map(crate::config::TemplateName::as_str).collect();
    assert_eq!(templates, ["two", "one"]);
    assert!(config.upstreams.iter().enumerate().all(|(index, upstream)| upstream.id.index() == index));
}

#[test]
fn the_samples_are_good() {
    let hasura = good(HASURA);
    assert_eq!(hasura.routes[0].on_no_session, OnNoSession::Pass);
    assert_eq!(hasura.routes[0].session, [SessionSource::Bearer]);
    assert!(hasura.upstreams[0].remove_headers.contains_str("x-hasura-role"));
    let egress = good(EGRESS);
    assert!(matches!(&egress.routes[0].session[..], [SessionSource::Header(name)] if name == "x-session-token"));
    assert_eq!(egress.routes[0].rewrite, Rewrite::Strip("/rest/v1".to_owned()));
    let to = Rewrite::Replace { from: "/billing".to_owned(), to: "/api/v2".to_owned() };
    assert_eq!(egress.routes[1].rewrite, to);
    let full = good(FULL);
    assert_eq!((full.routes.len(), full.upstreams.len(), full.routes[0].inject.len()), (4, 3, 7));
    let replicas: Vec<_> = full.upstreams[1].addresses.iter().map(|address| address.authority.as_str()).collect();
    assert_eq!(replicas, ["10.0.0.1:8443", "10.0.0.2:8443"]);
    assert_eq!(full.upstreams[2].addresses[0].authority, "127.0.0.1:8091");
}

#[test]
fn the_full_sample_has_every_key() {
    let key_of = |line: &str| line.trim_start_matches("# ").split_once(" =").map(|(key, _)| key.trim().to_owned());
    let written: Vec<String> = FULL.lines().filter_map(key_of).collect();
    for table in raw::File::shape().tables() {
        for key in table.keys.iter().map(|key| key.name) {
            let inline = FULL.contains(&format!("{{ {key} = ")) || FULL.contains(&format!(", {key} = "));
            let table = FULL.contains(&format!("[{key}]"))
                || FULL.contains(&format!(".{key}]"))
                || FULL.contains(&format!("[{key}."));
            assert!(inline || table || written.iter().any(|own| own == key), "config/full.toml does not show `{key}`");
        }
    }
}

#[test]
fn a_terse_file_is_enough() {
    let config = good(
        r#"
[clerk]
secret_key = { env = "CLERK_SECRET_KEY" }
api_url = "http://127.0.0.1:6470"
issuer = "https://clerk.example.test"
authorized_parties = ["https://app.example.test"]
jwt_key = { file = "/etc/mintgate/clerk-jwt.pem" }
[clerk.budget]
requests = 1000000
per_session = "1000/10s"
max_concurrent = 256
max_waiting = 100000
[server]
listen = ["127.0.0.1:0", "127.0.0.1:6468"]
workers = 1
[admin]
listen = "127.0.0.1:6469"
[[routes]]
name = "bench"
upstream = "http://127.0.0.1:6471"
session = ["bearer"]
inject = [ { header = "authorization", prefix = "Bearer ", template = "custom_hasura" } ]
"#,
    );
    assert_eq!((config.server.workers, config.clerk.budget.max_waiting), (1, 100_000));
    assert_eq!(config.routes[0].rules.authorized_parties, config.clerk.authorized_parties);
}

#[test]
fn variables_are_expanded_in_values() {
    let text = LEAST.replace("http://127.0.0.1:8090", "http://${HOST:-127.0.0.1}:${PORT}");
    let (config, _) = parse_in(&outside().var("PORT", "9"), &text).unwrap();
    assert_eq!(config.upstreams[0].addresses[0].authority.as_str(), "127.0.0.1:9");
    assert!(said(&text).contains("the environment variable is not set"));
}

#[test]
fn the_environment_chooses_the_log_filter() {
    let (config, _) = parse_in(&outside().var("MINTGATE_LOG", "debug"), LEAST).unwrap();
    assert_eq!(config.log.filter, "debug");
    let error = parse_in(&outside().var("MINTGATE_LOG", "a=b=c"), LEAST).unwrap_err();
    assert_eq!(error.titles().collect::<Vec<_>>(), ["the environment variable MINTGATE_LOG is not a log filter"]);
}

#[test]
fn an_absent_secret_stops_run_and_not_check() {
    let none = Outside::default();
    let path = Path::new("mintgate.toml");
    let text = LEAST.replace(
        "template = \"custom_hasura\" }",
        "template = \"custom_hasura\" }, { header = \"apikey\", value = { file = \"none\" } }",
    );
    assert_eq!(parse(&text, path, &none, Secrets::Required).unwrap_err().errors(), 2);
    let (config, warnings) = parse(&text, path, &none, Secrets::Optional).unwrap();
    assert_eq!((warnings.warnings(), warnings.errors()), (2, 0));
    assert!(config.clerk.secret_keys.is_empty());
    assert!(matches!(config.routes[0].inject[1].source, Source::Value(None)));
    assert!(matches!(config.clerk.keys, KeySource::Jwks { with_secret: true, .. }));
    let empty = Outside::default().var("CLERK_SECRET_KEY", "");
    assert!(parse(LEAST, path, &empty, Secrets::Required).is_err(), "an empty one is absent");
}

#[test]
fn a_configuration_is_found_in_order() {
    let in_etc = Outside::default().file("/etc/mintgate/mintgate.toml", "");
    let here = Outside::default().file("/etc/mintgate/mintgate.toml", "").file("./mintgate.toml", "");
    let named = Outside::default().file("./mintgate.toml", "").var("MINTGATE_CONFIG", "b.toml");
    assert_eq!(locate(Some(Path::new("a.toml")), &named), Ok("a.toml".into()));
    assert_eq!(locate(None, &named), Ok("b.toml".into()));
    assert_eq!(locate(None, &here), Ok("./mintgate.toml".into()));
    assert_eq!(locate(None, &in_etc), Ok("/etc/mintgate/mintgate.toml".into()));
    let error = locate(None, &Outside::default().var("MINTGATE_CONFIG", "")).unwrap_err();
    assert_eq!(error.looked_at.len(), 2);
}

#[test]
fn a_file_that_cannot_be_read_is_said_so() {
    let outside = Outside::default().file("bytes", [0xff, 0xfe]);
    let title = |path: &str| {
        let error = load(Path::new(path), &outside, Secrets::Required).unwrap_err();
        error.titles().next().map(str::to_owned)
    };
    assert_eq!(title("bytes").as_deref(), Some("the file is not UTF-8 text"));
    assert!(title("none").is_some_and(|title| title.starts_with("cannot read the file")));
}

/// Lines that put a secret where none may stand.
const MISPLACED: &[&str] = &[
    "[clerk]\nsecret_key = \"canary\"",
    "[clerk]\nsecret_key = [\"canary\", { env = \"A\" }]",
    "[clerk]\nsecret_key = canary",
    "[clerk]\nsecret_key = [\"canary\", oops]",
    "[clerk]\nsecret_key = [\n  \"canary\" oops\n]",
    "[clerk]\nsecret_key = { \"canary\" }",
    "[clerk]\nsecret_key = '''\ncanary\n",
    "[clerk]\nsecret_key = { env = \"A\" }\nsecret_key = \"canary\"",
    "[clerk]\nsecret_key = { env = \"sk_live_canary\" }",
    "[clerk]\nsecret_key = { env = \"can ary canary\" }",
    "[clerk]\nsecret_key = { literal = \"canary\" }",
    "[clerk]\nsecret_key = { env = \"A\", file = 5 } # sk_live_canary",
    "[clerk]\nsecret_kye = \"canary\"",
    "[clerk]\nsk_live_canary = 5",
    "[clerk]\napi_url = \"https://user:canary@api.clerk.com\"",
    "[clerk]\napi_url = \"https://us/er:can?ary@canary@api.clerk.com\"",
    "[clerk]\napi_url = \"${SECRET}\"",
    "[clerk]\nissuer = \"https://${SECRET}@a.example\"",
    "[clerk]\npublishable_key = \"sk_live_canary\"",
    "[clerk]\npublishable_key = \"\\u0073k_live_canary\"",
    "[cache.shared]\nurl = \"redis://a\"\npassword = \"canary\"",
    "[cache]\nshared = { password = \"canary\" }",
    "[webhooks]\nsigning_secret = \"whsec_canary\"",
    "[webhooks]\nlisten = \"127.0.0.1:1\"\nsigning_secret = [{ env = \"SECRET\" }]",
    "[token_api]\nlisten = \"127.0.0.1:1\"\ncallers = [{ name = \"a\", token = \"canary\", templates = [\"t\"] }]",
    "[token_api]\nlisten = \"127.0.0.1:1\"\ncallers = [{ name = \"a\", token = { env = \"BROKEN\" }, templates = [\"t\"] }]",
    "[upstreams.a]\nurl = \"http://me:canary@host\"",
    "[[routes]]\nname = \"a\"\nupstream = \"http://${SECRET}@host\"\nsession = []",
    "[[routes]]\nname = \"a\"\nupstream = \"http://h\"\nsession = []\ninject = [{ header = \"host\", value = \"canary\" }]",
    "[[routes]]\nname = \"a\"\nupstream = \"http://h\"\nsession = []\ninject = [{ header = \"x\", vale = \"canary\" }]",
    "[[routes]]\nname = \"a\"\nupstream = \"http://h\"\nsession = []\ninject = [{ header = \"x\", value = { env = \"SECRET\" }, prefix = \"\\n\" }]",
    "[[routes]]\nname = \"a\"\nupstream = \"http://h\"\nsession = []\ninject = [{ header = \"x\", value = { env = \"BROKEN\" } }]",
    "[[routes]]\nname = \"${SECRET} x\"\nupstream = \"${SECRET}\"\non_no_session = \"${SECRET}\"\ninject = [{ header = \"x\", claim = \"${SECRET}\" }]",
    "[log]\nfilter = \"${SECRET}=b=c\"\naccess = \"${SECRET}\"",
    "[server]\nlisten = [\"${SECRET}\"]\nidle_timeout = \"${SECRET}\"\nmax_uri_bytes = \"${SECRET}\"\ntrusted_proxies = [\"${SECRET}\"]",
];

#[test]
fn no_diagnostic_echoes_a_secret() {
    let outside = outside().var("SECRET", "canary").var("BROKEN", "canary\ncanary");
    for source in MISPLACED {
        for colours in [false, true] {
            let found = parse_in(&outside, source).expect_err(source);
            let seen = format!("{} {found:?} {found}", found.render(colours));
            assert!(!seen.contains("canary"), "{seen}");
        }
    }
}

fn never_panics(source: &str) {
    for secrets in [Secrets::Required, Secrets::Optional] {
        let outside = outside();
        let found = match parse(source, Path::new("/etc/mintgate/a.toml"), &outside, secrets) {
            Ok((_, warnings)) => {
                assert_eq!(warnings.errors(), 0);
                warnings
            }
            Err(errors) => {
                assert!(errors.errors() > 0, "refused, and no reason given");
                errors
            }
        };
        assert_eq!(found.is_empty(), found.render(false).is_empty());
        let _ = found.render(true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_judged_without_a_panic(source in "\\PC{0,200}") {
        never_panics(&source);
    }

    #[test]
    fn anything_like_toml_is_judged_without_a_panic(
        lines in proptest::collection::vec("(\\[\\[?)?(clerk|server|routes|inject|cache|a)?\\.?(listen|url|name)?(\\]\\]?)?( = )?(\"[$\\{\\}a-zé:/]{0,8}\"|[0-9.-]{0,4}|\\{[a-z =]{0,6}\\}?|\\[\"?)", 0..12),
    ) {
        never_panics(&lines.join("\n"));
    }

    #[test]
    fn a_spoilt_sample_is_judged_without_a_panic(
        which in 0..3usize,
        at in any::<prop::sample::Index>(),
        length in 0..12usize,
        instead in prop_oneof![
            Just(""), Just("\""), Just("[]"), Just("{}"), Just("0"), Just("-1"), Just("1e308"), Just("nan"), Just("true"), Just("\n"),
            Just("é"), Just("${"), Just("$"), Just("'''"), Just("99999999999999999999"), Just("1979-05-27"), Just("\u{1b}[31m"), Just("\r"),
        ],
    ) {
        let sample = [HASURA, EGRESS, FULL][which];
        let start = sample.char_indices().nth(at.index(sample.len())).map_or(0, |(start, _)| start);
        let end = (start + length).min(sample.len());
        never_panics(&format!("{}{instead}{}", &sample[..start], &sample[end..]));
    }
}
