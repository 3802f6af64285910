//! What a whole process leaves on standard error, also when it panics.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use mintgate::secret::Secret;
use mintgate::telemetry::{self, FilterFrom, LogFormat};

use crate::secrets::canaries::Canaries;

/// Its last character has two bytes: who cuts between them panics, and the message quotes all of it.
const TOKEN: &str = "canary-token-Q7x9Zk2Vw4mN8r-é";

/// Set for the process that is watched: a run of this same test.
const WATCHED: &str = "MINTGATE_TEST_WATCHED";

fn watched() {
    let guard = telemetry::init("trace", FilterFrom::Config, LogFormat::Auto).unwrap();
    assert!(telemetry::init("trace", FilterFrom::Config, LogFormat::Auto).is_err(), "logging begins once");
    let secret = Secret::new("canary-secret");
    tracing::info!(?secret, "begun");
    let token = std::hint::black_box(TOKEN);
    let panics: [fn(&str); 7] = [
        |token| panic!("bad {token}"),
        |token| drop(token[..TOKEN.len() - 1].to_owned()),
        |token| drop(String::from_utf8([token.as_bytes(), &[0xff]].concat()).unwrap()),
        |token| std::panic::panic_any(token.to_owned()),
        |token| assert_eq!(token, "another", "{}", STANDARD.encode(token)),
        |token| drop(HeaderValue::from_str(&format!("Bearer {token}\n")).expect(token)),
        |_| panic!("literal"),
    ];
    for panic in panics {
        let thread = std::thread::Builder::new().name("worker".to_owned()).spawn(move || panic(token)).unwrap();
        assert!(thread.join().is_err());
    }
    for index in 0..5000 {
        tracing::info!(index, "line");
    }
    drop(guard);
    std::process::exit(0);
}

/// Fails with the standard library's hook, and with one that prints the message.
#[test]
fn a_panic_is_logged_without_its_values_and_no_line_is_lost() {
    if std::env::var_os(WATCHED).is_some() {
        watched();
    }
    let me = std::env::current_exe().unwrap();
    let name = "telemetry::a_panic_is_logged_without_its_values_and_no_line_is_lost";
    let out = Command::new(me).args(["--exact", "--nocapture", name]).env(WATCHED, "1").output().unwrap();
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success() && !text.contains("canary"), "{text}");
    let mut canaries = Canaries::default();
    canaries.add("the token", TOKEN);
    canaries.assert_clean("the log of a process that panics", &text);
    canaries.assert_clean("its standard output", &String::from_utf8_lossy(&out.stdout));
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |message: &str| lines.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    assert_eq!((of("begun").len(), of("line").len()), (1, 5000));
    let panics = of("a task panicked");
    let reasons: Vec<_> = panics.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    let hidden = "not shown: it may quote a value";
    assert_eq!(reasons, [hidden, hidden, hidden, hidden, hidden, hidden, "literal"]);
    assert!(panics.iter().all(|line| line["thread"] == "worker" && line["level"] == "ERROR"));
    assert!(panics[0]["at"].as_str().unwrap().starts_with("tests/it/telemetry.rs:"), "{:?}", panics[0]);
}
