//! `mintgate check --online`: what the issuer says of a configuration: whether it takes the secret key, whether all keys
//! are of one instance, whether the templates of the routes are there, and how many sessions its limit carries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::Value;

use crate::clock::Clock;
use crate::config::{ApiUrl, Clerk, CloseAt, Config, KeySource, MintKind, MintSpec, Route, Source};
use crate::lifecycle::Spawner;
use crate::metrics::{Metrics, Names};
use crate::secret::Secret;
use crate::telemetry::chain;
use crate::token::capacity::Capacity;
use crate::token::clerk::instance::{InstanceError, Template};
use crate::token::clerk::{BuildError, ClerkClient, FetchError};

use super::finding::{Findings, Level};

/// A key that the issuer publishes: its id, and its modulus.
type Published = BTreeMap<String, Vec<u8>>;

const MIXED: &str = "one of the keys is of another instance: copy all of them from the same one";

/// Below this a template's tokens are minted again so often that the instance's budget feels it.
const SHORT_TOKEN: Duration = Duration::from_mins(2);
/// See the warning of the same name that needs nobody to be asked.
const SHORT_WEBSOCKET: Duration = Duration::from_mins(5);

/// Asks the issuer. `sessions`: so many are to be active at once.
///
/// # Errors
/// When its client cannot be set up.
pub(super) async fn ask(config: &Config, sessions: Option<u64>) -> Result<Findings, BuildError> {
    let mut findings = Findings::default();
    let clerk = &config.clerk;
    if clerk.secret_keys.is_empty() {
        let text = "clerk.secret_key is not here, so nothing was asked".to_owned();
        findings.advise(Level::Unknown, text, "set its variable, or name a file that has it: --env-file .env.local");
        return Ok(findings);
    }
    let mut templates = None;
    let mut own = Published::new();
    let mut refused = Vec::new();
    for (index, key) in clerk.secret_keys.iter().enumerate() {
        let name = if clerk.secret_keys.len() == 1 { String::new() } else { format!(" {}", index + 1) };
        let client = client(clerk, Some(key))?;
        let jwks = below(clerk.api_url.as_str(), "/v1/jwks");
        match client.fetch_jwks(&jwks, true).await {
            Ok(document) => {
                let keys = published(&document);
                let ids = ids(&keys);
                findings.add(
                    Level::Ok,
                    format!("the secret key{name} is accepted by {}: instance {ids}", clerk.api_url.as_str()),
                );
                if templates.is_none() {
                    templates = Some(client.templates().await);
                    own = keys;
                } else if !share_a_key(&own, &keys) {
                    findings.advise(Level::Error, format!("the secret key{name} is of another instance"), MIXED);
                }
            }
            Err(FetchError::Status(401)) => refused.push(name),
            Err(error) => unreached(&mut findings, clerk.api_url.as_str(), &error),
        }
    }
    // Where another one is accepted, it is the one that rotation leaves behind: the first that is not refused is used.
    let level = if templates.is_some() { Level::Warning } else { Level::Error };
    for name in refused {
        findings.advise(
            level,
            format!("the secret key{name} is not accepted by {}", clerk.api_url.as_str()),
            "copy it anew from the dashboard's API keys, or leave it out; nothing is minted with this one",
        );
    }
    if !own.is_empty() {
        one_instance(&mut findings, config, &own).await?;
    }
    match templates {
        Some(Ok(templates)) => {
            judge_templates(&mut findings, config, &templates);
            judge_capacity(&mut findings, config, &templates, sessions);
        }
        Some(Err(InstanceError::Refused { status: StatusCode::FORBIDDEN, .. })) if is_behind_hub(clerk) => {
            let text = format!(
                "{} is a hub and tells no templates: they show when they are asked for",
                clerk.api_url.as_str()
            );
            findings.advise(
                Level::Note,
                text,
                "compare those of the routes with this gateway's entry in the hub's callers",
            );
        }
        Some(Err(InstanceError::Fetch(error))) => unreached(&mut findings, clerk.api_url.as_str(), &error),
        Some(Err(error)) => findings.add(Level::Unknown, format!("the templates are not known: {}", chain(&error))),
        None => {}
    }
    Ok(findings)
}

