//! `[traces]`: where spans go, and what is refused.

use super::*;
use crate::config::{OtlpProtocol, Traces};

const AROUND: &str = "[[routes]]\nname = \"a\"\nupstream = \"http://127.0.0.1:1\"\nsession = []\n";

fn said(keys: &str) -> Result<(Option<Traces>, String), String> {
    let outside = Outside::default().var("TOKEN", "canary").var("BAD", "a\nb");
    match parse_in(&outside, &format!("{AROUND}{keys}")) {
        Ok((config, warnings)) => Ok((config.traces, warnings.to_string())),
        Err(problems) => Err(problems.to_string()),
    }
}

fn traces(keys: &str) -> Traces {
    said(&format!("[traces]\n{keys}")).unwrap_or_else(|problems| panic!("{problems}")).0.unwrap()
}

#[test]
fn without_the_section_there_are_none() {
    assert_eq!(said("").unwrap().0, None);
}

#[test]
fn the_url_is_that_of_the_service() {
    for (keys, url) in [
        ("", "http://127.0.0.1:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
        ("protocol = \"http\"", "http://127.0.0.1:4318/v1/traces"),
        (
            "protocol = \"http\"\nendpoint = \"https://otlp.example.com/otlp/\"",
            "https://otlp.example.com/otlp/v1/traces",
        ),
        (
            "endpoint = \"https://[2001:db8::1]:4317/\"",
            "https://[2001:db8::1]:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        ),
    ] {
        assert_eq!(traces(keys).url, url, "{keys}");
    }
    assert_eq!(traces("").protocol, OtlpProtocol::Grpc);
    assert!((traces("sample = 1").sample - 1.0).abs() < f64::EPSILON);
}

#[test]
fn what_no_collector_could_be_asked_with_is_refused() {
    for (keys, problem) in [
        ("endpoint = \"127.0.0.1:4317\"", "not an absolute http or https URL"),
        ("endpoint = \"grpc://127.0.0.1:4317\"", "not an absolute http or https URL"),
        ("endpoint = \"http://u:p@127.0.0.1:4317\"", "no user name or password"),
        ("endpoint = \"http://127.0.0.1:4317/v1/traces\"", "over gRPC the URL of a collector has no path"),
        ("protocol = \"http\"\nendpoint = \"http://127.0.0.1:4318/v1/traces\"", "this URL ends before `/v1/traces`"),
        ("protocol = \"http/json\"", "not one of the values"),
        ("sample = 1.5", "a number from 0 to 1"),
        ("sample = -0.1", "a number from 0 to 1"),
        ("service = \"\"", "a service has a name"),
        ("timeout = \"0s\"", "too short"),
        ("headers = { authorization = \"canary\" }", "a secret is never written in the configuration"),
        ("headers = { authorization = { env = \"ABSENT\" } }", "not set"),
        ("headers = { \"a b\" = { env = \"TOKEN\" } }", "not a header name"),
        ("headers = { content-type = { env = \"TOKEN\" } }", "the message's own"),
        ("headers = { grpc-timeout = { env = \"TOKEN\" } }", "the message's own"),
        ("headers = { a = { env = \"BAD\" } }", "cannot stand in a header"),
    ] {
        let said = said(&format!("[traces]\n{keys}")).expect_err(keys);
        assert!(said.contains(problem) && !said.contains("canary"), "{keys}: {said}");
    }
}

/// Fails where a token for the collector may go in clear text to another machine without a word.
#[test]
fn a_token_in_clear_text_is_warned_of() {
    let headers = "headers = { authorization = { env = \"TOKEN\" } }";
    for (endpoint, warned) in
        [("http://otel.example.com:4317", true), ("https://otel.example.com", false), ("http://localhost:4317", false)]
    {
        let (read, warnings) = said(&format!("[traces]\nendpoint = \"{endpoint}\"\n{headers}")).unwrap();
        assert_eq!(read.unwrap().headers.len(), 1);
        assert_eq!(warnings.contains("clear text"), warned, "{endpoint}: {warnings}");
    }
    assert!(!said("[traces]\nendpoint = \"http://otel.example.com:4317\"").unwrap().1.contains("clear text"));
}
