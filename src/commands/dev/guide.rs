//! What `dev` tells: what runs where, a line to paste, and what can and cannot be tried.

use std::io::{self, Write};
use std::net::SocketAddr;

use http::Method;

use crate::address::ListenAddress;
use crate::config::{Config, HostPattern, Listen, Route, SessionSource};
use crate::emulator::{Emulator, base_url};
use crate::route::Router;

/// Everything that `dev` can tell of.
pub(super) struct Guide<'a> {
    pub(super) gateway: SocketAddr,
    pub(super) admin: Option<SocketAddr>,
    pub(super) clerk: SocketAddr,
    /// Where the echo is served, when it is.
    pub(super) echo: Option<SocketAddr>,
    /// What `--upstream` says, when it is not the echo.
    pub(super) upstream: Option<&'a str>,
    /// The user's configuration, as it was named.
    pub(super) file: Option<&'a str>,
    pub(super) notes: &'a [String],
    /// A request that a route takes; `None` when no route takes one with a session.
    pub(super) example: Option<Example>,
    pub(super) emulator: &'a Emulator,
}

/// A request that one of the routes takes with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Example {
    method: Method,
    path: String,
    /// `Host`, where the route asks for one.
    host: Option<String>,
    place: Place,
    /// The party that the route takes sessions of, when it is not the emulator's own.
    party: Option<String>,
}

/// Where the session token goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Bearer,
    Header(String),
    /// With the origin that it needs on a method that changes something.
    Cookie {
        origin: Option<String>,
    },
}

// === impl Example ===

impl Example {
    /// For the first route that takes a session; before those that mint nothing, one that does. `party`: of the
    /// emulator's tokens.
    pub(super) fn of(config: &Config, party: &str) -> Option<Self> {
        let router = Router::new(&config.routes);
        // The one whose address is shown.
        let is_tcp = |listen: &&Listen| matches!(listen.address, ListenAddress::Tcp(_));
        let listener = config.server.listen.iter().find(is_tcp)?.id;
        let examples = || {
            config.routes.iter().filter_map(|route| {
                let example = Self::of_route(route, party)?;
                let host = example.host.as_deref().unwrap_or("localhost");
                let found = router.find(listener, host, &example.path, &example.method).ok()?;
                (found == route.id).then_some((route, example))
            })
        };
        let mints = |route: &Route| !route.inject.is_empty();
        let best = examples().find(|(route, _)| mints(route)).or_else(|| examples().next());
        best.map(|(_, example)| example)
    }

    fn of_route(route: &Route, party: &str) -> Option<Self> {
        let matcher = &route.matcher;
        let method = match &matcher.methods[..] {
            [] => Method::GET,
            methods => methods.iter().find(|method| **method == Method::GET).or(methods.first())?.clone(),
        };
        let parties = &route.rules.authorized_parties;
        let strange = !parties.is_empty() && !parties.iter().any(|own| own.as_str() == party);
        let reads = matches!(method, Method::GET | Method::HEAD | Method::OPTIONS);
        let party = if strange { parties.first()?.as_str() } else { party };
        let place = route.session.first().map(|source| match source {
            SessionSource::Bearer => Place::Bearer,
            SessionSource::Header(name) => Place::Header(name.to_string()),
            SessionSource::Cookie => Place::Cookie { origin: (!reads).then(|| party.to_owned()) },
        })?;
        let host = match &matcher.host {
            HostPattern::Exact(host) => Some(host.clone()),
            HostPattern::Suffix(suffix) => Some(format!("any{suffix}")),
            HostPattern::Any => None,
        };
        // The root says little; any path below it goes the same way.
        let path = if matcher.path == "/" && !matcher.exact { "/hello" } else { &matcher.path };
        Some(Self { method, path: path.to_owned(), host, place, party: strange.then(|| party.to_owned()) })
    }

