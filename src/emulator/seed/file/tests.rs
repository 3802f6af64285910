//! Good seeds make instances, bad ones are refused in words that help.

use std::collections::HashMap;
use std::io;

use super::*;
use crate::config::raw::describe::Describe as _;

struct Outside(HashMap<&'static str, &'static str>);

impl Environment for Outside {
    fn var(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| (*value).to_owned())
    }

    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn exists(&self, _: &Path) -> bool {
        false
    }
}

fn parse(text: &str) -> Result<(Seed, Diagnostics), Diagnostics> {
    let outside = Outside(HashMap::from([("KEY", "from-the-environment"), ("ROLE", "editor")]));
    Seed::parse(text, Path::new("seed.toml"), &outside, Wall::from_seconds(1_000_000))
}

/// Every key that a seed can have.
const FULL: &str = r#"
session_token_version = 1
authorized_party = "http://localhost:3000"

[session_token]
claims = { plan = "{{user.public_metadata.plan || 'free'}}" }

[[users]]
id = "user_ann"
username = "ann"
external_id = "7"
first_name = "Ann"
last_name = "Lee"
email = "ann@example.com"
email_verified = false
phone = "+15555550101"
phone_verified = true
image_url = "https://img.example.com/ann.png"
two_factor_enabled = true
banned = false
locked = false
public_metadata = { role = "${ROLE}", since = 2026-01-02, n = 1.5, tags = ["a", true] }
private_metadata = { note = "x" }
unsafe_metadata = {}
plan = "pro"
features = ["beta"]

[[organizations]]
id = "org_acme"
name = "Acme"
slug = "acme-inc"
public_metadata = { tier = 2 }
plan = "team"
features = ["audit"]

[[memberships]]
user = "user_ann"
organization = "org_acme"
role = "org:admin"
permissions = ["org:reports:read"]
public_metadata = {}

[[sessions]]
id = "sess_ann"
user = "user_ann"
client = "client_1"
organization = "org_acme"
status = "pending"
tasks = ["choose-organization"]
actor = { sub = "user_support" }
factor_age = [5, -1]

[[templates]]
name = "api"
claims = { role = "{{user.public_metadata.role}}" }
lifetime = "5m"
allowed_clock_skew = "10s"
signing_algorithm = "HS256"
signing_key = "only-for-tests"

[[templates]]
name = "named"
signing_algorithm = "HS512"
signing_key = { env = "KEY" }
"#;

#[test]
fn a_full_seed_makes_what_it_says() {
    let (seed, warnings) = parse(FULL).unwrap();
    assert!(warnings.is_empty(), "{warnings}");
    let records = &seed.records;
    let user = &records.users["user_ann"];
    assert_eq!(user.public_metadata, json!({"role": "editor", "since": "2026-01-02", "n": 1.5, "tags": ["a", true]}));
    assert_eq!((user.email_verified, user.grants.plan.as_deref()), (false, Some("pro")));
    let session = &records.sessions["sess_ann"];
    assert_eq!((session.status, session.tasks.as_slice()), (Status::Pending, &["choose-organization".to_owned()][..]));
    assert_eq!(session.factor_ages(Wall::from_seconds(1_000_000)), [5, -1]);
    assert_eq!(records.membership("user_ann", "org_acme").unwrap().role, "org:admin");
    let api = records.template_named("api").unwrap();
    assert_eq!((api.lifetime, api.allowed_clock_skew, api.algorithm()), (300, 10, "HS256"));
    let named = records.template_named("named").unwrap().key.as_ref().unwrap();
    assert_eq!((named.algorithm(), named.text().expose()), ("HS512", "from-the-environment"));
    assert_eq!(
        (seed.token_version, seed.authorized_party.as_deref()),
        (TokenVersion::V1, Some("http://localhost:3000"))
    );
    assert!(records.template(SESSION_TOKEN).is_some() && records.template_named("session_token").is_none());
    // The sample above is whole.
    for key in raw::File::shape().tables().iter().flat_map(|table| &table.keys).map(|key| key.name) {
        let written = FULL.lines().any(|line| line.trim_matches(['[', ']']).starts_with(key));
        assert!(written, "{key} is not in the sample");
    }
}

#[test]
fn an_empty_seed_is_an_empty_instance() {
    let (seed, _) = parse("").unwrap();
    assert!(seed.records.users.is_empty() && seed.records.templates.is_empty());
}

#[test]
fn what_is_wrong_is_shown_where_it_stands_with_advice() {
    for (text, parts) in [
        ("[[user]]\nid = \"a\"", &["seed.toml:1:3", "unknown key `user`", "did you mean `users`?"][..]),
        ("[[users]]\nname = \"a\"", &["unknown key `name`"]),
        ("[[users]]\nfirst_name = \"a\"", &["a user needs an id"]),
        ("[[users]]\nid = \"a/b\"", &["not good for a user", "letters, digits"]),
        ("[[users]]\nid = \"a\"\n[[users]]\nid = \"a\"", &["seed.toml:4:6", "another user", "the first one"]),
        ("[[users]]\nid = \"a\"\npublic_metadata = 1", &["expected a table, found an integer"]),
        (
            "[[users]]\nid = \"ann\"\n[[sessions]]\nid = \"s\"\nuser = \"anna\"",
            &["no such user", "did you mean \"ann\"?"],
        ),
        ("[[sessions]]\nid = \"s\"", &["`user` is missing"]),
        (
            "[[users]]\nid = \"u\"\n[[organizations]]\nid = \"o\"\n[[sessions]]\nid = \"s\"\nuser = \"u\"\norganization = \"o\"",
            &["seed.toml:8:16", "no member of this organization", "[[memberships]]"],
        ),
        (
            "[[users]]\nid = \"u\"\n[[sessions]]\nid = \"s\"\nuser = \"u\"\nstatus = \"pendin\"\nactor = {}\nfactor_age = [1]",
            &["did you mean \"pending\"?", "an actor needs a `sub`", "not two ages"],
        ),
        ("[[users]]\nid = \"u\"\n[[sessions]]\nid = \"s\"\nuser = \"u\"\ntasks = [\"x\"]", &["only a pending session"]),
        ("[[memberships]]\nrole = \"admin\"\npermissions = [\"x\"]", &["not a role", "not a permission", "`user` is"]),
        ("[[templates]]\nname = \"t\"\nclaims = { sub = 1 }", &["`sub` is a reserved claim"]),
        ("[[templates]]\nname = \"t\"\nlifetime = \"29s\"\nallowed_clock_skew = \"1h\"", &["from 30 s", "to 300 s"]),
        ("[[templates]]\nname = \"t\"\nsigning_algorithm = \"HS256\"", &["`signing_key` is missing"]),
        (
            "[[templates]]\nname = \"t\"\nsigning_algorithm = \"ES256\"\nsigning_key = \"canary\"",
            &["seed.toml:3:21", "the algorithms are HS256"],
        ),
        (
            "[[templates]]\nname = \"t\"\nsigning_algorithm = \"RS256\"\nsigning_key = \"canary\"",
            &["private key in PEM"],
        ),
        ("[[templates]]\nname = \"t\"\nsigning_algorithm = \"HS256\"\nsigning_key = { env = \"NO\" }", &["is not set"]),
        ("session_token_version = 3", &["1 or 2"]),
        ("[session_token]\nclaims = { sid = \"x\" }", &["`sid` is a reserved claim"]),
        ("users = 1 2", &["seed.toml:1"]),
    ] {
        let shown = parse(text).expect_err(text).render(false);
        for part in parts {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
        assert!(!shown.contains("canary"), "{shown}");
    }
}
