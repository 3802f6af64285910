//! `retry_rejected`: what it takes, and what is said where it cannot work.

use http::StatusCode;

use super::{LEAST, good, said};
use crate::config::RetryRejected;

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
        assert_eq!(config.routes[0].retry_rejected, Some(RetryRejected { statuses, max_body }), "{table}");
    }
}

#[test]
fn what_cannot_be_a_refused_token_is_refused_with_advice() {
    for (table, words) in [
        ("{}", &["`retry_rejected` needs `statuses`", "before it has done anything: [401]"][..]),
        ("{ statuses = [] }", &["no answer would be retried"]),
        ("{ statuses = [200] }", &["not a status that refuses a request", "from 400 to 499"]),
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
