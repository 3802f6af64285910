//! What the file may say about guards and minted tokens.

use super::{LEAST, good, outside, parse_in, said};
use crate::config::{CallerToken, Claim, Expectation, MintKind, OnNoSession, Requirement, Source};

/// A route that mints, with one more line.
fn with(line: &str) -> String {
    LEAST.replace("session = [\"bearer\"]\n", &format!("session = [\"bearer\"]\n{line}\n"))
}

fn inject(entry: &str) -> String {
    LEAST.replace("template = \"custom_hasura\"", entry)
}

/// What is said begins so, and underlines this.
#[track_caller]
fn refused(source: &str, message: &str, underlined: &str) {
    let said = said(source);
    assert!(said.starts_with(&format!("error: {message}\n")), "{said}");
    let marks = said.lines().find_map(|line| {
        line.split_once("| ").filter(|(_, rest)| rest.contains('^') && rest.trim_start().starts_with(['^', '-']))
    });
    let (before, marks) = marks.unwrap_or_else(|| panic!("{said}"));
    let line = said.lines().find(|line| line.contains(underlined)).unwrap_or_else(|| panic!("{said}"));
    let (column, length) =
        (marks.find('^').unwrap(), marks.chars().skip_while(|c| *c != '^').take_while(|c| *c == '^').count());
    let at = before.len() + 2 + column;
    assert_eq!(&line[at..at + length], underlined, "{said}");
}

#[test]
fn what_a_route_requires_is_read() {
    let config = good(&with(
        "require = { org_role = [\"org:admin\", \"org:owner\"], \"/metadata/plan\" = \"pro\" }\nallow_impersonation = false",
    ));
    let rules = &config.routes[0].rules;
    let plan = Requirement { claim: Claim::Pointer("/metadata/plan".to_owned()), one_of: vec!["pro".to_owned()] };
    assert!(rules.require.contains(&plan) && rules.require.len() == 2 && !rules.allow_impersonation);
    let silent = good(LEAST);
    assert!(!silent.routes[0].rules.are_guarding());
    assert!(!good(&with("require = {}\nallow_impersonation = true")).routes[0].rules.are_guarding());
}

#[test]
fn what_no_session_could_have_is_refused() {
    refused(&with("require = { org_rle = [\"a\"] }"), "not a value of a session", "org_rle");
    refused(
        &with("require = { \"/a~2\" = [\"a\"] }"),
        "not a JSON pointer: `~` stands for itself only as `~0`",
        "\"/a~2\"",
    );
    refused(&with("require = { org_id = [] }"), "no session could have one of no values", "[]");
    refused(&with("require = { org_id = [1] }"), "expected a string, found an integer", "1");
    let public = "[[routes]]\nname = \"api\"\nupstream = \"http://127.0.0.1:1\"\nsession = []\n";
    refused(
        &format!("{public}require = {{ org_id = \"a\" }}\n"),
        "a public route has no session to ask this of",
        "{ org_id = \"a\" }",
    );
    refused(&format!("{public}allow_impersonation = false\n"), "a public route does not look who calls", "false");
    assert!(good(&format!("{public}allow_impersonation = true\n")).routes[0].rules.allow_impersonation);
}

#[test]
fn a_clerk_application_implies_what_it_needs() {
    let app = inject("template = \"custom_hasura\"").replace("authorization", "x-token");
    let app = app.replace("session = [\"bearer\"]", "clerk_app = true").replace(
        "[clerk]",
        "[clerk]\npublishable_key = \"pk_live_Y2xlcmsuZXhhbXBsZS5jb20k\"\nauthorized_parties = [\"https://app.example.com\"]",
    );
    let route = &good(&app).routes[0];
    assert!(route.clerk_app && route.forward_credential && route.forward_clerk_cookies);
    assert_eq!(route.on_no_session, OnNoSession::Pass);
    for (line, message, underlined) in [
        ("on_no_session = \"reject\"", "a Clerk application gets requests without a session too", "\"reject\""),
        ("session = [\"bearer\"]", "a Clerk application reads `Authorization`, then the cookies", "[\"bearer\"]"),
        (
            "session = [\"cookie\", \"bearer\"]",
            "a Clerk application reads `Authorization`, then the cookies",
            "[\"cookie\", \"bearer\"]",
        ),
        ("forward_credential = false", "a Clerk application reads the credential itself", "false"),
        ("forward_clerk_cookies = false", "a Clerk application reads Clerk's cookies itself", "false"),
        (
            "allow_impersonation = false",
            "a Clerk application finds sessions where nobody here looks: let it check this itself",
            "false",
        ),
        (
            "require = { org_role = \"org:admin\" }",
            "a Clerk application finds sessions where nobody here looks: let it check this itself",
            "{ org_role = \"org:admin\" }",
        ),
    ] {
        refused(&app.replace("clerk_app = true", &format!("clerk_app = true\n{line}")), message, underlined);
    }
    let own = said(&app.replace("x-token", "authorization"));
    assert!(own.starts_with("warning: the route sets `authorization` itself, so the application never gets"), "{own}");
    assert!(!good(&with("clerk_app = false")).routes[0].clerk_app);
}

