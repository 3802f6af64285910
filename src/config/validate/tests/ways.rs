//! `[authz]`, `[token_api]` and `[webhooks]`: what stands without being written, and what is refused.

use super::*;
use crate::address::PeerAddress;

/// What the sections stand in; no route is among it.
const CLERK: &str = "[clerk]\nsecret_key = { env = \"CLERK_SECRET_KEY\" }\n";
const AUTHZ: &str = "[authz]\nlisten = \"127.0.0.1:6473\"\n";
const TOKEN_API: &str = "[token_api]\nlisten = \"127.0.0.1:6474\"\n";
const WEBHOOKS: &str =
    "[webhooks]\nlisten = \"127.0.0.1:6475\"\nsigning_secret = { env = \"CLERK_WEBHOOK_SIGNING_SECRET\" }\n";

/// What is said of a caller's table.
fn said_of_callers(callers: &str) -> String {
    said(&format!("{CLERK}{TOKEN_API}callers = [{callers}]\n"))
}

fn caller(name: &str, token: &str, templates: &str) -> String {
    format!("{{ name = \"{name}\", token = {{ env = \"{token}\" }}, templates = [{templates}] }}")
}

#[test]
fn the_defaults_of_the_other_ways_are_those_of_the_design() {
    let (config, _) = parse_in(&outside(), &format!("{LEAST}{AUTHZ}{TOKEN_API}{WEBHOOKS}")).unwrap();
    let authz = config.authz.unwrap();
    let address = |text: &str| ListenAddress::Tcp(text.parse().unwrap());
    assert_eq!(authz.way.listen, address("127.0.0.1:6473"));
    for (peer, may) in [("127.0.0.1:1", true), ("127.9.9.9:1", true), ("[::1]:1", true), ("10.0.0.1:1", false)] {
        assert_eq!(authz.allow_from.trusts(PeerAddress::Tcp(peer.parse().unwrap())), may, "{peer}");
    }
    assert!(authz.allow_from.trusts(PeerAddress::Unix));
    let api = config.token_api.unwrap();
    assert_eq!((api.way.listen, api.way.tls, api.callers), (address("127.0.0.1:6474"), None, vec![]));
    let webhooks = config.webhooks.unwrap();
    assert_eq!((webhooks.way.listen, webhooks.path.as_str()), (address("127.0.0.1:6475"), "/webhooks/clerk"));
    assert_eq!(webhooks.signing_secrets.len(), 1);
    assert!(good(LEAST).authz.is_none() && good(LEAST).token_api.is_none() && good(LEAST).webhooks.is_none());
}

#[test]
fn what_is_written_is_what_holds() {
    let callers =
        [caller("billing", "BILLING_TOKEN", "\"a\", \"b\""), caller("jobs", "MINTGATE_CALLER_TOKEN", "\"a\"")];
    let api = good(&format!("{CLERK}{TOKEN_API}callers = [{}]\n", callers.join(", "))).token_api.unwrap();
    let shown = |caller: &crate::config::ApiCaller| {
        let templates: Vec<String> = caller.templates.iter().map(|name| name.as_str().to_owned()).collect();
        (caller.name.clone(), caller.token.expose().to_owned(), templates.join(" "))
    };
    let expected = [("billing", "billing-token", "a b"), ("jobs", "caller", "a")];
    let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(api.callers.iter().map(shown).collect::<Vec<_>>(), expected);
    let secrets = WEBHOOKS.replace("{ env", "[{ env").replace(" }", " }, { env = \"CLERK_WEBHOOK_SIGNING_SECRET\" }]");
    let (config, _) = parse_in(&outside(), &format!("{secrets}path = \"/hooks\"\n")).unwrap();
    let webhooks = config.webhooks.unwrap();
    assert_eq!((webhooks.signing_secrets.len(), webhooks.path.as_str()), (2, "/hooks"));
    let authz = good(&format!("{LEAST}{AUTHZ}allow_from = [\"10.0.0.0/8\"]\n")).authz.unwrap();
    assert!(authz.allow_from.trusts(PeerAddress::Tcp("10.1.1.1:1".parse().unwrap())));
    assert!(!authz.allow_from.trusts(PeerAddress::Unix));
}

