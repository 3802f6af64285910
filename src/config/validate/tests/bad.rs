//! What is said about bad files, to the letter.

use super::said;

/// A route around one line.
fn route(line: &str) -> String {
    format!("[[routes]]\nname = \"api\"\nupstream = \"http://127.0.0.1:1\"\nsession = []\n{line}\n")
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let source = route("").replace("upstream", "upsteam");
    insta::assert_snapshot!(said(&source), @r#"
    error: unknown key `upsteam`
     --> /etc/mintgate/mintgate.toml:3:1
      |
    3 | upsteam = ********************
      | ^^^^^^^ did you mean `upstream`?
    "#);
}

#[test]
fn an_unknown_section_lists_the_known_ones() {
    let source = format!("[frobnicate]\nx = 1\n{}", route(""));
    insta::assert_snapshot!(said(&source), @r#"
    error: unknown key `frobnicate`
     --> /etc/mintgate/mintgate.toml:1:2
      |
    1 | [frobnicate]
      |  ^^^^^^^^^^ unknown key
      |
      = help: the keys here are `clerk`, `server`, `admin`, `authz`, `token_api`, `webhooks`, `log`, `traces`, `cache`, `upstreams`, `routes`
    "#);
}

#[test]
fn every_problem_is_reported() {
    let source =
        "[server]\nworkers = \"two\"\nidle_timeout = 30\nlisten = \"127.0.0.1:1\"\n[log]\naccess = \"error\"\n";
    insta::assert_snapshot!(said(source), @r#"
    error: there is no route
    --> /etc/mintgate/mintgate.toml
     = help: add [[routes]] with a name and an upstream

    error: expected an integer, found a string
     --> /etc/mintgate/mintgate.toml:2:11
      |
    2 | workers = "two"
      |           ^^^^^ not an integer

    error: expected a string, found an integer
     --> /etc/mintgate/mintgate.toml:3:16
      |
    3 | idle_timeout = 30
      |                ^^ not a string
      |
      = help: write it in quotes; durations and sizes have a unit: "30s", "64KiB"

    error: expected a list, found a string
     --> /etc/mintgate/mintgate.toml:4:10
      |
    4 | listen = "127.0.0.1:1"
      |          ^^^^^^^^^^^^^ not a list
      |
      = help: put it in brackets: [ ... ]

    error: not one of the values that this key takes
     --> /etc/mintgate/mintgate.toml:6:10
      |
    6 | access = "error"
      |          ^^^^^^^ did you mean "errors"?
      |
      = help: it takes "off", "errors", "all"
    "#);
}

#[test]
fn syntax_is_said_with_its_line() {
    let source = "[server]\nworkers = two\n[clerk\nsecret_key = hunter2\n";
    insta::assert_snapshot!(said(source), @r#"
    error: invalid boolean, expected `true`
     --> /etc/mintgate/mintgate.toml:2:11
      |
    2 | workers = two
      |           ^^^

    error: unclosed table, expected `]`
     --> /etc/mintgate/mintgate.toml:3:7
      |
    3 | [clerk
      |       ^
    "#);
}

#[test]
fn a_literal_secret_is_refused_and_not_shown() {
    let source = format!("[clerk]\nsecret_key = \"hunter2\"\n{}", route(""));
    insta::assert_snapshot!(said(&source), @r#"
    error: a secret is never written in the configuration
     --> /etc/mintgate/mintgate.toml:2:14
      |
    2 | secret_key = *********
      |              ^^^^^^^^^ not shown
      |
      = help: write { env = "NAME" } or { file = "path" }
    "#);
}

#[test]
fn a_url_with_user_info_is_refused_and_not_shown() {
    let source = route("").replace("http://", "http://me:hunter2@");
    insta::assert_snapshot!(said(&source), @r#"
    error: a URL holds no user name or password here
     --> /etc/mintgate/mintgate.toml:3:12
      |
    3 | upstream = *******************************
      |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: inject an `authorization` header with a `value` instead
    "#);
}

#[test]
fn cleartext_to_the_issuer_is_refused() {
    let source = format!("[clerk]\napi_url = \"http://api.clerk.com\"\n{}", route(""));
    insta::assert_snapshot!(said(&source), @r#"
    error: http is for loopback addresses only; use https
     --> /etc/mintgate/mintgate.toml:2:11
      |
    2 | api_url = "http://api.clerk.com"
      |           ^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: Clerk's is "https://api.clerk.com"
    "#);
}

#[test]
fn a_party_is_an_origin() {
    let source = format!("[clerk]\nauthorized_parties = [\"https://app.example.com/\"]\n{}", route(""));
    insta::assert_snapshot!(said(&source), @r#"
    error: not an origin
     --> /etc/mintgate/mintgate.toml:2:23
      |
    2 | authorized_parties = ["https://app.example.com/"]
      |                       ^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: write the scheme, the host and a port that is not the usual one: "https://app.example.com"
    "#);
}

#[test]
fn two_routes_do_not_match_the_same_requests() {
    let source = format!(
        "{}{}",
        route("match = { path = \"/a\", methods = [\"GET\", \"PUT\"] }"),
        route("match = { path = \"/a\", methods = [\"PUT\"] }").replace("api", "b")
    );
    insta::assert_snapshot!(said(&source), @r#"
    error: two routes match the same requests
     --> /etc/mintgate/mintgate.toml:7:8
      |
    2 | name = "api"
      |        ----- this one has the same host, path and a common method
    ...
    7 | name = "b"
      |        ^^^
      |
      = help: give them different hosts, paths or methods
    "#);
}

#[test]
fn a_public_route_has_no_session_to_inject() {
    let source = route("inject = [{ header = \"x-user\", claim = \"sub\" }]");
    insta::assert_snapshot!(said(&source), @r#"
    error: a public route has no session to take this from
     --> /etc/mintgate/mintgate.toml:5:40
      |
    5 | inject = [{ header = "x-user", claim = "sub" }]
      |                                        ^^^^^ `session = []`
      |
      = help: a public route can inject a `value` alone
    "#);
}

#[test]
fn an_injection_has_one_source() {
    let source = route("inject = [{ header = \"x-user\", claim = \"sub\", template = \"a\" }, { header = \"y\" }]");
    insta::assert_snapshot!(said(&source), @r#"
    error: an injection has one source
     --> /etc/mintgate/mintgate.toml:5:58
      |
    5 | inject = [{ header = "x-user", claim = "sub", template = "a" }, { header = "y" }]
      |                                        -----             ^^^
      |                                        |
      |                                        the first one

    error: an injection needs a source
     --> /etc/mintgate/mintgate.toml:5:65
      |
    5 | inject = [{ header = "x-user", claim = "sub", template = "a" }, { header = "y" }]
      |                                                                 ^^^^^^^^^^^^^^^^
      |
      = help: one of `template`, `claim`, `session_token = true`, `minted_session_token = true` and `value`
    "#);
}

#[test]
fn framing_is_not_injected() {
    let source = route("inject = [{ header = \"Content_Length\", value = { env = \"BILLING_API_KEY\" } }]");
    insta::assert_snapshot!(said(&source), @r#"
    error: this header is not for the configuration to set
     --> /etc/mintgate/mintgate.toml:5:22
      |
    5 | inject = [{ header = "Content_Length", value = { env = "BILLING_API_KEY" } }]
      |                      ^^^^^^^^^^^^^^^^
      |
      = help: the protocol or the gateway decides about it
    "#);
}

#[test]
fn a_header_is_set_once() {
    let source = route(
        "inject = [{ header = \"x-a\", value = { env = \"BILLING_API_KEY\" } }, { header = \"X_A\", value = { env = \"BILLING_API_KEY\" } }]",
    );
    insta::assert_snapshot!(said(&source), @r#"
    error: the route sets this header already
     --> /etc/mintgate/mintgate.toml:5:79
      |
    5 | inject = [{ header = "x-a", value = { env = "BILLING_API_KEY" } }, { header = "X_A", value = { env = "BILLING_API_KEY" } }]
      |                                                                               ^^^^^
      |
      = help: `-` and `_` are one character to many servers
    "#);
}

#[test]
fn a_token_lives_thirty_seconds() {
    let source =
        route("inject = [{ header = \"x\", template = \"a/b\", expires_in = \"20s\" }]").replace("[]", "[\"bearer\"]");
    insta::assert_snapshot!(said(&source), @r#"
    error: a session cannot be verified without keys
     --> /etc/mintgate/mintgate.toml:2:8
      |
    2 | name = "api"
      |        ^^^^^ this route takes sessions
      |
      = help: set `secret_key`, `jwt_key` or `jwks_url` in [clerk]

    error: a template name has 1 to 128 of the characters A-Z a-z 0-9 _ -
     --> /etc/mintgate/mintgate.toml:5:38
      |
    5 | inject = [{ header = "x", template = "a/b", expires_in = "20s" }]
      |                                      ^^^^^

    error: a token cannot be minted without `clerk.secret_key`
     --> /etc/mintgate/mintgate.toml:5:38
      |
    5 | inject = [{ header = "x", template = "a/b", expires_in = "20s" }]
      |                                      ^^^^^ this has to be minted
      |
      = help: add secret_key = { env = "CLERK_SECRET_KEY" } to [clerk]

    error: the issuer gives whole seconds, 30 or more
     --> /etc/mintgate/mintgate.toml:5:58
      |
    5 | inject = [{ header = "x", template = "a/b", expires_in = "20s" }]
      |                                                          ^^^^^ not a life time of a token
    "#);
}

#[test]
fn an_upstream_is_named() {
    let source =
        format!("[upstreams.hasura]\nurl = \"http://h\"\n{}", route("").replace("http://127.0.0.1:1", "hasuar"));
    insta::assert_snapshot!(said(&source), @r#"
    error: no upstream has this name
     --> /etc/mintgate/mintgate.toml:5:12
      |
    5 | upstream = "hasuar"
      |            ^^^^^^^^ did you mean `hasura`?
      |
      = help: name a table of [upstreams], or write a URL: "http://127.0.0.1:8090"
    "#);
}

#[test]
fn a_path_has_one_reading() {
    let source = route("match = { path = \"/a/../b\" }\nrewrite_prefix = \"b\"");
    insta::assert_snapshot!(said(&source), @r#"
    error: a path that upstreams read in more than one way
     --> /etc/mintgate/mintgate.toml:5:18
      |
    5 | match = { path = "/a/../b" }
      |                  ^^^^^^^^^
      |
      = help: no dot segments, `//`, `\`, and no encoded `/`, `\`, `.`, `%` or NUL

    error: a path begins with `/`
     --> /etc/mintgate/mintgate.toml:6:18
      |
    6 | rewrite_prefix = "b"
      |                  ^^^
      |
      = help: write "/v1/graphql"
    "#);
}

#[test]
fn a_stripped_prefix_is_part_of_the_path() {
    let source = route("match = { path = \"/v10\" }\nstrip_prefix = \"/v1\"");
    insta::assert_snapshot!(said(&source), @r#"
    error: the route's path does not begin with this prefix
     --> /etc/mintgate/mintgate.toml:6:16
      |
    6 | strip_prefix = "/v1"
      |                ^^^^^
      |
      = help: a prefix that is taken away is a part of `match.path`, in whole segments
    "#);
}

#[test]
fn a_variable_that_is_not_set_is_an_error() {
    let source = route("timeout = \"${NOT_SET}\"\npreflight = \"$pass\"");
    insta::assert_snapshot!(said(&source), @r#"
    error: the environment variable is not set
     --> /etc/mintgate/mintgate.toml:5:11
      |
    5 | timeout = "${NOT_SET}"
      |           ^^^^^^^^^^^^
      |
      = help: set it, name a file that has it (--env-file), or give a default: `${NAME:-default}`

    error: a `$` that begins nothing
     --> /etc/mintgate/mintgate.toml:6:13
      |
    6 | preflight = "$pass"
      |             ^^^^^^^
      |
      = help: write `$$` for a dollar, `${NAME}` for an environment variable
    "#);
}

#[test]
fn an_absent_secret_is_an_error() {
    let source =
        format!("[clerk]\nsecret_key = {{ env = \"NOT_SET\" }}\njwt_key = {{ file = \"none.pem\" }}\n{}", route(""));
    insta::assert_snapshot!(said(&source), @r#"
    error: the environment variable is not set
     --> /etc/mintgate/mintgate.toml:2:22
      |
    2 | secret_key = { env = "NOT_SET" }
      |                      ^^^^^^^^^

    error: cannot read the file: entity not found
     --> /etc/mintgate/mintgate.toml:3:20
      |
    3 | jwt_key = { file = "none.pem" }
      |                    ^^^^^^^^^^
    "#);
}

#[test]
fn a_session_needs_keys() {
    let source = route("inject = [{ header = \"authorization\", template = \"a\" }]").replace("[]", "[\"bearer\"]");
    insta::assert_snapshot!(said(&source), @r#"
    error: a session cannot be verified without keys
     --> /etc/mintgate/mintgate.toml:2:8
      |
    2 | name = "api"
      |        ^^^^^ this route takes sessions
      |
      = help: set `secret_key`, `jwt_key` or `jwks_url` in [clerk]

    error: a token cannot be minted without `clerk.secret_key`
     --> /etc/mintgate/mintgate.toml:5:50
      |
    5 | inject = [{ header = "authorization", template = "a" }]
      |                                                  ^^^ this has to be minted
      |
      = help: add secret_key = { env = "CLERK_SECRET_KEY" } to [clerk]
    "#);
}

#[test]
fn an_open_cookie_is_a_warning() {
    let source =
        format!("[clerk]\nsecret_key = {{ env = \"CLERK_SECRET_KEY\" }}\n{}", route("").replace("[]", "[\"cookie\"]"));
    insta::assert_snapshot!(said(&source), @r#"
    warning: cookies are taken, and `authorized_parties` does not say from which origins
     --> /etc/mintgate/mintgate.toml:4:8
      |
    4 | name = "api"
      |        ^^^^^ this route takes the session cookie
      |
      = help: list your application's origins in `clerk.authorized_parties`, or take "bearer" alone

    warning: without `clerk.publishable_key` the cookie's suffix is not known
     --> /etc/mintgate/mintgate.toml:4:8
      |
    4 | name = "api"
      |        ^^^^^ this route takes the session cookie
      |
      = help: only `__session` will be read, no `__session_<suffix>`
    "#);
}

#[test]
fn parts_and_counts_have_bounds() {
    let source = format!(
        "[clerk.budget]\nshare = 1.5\nreplicas = 0\nper_session = \"20\"\n[server]\nmax_header_bytes = \"1KiB\"\n{}",
        route("")
    );
    insta::assert_snapshot!(said(&source), @r#"
    error: a part is a number from 0 to 1
     --> /etc/mintgate/mintgate.toml:2:9
      |
    2 | share = 1.5
      |         ^^^

    error: the number is out of bounds
     --> /etc/mintgate/mintgate.toml:3:12
      |
    3 | replicas = 0
      |            ^ from 1 to 100000

    error: not a rate
     --> /etc/mintgate/mintgate.toml:4:15
      |
    4 | per_session = "20"
      |               ^^^^
      |
      = help: write a count and a time: "20/10s"

    error: the size is out of bounds
     --> /etc/mintgate/mintgate.toml:6:20
      |
    6 | max_header_bytes = "1KiB"
      |                    ^^^^^^ from 8.0 KiB to 16.0 MiB
    "#);
}

#[test]
fn a_path_that_looks_like_a_pattern_is_warned_of() {
    for (path, instead) in [
        ("/v1/*", Some("/v1")),
        ("/*", Some("/")),
        ("/v1/:id/x", Some("/v1")),
        ("/a/b/{id}", Some("/a/b")),
        ("/v1/users:batch", None),
    ] {
        let said = said(&route(&format!("match = {{ path = \"{path}\" }}")));
        let advice = instead.map(|path| format!("covers everything below it: write \"{path}\""));
        assert_eq!(advice.is_some(), said.contains("warning: a path is no pattern"), "{said}");
        assert!(advice.is_none_or(|advice| said.contains(&advice)), "{said}");
    }
}

#[test]
fn what_was_refused_is_not_said_to_be_missing() {
    let source = super::LEAST
        .replace("[\"bearer\"]", "[\"Bearer\", \"cookies\"]")
        .replace("[clerk]", "[clerk]\npublishable_key = \"pk_live_xxx\"\nauthorized_parties = [\"app.example.com\"]");
    let said = said(&source);
    assert_eq!(said.matches("error: ").count(), 4, "{said}");
    assert!(!said.contains("public route") && !said.contains("warning"), "{said}");
    let cookie = said_of_cookie();
    assert!(!cookie.contains("is not known") && !cookie.contains("from which origins"), "{cookie}");
}

fn said_of_cookie() -> String {
    said(
        &super::LEAST.replace("[\"bearer\"]", "[\"cookie\"]").replace(
            "[clerk]",
            "[clerk]\npublishable_key = \"pk_live_xxx\"\nauthorized_parties = [\"app.example.com\"]",
        ),
    )
}

#[test]
fn a_secret_key_that_is_none_is_warned_of() {
    for (key, words) in [("pk_live_x", "a publishable key, not a secret key"), ("'sk_live_x'", "a quotation mark")] {
        let outside = super::outside().var("CLERK_SECRET_KEY", key);
        let (_, warnings) = super::parse_in(&outside, super::LEAST).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(warnings.to_string().contains(words), "{warnings}");
    }
}

#[test]
fn a_method_that_nobody_registered_is_warned_of() {
    for (method, warned) in [("FETCH", true), ("PROPFIND", false), ("GET", false)] {
        let said = said(&route(&format!("match = {{ methods = [\"{method}\"] }}")));
        assert_eq!(said.contains("warning: no registered method has this name"), warned, "{said}");
    }
}

/// Whoever can reach the control listener ends the process. Fails without the looks at the address and the token.
#[test]
fn the_control_listener_is_for_this_machine_and_for_its_owner() {
    for (keys, problem) in [
        ("control = \"0.0.0.0:7000\"\ntoken = { env = \"T\" }", "other machines could reach this address"),
        ("control = \"127.0.0.1:7000\"", "`control` needs a `token` here"),
        ("control = \"systemd:control\"", "`control` needs a `token` here"),
        ("control = \"127.0.0.1:6469\"\ntoken = { env = \"T\" }", "another listener has this address"),
        ("control = \"127.0.0.1:6468\"\ntoken = { env = \"T\" }", "another listener has this address"),
        ("control = \"/run/control.sock\"", "not an address and a port"),
        ("token = { env = \"T\" }", "there is no `control`"),
    ] {
        let text = said(&format!("[admin]\n{keys}\n{}", route("")));
        assert!(text.contains(problem), "{keys}\n{text}");
    }
    assert_eq!(said(&format!("[admin]\ncontrol = \"unix:control.sock\"\n{}", route(""))), "");
}