#[test]
fn what_is_minted_is_read() {
    let config = good(&inject(
        "minted_session_token = true, expires_in = \"5m\", expect = { \"/o/id\" = \"org_id\" }, vary = [\"/role\", \"azp\"]",
    ));
    let Source::Minted(spec) = &config.routes[0].inject[0].source else { panic!() };
    assert_eq!((&spec.kind, spec.expires_in), (&MintKind::Session, Some(300)));
    assert_eq!(spec.expect, [Expectation { pointer: "/o/id".to_owned(), claim: Claim::OrgId }]);
    assert_eq!(spec.vary, [Claim::Pointer("/role".to_owned()), Claim::Azp]);
    assert_eq!((config.templates().count(), config.minted.len()), (0, 1));
}

#[test]
fn whoever_points_into_the_claims_is_found() {
    for named in [
        inject("claim = \"sub\""),
        inject("template = \"a\", expect = { \"/o/id\" = \"org_id\" }, vary = [\"azp\"]"),
        inject("session_token = true"),
        with("require = { org_role = \"org:admin\" }"),
    ] {
        assert!(!good(&named).reads_claims(), "{named}");
    }
    for pointing in [
        inject("claim = \"/role\""),
        inject("template = \"a\", expect = { \"/o/id\" = \"/role\" }"),
        inject("template = \"a\", vary = [\"azp\", \"/role\"]"),
        with("require = { org_role = \"org:admin\", \"/role\" = \"a\" }"),
    ] {
        assert!(good(&pointing).reads_claims(), "{pointing}");
    }
}

#[test]
fn what_cannot_be_minted_is_refused() {
    let session = "minted_session_token = true";
    refused(
        &inject(&format!("{session}, expires_in = \"29s\"")),
        "the issuer gives whole seconds, 30 or more",
        "\"29s\"",
    );
    refused(
        &inject("minted_session_token = false"),
        "write `minted_session_token = true`, or leave the injection out",
        "false",
    );
    refused(&inject(&format!("template = \"a\", {session}")), "an injection has one source", "true");
    refused(&inject("template = \"a\", expect = { org_id = \"org_id\" }"), "not a JSON pointer", "org_id");
    refused(&inject("template = \"a\", expect = { \"/x\" = \"org\" }"), "not a value of a session", "\"org\"");
    refused(&inject("template = \"a\", vary = [\"sub\", \"sub\"]"), "this value is listed already", "\"sub\"");
    for key in ["expires_in = \"5m\"", "expect = {}", "vary = []"] {
        let name = key.split_once(' ').unwrap().0;
        let message = format!("`{name}` is for a `template` or a `minted_session_token`");
        refused(&inject(&format!("claim = \"sub\", {key}")), &message, key.split_once("= ").unwrap().1);
    }
    let without_key =
        inject(session).replace("secret_key = { env = \"CLERK_SECRET_KEY\" }", "jwks_url = \"https://a/b\"");
    assert!(parse_in(&outside(), &without_key).is_err(), "what is minted needs the key");
}

/// A route on these listeners whose sessions are only named, with its source and one more line.
fn named(listen: &str, source: &str, line: &str) -> String {
    format!(
        "[clerk]\nsecret_key = {{ env = \"CLERK_SECRET_KEY\" }}\n[server]\nlisten = [{listen}]\n[[routes]]\nname = \"job\"\n\
         upstream = \"http://127.0.0.1:1\"\nsession = [{source}]\n{line}\n"
    )
}

const LOOPBACK: &str = "\"127.0.0.1:1\", \"[::1]:2\"";
const UNVERIFIED: &str =
    "{ session_id_header = \"x-sid\", trust = \"unverified\", caller_token = { env = \"BILLING_API_KEY\" } }";
const TOKENLESS: &str = "{ session_id_header = \"x-sid\", trust = \"unverified\" }";
const MINT: &str = "inject = [{ header = \"x-token\", template = \"a\" }]";