/// Data listens all the same where it does by default.
#[test]
fn beside_the_token_api_and_webhooks_no_route_is_needed() {
    for source in [format!("{CLERK}{TOKEN_API}"), WEBHOOKS.to_owned(), format!("{CLERK}{TOKEN_API}{WEBHOOKS}")] {
        let (config, _) = parse_in(&outside(), &source).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(config.routes.is_empty() && config.server.listen.len() == 1);
    }
    assert!(said(&format!("{CLERK}{AUTHZ}")).contains("there is no route"));
}

#[test]
fn webhooks_warn_that_they_reach_one_process() {
    let said = said(WEBHOOKS);
    assert!(said.contains("warning: webhooks reach this process only") && !said.contains("error"), "{said}");
}

#[test]
fn an_address_is_one_listeners_alone() {
    let admin =
        "[admin]\nlisten = \"127.0.0.1:6473\"\ncontrol = \"127.0.0.1:6474\"\ntoken = { env = \"BILLING_TOKEN\" }\n";
    let server = "[server]\nlisten = [\"127.0.0.1:6475\"]\n";
    let elsewhere =
        |section: &str, port: &str| section.replace("6473", port).replace("6474", port).replace("6475", port);
    for (source, other) in [
        (format!("{admin}{AUTHZ}"), "[admin]"),
        (format!("{admin}{TOKEN_API}"), "`admin.control`"),
        (format!("{server}{WEBHOOKS}"), "[server]"),
        (elsewhere(AUTHZ, "6468"), "[server]"),
        (format!("{AUTHZ}{}", elsewhere(TOKEN_API, "6473")), "[authz]"),
        (format!("{TOKEN_API}{}", elsewhere(WEBHOOKS, "6474")), "[token_api]"),
    ] {
        let said = said(&format!("{LEAST}{source}"));
        assert!(said.contains(&format!("error: {other} listens on this address too")), "{source}\n{said}");
    }
    let any = format!("{LEAST}{}{}", elsewhere(AUTHZ, "0"), elsewhere(TOKEN_API, "0"));
    assert_eq!(said(&any), "", "the kernel chooses two");
}

/// Fails without the look at the address: a secret key would be shown in clear text.
#[test]
fn the_token_api_is_not_for_other_machines_in_clear_text() {
    for (address, refused) in
        [("0.0.0.0:6474", true), ("[::]:6474", true), ("10.0.0.1:6474", true), ("[::1]:6474", false)]
    {
        let said = said(&format!("{CLERK}{}", TOKEN_API.replace("127.0.0.1:6474", address)));
        assert_eq!(said.contains("would pass in clear text"), refused, "{address}: {said}");
    }
    let unix = format!("{CLERK}{}", TOKEN_API.replace("127.0.0.1:6474", "unix:api.sock"));
    assert_eq!(said(&unix), "");
}

#[test]
fn answers_with_tokens_in_clear_text_are_warned_of() {
    let warned = |address: &str, more: &str| {
        let authz = AUTHZ.replace("127.0.0.1:6473", address);
        said(&format!("{LEAST}{authz}{more}\n")).contains("warning: minted tokens pass in clear text")
    };
    let private = "allow_from = [\"private\"]";
    assert!(warned("0.0.0.0:6473", private) && warned("10.0.0.1:6473", private));
    assert!(!warned("127.0.0.1:6473", private) && !warned("unix:authz.sock", private));
    for here in ["", "allow_from = [\"loopback\", \"unix\"]"] {
        assert!(!warned("0.0.0.0:6473", here), "nobody but this machine may ask");
    }
    let tls = "tls = { cert = \"cert.pem\", key = \"key.pem\" }\n";
    assert!(!warned("0.0.0.0:6473", &format!("{tls}{private}")));
}