fn client(clerk: &Clerk, key: Option<&Secret>) -> Result<ClerkClient, BuildError> {
    let clerk = Clerk { secret_keys: key.into_iter().cloned().collect(), ..clerk.clone() };
    let metrics = Arc::new(Metrics::new(Names::default()));
    ClerkClient::new(&clerk, Clock::system(), Spawner::current(), metrics)
}

/// Whether what is shown as the secret key is none of Clerk's, but what a hub takes in its place.
fn is_behind_hub(clerk: &Clerk) -> bool {
    clerk.secret_keys.iter().any(|key| !key.expose().starts_with("sk_"))
}

fn unreached(findings: &mut Findings, url: &str, error: &FetchError) {
    findings.add(Level::Unknown, format!("{url} does not say: {}", chain(error)));
}

/// Compares the keys that verify sessions, and those that the issuer publishes, with the secret key's own.
async fn one_instance(findings: &mut Findings, config: &Config, own: &Published) -> Result<(), BuildError> {
    let clerk = &config.clerk;
    match &clerk.keys {
        KeySource::Pinned(der) => {
            if own.values().any(|modulus| der.windows(modulus.len().max(1)).any(|part| part == modulus)) {
                findings.add(Level::Ok, "clerk.jwt_key is the key of the secret key's instance".to_owned());
            } else {
                let text = format!("clerk.jwt_key is not a key of the secret key's instance, {}", ids(own));
                findings.advise(Level::Error, text, MIXED);
            }
        }
        KeySource::Jwks { url, with_secret: false, .. } => compare(findings, clerk, url, own).await?,
        // Where the secret key's own come from; or nothing is verified.
        KeySource::Jwks { .. } | KeySource::None => {}
    }
    // A hub publishes nothing to those who show it no bearer.
    if let Some(url) = public_keys(clerk).filter(|_| !is_behind_hub(clerk)) {
        compare(findings, clerk, &url, own).await?;
    }
    Ok(())
}

/// Where the issuer publishes its keys. Where an emulator or a hub stands in Clerk's place, the issuer has only a name.
fn public_keys(clerk: &Clerk) -> Option<ApiUrl> {
    const PATH: &str = "/.well-known/jwks.json";
    let issuer = clerk.issuer.as_deref()?;
    let in_the_clear = |url: &str| url.starts_with("http:");
    if in_the_clear(clerk.api_url.as_str()) && !in_the_clear(issuer) {
        return Some(below(clerk.api_url.as_str(), PATH));
    }
    Some(below(issuer, PATH))
}

fn below(base: &str, path: &str) -> ApiUrl {
    ApiUrl(format!("{base}{path}").into())
}

async fn compare(findings: &mut Findings, clerk: &Clerk, url: &ApiUrl, own: &Published) -> Result<(), BuildError> {
    match client(clerk, None)?.fetch_jwks(url, false).await {
        Ok(document) => {
            let theirs = published(&document);
            if share_a_key(own, &theirs) {
                findings.add(Level::Ok, format!("{} publishes the keys of the same instance", url.as_str()));
            } else {
                let text = format!(
                    "{} publishes the keys of {}, and the secret key is of {}",
                    url.as_str(),
                    ids(&theirs),
                    ids(own)
                );
                findings.advise(Level::Error, text, MIXED);
            }
        }
        Err(error) => unreached(findings, url.as_str(), &error),
    }
    Ok(())
}

/// A key, and not its id alone, which stays when the key is changed.
fn share_a_key(one: &Published, other: &Published) -> bool {
    one.iter().any(|(kid, modulus)| other.get(kid) == Some(modulus))
}

