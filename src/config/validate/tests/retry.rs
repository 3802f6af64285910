//! `retry_rejected`: what it takes, and what is said where it cannot work.

use http::StatusCode;

use super::{LEAST, good, said};
use crate::config::{JsonMatch, Pointer, RetryRejected, Scalar};

fn with(line: &str) -> String {
    LEAST.replace("inject", &format!("{line}\ninject"))
}

#[test]
fn a_refusal_is_retried_only_where_that_is_asked_for() {
    assert_eq!(good(LEAST).routes[0].retry_rejected, None);
    let both = vec![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
    for (table, statuses, max_body) in [
        ("{ statuses = [401] }", vec![StatusCode::UNAUTHORIZED], 64 << 10),
        ("{ statuses = [401, 403], max_body = \"1MiB\" }", both.clone(), 1 << 20),
        ("{ statuses = [401, 403], max_body = \"off\" }", both, 0),
        ("{ statuses = [400], max_body = \"0\" }", vec![StatusCode::BAD_REQUEST], 0),
    ] {
        let config = good(&with(&format!("retry_rejected = {table}")));
        assert_eq!(config.routes[0].retry_rejected, Some(RetryRejected { statuses, json: None, max_body }), "{table}");
    }
}

#[test]
fn the_body_of_an_answer_may_have_to_say_that_it_is_a_refusal() {
    let json = JsonMatch {
        pointer: Pointer::parse("/errors/0/extensions/code").unwrap(),
        equals: vec![Scalar::Text("invalid-jwt".to_owned()), Scalar::Integer(16), Scalar::Flag(false)],
    };
    let config = good(&with(
        "retry_rejected = { statuses = [200, 400, 401], json = { pointer = \"/errors/0/extensions/code\", equals = \
         [\"invalid-jwt\", 16, false] } }",
    ));
    let statuses = vec![StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED];
    assert_eq!(config.routes[0].retry_rejected, Some(RetryRejected { statuses, json: Some(json), max_body: 64 << 10 }));
}

/// Fails where a success alone is a refusal, and for each part of `json` that nobody judges.
#[test]
fn what_no_body_can_say_is_refused_with_advice() {
    let json = |json: &str| format!("{{ statuses = [400], json = {json} }}");
    let named =
        |statuses: &str| format!("{{ statuses = {statuses}, json = {{ pointer = \"/a\", equals = [\"b\"] }} }}");
    for (table, words) in [
        ("{ statuses = [200] }".to_owned(), &["only with `json`", "/errors/0/extensions/code"][..]),
        (named("[201]"), &["200, or from 400 to 499"]),
        (named("[302]"), &["200, or from 400 to 499"]),
        (named("[500]"), &["200, or from 400 to 499"]),
        (named("[429]"), &["asks for time, not for another token"]),
        (named("[200, 200]"), &["listed already"]),
        (named("[]"), &["no answer would be retried"]),
        (named("[400], max_body = \"off\""), &["no answer would be read for `json`", "for answers too"]),
        (named("[400], max_body = \"0\""), &["no answer would be read for `json`"]),
        (json("{}"), &["`json` needs `pointer`", "`json` needs `equals`"]),
        (json("{ pointer = \"/a\" }"), &["`json` needs `equals`"]),
        (json("{ equals = [\"a\"] }"), &["`json` needs `pointer`"]),
        (json("{ pointer = \"/a\", equals = [] }"), &["no answer would be retried"]),
        (json("{ pointer = \"a\", equals = [\"b\"] }"), &["not a JSON pointer: it begins with `/`"]),
        (json("{ pointer = \"/a~\", equals = [\"b\"] }"), &["not a JSON pointer", "`~` as `~0`"]),
        (json("{ pointer = \"/a\", equals = [\"b\", \"b\"] }"), &["listed already"]),
        (json("{ pointer = \"/a\", equals = [1.5] }"), &["expected a text, a whole number, true or false"]),
        (json("{ pointer = \"/a\", equals = [[\"b\"]] }"), &["expected a text, a whole number, true or false"]),
        (json("{ pointer = \"/a\", equals = \"b\" }"), &["put it in brackets"]),
        (json("{ pointer = 1, equals = [\"b\"] }"), &["expected a string"]),
        (json("{ pointer = \"/a\", equal = [\"b\"] }"), &["unknown key `equal`", "did you mean `equals`?"]),
        (json("true"), &["expected a table"]),
    ] {
        let said = said(&with(&format!("retry_rejected = {table}")));
        assert!(said.starts_with("error: "), "{table}: {said}");
        for word in words {
            assert!(said.contains(word), "{table}: no `{word}` in\n{said}");
        }
    }
}

#[test]
fn what_cannot_be_a_refused_token_is_refused_with_advice() {
    for (table, words) in [
        ("{}", &["`retry_rejected` needs `statuses`", "before it has done anything: [401]"][..]),
        ("{ statuses = [] }", &["no answer would be retried"]),
        ("{ statuses = [200] }", &["not a status that refuses a request"]),
        ("{ statuses = [500] }", &["from 400 to 499"]),
        ("{ statuses = [-1, 401] }", &["from 400 to 499"]),
        ("{ statuses = [429] }", &["asks for time, not for another token"]),
        ("{ statuses = [401, 401] }", &["listed already"]),
        ("{ statuses = [\"401\"] }", &["expected an integer"]),
        ("{ statuses = [401], max_body = \"17MiB\" }", &["the size is out of bounds", "16.0 MiB"]),
        ("{ statuses = [401], max_body = \"some\" }", &["not a size"]),
        ("{ status = [401] }", &["unknown key `status`"]),
    ] {
        let said = said(&with(&format!("retry_rejected = {table}")));
        assert!(said.starts_with("error: "), "{table}: {said}");
        for word in words {
            assert!(said.contains(word), "{table}: no `{word}` in\n{said}");
        }
    }
}

#[test]
fn a_route_without_minted_tokens_is_warned_about() {
    let said =
        said(&with("retry_rejected = { statuses = [401] }").replace("template = \"custom_hasura\"", "claim = \"sub\""));
    assert!(said.starts_with("warning: this route injects no minted token"), "{said}");
}