#[test]
fn callers_are_told_apart() {
    for (callers, problem) in [
        (
            [caller("a", "BILLING_TOKEN", "\"t\""), caller("a", "MINTGATE_CALLER_TOKEN", "\"t\"")].join(", "),
            "two callers have the same name",
        ),
        (
            [caller("a", "BILLING_TOKEN", "\"t\""), caller("b", "BILLING_TOKEN", "\"t\"")].join(", "),
            "two callers show the same token",
        ),
        (caller("a", "CLERK_SECRET_KEY", "\"t\""), "this is `clerk.secret_key` itself"),
        (caller("a b", "BILLING_TOKEN", "\"t\""), "not a name"),
        (caller("a", "BILLING_TOKEN", ""), "this caller may ask for nothing"),
        (caller("a", "BILLING_TOKEN", "\"t/../x\""), "a template name has"),
        (caller("a", "NOT_SET", "\"t\""), "the environment variable is not set"),
        ("{ token = { env = \"BILLING_TOKEN\" }, templates = [\"t\"] }".to_owned(), "a caller needs `name`"),
        ("{ name = \"a\", templates = [\"t\"] }".to_owned(), "a caller needs `token`"),
        ("{ name = \"a\", token = { env = \"BILLING_TOKEN\" } }".to_owned(), "a caller needs `templates`"),
    ] {
        let said = said_of_callers(&callers);
        assert!(said.contains(&format!("error: {problem}")), "{callers}\n{said}");
    }
}

#[test]
fn what_a_section_needs_is_told() {
    for (source, problem) in [
        ("[authz]\n".to_owned(), "[authz] needs a `listen`"),
        (format!("{AUTHZ}allow_from = []\n"), "nobody could ask"),
        (format!("{AUTHZ}allow_from = [\"localhost\"]\n"), "not a network"),
        ("[token_api]\n".to_owned(), "[token_api] needs a `listen`"),
        ("[webhooks]\n".to_owned(), "[webhooks] needs a `listen`"),
        ("[webhooks]\nlisten = \"127.0.0.1:1\"\n".to_owned(), "webhooks need a `signing_secret`"),
        (WEBHOOKS.replace("{ env = \"CLERK_WEBHOOK_SIGNING_SECRET\" }", "[]"), "the list of signing secrets is empty"),
        (format!("{WEBHOOKS}path = \"hooks\"\n"), "a path begins with `/`"),
        (format!("{WEBHOOKS}path = \"/a//b\"\n"), "a path that upstreams read in more than one way"),
    ] {
        let said = said(&format!("{LEAST}{source}"));
        assert!(said.contains(&format!("error: {problem}")), "{source}\n{said}");
    }
    let said = said(TOKEN_API);
    assert!(said.contains("error: a token cannot be minted without `clerk.secret_key`"), "{said}");
}

#[test]
fn a_signing_secret_is_one() {
    for (secret, is_one) in [
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", true),
        ("whsec_", false),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", false),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", false),
        ("whsec_MfKQ9r8GKYqr TwjUPD8ILPZIo2LaLaSw", false),
        ("whsec_-_KQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", false),
    ] {
        let outside = outside().var("CLERK_WEBHOOK_SIGNING_SECRET", secret);
        let found = parse_in(&outside, WEBHOOKS);
        assert_eq!(found.is_ok(), is_one, "{secret}");
        if let Err(problems) = found {
            assert!(problems.to_string().contains("not a signing secret"), "{problems}");
        }
    }
}

/// A way that comes, goes or moves is told of; what else changes is used.
#[test]
fn where_they_listen_needs_a_restart() {
    let read = |source: &str| parse_in(&outside(), source).unwrap_or_else(|problems| panic!("{problems}")).0;
    let running = read(&format!("{LEAST}{AUTHZ}{WEBHOOKS}"));
    let moved = WEBHOOKS.replace("6475", "6476");
    let mut next = read(&format!("{LEAST}{TOKEN_API}{moved}path = \"/other\"\n"));
    assert_eq!(next.keep_what_needs_a_restart(&running), ["authz", "token_api", "webhooks.listen"]);
    assert!(next.authz.is_some() && next.token_api.is_none());
    let webhooks = next.webhooks.unwrap();
    assert_eq!(Some(&webhooks.way), running.webhooks.as_ref().map(|running| &running.way));
    assert_eq!(webhooks.path, "/other");
}

/// Whoever forwards by itself needs no upstream here; whoever does not, does.
#[test]
fn a_route_has_no_upstream_only_where_proxies_ask() {
    let route = "[[routes]]\nname = \"carried\"\nsession = []\n";
    let config = good(&format!("{AUTHZ}{route}"));
    assert!(config.routes[0].upstream.is_none() && config.upstreams.is_empty());
    assert!(config.upstream_of(&config.routes[0]).is_none());
    assert!(said(route).contains("the route needs an `upstream`"), "{}", said(route));
}