/// The keys of a JWKS document, with which alone nothing is verified here.
fn published(document: &[u8]) -> Published {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let keys = document["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    keys.iter()
        .filter_map(|key| Some((key["kid"].as_str()?.to_owned(), URL_SAFE_NO_PAD.decode(key["n"].as_str()?).ok()?)))
        .collect()
}

fn ids(keys: &Published) -> String {
    // An id is the issuer's own text; what is odd in it is not for a terminal.
    let shown = |kid: &String| kid.chars().take(64).flat_map(char::escape_debug).collect::<String>();
    if keys.is_empty() { "(none)".to_owned() } else { keys.keys().map(shown).collect::<Vec<_>>().join(", ") }
}

/// What each route mints, with the route's name.
fn minted(config: &Config) -> impl Iterator<Item = (&Route, &str, &MintSpec)> {
    config.routes.iter().flat_map(|route| {
        route.inject.iter().filter_map(move |injection| match &injection.source {
            Source::Minted(spec) => match &spec.kind {
                MintKind::Template(name) => Some((route, name.as_str(), spec)),
                MintKind::Session => None,
            },
            _ => None,
        })
    })
}

fn judge_templates(findings: &mut Findings, config: &Config, templates: &[Template]) {
    let there: BTreeMap<&str, u64> =
        templates.iter().map(|template| (template.name.as_str(), template.lifetime)).collect();
    let mut routes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (route, name, _) in minted(config) {
        routes.entry(name).or_default().insert(&route.name);
    }
    for (name, routes) in &routes {
        let routes = routes.iter().copied().collect::<Vec<_>>().join(", ");
        if let Some(lifetime) = there.get(name) {
            findings.add(Level::Ok, format!("template {name} is there, for {} (routes: {routes})", seconds(*lifetime)));
        } else {
            let names = there.keys().copied().collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { "there is none".to_owned() } else { format!("there are: {names}") };
            findings.advise(
                Level::Error,
                format!("template {name} (routes: {routes}) is not in the instance; {names}"),
                "make it in the dashboard (JWT templates), or write the name of one that is there; names are told apart by case",
            );
        }
    }
    let mut said = BTreeSet::new();
    for (route, name, spec) in minted(config) {
        let Some(lifetime) = there.get(name).copied() else { continue };
        match spec.expires_in.map(u64::from) {
            Some(asked) if asked != lifetime && said.insert((name, Some(asked))) => findings.add(
                Level::Note,
                format!(
                    "template {name}: expires_in makes its tokens live for {}, where the template says {}",
                    seconds(asked),
                    seconds(lifetime)
                ),
            ),
            None if lifetime < SHORT_TOKEN.as_secs() && said.insert((name, None)) => findings.advise(
                Level::Warning,
                format!(
                    "template {name}: its tokens live for {}, so each session mints one that often",
                    seconds(lifetime)
                ),
                "add expires_in = \"5m\" to the injection, or change the template",
            ),
            Some(_) | None => {}
        }
        let closes = route.websocket.is_some_and(|websocket| websocket.close_at == CloseAt::Token);
        if closes && spec.expires_in.is_none() && lifetime < SHORT_WEBSOCKET.as_secs() {
            findings.advise(
                Level::Warning,
                format!(
                    "route {}: its WebSockets are closed with the token of {name}, after {}",
                    route.name,
                    seconds(lifetime)
                ),
                "add expires_in = \"1h\" to the injection, or write close_at = \"never\"",
            );
        }
    }
}

/// What the tokens cost, and whether so many sessions are too many.
fn judge_capacity(findings: &mut Findings, config: &Config, templates: &[Template], sessions: Option<u64>) {
    let lifetimes = templates.iter().map(|template| (template.name.as_str(), template.lifetime)).collect();
    let Some(capacity) = Capacity::of(config, &lifetimes) else { return };
    findings.add(Level::Ok, capacity.text());
    if let Some(sessions) = sessions {
        let text = format!("{sessions} active sessions cost {:.1} mints a second", capacity.per_second(sessions));
        if sessions <= capacity.carries_sessions {
            findings.add(Level::Ok, text);
        } else {
            findings.advise(
                Level::Error,
                format!("{text}, more than the budget has"),
                "let tokens live longer (expires_in), or have Clerk raise the limit and write it into [clerk.budget]; \
                 `mintgate simulate` shows what callers would notice",
            );
        }
    }
    findings.capacity = Some(capacity);
}

fn seconds(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}
