//! Session tokens that Clerk's JavaScript SDK has judged (`tests/sdk/cases.mjs`), judged by mintgate: never more lenient.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue};
use mintgate::clock::Wall;
use mintgate::config::validate::{self, Environment, Secrets};
use mintgate::config::{Config, KeySource};
use mintgate::session::credential::peek::NothingRead;
use mintgate::session::credential::{self, CookieRules};
use mintgate::session::jwks::keys::KeySet;
use mintgate::session::verify::{self, Verifier};
use mintgate::session::{Session, SessionError};
use serde_json::Value;

/// Where `tests/run` has put the cases and the verdicts.
const WHERE: &str = "MINTGATE_DIFFERENTIAL";

/// Every file holds the instance's public key.
struct Pem(String);

fn lines(directory: &Path, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(directory.join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The configuration that a case asks for, as a user would write it.
fn config(instance: &Value, options: &Value) -> Config {
    let key = if options["development"] == true {
        &instance["development"]["publishable_key"]
    } else {
        &instance["publishable_key"]
    };
    // A list of strings in JSON is one in TOML.
    let text = format!(
        "[clerk]\npublishable_key = {key}\njwt_key = {{ file = \"key.pem\" }}\nauthorized_parties = {}\naudience = {}\n\
         [[routes]]\nname = \"all\"\nupstream = \"http://127.0.0.1:1\"\n",
        options["authorized_parties"], options["audience"]
    );
    let pem = Pem(instance["jwt_key"].as_str().unwrap().to_owned());
    let parsed = validate::parse(&text, Path::new("case.toml"), &pem, Secrets::Required);
    let (mut config, _) = parsed.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    config.clerk.issuer = options["issuer"].as_str().map(str::to_owned);
    config
}

fn judge(instance: &Value, case: &Value) -> Result<Session, SessionError> {
    let options = &case["options"];
    let config = config(instance, options);
    let keys = match (options["keys"].as_str().unwrap(), &config.clerk.keys) {
        ("jwks", _) => KeySet::parse(instance["jwks"].to_string().as_bytes()).unwrap(),
        ("jwt_key", KeySource::Pinned(der)) => KeySet::pinned(der).unwrap(),
        other => panic!("{other:?}"),
    };
    let headers: HeaderMap = case["headers"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| {
            let value = HeaderValue::from_bytes(value.as_str().unwrap().as_bytes()).unwrap();
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), value)
        })
        .collect();
    let now = Wall::from_millis(options["now_ms"].as_i64().unwrap());
    let route = &config.routes[0];
    let cookies = CookieRules::new(&config.clerk);
    let credential = credential::find(&headers, &route.session, &cookies, now, &NothingRead)?.credential;
    let session = Verifier::new(&config.clerk).verify(credential.token.as_str(), &keys)?;
    verify::check(&session, now, &route.rules, credential.client_uat(), config.clerk.clock_skew)?;
    Ok(session)
}

#[test]
#[expect(
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test that was skipped says so; tests/run sets it"
)]
fn no_token_is_taken_that_the_sdk_refuses() {
    let Ok(directory) = std::env::var(WHERE) else {
        eprintln!("SKIPPED: {WHERE} is not set; tests/run makes what this test reads");
        return;
    };
    let directory = Path::new(&directory);
    let (cases, verdicts) = (lines(directory, "cases.jsonl"), lines(directory, "verdicts.jsonl"));
    let verdicts: HashMap<&str, &Value> =
        verdicts.iter().map(|verdict| (verdict["name"].as_str().unwrap(), verdict)).collect();
    let (instance, cases) = cases.split_first().unwrap();
    assert_eq!(cases.len(), verdicts.len());
    let (mut wrong, mut taken, mut refused) = (Vec::new(), 0, 0);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let (ours, sdk) = (judge(instance, case), verdicts[name]);
        let theirs = sdk["accepted"].as_bool().unwrap();
        let fits = match case["ours"].as_str().unwrap() {
            "same" => ours.is_ok() == theirs,
            "refuse" => ours.is_err(),
            // Neither is promised, but never more lenient.
            "any" => ours.is_err() || theirs,
            other => panic!("{name}: {other}"),
        };
        *(if ours.is_ok() { &mut taken } else { &mut refused }) += 1;
        if !fits {
            let ours = ours.map_or_else(|error| format!("refused: {error:?}"), |_| "taken".to_owned());
            wrong.push(format!("{name}: ours {ours}, the SDK's {theirs} ({})", sdk["reason"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(taken > 10 && refused > 100, "{taken} taken, {refused} refused: that is no trial");
}

// === impl Pem ===

impl Environment for Pem {
    fn var(&self, _name: &str) -> Option<String> {
        Some("sk_test_differential".to_owned())
    }

    fn read(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.0.clone().into_bytes())
    }

    fn exists(&self, _path: &Path) -> bool {
        true
    }
}
