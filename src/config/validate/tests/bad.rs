//! What is said about bad files, to the letter.

use super::said;

/// A route around one line.
fn route(line: &str) -> String {
    format!("[[routes]]\nname = \"api\"\nupstream = \"http://127.0.0.1:1\"\nsession = []\n{line}\n")
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let source = route("").replace("upstream", "upsteam");
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn an_unknown_section_lists_the_known_ones() {
    let source = format!("[frobnicate]\nx = 1\n{}", route(""));
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn every_problem_is_reported() {
    let source =
        "[server]\nworkers = \"two\"\nidle_timeout = 30\nlisten = \"127.0.0.1:1\"\n[log]\naccess = \"error\"\n";
    insta::assert_snapshot!(said(source), @"");
}

#[test]
fn syntax_is_said_with_its_line() {
    let source = "[server]\nworkers = two\n[clerk\nsecret_key = hunter2\n";
    insta::assert_snapshot!(said(source), @"");
}

#[test]
fn a_literal_secret_is_refused_and_not_shown() {
    let source = format!("[clerk]\nsecret_key = \"hunter2\"\n{}", route(""));
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn a_url_with_user_info_is_refused_and_not_shown() {
    let source = route("").replace("http://", "http://me:hunter2@");
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn cleartext_to_the_issuer_is_refused() {
    let source = format!("[clerk]\napi_url = \"http://api.clerk.com\"\n{}", route(""));
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn what_is_not_served_yet_is_refused() {
    let source = format!(
        "[server]\nlisten = [\"unix:/run/a.sock\"]\ntls = {{ cert = \"a\", key = \"b\" }}\nmax_connection_age = \"5m\"\n[upstreams.a]\nurl = \"https://a\"\n[authz]\n{}",
        route("websocket = { close_at = \"token\" }")
    );
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn a_party_is_an_origin() {
    let source = format!("[clerk]\nauthorized_parties = [\"https://app.example.com/\"]\n{}", route(""));
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn two_routes_do_not_match_the_same_requests() {
    let source = format!(
        "{}{}",
        route("match = { path = \"/a\", methods = [\"GET\", \"PUT\"] }"),
        route("match = { path = \"/a\", methods = [\"PUT\"] }").replace("api", "b")
    );
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn a_public_route_has_no_session_to_inject() {
    let source = route("inject = [{ header = \"x-user\", claim = \"sub\" }]");
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn an_injection_has_one_source() {
    let source = route("inject = [{ header = \"x-user\", claim = \"sub\", template = \"a\" }, { header = \"y\" }]");
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn framing_is_not_injected() {
    let source = route("inject = [{ header = \"Content_Length\", value = { env = \"BILLING_API_KEY\" } }]");
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn a_header_is_set_once() {
    let source = route(
        "inject = [{ header = \"x-a\", value = { env = \"BILLING_API_KEY\" } }, { header = \"X_A\", value = { env = \"BILLING_API_KEY\" } }]",
    );
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn a_token_lives_thirty_seconds() {
    let source =
        route("inject = [{ header = \"x\", template = \"a/b\", expires_in = \"20s\" }]").replace("[]", "[\"bearer\"]");
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn an_upstream_is_named() {
    let source =
        format!("[upstreams.hasura]\nurl = \"http://h\"\n{}", route("").replace("http://127.0.0.1:1", "hasuar"));
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn a_path_has_one_reading() {
    let source = route("match = { path = \"/a/../b\" }\nrewrite_prefix = \"b\"");
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn a_stripped_prefix_is_part_of_the_path() {
    let source = route("match = { path = \"/v10\" }\nstrip_prefix = \"/v1\"");
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn a_variable_that_is_not_set_is_an_error() {
    let source = route("timeout = \"${NOT_SET}\"\npreflight = \"$pass\"");
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn an_absent_secret_is_an_error() {
    let source =
        format!("[clerk]\nsecret_key = {{ env = \"NOT_SET\" }}\njwt_key = {{ file = \"none.pem\" }}\n{}", route(""));
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn a_session_needs_keys() {
    let source = route("inject = [{ header = \"authorization\", template = \"a\" }]").replace("[]", "[\"bearer\"]");
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn an_open_cookie_is_a_warning() {
    let source =
        format!("[clerk]\nsecret_key = {{ env = \"CLERK_SECRET_KEY\" }}\n{}", route("").replace("[]", "[\"cookie\"]"));
    insta::assert_snapshot!(said(&source), @"");
}

#[test]
fn parts_and_counts_have_bounds() {
    let source = format!(
        "[clerk.budget]\nshare = 1.5\nreplicas = 0\nper_session = \"20\"\n[server]\nmax_header_bytes = \"1KiB\"\n{}",
        route("")
    );
    insta::assert_snapshot!(said(&source), @"");
}