    /// The line. It fetches a fresh session token inside itself, so it works however late it is pasted.
    fn line(&self, gateway: SocketAddr, clerk: SocketAddr, session: &str) -> String {
        let mut token = format!("{}/_emulator/token?session={session}", base_url(clerk));
        if let Some(party) = &self.party {
            token.push_str("&azp=");
            token.push_str(party);
        }
        let token = format!("$(curl -s '{token}')");
        let mut words = vec!["curl -s".to_owned()];
        match self.method {
            Method::GET => {}
            Method::HEAD => words.push("-I".to_owned()),
            _ => words.push(format!("-X {}", self.method)),
        }
        words.push(quoted(&format!("{}{}", base_url(gateway), self.path)));
        words.extend(self.host.iter().map(|host| format!("-H {}", quoted(&format!("Host: {host}")))));
        words.push(match &self.place {
            Place::Bearer => format!("-H \"Authorization: Bearer {token}\""),
            Place::Header(name) => format!("-H \"{name}: {token}\""),
            Place::Cookie { .. } => format!("-H \"Cookie: __session={token}; __client_uat=1\""),
        });
        if let Place::Cookie { origin: Some(origin) } = &self.place {
            words.push(format!("-H {}", quoted(&format!("Origin: {origin}"))));
        }
        words.join(" ")
    }
}

/// A word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

// === impl Guide ===

