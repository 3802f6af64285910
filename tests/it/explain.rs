//! `mintgate explain`: it says what the gateway does, and shows neither token nor secret.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};

use crate::harness::{ALICE, Boot, Harness, call, client, now_ms};

const CLERK: &str = r#"authorized_parties = ["https://app.example.com"]"#;

const TABLES: &str = r#"
[[routes]]
name = "api"
match = { path = "/api" }
upstream = "up"
strip_prefix = "/api"
inject = [
  { header = "authorization", prefix = "Bearer ", template = "plain", expires_in = "5m" },
  { header = "x-user-id", claim = "sub" },
  { header = "x-plan", claim = "/metadata/plan" },
  { header = "apikey", value = { env = "CLERK_SECRET_KEY" } },
]
[[routes]]
name = "get"
match = { host = "api.example.com", path = "/get", methods = ["GET"], exact = true }
upstream = "up"
session = [{ header = "x-session-token" }]
[[routes]]
name = "plan"
match = { path = "/plan" }
upstream = "up"
inject = [{ header = "x-plan", claim = "/metadata/plan", required = true }]
[[routes]]
name = "welcome"
match = { path = "/welcome" }
upstream = "up"
on_no_session = "pass"
inject = [{ header = "x-user-id", claim = "sub" }]
[[routes]]
name = "app"
match = { path = "/app" }
upstream = "up"
clerk_app = true
inject = [{ header = "x-token", template = "plain" }]
[[routes]]
name = "owners"
match = { path = "/owners" }
upstream = "up"
require = { org_role = ["org:owner"] }
[[routes]]
name = "public"
match = { path = "/public" }
upstream = "up"
session = []
[[routes]]
name = "job"
match = { path = "/job" }
upstream = "up"
session = [{ session_id_header = "x-sid", trust = "unverified", caller_token = { env = "CLERK_SECRET_KEY" } }]
"#;

/// A gateway, and its configuration in a file.
struct Both {
    harness: Harness,
    config: PathBuf,
}

/// Method, path and query, headers, and the code that the gateway answers with; empty: it forwards.
type Request<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

/// What `explain` said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

// === impl Both ===

impl Both {
    async fn boot(name: &str) -> Self {
        let harness = Harness::boot(Boot { clerk: CLERK, tables: TABLES, ..Boot::default() }).await;
        let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("explain-{name}.toml"));
        std::fs::write(&config, harness.world.config(CLERK, TABLES, false)).unwrap();
        Self { harness, config }
    }

    /// A fresh session token for this party.
    async fn token(&self, party: &str) -> String {
        let url = format!("http://{}/_emulator/token?session={ALICE}&azp={party}", self.harness.world.emulator_at);
        call(&client(false), Method::GET, &url, &[], "").await.body
    }

    /// On another thread: the emulator may be asked meanwhile.
    async fn explain(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Said {
        let mut command = explain(&self.config, arguments);
        command.env("CLERK_SECRET_KEY", self.harness.world.emulator.secret_key().expose());
        command.envs(variables.iter().copied());
        tokio::task::spawn_blocking(move || said(&mut command, "")).await.unwrap()
    }
}

fn explain(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mintgate"));
    command.arg("explain").args(arguments).arg("--config").arg(config).env_remove("CLERK_SECRET_KEY");
    command
}