#[test]
fn a_session_may_be_named_where_that_can_be_believed() {
    let route = good(&named(LOOPBACK, UNVERIFIED, MINT)).routes.remove(0);
    let source = route.session_id.expect("it is read");
    assert!(route.session.is_empty() && source.header == "x-sid");
    assert!(matches!(&source.caller, CallerToken::Needed(Some(token)) if token.expose() == "billing"));
    // Where systemd has bound a socket is known to each request alone.
    good(&named("\"systemd:jobs\", \"unix:/run/x.sock\"", UNVERIFIED, MINT));
    for (listen, name) in
        [("\"0.0.0.0:1\"", "0.0.0.0:1"), ("\"127.0.0.1:1\", { name = \"all\", address = \"[::]:2\" }", "all")]
    {
        let message = format!("the listener `{name}` can be reached from other machines");
        refused(&named(listen, UNVERIFIED, MINT), &message, UNVERIFIED);
    }
    for (listen, name) in
        [("\"127.0.0.1:1\"", "127.0.0.1:1"), ("\"systemd:jobs\"", "systemd:jobs"), ("\"unix:/a\"", "unix:/a")]
    {
        let message = format!("a caller token is needed on the listener `{name}`");
        refused(&named(listen, TOKENLESS, MINT), &message, TOKENLESS);
    }
}

#[test]
fn a_socket_that_the_route_names_needs_no_token() {
    let listen = "\"0.0.0.0:1\", { name = \"local\", address = \"unix:/run/x.sock\" }, { name = \"near\", address = \"[::1]:1\" }";
    let own = |listener: &str| format!("{MINT}\nmatch = {{ listener = \"{listener}\" }}");
    let route = good(&named(listen, TOKENLESS, &own("local"))).routes.remove(0);
    assert_eq!(route.session_id.map(|source| source.caller), Some(CallerToken::Needless));
    good(&named(listen, UNVERIFIED, &own("near")));
    refused(&named(listen, TOKENLESS, &own("near")), "a caller token is needed on the listener `near`", TOKENLESS);
    let all = named(listen, UNVERIFIED, MINT);
    refused(&all, "the listener `0.0.0.0:1` can be reached from other machines", UNVERIFIED);
}

#[test]
fn a_named_session_is_written_out_and_alone() {
    let silent = UNVERIFIED.replace(" trust = \"unverified\",", "");
    let message = "nobody verifies a session that is only named, and the file has to say so";
    refused(&named(LOOPBACK, &silent, MINT), message, &silent);
    let trusting = UNVERIFIED.replace("\"unverified\"", "\"full\"");
    refused(&named(LOOPBACK, &trusting, MINT), "nobody verifies a session that is only named", "\"full\"");
    let two = format!("\"bearer\", {UNVERIFIED}");
    refused(&named(LOOPBACK, &two, MINT), "a session that is only named has a route of its own", UNVERIFIED);
    let own = UNVERIFIED.replace("x-sid", "authorization");
    refused(&named(LOOPBACK, &own, MINT), "this header has a session source of its own", "\"authorization\"");
    let both = "{ header = \"x-a\", trust = \"unverified\" }";
    refused(&named(LOOPBACK, both, MINT), "a session source is of one kind", both);
    let literal = UNVERIFIED.replace("{ env = \"BILLING_API_KEY\" }", "\"hush\"");
    let said = said(&named(LOOPBACK, &literal, MINT));
    assert!(said.contains("a secret is never written in the configuration") && !said.contains("hush"), "{said}");
}

#[test]
fn nothing_is_asked_of_claims_that_nobody_knows() {
    for (line, what, underlined) in [
        ("require = { org_id = \"a\" }", "nothing can be required", "{ org_id = \"a\" }"),
        ("allow_impersonation = false", "nobody can tell who acts as another", "false"),
        (
            "authorized_parties = [\"https://a.example\"]",
            "there is no `azp` to compare with",
            "[\"https://a.example\"]",
        ),
        ("allow_pending = true", "nobody can tell whether it is pending", "true"),
        ("clerk_app = true", "a Clerk application cannot read it", "true"),
        ("retry_rejected = { statuses = [401] }", "no request is sent again", "{ statuses = [401] }"),
        ("websocket = true", "no WebSocket could be closed when it ends", "true"),
        ("on_mint_error = \"session\"", "there is no session token to inject", "\"session\""),
        (
            "inject = [{ header = \"x\", claim = \"sub\" }]",
            "`claim`, `session_token`, `expect` and `vary` have nothing to read",
            "[{ header = \"x\", claim = \"sub\" }]",
        ),
        (
            "inject = [{ header = \"x\", template = \"a\", vary = [\"sub\"] }]",
            "`claim`, `session_token`, `expect` and `vary` have nothing to read",
            "[{ header = \"x\", template = \"a\", vary = [\"sub\"] }]",
        ),
    ] {
        let message = format!("{what}: nothing is known of a session that is only named");
        refused(&named(LOOPBACK, UNVERIFIED, line), &message, underlined);
    }
}