impl Guide<'_> {
    /// Everything, when all of it is ready.
    pub(super) fn tell(&self, out: &mut dyn Write) -> io::Result<()> {
        let row = |out: &mut dyn Write, name: &str, at: &str, what: &str| writeln!(out, "{name:<11}{at}   {what}");
        let gateway = self.file.map_or_else(|| "the gateway".to_owned(), |file| format!("the gateway, as {file} says"));
        row(out, "mintgate", &base_url(self.gateway), &gateway)?;
        if let Some(admin) = self.admin {
            row(out, "admin", &base_url(admin), "the status page; /readyz, /metrics")?;
        }
        row(out, "clerk", &base_url(self.clerk), "an emulator: sessions, tokens, keys")?;
        match (self.echo, self.upstream) {
            (Some(echo), _) => row(out, "upstream", &base_url(echo), "answers with what it received")?,
            (None, Some(upstream)) => row(out, "upstream", upstream, "yours")?,
            (None, None) => {}
        }
        if !self.notes.is_empty() {
            writeln!(out)?;
        }
        for note in self.notes {
            writeln!(out, "{note}")?;
        }
        let state = self.emulator.state();
        let sessions = state["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let session = sessions.iter().find(|session| session["status"] == "active");
        let session = session.and_then(|session| session["id"].as_str());
        match (&self.example, session) {
            (Some(example), Some(session)) => {
                writeln!(
                    out,
                    "\nPaste this into a second shell; it sends a fresh session token through the gateway:\n"
                )?;
                writeln!(out, "{}", example.line(self.gateway, self.clerk, session))?;
                match self.echo {
                    Some(_) if self.file.is_none() => writeln!(
                        out,
                        "\nThe answer shows what the upstream received: \"authorization\" holds the minted token."
                    )?,
                    Some(_) => writeln!(out, "\nThe answer shows what the upstream received.")?,
                    None => writeln!(
                        out,
                        "\nThe answer is your upstream's; mintgate's own errors carry x-mintgate-error. To see what your \
                         upstream\nreceives, start again with --upstream echo."
                    )?,
                }
            }
            (None, _) => writeln!(out, "\nNo route takes a session, so there is nothing to try one on.")?,
            (_, None) => writeln!(out, "\nNo session of the seed is active, so there is nothing to try.")?,
        }
        if let (true, Some(session)) = (self.echo.is_none(), session) {
            self.tell_of_browsers(out, session)?;
        }
        writeln!(out, "Stop with ctrl-c.")
    }

    /// Nobody can sign in; what works is said.
    fn tell_of_browsers(&self, out: &mut dyn Write, session: &str) -> io::Result<()> {
        let clerk = base_url(self.clerk);
        writeln!(
            out,
            "\nClerk's SDK on the server of your application verifies the emulator's sessions with\n  CLERK_API_URL={clerk} \
             CLERK_SECRET_KEY={} CLERK_PUBLISHABLE_KEY={}",
            self.emulator.secret_key().expose(),
            self.emulator.publishable_key(),
        )?;
        writeln!(
            out,
            "\nNobody can sign in with a browser: the emulator has no sign-in page and no Frontend API for clerk-js. Cookies \
             that\nyou set by hand for the gateway's host are a session: __client_uat=1, __clerk_db_jwt=dev, and in \
             __session what this\nprints, good for ten hours:\n  curl -s '{clerk}/_emulator/token?session={session}&expires_in_seconds=36000'\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::validate::{self, Process, Secrets};

    const PARTY: &str = "http://localhost:3000";

    fn line(routes: &str) -> Option<String> {
        let text = format!(
            "[clerk]\nsecret_key = {{ env = \"MINTGATE_NOT_SET\" }}\n[upstreams.a]\nurl = \"http://127.0.0.1:1\"\n{routes}"
        );
        let parsed = validate::parse(&text, Path::new("a.toml"), &Process, Secrets::Replaced);
        let (config, _) = parsed.unwrap_or_else(|problems| panic!("{problems}"));
        let [gateway, clerk] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        Example::of(&config, PARTY).map(|example| example.line(gateway, clerk, "s"))
    }

    #[test]
    fn the_line_is_one_that_a_route_takes() {
        let token = "$(curl -s 'http://127.0.0.1:2/_emulator/token?session=s')";
        for (route, expected) in [
            ("", format!("curl -s 'http://127.0.0.1:1/hello' -H \"Authorization: Bearer {token}\"")),
            (
                "match = { host = \"api.example.com\", path = \"/v1/it's\", methods = [\"POST\", \"PUT\"] }\n",
                format!(
                    "curl -s -X POST 'http://127.0.0.1:1/v1/it'\\''s' -H 'Host: api.example.com' -H \"Authorization: Bearer {token}\""
                ),
            ),
            (
                "match = { host = \"*.example.com\", path = \"/a\" }\nsession = [{ header = \"x-session-token\" }]\n",
                format!("curl -s 'http://127.0.0.1:1/a' -H 'Host: any.example.com' -H \"x-session-token: {token}\""),
            ),
            (
                "match = { methods = [\"DELETE\"] }\nsession = [\"cookie\"]\n",
                format!(
                    "curl -s -X DELETE 'http://127.0.0.1:1/hello' -H \"Cookie: __session={token}; __client_uat=1\" -H 'Origin: {PARTY}'"
                ),
            ),
        ] {
            let line = line(&format!("[[routes]]\nname = \"a\"\nupstream = \"a\"\n{route}"));
            assert_eq!(line.as_deref(), Some(expected.as_str()));
        }
    }

    #[test]
    fn the_line_takes_a_route_that_injects_and_no_public_one() {
        let route = |name: &str, more: &str| {
            format!("[[routes]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\nupstream = \"a\"\n{more}\n")
        };
        assert_eq!(line(&route("a", "session = []")), None);
        let three = route("a", "session = []")
            + &route("b", "")
            + &route("c", "inject = [{ header = \"authorization\", template = \"t\" }]");
        assert!(line(&three).unwrap().starts_with("curl -s 'http://127.0.0.1:1/c'"));
    }

    #[test]
    fn the_token_is_one_for_the_routes_own_party() {
        let clerk = "authorized_parties = [\"https://a.example.com\", \"https://b.example.com\"]\n";
        let text = format!(
            "[[routes]]\nname = \"a\"\nupstream = \"a\"\nauthorized_parties = [\"https://b.example.com\"]\n[clerk]\n{clerk}secret_key = {{ env = \"A\" }}\n[upstreams.a]\nurl = \"http://127.0.0.1:1\"\n"
        );
        let (config, _) = validate::parse(&text, Path::new("a.toml"), &Process, Secrets::Replaced).unwrap();
        let example = Example::of(&config, "https://a.example.com").unwrap();
        assert_eq!(example.party.as_deref(), Some("https://b.example.com"));
        assert_eq!(Example::of(&config, "https://b.example.com").unwrap().party, None);
    }
}