fn said(command: &mut Command, input: &str) -> Said {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A token that nobody signed.
fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(&json!({ "alg": "RS256", "typ": "JWT", "kid": "ins_1" })), part(claims))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_says_what_the_gateway_does() {
    let both = Both::boot("same").await;
    let party = "https://app.example.com";
    let good = both.token(party).await;
    let (bearer, foreign) = (format!("Bearer {good}"), format!("Bearer {}", both.token("https://evil.example").await));
    let broken = format!("Bearer {}AAAA", &good[..good.len() - 4]);
    let template =
        both.harness.world.api(&client(false), &format!("/v1/sessions/{ALICE}/tokens/plain"), &json!({})).await;
    let minted = serde_json::from_str::<Value>(&template.body).unwrap();
    let minted = format!("Bearer {}", minted["jwt"].as_str().unwrap());
    let cookie = format!("__session={good}; __client_uat=1");
    let outdated = format!("__session={good}; __client_uat={}", now_ms());
    let api = ("host", "api.example.com");
    let authorized = ("authorization", bearer.as_str());
    let caller = ("x-mintgate-caller", both.harness.world.emulator.secret_key().expose());
    let requests: &[Request<'_>] = &[
        ("GET", "/api/x?q=1", &[authorized], ""),
        ("POST", "/api", &[authorized], ""),
        ("GET", "/api", &[], "session-missing"),
        ("GET", "/api", &[("authorization", &foreign)], "session-invalid"),
        ("GET", "/api", &[("authorization", &broken)], "session-invalid"),
        ("GET", "/api", &[("authorization", &minted)], "session-invalid"),
        ("GET", "/api", &[("authorization", &good)], "session-invalid"),
        ("GET", "/api", &[authorized, authorized], "credential-ambiguous"),
        ("GET", "/api", &[("cookie", &cookie)], ""),
        ("POST", "/api", &[("cookie", &cookie)], "origin-forbidden"),
        ("POST", "/api", &[("cookie", &cookie), ("origin", party)], ""),
        ("GET", "/api", &[("cookie", &outdated)], "session-invalid"),
        ("GET", "/api", &[authorized, ("connection", "x-user-id")], "request-malformed"),
        ("OPTIONS", "/api", &[("origin", party), ("access-control-request-method", "POST")], ""),
        ("OPTIONS", "/api", &[("origin", party)], "session-missing"),
        ("GET", "/api/../x", &[authorized], "request-malformed"),
        ("GET", "/none", &[], "no-route"),
        ("GET", "/get", &[("x-session-token", &good)], "no-route"),
        ("GET", "/get", &[api, ("x-session-token", &good)], ""),
        ("PUT", "/get", &[api, ("x-session-token", &good)], "method-not-allowed"),
        ("GET", "/get", &[api, authorized], "session-missing"),
        ("GET", "/plan", &[authorized], "token-unfit"),
        ("GET", "/welcome", &[], ""),
        ("GET", "/welcome", &[("cookie", &outdated)], ""),
        ("GET", "/welcome", &[("authorization", &broken)], "session-invalid"),
        ("GET", "/app", &[authorized], ""),
        ("GET", "/app", &[("authorization", &broken)], ""),
        ("POST", "/app", &[("cookie", &cookie)], "origin-forbidden"),
        ("GET", "/owners", &[authorized], "session-forbidden"),
        ("GET", "/public", &[("authorization", &broken)], ""),
        ("GET", "/job", &[caller, ("x-sid", ALICE)], ""),
        ("GET", "/job", &[("x-mintgate-caller", "wrong"), ("x-sid", ALICE)], "origin-forbidden"),
        ("GET", "/job", &[("x-sid", ALICE)], "origin-forbidden"),
        ("GET", "/job", &[caller], "session-missing"),
        ("GET", "/job", &[caller, ("x-sid", "a/b")], "session-invalid"),
        ("GET", "/job", &[caller, ("x-sid", ALICE), ("origin", party)], "origin-forbidden"),
        ("GET", "/job", &[caller, ("x-sid", ALICE), api], "origin-forbidden"),
        ("GET", "/job", &[caller, caller, ("x-sid", ALICE)], "origin-forbidden"),
    ];
    for (method, path, headers, expected) in requests {
        let url = format!("http://{}{path}", both.harness.address);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = call(&client(false), method.clone(), &url, headers, "").await;
        // A client resolves dot segments by itself, or not: what was sent is what counts.
        assert_eq!(answer.code(), *expected, "the gateway: {method} {path}");
        let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let mut arguments = vec![method.as_str(), path, "--online", "--json"];
        arguments.extend(lines.iter().flat_map(|line| ["--header", line.as_str()]));
        let said = both.explain(&arguments, &[]).await;
        let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
        let refused = &report["verdict"]["refused"];
        assert_eq!(refused["code"].as_str().unwrap_or_default(), *expected, "explain: {method} {path}\n{report:#}");
        assert_eq!(said.code, Some(i32::from(!expected.is_empty())), "{method} {path}");
        if !expected.is_empty() {
            assert_eq!(refused["status"], answer.status, "{method} {path}");
            assert_eq!(
                refused["reason"].as_str(),
                serde_json::from_str::<Value>(&answer.body).unwrap()["reason"].as_str()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_names_what_leaves_and_what_comes() {
    let both = Both::boot("names").await;
    let token = both.token("https://app.example.com").await;
    let headers = ["cookie: a=1; __session=x; b=2", "x-user-id: spoofed", "X_Plan: spoofed", "accept: */*"];
    let mut arguments = vec!["GET", "https://any.example.com/api/rows?q=secret", "--token", "env:SESSION"];
    arguments.extend(headers.iter().flat_map(|line| ["--header", line]));
    let said = both.explain(&arguments, &[("SESSION", &token)]).await;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    let expected = r#"request      GET any.example.com/api/rows
route        api
  matched    host any, path /api and below, methods any, listener any
  goes to    up as /rows
session      found in Authorization: Bearer
  says       iss "https://mintgate-emulator-00.clerk.accounts.dev", azp "https://app.example.com", expires in N s
  signature  NOT checked: no key is here; --online fetches the issuer's
removed      authorization, cookie __session, x-user-id, x_plan
injected     authorization  "Bearer " and token minted from the template plain, for 300 s
             x-user-id      sub of the session
             x-plan         /metadata/plan of the session (absent: the session has no such value, or it is not safe in a header)
             apikey         a fixed secret
may follow   401 session-ended, 502 token-unfit, 502 template-unknown, 502 issuer-rejected-key
             502 issuer-malformed, 502 issuer-refused, 503 issuer-unavailable, 503 issuer-throttled
             504 issuer-timeout, 408 request-timeout, 502 upstream-unreachable, 502 upstream-broken
             504 upstream-timeout
verdict      it would be forwarded
"#;
    // What an SDK may read otherwise is taken from it; what it judges as the gateway does is left to it.
    let past = now_ms() / 1000 - 600;
    let expired = unsigned(&json!({
        "iss": both.harness.world.emulator.issuer(), "azp": "https://app.example.com", "sid": "sess_1", "sub": "user_1",
        "iat": past, "exp": past + 60,
    }));
    for (token, why, removed) in [("a.b.c", "malformed", "cookie"), (expired.as_str(), "expired", "nothing")] {
        let cookie = format!("cookie: __session={token}; __client_uat=1");
        let passed = both.explain(&["GET", "/app", "--header", &cookie], &[]).await;
        let why = format!("  counts as  none ({why}); the route lets such requests pass\nremoved      {removed}\n");
        assert!(passed.code == Some(0) && passed.out.contains(&why), "{passed:?}");
    }
    let at = said.out.find("expires in ").unwrap() + "expires in ".len();
    let end = at + said.out[at..].find(' ').unwrap();
    let out = format!("{}N{}", &said.out[..at], &said.out[end..]);
    assert_eq!(out, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_judges_all_but_the_signature_without_a_key() {
    let both = Both::boot("offline").await;
    let now = now_ms() / 1000;
    let claims = json!({
        "iss": both.harness.world.emulator.issuer(), "azp": "https://app.example.com", "sid": "sess_1", "sub": "user_1",
        "iat": now - 10, "exp": now + 50,
    });
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        unsigned(&claims)
    };
    for (token, code, reason) in [
        (unsigned(&claims), "", ""),
        (with("exp", json!(now - 60)), "session-expired", ""),
        (with("iat", json!(now + 60)), "session-invalid", "not-yet-valid"),
        (with("azp", json!("https://evil.example\u{1b}[2J")), "session-invalid", "azp"),
        (with("iss", json!("https://other.example")), "session-invalid", "issuer"),
        (with("sid", json!("")), "session-invalid", "claims"),
        (with("sts", json!("pending")), "session-pending", ""),
        ("a.b".to_owned(), "session-invalid", "malformed"),
        ("mt_x".to_owned(), "session-invalid", "not-a-session-token"),
    ] {
        let said = both.explain(&["GET", "/api", "--json", "--token", &token], &[]).await;
        let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
        let refused = &report["verdict"]["refused"];
        let seen = (refused["code"].as_str().unwrap_or_default(), refused["reason"].as_str().unwrap_or_default());
        assert_eq!(seen, (code, reason), "{report:#}");
        assert!(!said.out.contains('\u{1b}'), "a terminal could obey this");
        let text = both.explain(&["GET", "/api", "--token", &token], &[]).await.out;
        assert!(!text.contains('\u{1b}'), "a terminal could obey this");
        assert!(code.is_empty() || text.contains(code), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_shows_neither_token_nor_secret() {
    let both = Both::boot("canaries").await;
    let good = both.token("https://app.example.com").await;
    let mut canaries: Vec<String> = good.split('.').skip(1).map(str::to_owned).collect();
    canaries.extend(["canary".to_owned(), both.harness.world.emulator.secret_key().expose().to_owned()]);
    let headers = ["authorization: Basic canary", "cookie: a=canary; __session=canary", "x-user-id: canary"];
    let headers: Vec<&str> = headers.iter().flat_map(|line| ["--header", line]).collect();
    let broken = format!("{good}canary");
    for (path, token) in
        [("/api?q=canary", good.as_str()), ("/api", &broken), ("/plan", &good), ("/none", &good), ("/api", "canary")]
    {
        for more in [&[][..], &["--json"], &["--online"], &["--online", "--json"]] {
            for with in [&headers[..], &[]] {
                let arguments = [&["GET", path, "--token", token], more, with].concat();
                let said = both.explain(&arguments, &[]).await;
                assert!(said.code.is_some_and(|code| code < 2), "{said:?}");
                for canary in &canaries {
                    assert!(!format!("{}{}", said.out, said.err).contains(canary.as_str()), "{canary} in {said:?}");
                }
            }
        }
    }
}

#[test]
fn a_request_comes_through_the_listener_that_is_named() {
    let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join("explain-listener.toml");
    let text = "[server]\nlisten = [\"127.0.0.1:1\", { name = \"inner\", address = \"127.0.0.1:2\" }]\n\
                [[routes]]\nname = \"outside\"\nupstream = \"http://127.0.0.1:3\"\nsession = []\n\
                [[routes]]\nname = \"inside\"\nmatch = { listener = \"inner\" }\nupstream = \"http://127.0.0.1:3\"\nsession = []\n";
    std::fs::write(&config, text).unwrap();
    for (arguments, route) in [
        (
            &["GET", "/"][..],
            "route        outside\n  matched    host any, path / and below, methods any, listener any\n",
        ),
        (
            &["GET", "/", "--listener", "inner"],
            "route        inside\n  matched    host any, path / and below, methods any, listener inner\n",
        ),
    ] {
        let said = said(&mut explain(&config, arguments), "");
        assert!(said.code == Some(0) && said.out.contains(route), "{said:?}");
    }
    let unknown = said(&mut explain(&config, &["GET", "/", "--listener", "none"]), "");
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
}

/// Fails when such a route is only told as none.
#[test]
fn a_route_without_upstream_is_told() {
    let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join("explain-carried.toml");
    let text = "[authz]\nlisten = \"127.0.0.1:1\"\n[[routes]]\nname = \"carried\"\nsession = []\n";
    std::fs::write(&config, text).unwrap();
    let said = said(&mut explain(&config, &["GET", "/"]), "");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("no-route") && said.out.contains("the route carried has no upstream"), "{said:?}");
}

#[test]
fn a_token_comes_from_where_it_is_said() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (config, file) = (directory.join("explain-token.toml"), directory.join("explain-token"));
    let text =
        "[clerk]\nsecret_key = { env = \"NO_KEY\" }\n[[routes]]\nname = \"a\"\nupstream = \"http://127.0.0.1:1\"\n";
    std::fs::write(&config, text).unwrap();
    let now = now_ms() / 1000;
    let token = unsigned(&json!({ "sid": "sess_1", "sub": "user_1", "exp": now + 50 }));
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let from_file = format!("@{}", file.display());
    for (from, input) in
        [("-", format!("  Bearer {token}\n")), (from_file.as_str(), String::new()), (&token, String::new())]
    {
        let said = said(&mut explain(&config, &["GET", "/", "--token", from]), &input);
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    for bad in [
        &["GET", "/", "--token", "env:MINTGATE_NOT_SET"][..],
        &["GET", "/", "--token", "@/absent"],
        &["GET", "/", "--token", "-"],
        &["GET", "/", "--header", "canary"],
        &["GET", "ftp://a/"],
        &["GET", "relative"],
        &["G T", "/"],
        &["GET"],
    ] {
        let said = said(&mut explain(&config, bad), "");
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{bad:?}: {said:?}");
    }
}

#[test]
fn no_wrong_command_line_shows_what_was_typed() {
    let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join("explain-wrong.toml");
    let route = "[[routes]]\nname = \"a\"\nupstream = \"http://127.0.0.1:1\"\nsession = []\n";
    std::fs::write(&config, route).unwrap();
    for (arguments, said_instead) in [
        (&["explain", "GET", "/", "--header", "Authorization Bearer CANARY"][..], "--header is not a header"),
        (&["explain", "GET", "/", "--header", "Authoriza tion: CANARY"], "--header is not a header"),
        (&["explain", "GET", "/", "--header", "Authorization: CANARY\n"], ""),
        (&["explain", "GET", "/", "--header", "Authorization: CANARY\nX: y"], "--header is not a header"),
        (&["explain", "GET", "/", "--header", "Authorization:", "Bearer", "CANARY"], "an argument too many"),
        (&["explain", "GET", "/", "--header=Authorization:", "CANARY"], "an argument too many"),
        (&["explain", "GET", "/", "--headr", "Authorization: CANARY"], "no option --headr"),
        (&["explain", "GET", "/", "--headr=Authorization: CANARY"], "no option --headr"),
        (&["explain", "GET", "/", "-H", "Authorization: CANARY"], "no option -H"),
        (&["explain", "GET", "/", "-HAuthorization: CANARY"], "no option -H"),
        (&["explain", "GET", "/", "--json=CANARY"], "--json takes no value"),
        (&["explain", "GET", "/", "--online", "CANARY"], "an argument too many"),
        (&["explain", "GET", "/", "--", "CANARY"], "an argument too many"),
        (&["explain", "GET", "/", "--CANARY"], "an argument too many"),
        (&["explain", "GET", "/", "--token", "CANARY", "--token", "CANARY"], "cannot be used multiple times"),
        (&["explain", "GET", "/", "--token", "\u{e9}CANARY"], ""),
        (&["explain", "GET", "/", "--token", "CANARY\nCANARY"], "--token: it holds characters"),
        (&["explain", "GET", "/", "--token", "@CANARY"], "--token: cannot read the file"),
        (&["explain", "GET", "/", "--token", "env:CANARY"], "--token: the environment variable"),
        (&["explain", "GET", "/", "--token", "CANARY", "--header"], "needs a value"),
        (&["explain", "GET", "https://user:CANARY@x y/"], "URL is neither"),
        (&["explain", "GET", "ftp://user:CANARY@x/"], "URL is neither"),
        (&["explain", "GET", "https://user:CANARY@[x/"], "URL is neither"),
        (&["explain", "GET", "https://user:CANARY@x/"], ""),
        (&["explain", "GET", "CANARY"], "URL is neither"),
        (&["explain", "CANARY CANARY", "/"], "METHOD is not a method"),
        (&["explain", "--token", "CANARY", "GET"], "<URL>"),
        (&["explain", "GET", "/", "--listener", "CANARY"], "no listener of this name"),
        (&["explian", "GET", "/", "--token", "CANARY"], "the command is one of"),
        (&["CANARY"], "the command is one of"),
        (&["run", "--token", "CANARY"], "no option --token"),
        (&["check", "CANARY"], "an argument too many"),
        (&["emulator", "--secret-key", "CANARY"], "--secret-key <KEY> cannot be used"),
        (&["emulator", "--webhook-secret", "CANARY"], "--webhook-secret <SECRET> cannot be used"),
        (&["emulator", "--webhook-url", "https://user:CANARY@x y/"], "--webhook-url <URL> cannot be used"),
        (&["emulator", "--rate-limit", "CANARY"], "--rate-limit <RATE_LIMIT> is one of: production, development"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mintgate"));
        let said = said(command.args(arguments).env("MINTGATE_CONFIG", &config), "");
        assert_eq!(said.code, Some(if said_instead.is_empty() { 0 } else { 2 }), "{arguments:?}: {said:?}");
        assert!(said.err.contains(said_instead), "{arguments:?}: {said:?}");
        assert!(!format!("{}{}", said.out, said.err).contains("CANARY"), "{arguments:?}: {said:?}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_mintgate"));
    let behind = said(command.arg("--config").arg(&config).args(["check"]), "");
    assert!(behind.code == Some(2) && behind.err.contains("options stand behind the command"), "{behind:?}");
}

/// A file of this name, with these routes to one upstream.
fn written(name: &str, tables: &str) -> PathBuf {
    let config = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let clerk = "[clerk]\nsecret_key = { env = \"NO_KEY\" }\nissuer = \"https://clerk.example.com\"\n\
                 authorized_parties = [\"https://app.example.com\"]\n[upstreams.up]\nurl = \"http://127.0.0.1:1\"\n";
    std::fs::write(&config, format!("{clerk}{tables}")).unwrap();
    config
}

#[test]
fn a_websocket_is_told_from_what_only_looks_like_one() {
    let tables = "[[routes]]\nname = \"live\"\nupstream = \"up\"\nwebsocket = { close_at = \"session\", max_lifetime = \"12h\" }\n\
                  [[routes]]\nname = \"off\"\nmatch = { path = \"/off\" }\nupstream = \"up\"\nwebsocket = false\n\
                  [[routes]]\nname = \"open\"\nmatch = { path = \"/open\" }\nupstream = \"up\"\nsession = []\n\
                  [[routes]]\nname = \"first\"\nmatch = { path = \"/first\" }\nupstream = \"up\"\n\
                  inject = [{ header = \"x-token\", template = \"t\" }]\n\
                  websocket = { rewrite_connection_init = { pointer = \"/headers/x-token\" } }\n\
                  [[routes]]\nname = \"late\"\nmatch = { path = \"/late\" }\nupstream = \"up\"\n\
                  session = [{ connection_init = \"/token\" }]\ninject = [{ header = \"x-token\", template = \"t\" }]\n";
    let config = written("explain-websocket.toml", tables);
    let token = unsigned(&json!({
        "iss": "https://clerk.example.com", "azp": "https://app.example.com", "sid": "sess_1", "sub": "user_1",
        "exp": now_ms() / 1000 + 50,
    }));
    let (upgrade, connection) = ("Upgrade: websocket", "Connection: keep-alive, Upgrade");
    let (version, key) = ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==");
    let opens = "a tunnel opens when the upstream answers 101\n  is closed  4401, or 3000 over graphql-transport-ws, when the session token expires \
                 (close_at = \"session\"), 1001 after 43200 s (max_lifetime)\nremoved      authorization\n";
    for (method, url, lines, expected) in [
        ("GET", "/", &[upgrade, connection, version, key][..], opens),
        ("GET", "wss://api.example.com/", &[], opens),
        ("GET", "ws://api.example.com/", &[], opens),
        ("GET", "wss://api.example.com/open", &[], "is closed  at no expiry"),
        (
            "GET",
            "wss://api.example.com/first",
            &["Sec-WebSocket-Extensions: permessage-deflate"],
            "first      connection_init gets the token of x-token at payload / headers / x-token; no extension is agreed to\n\
             removed      authorization, sec-websocket-extensions\n",
        ),
        ("GET", "wss://api.example.com/", &["Sec-WebSocket-Version: 8"], "none: Sec-WebSocket-Version is not 13"),
        ("POST", "wss://api.example.com/", &[], "none: its method is not GET"),
        ("GET", "wss://api.example.com/off", &[], "none: the route says websocket = false"),
        ("GET", "wss://api.example.com/", &["Content-Length: 3"], "none: it has a body"),
        ("GET", "/", &[upgrade, version, key], "none: Connection does not name Upgrade"),
        ("GET", "/", &[upgrade, connection, version], "none: Sec-WebSocket-Key does not stand there once"),
        ("GET", "/", &[upgrade, connection, version, "Sec-WebSocket-Key: eA=="], "none: Sec-WebSocket-Key is not 16"),
        ("GET", "/", &["Upgrade: websocket/13", connection, version, key], "none: Upgrade names a version"),
        ("GET", "/", &["Upgrade: h2c", "Connection: Upgrade"], "none: Upgrade names no websocket"),
    ] {
        let mut arguments = vec![method, url, "--token", &token];
        arguments.extend(lines.iter().flat_map(|line| ["--header", line]));
        let text = said(&mut explain(&config, &arguments), "");
        assert!(text.code == Some(0) && text.out.contains(expected), "{method} {url} {lines:?}: {text:?}");
        arguments.push("--json");
        let report: Value = serde_json::from_str(&said(&mut explain(&config, &arguments), "").out).unwrap();
        let told = &report["websocket"];
        assert_eq!(told["ordinary"].is_object(), expected.starts_with("none"), "{told}");
        assert_eq!(told["opens"].is_object(), !expected.starts_with("none"), "{told}");
    }
    let late = said(&mut explain(&config, &["GET", "wss://api.example.com/late"]), "");
    for told in [
        "looked for: the first message of the WebSocket, at payload / token",
        "  first      nothing passes before it, at most 10 s, else 4401",
    ] {
        assert!(late.out.contains(told), "{late:?}");
    }
    let plain = said(&mut explain(&config, &["GET", "https://api.example.com/late"]), "");
    assert!(plain.out.contains("401 session-missing"), "{plain:?}");
    let plain = said(&mut explain(&config, &["GET", "/", "--token", &token]), "");
    assert!(!plain.out.contains("websocket"), "{plain:?}");
}

#[test]
fn a_named_session_and_its_caller_are_explained() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("explain-caller");
    std::fs::write(&file, "CANARY\n").unwrap();
    let route = |token: &str| {
        format!(
            "[[routes]]\nname = \"job\"\nupstream = \"up\"\n\
             session = [{{ session_id_header = \"x-sid\", trust = \"unverified\", caller_token = {{ file = \"{token}\" }} }}]\n"
        )
    };
    let known = written("explain-named.toml", &route("explain-caller"));
    let absent = written("explain-named-absent.toml", &route("explain-absent"));
    let (good, sid) = ("x-mintgate-caller: CANARY", "x-sid: sess_CANARY");
    for (config, lines, code, expected) in [
        (
            &known,
            &[good, sid][..],
            0,
            "found in header x-sid, by its id\n  caller     x-mintgate-caller is the configured",
        ),
        (&known, &["x-mintgate-caller: CANARYx", sid], 1, "  caller     x-mintgate-caller is not the configured token"),
        (&known, &[sid], 1, "  caller     x-mintgate-caller is missing"),
        (&known, &[good], 1, "session-missing"),
        (&known, &[good, sid, "Origin: null"], 1, "  caller     refused before the token: Origin"),
        (&known, &[good, sid, "Host: a.example"], 1, "  caller     refused before the token: Origin"),
        (&absent, &[good, sid], 0, "  caller     x-mintgate-caller NOT checked"),
        (&absent, &[sid], 1, "  caller     x-mintgate-caller is missing"),
    ] {
        let mut arguments = vec!["GET", "/", "--token", "CANARY"];
        arguments.extend(lines.iter().flat_map(|line| ["--header", line]));
        let said = said(&mut explain(config, &arguments), "");
        assert!(said.code == Some(code) && said.out.contains(expected), "{lines:?}: {said:?}");
        assert!(said.out.contains("--token is not used"), "{said:?}");
        assert!(!format!("{}{}", said.out, said.err).contains("CANARY"), "{said:?}");
    }
}

#[test]
fn what_is_wrong_is_told_beside_what_would_be_right() {
    let tables = "[[routes]]\nname = \"a\"\nmatch = { methods = [\"GET\", \"HEAD\"] }\nupstream = \"up\"\n";
    let config = written("explain-beside.toml", tables);
    let claims = |iss: &str, azp: &str| {
        let exp = now_ms() / 1000 + 50;
        unsigned(&json!({ "iss": iss, "azp": azp, "sid": "sess_1", "sub": "user_1", "exp": exp }))
    };
    let (issuer, party) = ("https://clerk.example.com", "https://app.example.com");
    for (method, token, expected) in [
        ("GET", claims("https://other.example", party), "  expected   iss \"https://clerk.example.com\"\n"),
        ("GET", claims(issuer, "https://evil.example"), "  expected   azp \"https://app.example.com\"\n"),
        ("DELETE", claims(issuer, party), "route        a\n  matched"),
        ("DELETE", claims(issuer, party), "methods that are allowed there: GET, HEAD\n"),
        ("get", claims(issuer, party), "methods are told apart by case"),
    ] {
        let said = said(&mut explain(&config, &[method, "/", "--token", &token]), "");
        assert!(said.code == Some(1) && said.out.contains(expected), "{said:?}");
    }
}

#[test]
fn a_credential_that_is_passed_over_is_named() {
    let tables = "[[routes]]\nname = \"a\"\nupstream = \"up\"\nsession = [\"bearer\", \"cookie\"]\n";
    let config = written("explain-passed.toml", tables);
    for (line, expected) in [
        ("Authorization: CANARY", "note         Authorization lacks the scheme"),
        ("Authorization: Basic CANARY", "note         Authorization has another scheme"),
        ("Cookie: __session_other=CANARY; __client_uat_other=1", "note         cookie __session_other is passed over"),
    ] {
        let said = said(&mut explain(&config, &["GET", "/", "--header", line]), "");
        assert!(said.code == Some(1) && said.out.contains(expected), "{said:?}");
        assert!(!said.out.contains("CANARY"), "{said:?}");
    }
}

#[test]
fn that_nothing_can_be_said_is_not_a_refusal() {
    let tables = "[[routes]]\nname = \"a\"\nupstream = \"up\"\n";
    let config = written("explain-offline.toml", tables);
    let text = std::fs::read_to_string(&config).unwrap();
    // Nobody listens on this port.
    std::fs::write(&config, text.replace("issuer =", "jwks_url = \"http://127.0.0.1:1/jwks\"\nissuer =")).unwrap();
    let said = said(&mut explain(&config, &["GET", "/", "--online"]), "");
    assert!(said.code == Some(69) && said.err.contains("http://127.0.0.1:1/jwks"), "{said:?}");
}
