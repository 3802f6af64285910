//! `websocket` on a route.

use std::time::Duration;

use super::{outside, parse_in, said};
use crate::config::{CloseAt, WebSocket};

/// A configuration whose one route has these keys too.
fn with(keys: &str) -> String {
    format!(
        "[clerk]\nsecret_key = {{ env = \"CLERK_SECRET_KEY\" }}\nauthorized_parties = [\"https://a.example\"]\n\
         [[routes]]\nname = \"a\"\nupstream = \"http://127.0.0.1:1\"\n\
         inject = [{{ header = \"x-token\", template = \"t\" }}]\n{keys}\n"
    )
}

fn websocket(keys: &str) -> Option<WebSocket> {
    let source = with(keys);
    let (config, _) = parse_in(&outside(), &source).unwrap_or_else(|problems| panic!("{problems}"));
    config.routes[0].websocket
}

#[test]
fn websockets_are_on_unless_they_are_turned_off() {
    let plain = Some(WebSocket { close_at: CloseAt::Never, max_lifetime: None });
    for keys in ["", "websocket = true", "websocket = {}", "websocket = { close_at = \"never\", max_lifetime = \"0\" }"]
    {
        assert_eq!(websocket(keys), plain, "{keys}");
    }
    assert_eq!(websocket("websocket = false"), None);
    let both = websocket("websocket = { close_at = \"token\", max_lifetime = \"1h\" }");
    assert_eq!(both, Some(WebSocket { close_at: CloseAt::Token, max_lifetime: Some(Duration::from_hours(1)) }));
    assert_eq!(websocket("websocket = { close_at = \"session\" }").unwrap().close_at, CloseAt::Session);
}

