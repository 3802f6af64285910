//! The commands that ask an instance, against the emulator: `mintgate check --online` and `mintgate token`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::claims;
use crate::support::directory::Directory;

/// An emulator, which ends when this is dropped.
struct Emulator {
    child: Child,
    about: Value,
}

/// What a command said.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

// === impl Emulator ===

impl Emulator {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mintgate"));
        command.args(["emulator", "--json", "--listen", "127.0.0.1:0"]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, about: serde_json::from_str(&line).unwrap() }
    }

    fn text(&self, name: &str) -> &str {
        self.about[name].as_str().unwrap()
    }

    /// A configuration for it, with more in `[clerk]` and with a route.
    fn config(&self, clerk: &str, route: &str) -> String {
        format!(
            "[clerk]\nsecret_key = {{ env = \"CLERK_SECRET_KEY\" }}\napi_url = \"{}\"\nissuer = \"{}\"\n\
             authorized_parties = [\"https://app.example.com\"]\n{clerk}\n\
             [[routes]]\nname = \"graphql\"\nupstream = \"http://127.0.0.1:1\"\nsession = [\"bearer\"]\n{route}\n",
            self.text("api_url"),
            self.text("issuer"),
        )
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn mintgate(files: &Directory, arguments: &[&str], variables: &[(&str, &str)]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mintgate"));
    command.args(arguments).current_dir(files.path("")).stdin(Stdio::null());
    for name in ["CLERK_SECRET_KEY", "CLERK_API_URL", "MINTGATE_CONFIG", "KUBERNETES_SERVICE_HOST"] {
        command.env_remove(name);
    }
    let Output { status, stdout, stderr } = command.envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// `check --online` of a configuration: the status, and the findings as `level: text`.
fn online(config: &str, key: &str) -> (Option<i32>, Vec<String>) {
    let files = Directory::new();
    files.write("mintgate.toml", config);
    let said = mintgate(&files, &["check", "--online", "--json"], &[("CLERK_SECRET_KEY", key)]);
    assert!(!said.out.contains("emulator_secret") && !said.err.contains("emulator_secret"), "{}{}", said.out, said.err);
    let report: Value =
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}{}", said.out, said.err));
    let findings = report["online"].as_array().unwrap_or_else(|| panic!("{report}")).clone();
    let line =
        |finding: &Value| format!("{}: {}", finding["level"].as_str().unwrap(), finding["text"].as_str().unwrap());
    (said.code, findings.iter().map(line).collect())
}

const KEY: &str = "sk_test_emulator_secret";
const GOOD: &str = "inject = [{ header = \"authorization\", template = \"custom_hasura\", expires_in = \"1m\" }]";

#[track_caller]
fn assert_found(found: &[String], parts: &[&str]) {
    assert!(found.iter().any(|line| parts.iter().all(|part| line.contains(part))), "no {parts:?} in {found:#?}");
}

#[test]
fn a_good_configuration_is_confirmed_by_the_issuer() {
    let emulator = Emulator::start(&["--secret-key", KEY]);
    let (code, found) = online(&emulator.config("", GOOD), KEY);
    assert_eq!(code, Some(0), "{found:#?}");
    let kid = emulator.text("kid");
    assert_found(&found, &["ok: the secret key is accepted", kid]);
    assert_found(&found, &["ok: ", "/.well-known/jwks.json", "same instance"]);
    assert_found(&found, &["ok: template custom_hasura is there", "routes: graphql"]);
    assert!(found.iter().all(|line| line.starts_with("ok: ")), "{found:#?}");
    // The same for a person.
    let files = Directory::new();
    files.write("mintgate.toml", emulator.config("", GOOD));
    let said = mintgate(&files, &["check", "--online"], &[("CLERK_SECRET_KEY", KEY)]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(
        said.out.contains("./mintgate.toml: ok (") && said.out.contains("  ok       the secret key"),
        "{}",
        said.out
    );
}

/// Fails where the template's own lifetime is not asked for, or `--sessions` is compared with nothing.
#[test]
fn what_sessions_cost_is_told_and_too_many_are_refused() {
    let emulator = Emulator::start(&["--secret-key", KEY]);
    let files = Directory::new();
    files.write("mintgate.toml", emulator.config("", "inject = [{ header = \"x-token\", template = \"plain\" }]"));
    let check = |sessions: &str| {
        let arguments = ["check", "--online", "--json", "--sessions", sessions];
        let said = mintgate(&files, &arguments, &[("CLERK_SECRET_KEY", KEY)]);
        (said.code, serde_json::from_str::<Value>(&said.out).unwrap())
    };
    // A budget of 8 in a second, since it is a development key; and a minute, of which 46.5 s are used.
    let (code, report) = check("372");
    assert_eq!((code, &report["capacity"]["carries_sessions"]), (Some(0), &json!(372)), "{report:#}");
    assert_eq!(report["capacity"]["needs"][0]["lifetime_seconds"], 60);
    let (code, report) = check("373");
    assert_eq!(code, Some(1));
    let text = report["online"].to_string();
    assert!(text.contains("373 active sessions cost 8.0 mints a second, more than the budget has"), "{text}");
}

/// Fails where the key's answer is not looked at.
#[test]
fn a_key_that_the_issuer_refuses_is_told() {
    let emulator = Emulator::start(&["--secret-key", KEY]);
    let (code, found) = online(&emulator.config("", GOOD), "sk_test_other");
    assert_eq!(code, Some(1), "{found:#?}");
    assert_found(&found, &["error: the secret key is not accepted"]);
}

/// The key that rotation leaves behind is refused one day, and the other one is used.
#[test]
fn of_the_keys_of_a_rotation_one_is_enough() {
    let emulator = Emulator::start(&["--secret-key", KEY]);
    let two = emulator
        .config("", GOOD)
        .replace("{ env = \"CLERK_SECRET_KEY\" }", "[{ env = \"CLERK_SECRET_KEY\" }, { env = \"OLD\" }]");
    let files = Directory::new();
    files.write("mintgate.toml", two);
    let said = mintgate(&files, &["check", "--online"], &[("CLERK_SECRET_KEY", KEY), ("OLD", "sk_test_old")]);
    assert_eq!(said.code, Some(0), "{}", said.out);
    assert!(
        said.out.contains("key 1 is accepted") && said.out.contains("warning  the secret key 2 is not"),
        "{}",
        said.out
    );
    let said = mintgate(&files, &["check", "--online"], &[("CLERK_SECRET_KEY", "sk_test_new"), ("OLD", "sk_test_old")]);
    assert_eq!(said.code, Some(1), "{}", said.out);
}

/// The commonest first mistake: keys of two instances. Fails where any of the three comparisons is left out.
#[test]
fn keys_of_two_instances_are_told() {
    let (emulator, other) = (Emulator::start(&["--secret-key", KEY]), Emulator::start(&[]));
    let files = Directory::new();
    let pem = files.write("other.pem", other.text("jwt_key"));
    let pinned = format!("jwt_key = {{ file = {:?} }}", pem.display().to_string());
    let jwks = format!("jwks_url = {:?}", other.text("jwks_url"));
    let instead = format!("issuer = {:?}", other.text("api_url"));
    let config = |clerk: &str| emulator.config(clerk, GOOD);
    let own = format!("issuer = {:?}", emulator.text("issuer"));
    for (config, parts) in [
        (config(&pinned), &["error: clerk.jwt_key is not a key of", emulator.text("kid")][..]),
        (config(&jwks), &["error: ", other.text("jwks_url"), other.text("kid"), emulator.text("kid")]),
        (config("").replace(&own, &instead), &["error: ", "/.well-known/jwks.json", other.text("kid")]),
    ] {
        let (code, found) = online(&config, KEY);
        assert_eq!(code, Some(1), "{found:#?}");
        assert_found(&found, parts);
    }
    let pem = files.write("own.pem", emulator.text("jwt_key"));
    let (code, found) = online(&config(&format!("jwt_key = {{ file = {:?} }}", pem.display().to_string())), KEY);
    assert_eq!(code, Some(0), "{found:#?}");
    assert_found(&found, &["ok: clerk.jwt_key is the key of"]);
}

#[test]
fn what_templates_do_not_fit_is_told() {
    let emulator = Emulator::start(&["--secret-key", KEY]);
    let missing = "inject = [{ header = \"authorization\", template = \"custom-hasura\" }]";
    let (code, found) = online(&emulator.config("", missing), KEY);
    assert_eq!(code, Some(1), "{found:#?}");
    assert_found(&found, &["error: template custom-hasura (routes: graphql) is not", "custom_hasura", "postgrest"]);

    let longer = "inject = [{ header = \"authorization\", template = \"custom_hasura\", expires_in = \"5m\" }]";
    let (code, found) = online(&emulator.config("", longer), KEY);
    assert_eq!(code, Some(0), "{found:#?}");
    assert_found(&found, &["note: template custom_hasura", "live for 5m", "says 1m"]);

    let short = "websocket = { close_at = \"token\" }\ninject = [{ header = \"authorization\", template = \"plain\" }]";
    let (code, found) = online(&emulator.config("", short), KEY);
    assert_eq!(code, Some(0), "{found:#?}");
    assert_found(&found, &["warning: template plain", "live for 1m"]);
    assert_found(&found, &["warning: route graphql", "WebSockets are closed"]);
}

/// Neither good nor bad: another status than both.
#[test]
fn an_issuer_that_does_not_answer_is_no_verdict() {
    let emulator = Emulator::start(&["--secret-key", KEY]);
    let config = emulator.config("timeout = \"1s\"", GOOD).replace(emulator.text("api_url"), "http://127.0.0.1:1");
    let (code, found) = online(&config, KEY);
    assert_eq!(code, Some(69), "{found:#?}");
    assert_found(&found, &["unknown: http://127.0.0.1:1 does not say"]);
    let files = Directory::new();
    files.write("mintgate.toml", emulator.config("", GOOD));
    let said = mintgate(&files, &["check", "--online"], &[]);
    assert_eq!(said.code, Some(69), "{}", said.out);
    assert!(said.out.contains("clerk.secret_key is not here"), "{}", said.out);
}

#[test]
fn a_token_is_a_session_token_of_the_user() {
    let emulator = Emulator::start(&["--secret-key", KEY]);
    let variables = [("CLERK_SECRET_KEY", KEY), ("CLERK_API_URL", emulator.text("api_url"))];
    let files = Directory::new();
    let user = "user_emulator_alice";
    // Without a configuration, as Clerk's SDKs are told where to call; and with one.
    let said = mintgate(&files, &["token", "--user", user], &variables);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{}", said.out);
    let token = claims(said.out.trim());
    assert_eq!((&token["sub"], &token["iss"]), (&json!(user), &json!(emulator.text("issuer"))));
    files.write("mintgate.toml", emulator.config("", GOOD));
    let said = mintgate(&files, &["token", "--user", user], &variables[..1]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(claims(said.out.trim())["sub"], user);
    let said = mintgate(&files, &["token", "--user", "user_nobody"], &variables);
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert!(said.err.contains("no such user"), "{}", said.err);
}

/// Fails without the look at the key: the emulator would be asked, and say it in other words.
#[test]
fn no_token_is_made_of_a_production_instance() {
    let live = "sk_live_emulator_secret";
    let emulator = Emulator::start(&["--secret-key", live]);
    let files = Directory::new();
    let asked = |variables: &[(&str, &str)]| {
        let said = mintgate(&files, &["token", "--user", "user_emulator_alice"], variables);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{}", said.err);
        assert!(!said.err.contains("emulator_secret"), "{}", said.err);
        said.err
    };
    let err = asked(&[("CLERK_SECRET_KEY", live), ("CLERK_API_URL", emulator.text("api_url"))]);
    assert!(err.contains("not one of a development instance"), "{err}");
    let err = asked(&[("CLERK_API_URL", emulator.text("api_url"))]);
    assert!(err.contains("no secret key"), "{err}");
    let err = asked(&[("CLERK_SECRET_KEY", KEY), ("CLERK_API_URL", "http://example.com")]);
    assert!(err.contains("CLERK_API_URL"), "{err}");
}
