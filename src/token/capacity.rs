//! What the tokens of a configuration cost: how many mints an active session causes, and how many sessions the budget carries.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{Claim, Config, Expectation, MintKind, MintSpec, Source};
use crate::token::freshness::Rules;

/// How long a session token lives that is minted without `expires_in` (contract section 1.2).
const SESSION_TOKEN: Duration = Duration::from_mins(1);

const HOUR: f64 = 3600.0;

/// One kind of token that each active session needs.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Need {
    /// The template; `None`: a session token.
    pub template: Option<String>,
    /// How long one lives.
    pub lifetime_seconds: u64,
    /// While a session makes requests all the time, it is minted that often.
    pub minted_every_seconds: f64,
}

/// The whole.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Capacity {
    /// Each kind of token once.
    pub needs: Vec<Need>,
    /// Mints that one active session causes in an hour.
    pub mints_per_session_and_hour: f64,
    /// Mints in a second that the budget allows all gateways together.
    pub budget_per_second: f64,
    /// Active sessions that it carries.
    pub carries_sessions: u64,
}

/// What makes two tokens of one session two: the rest of a key is the session.
type Kind<'a> = (Option<&'a str>, Option<u32>, Vec<&'a Claim>, Vec<&'a Expectation>);

// === impl Capacity ===

impl Capacity {
    /// With the lifetime of each template of the instance. `None` where nothing is minted, or one lifetime is not known.
    pub fn of(config: &Config, lifetimes: &BTreeMap<&str, u64>) -> Option<Self> {
        let rules = Rules::from(&config.cache);
        let mut kinds: Vec<Kind<'_>> = Vec::new();
        for kind in minted(config).map(kind) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let need = |(template, expires_in, ..): &Kind<'_>| {
            let own = || template.map_or(Some(SESSION_TOKEN.as_secs()), |name| lifetimes.get(name).copied());
            let lifetime = expires_in.map(u64::from).or_else(own)?;
            let every = rules.replaced_after(Duration::from_secs(lifetime)).as_secs_f64().max(1.0);
            let template = template.map(str::to_owned);
            Some(Need { template, lifetime_seconds: lifetime, minted_every_seconds: every })
        };
        let needs = kinds.iter().map(need).collect::<Option<Vec<_>>>()?;
        let per_second: f64 = needs.iter().map(|need| 1.0 / need.minted_every_seconds).sum();
        if per_second <= 0.0 {
            return None;
        }
        let budget = &config.clerk.budget;
        let budget_per_second =
            budget.own_requests() * f64::from(budget.replicas) / budget.per.as_secs_f64().max(0.001);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; cut where it is huge"
        )]
        // Rounding must not cost one.
        let carries_sessions = (budget_per_second / per_second + 1e-6) as u64;
        let mints_per_session_and_hour = per_second * HOUR;
        Some(Self { needs, mints_per_session_and_hour, budget_per_second, carries_sessions })
    }

    /// Mints in a second of so many active sessions.
    pub fn per_second(&self, sessions: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let sessions = sessions as f64;
        sessions * self.mints_per_session_and_hour / HOUR
    }

    /// In a line.
    pub fn text(&self) -> String {
        let Self { needs, mints_per_session_and_hour, budget_per_second, carries_sessions } = self;
        let each: Vec<String> = needs
            .iter()
            .map(|need| {
                // To the second.
                let every = Duration::from_secs(Duration::from_secs_f64(need.minted_every_seconds).as_secs());
                let name = need.template.as_deref().unwrap_or("session token");
                format!("{name} every {}", humantime::format_duration(every))
            })
            .collect();
        format!(
            "an active session costs {mints_per_session_and_hour:.1} mints an hour ({}); the budget of {budget_per_second:.1} \
             mints a second carries {carries_sessions} active sessions",
            each.join(", ")
        )
    }
}

/// What the routes mint, each as often as it stands there.
fn minted(config: &Config) -> impl Iterator<Item = &MintSpec> {
    config.routes.iter().flat_map(|route| &route.inject).filter_map(|injection| match &injection.source {
        Source::Minted(spec) => Some(spec),
        _ => None,
    })
}

fn kind(spec: &MintSpec) -> Kind<'_> {
    let template = match &spec.kind {
        MintKind::Template(name) => Some(name.as_str()),
        MintKind::Session => None,
    };
    (template, spec.expires_in, spec.vary.iter().collect(), spec.expect.iter().collect())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::*;
    use crate::config::validate::{self, Environment, Secrets};

    struct Key;

    impl Environment for Key {
        fn var(&self, _: &str) -> Option<String> {
            Some("sk_live_capacity".to_owned())
        }

        fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::NotFound.into())
        }

        fn exists(&self, _: &Path) -> bool {
            false
        }
    }

    fn capacity(tables: &str, inject: &[&str]) -> Option<Capacity> {
        let route = |(number, inject): (usize, &&str)| {
            format!(
                "[[routes]]\nname = \"r{number}\"\nmatch = {{ path = \"/{number}\" }}\nupstream = \
                 \"http://127.0.0.1:1\"\nsession = [\"bearer\"]\ninject = [{inject}]\n"
            )
        };
        let routes = inject.iter().enumerate().map(route).collect::<Vec<_>>().concat();
        let text = format!(
            "[clerk]\nsecret_key = {{ env = \"KEY\" }}\nissuer = \"https://clerk.example.com\"\n\
             authorized_parties = [\"https://app.example.com\"]\n{tables}\n{routes}"
        );
        let parsed = validate::parse(&text, Path::new("a.toml"), &Key, Secrets::Optional);
        let (config, _) = parsed.unwrap_or_else(|problems| panic!("{problems}"));
        Capacity::of(&config, &BTreeMap::from([("a", 60), ("b", 3600)]))
    }

    const A: &str = "{ header = \"authorization\", template = \"a\" }";
    const A5: &str = "{ header = \"authorization\", template = \"a\", expires_in = \"5m\" }";
    const B: &str = "{ header = \"x-b\", template = \"b\" }";

    /// Fails where a token that two routes share is counted twice, or one with a lifetime of its own not at all.
    #[test]
    fn each_kind_of_token_counts_once() {
        let each = |inject: &[&str]| capacity("", inject).unwrap().mints_per_session_and_hour;
        let a = HOUR / 46.5;
        assert!((each(&[A]) - a).abs() < 0.01, "{}", each(&[A]));
        assert!((each(&[A, A]) - a).abs() < 0.01);
        assert!((each(&[A, A5]) - (a + HOUR / 232.5)).abs() < 0.01);
        assert!((each(&[&format!("{A}, {B}")]) - (a + HOUR / 2790.0)).abs() < 0.01);
    }

    /// Fails where the budget of one gateway is taken for that of all, or `share` is forgotten.
    #[test]
    fn the_budget_is_that_of_all_gateways() {
        for tables in ["", "[clerk.budget]\nreplicas = 4\n"] {
            let capacity = capacity(tables, &[A5]).unwrap();
            assert!((capacity.budget_per_second - 80.0).abs() < 1e-9);
            assert_eq!(capacity.carries_sessions, 18_600);
            assert!((capacity.per_second(18_600) - 80.0).abs() < 0.01);
        }
        assert!(capacity("", &[A5]).unwrap().text().contains("carries 18600 active sessions"));
    }

    #[test]
    fn nothing_is_said_where_a_lifetime_is_not_known_or_nothing_is_minted() {
        assert_eq!(capacity("", &["{ header = \"x-c\", template = \"c\" }"]), None);
        assert_eq!(capacity("", &["{ header = \"x-sub\", claim = \"sub\" }"]), None);
    }
}