#[test]
fn what_cannot_expire_closes_nothing() {
    insta::assert_snapshot!(said(&with("session = []\nwebsocket = { close_at = \"session\" }").replace("template = \"t\"", "claim = \"sub\"")), @r#"
    error: a public route has no session to take this from
     --> /etc/mintgate/mintgate.toml:7:41
      |
    7 | inject = [{ header = "x-token", claim = "sub" }]
      |                                         ^^^^^ `session = []`
      |
      = help: a public route can inject a `value` alone

    error: the route has no session that could expire
     --> /etc/mintgate/mintgate.toml:9:26
      |
    9 | websocket = { close_at = "session" }
      |                          ^^^^^^^^^
      |
      = help: name the places of the credential in `session`, or write "never"
    "#);
    let bare = with("websocket = { close_at = \"token\" }").replace("template = \"t\"", "claim = \"sub\"");
    insta::assert_snapshot!(said(&bare), @r#"
    warning: without `clerk.publishable_key` the cookie's suffix is not known
     --> /etc/mintgate/mintgate.toml:5:8
      |
    5 | name = "a"
      |        ^^^ this route takes the session cookie
      |
      = help: only `__session` will be read, no `__session_<suffix>`

    error: the route injects no minted token that could expire
     --> /etc/mintgate/mintgate.toml:8:26
      |
    8 | websocket = { close_at = "token" }
      |                          ^^^^^^^
      |
      = help: inject a `template`, or write "session" or "never"
    "#);
}

#[test]
fn the_shape_is_checked() {
    insta::assert_snapshot!(said(&with("websocket = \"on\"")), @r#"
    warning: without `clerk.publishable_key` the cookie's suffix is not known
     --> /etc/mintgate/mintgate.toml:5:8
      |
    5 | name = "a"
      |        ^^^ this route takes the session cookie
      |
      = help: only `__session` will be read, no `__session_<suffix>`

    error: expected a table, true or false, found a string
     --> /etc/mintgate/mintgate.toml:8:13
      |
    8 | websocket = "on"
      |             ^^^^ not a table, true or false
    "#);
    insta::assert_snapshot!(said(&with("websocket = { close_at = \"tokens\", max_lifetim = \"1h\" }")), @r#"
    warning: without `clerk.publishable_key` the cookie's suffix is not known
     --> /etc/mintgate/mintgate.toml:5:8
      |
    5 | name = "a"
      |        ^^^ this route takes the session cookie
      |
      = help: only `__session` will be read, no `__session_<suffix>`

    error: not one of the values that this key takes
     --> /etc/mintgate/mintgate.toml:8:26
      |
    8 | websocket = { close_at = "tokens", max_lifetim = **** }
      |                          ^^^^^^^^ did you mean "token"?
      |
      = help: it takes "never", "token", "session"

    error: unknown key `max_lifetim`
     --> /etc/mintgate/mintgate.toml:8:36
      |
    8 | websocket = { close_at = "tokens", max_lifetim = **** }
      |                                    ^^^^^^^^^^^ did you mean `max_lifetime`?
    "#);
    insta::assert_snapshot!(said(&with("websocket = { max_lifetime = 60 }")), @r#"
    warning: without `clerk.publishable_key` the cookie's suffix is not known
     --> /etc/mintgate/mintgate.toml:5:8
      |
    5 | name = "a"
      |        ^^^ this route takes the session cookie
      |
      = help: only `__session` will be read, no `__session_<suffix>`

    error: expected a string, found an integer
     --> /etc/mintgate/mintgate.toml:8:30
      |
    8 | websocket = { max_lifetime = 60 }
      |                              ^^ not a string
      |
      = help: write it in quotes; durations and sizes have a unit: "30s", "64KiB"
    "#);
}

/// Fails without either warning, and where one is given for five minutes or more.
#[test]
fn a_websocket_that_would_not_last_is_warned_of() {
    let warned = |keys: &str, expires_in: &str| {
        let source = with(keys).replace("template = \"t\"", &format!("template = \"t\"{expires_in}"));
        let (_, warnings) = parse_in(&outside(), &source).unwrap_or_else(|problems| panic!("{problems}"));
        let text = warnings.to_string();
        (text.contains("closed within a minute"), text.contains("closed within five minutes"))
    };
    let (session, token) = ("websocket = { close_at = \"session\" }", "websocket = { close_at = \"token\" }");
    assert_eq!(warned(session, ", expires_in = \"1h\""), (true, false));
    assert_eq!(warned(token, ", expires_in = \"4m\""), (false, true));
    // How long the template's own tokens live is not known here.
    for (keys, expires_in) in [(token, ", expires_in = \"5m\""), (token, ""), ("", ", expires_in = \"2m\"")] {
        assert_eq!(warned(keys, expires_in), (false, false), "{keys} {expires_in}");
    }
}

fn rewriting(inject: &str, table: &str) -> String {
    with(&format!("websocket = {{ rewrite_connection_init = {{ {table} }} }}"))
        .replace("[{ header = \"x-token\", template = \"t\" }]", inject)
}

#[test]
fn the_first_message_gets_the_one_token_or_the_named_one() {
    let one = "[{ header = \"x-id\", claim = \"sub\" }, { header = \"x-token\", template = \"t\" }]";
    let two = "[{ header = \"x-token\", template = \"t\" }, { header = \"x-other\", template = \"u\" }]";
    for (inject, table, steps, injection) in [
        (one, "pointer = \"/headers/Authorization\", prefix = \"Bearer \"", &["headers", "Authorization"][..], 1),
        (one, "pointer = \"/a~1b~0c\"", &["a/b~c"], 1),
        (two, "pointer = \"/token\", template = \"u\"", &["token"], 1),
        (two, "pointer = \"/token\", template = \"t\"", &["token"], 0),
    ] {
        let source = rewriting(inject, table);
        let (config, _) = parse_in(&outside(), &source).unwrap_or_else(|problems| panic!("{problems}"));
        let init = config.routes[0].connection_init.as_ref().unwrap();
        assert_eq!(
            (&init.token.steps[..], init.injection),
            (&steps.iter().map(|&s| s.to_owned()).collect::<Vec<_>>()[..], injection)
        );
        assert_eq!(init.token.prefix.is_empty(), !table.contains("prefix"));
    }
    let nothing = "[{ header = \"x-id\", claim = \"sub\" }]";
    for (inject, table, problem) in [
        (two, "pointer = \"/token\"", "add template = "),
        (two, "pointer = \"/token\", template = \"v\"", "no token of this template"),
        (nothing, "pointer = \"/token\"", "no minted token that could be put there"),
        (one, "prefix = \"Bearer \"", "a `pointer` says where"),
        (one, "pointer = \"\"", "not a JSON pointer to a member"),
        (one, "pointer = \"token\"", "not a JSON pointer to a member"),
        (one, "pointer = \"/a//b\"", "not a JSON pointer to a member"),
        (one, "pointer = \"/a~2\"", "not a JSON pointer to a member"),
        (one, "pointer = \"/token\", prefix = \" a\"", "cannot stand at the beginning"),
        (one, "pointer = \"/token\", to = 1", "unknown"),
    ] {
        let said = said(&rewriting(inject, table));
        assert!(said.contains(problem), "{table}: {said}");
    }
    let carried = rewriting(one, "pointer = \"/token\"").replace("upstream = \"http://127.0.0.1:1\"\n", "")
        + "[authz]\nlisten = \"127.0.0.1:6473\"\n";
    assert!(said(&carried).contains("opens no WebSocket here"), "{}", said(&carried));
}

#[test]
fn a_session_in_the_first_message_is_alone_and_nothing_is_known_of_it_before() {
    let source = "{ connection_init = \"/headers/Authorization\", prefix = \"Bearer \" }";
    let late = |session: &str, inject: &str, keys: &str| {
        with(&format!("session = [{session}]\n{keys}"))
            .replace("[{ header = \"x-token\", template = \"t\" }]", &format!("[{inject}]"))
    };
    let (minted, fixed) = (
        "{ header = \"x-token\", template = \"t\" }",
        "{ header = \"apikey\", value = { env = \"CLERK_SECRET_KEY\" } }",
    );
    let both = format!("{fixed}, {minted}");
    let read = |keys: &str| {
        let (config, _) =
            parse_in(&outside(), &late(source, &both, keys)).unwrap_or_else(|problems| panic!("{problems}"));
        let route = config.routes[0].clone();
        assert!(route.session.is_empty() && route.takes_sessions());
        route.connection_init.unwrap()
    };
    let same = read("require = { org_role = [\"org:admin\"] }");
    assert_eq!((same.session.as_ref(), same.injection, same.token.prefix.as_str()), (Some(&same.token), 1, "Bearer "));
    let moved = read("websocket = { close_at = \"token\", rewrite_connection_init = { pointer = \"/token\" } }");
    assert_eq!((moved.session, &moved.token.steps[..]), (same.session, &["token".to_owned()][..]));
    for (session, inject, keys, problem) in [
        (format!("{source}, \"bearer\"").as_str(), minted, "", "has a route of its own"),
        (source, fixed, "", "no minted token that could be put there"),
        (source, &format!("{minted}, {{ header = \"x-other\", template = \"u\" }}"), "", "several minted tokens"),
        (source, &format!("{minted}, {{ header = \"x-id\", claim = \"sub\" }}"), "", "nothing is known of the session"),
        (
            source,
            &format!("{minted}, {{ header = \"x-s\", session_token = true }}"),
            "",
            "nothing is known of the session",
        ),
        (source, minted, "websocket = false", "the route opens none"),
        (source, minted, "on_no_session = \"pass\"", "without a session the WebSocket is closed"),
        (source, minted, "clerk_app = true", "a Clerk application does not find"),
        (source, minted, "forward_credential = true", "no credential that could be forwarded"),
        (source, minted, "forward_clerk_cookies = true", "no cookie of Clerk's"),
        (source, minted, "retry_rejected = { statuses = [401] }", "no request is sent again"),
        ("{ connection_init = \"headers\" }", minted, "", "not a JSON pointer to a member"),
        ("{ connection_init = \"/a\", header = \"x\" }", minted, "", "a session source is of one kind"),
        ("{ header = \"x-s\", prefix = \"Bearer \" }", minted, "", "a session source is of one kind"),
    ] {
        let said = said(&late(session, inject, keys));
        assert!(said.contains(problem), "{session} {inject} {keys}: {said}");
    }
}
