//! Finds the route of a request: host, then path, then method. Pure, and cheap with a thousand routes.
//!
//! Routing judges the very bytes that are forwarded. A path that some reader downstream would decode or normalise into
//! another one is refused instead of interpreted.

mod by_text;
pub mod reading;

use http::Method;

use self::by_text::ByText;
use self::reading::{is_odd, lenient};
use crate::config::{HostPattern, Matcher, Route};
use crate::metrics::{ListenerId, RouteId};

/// Every route of a configuration.
#[derive(Debug, Default)]
pub struct Router {
    /// Those that name no listener.
    shared: Table,
    /// For each listener that a route names: its own routes and the shared ones. Empty where no route names one, and
    /// then nothing of this costs a request anything.
    own: Vec<(ListenerId, Table)>,
}

/// What a route answers to, which one it is, and whether it takes odd paths.
type Rule<'a> = (&'a Matcher, RouteId, bool);

/// Routes by host and path.
#[derive(Debug, Default)]
struct Table {
    exact: ByText<Paths>,
    /// Longest suffix first.
    suffixes: Vec<(Box<str>, Paths)>,
    any: Paths,
    /// Whether a route takes odd paths.
    odd: bool,
    /// The same paths in lower case, where there is more than one: some upstreams (Express, IIS) do not tell letters of
    /// different case apart.
    folded: Option<Box<Table>>,
    /// Whether a route's path has upper case letters.
    cased: bool,
}

/// The routes of one host pattern.
#[derive(Debug, Default)]
struct Paths {
    by_path: ByText<AtPath>,
    /// Segments of the deepest prefix: a look-up tries no deeper one.
    depth: usize,
}

#[derive(Debug, Default)]
struct AtPath {
    exact: Vec<Entry>,
    prefix: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    route: RouteId,
    /// Of a listener's own route, which beats every shared one.
    own: bool,
    /// Empty: every method.
    methods: Vec<Method>,
    /// Takes paths that can be read in several ways, where all of them are its own.
    odd: bool,
    /// Segments of its path.
    depth: usize,
}

/// Why there is no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No host and path match.
    #[error("no route")]
    NoRoute,
    /// The path matches, the method does not.
    #[error("method not allowed")]
    MethodNotAllowed {
        /// What the path allows.
        allow: Vec<Method>,
    },
    /// The path could be read in two ways.
    #[error("the path could be read in two ways")]
    OddPath,
    /// The host could be read in two ways, or is not one.
    #[error("not a valid host")]
    OddHost,
}

// === impl Router ===

impl Router {
    /// Indexes the routes. Conflicts were refused when the configuration was validated; the first one wins.
    pub fn new(routes: &[Route]) -> Self {
        Self::of(&routes.iter().map(|route| (&route.matcher, route.id, route.allow_odd_paths)))
    }

    fn of<'a>(routes: &(impl Iterator<Item = Rule<'a>> + Clone)) -> Self {
        let of = |listener| routes.clone().filter(move |(matcher, ..)| matcher.listener == listener);
        let table = |routes: &dyn Fn() -> Vec<Rule<'a>>| {
            let routes = routes();
            Table::new(routes.iter().copied()).with_folded(routes.iter().copied())
        };
        let mut router = Self { shared: table(&|| of(None).collect()), own: Vec::new() };
        for listener in routes.clone().filter_map(|(matcher, ..)| matcher.listener) {
            if router.own.iter().all(|(own, _)| *own != listener) {
                router.own.push((listener, table(&|| of(Some(listener)).chain(of(None)).collect())));
            }
        }
        router
    }

    /// The route for what came through a listener: its host (as it stands in `Host`), its path and its method.
    ///
    /// A less specific host is looked at when no path of a more specific one matches, so that a route without a host
    /// is one for every host.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn find(&self, listener: ListenerId, host: &str, path: &str, method: &Method) -> Result<RouteId, RouteError> {
        let own = self.own.iter().find(|(own, _)| *own == listener);
        own.map_or(&self.shared, |(_, table)| table).find(host, path, method)
    }
}

// === impl Table ===

impl Table {
    fn new<'a>(routes: impl Iterator<Item = Rule<'a>>) -> Self {
        let mut table = Self::default();
        for rule in routes {
            table.insert(rule);
        }
        table.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        table
    }

    /// With what tells that letters of another case would lead elsewhere.
    fn with_folded<'a>(mut self, routes: impl Iterator<Item = Rule<'a>> + Clone) -> Self {
        let mut paths = routes.clone().map(|(matcher, ..)| &matcher.path);
        let first = paths.next();
        if paths.all(|path| Some(path) == first) {
            return self;
        }
        self.cased = routes.clone().any(|(matcher, ..)| matcher.path.bytes().any(|byte| byte.is_ascii_uppercase()));
        let lower: Vec<_> = routes.map(|(matcher, route, odd)| (lower_case(matcher), route, odd)).collect();
        self.folded = Some(Box::new(Self::new(lower.iter().map(|(matcher, route, odd)| (matcher, *route, *odd)))));
        self
    }

    fn insert(&mut self, (matcher, route, odd): Rule<'_>) {
        self.odd |= odd;
        let paths = match &matcher.host {
            HostPattern::Exact(host) => self.exact.entry(host),
            HostPattern::Suffix(suffix) => self.suffix(suffix),
            HostPattern::Any => &mut self.any,
        };
        paths.insert(matcher, route, odd);
    }

    fn find(&self, host: &str, path: &str, method: &Method) -> Result<RouteId, RouteError> {
        if is_odd(path) {
            return if self.odd { self.find_odd(host, path, method) } else { Err(RouteError::OddPath) };
        }
        let at = self.at(host, path);
        if path.bytes().any(|byte| matches!(byte, b'%' | b';')) && !self.every_reading_agrees(host, path, at) {
            return Err(RouteError::OddPath);
        }
        if !self.any_case_agrees(host, path, at) {
            return Err(RouteError::OddPath);
        }
        at.ok_or(RouteError::NoRoute)?.method(method)
    }

    /// A path that can be read in several ways goes to a route that takes such, where all of them lead there.
    fn find_odd(&self, host: &str, path: &str, method: &Method) -> Result<RouteId, RouteError> {
        let at = self.at(host, path).filter(|at| at.iter().any(|entry| entry.odd)).ok_or(RouteError::OddPath)?;
        let readings = reading::all(path).ok_or(RouteError::OddPath)?;
        // On its way a reader must not even leave the route's own path: what is rewritten has another one above it.
        let depth = at.iter().map(|entry| entry.depth).max().unwrap_or(0);
        let own = |reading: &Vec<u8>| {
            let text = String::from_utf8_lossy(reading);
            let found = self.at(host, &text);
            found.map(<[Entry]>::as_ptr) == Some(at.as_ptr())
                && reading::shallowest(reading).is_some_and(|shallowest| shallowest >= depth)
                && self.any_case_agrees(host, &text, found)
        };
        if !readings.iter().all(own) {
            return Err(RouteError::OddPath);
        }
        let route = at.method(method)?;
        if at.iter().any(|entry| entry.route == route && entry.odd) { Ok(route) } else { Err(RouteError::OddPath) }
    }

    fn at(&self, host: &str, path: &str) -> Option<&[Entry]> {
        // Most configurations name no host: then nothing of it needs to be read.
        if !self.exact.is_empty() || !self.suffixes.is_empty() {
            let host = normal_host(host);
            if let Some(at) = self.exact.get(host.as_ref()).and_then(|paths| paths.find(path)) {
                return Some(at);
            }
            for (suffix, paths) in &self.suffixes {
                let below = host.len() > suffix.len() && host.ends_with(&**suffix);
                if below && let Some(at) = paths.find(path) {
                    return Some(at);
                }
            }
        }
        self.any.find(path)
    }

    /// Whether no route would take the path that does not take it now, if letters' case did not count.
    fn any_case_agrees(&self, host: &str, path: &str, at: Option<&[Entry]>) -> bool {
        let Some(folded) = &self.folded else { return true };
        if !self.cased && !path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return true;
        }
        match (at, folded.at(host, &path.to_ascii_lowercase())) {
            (None, None) => true,
            (Some(at), Some(found)) => at.iter().all(|own| found.iter().any(|entry| entry.route == own.route)),
            _ => false,
        }
    }

    /// An upstream decodes `%61`, may do so twice, may cut path parameters off, and may look for the query (or the
    /// fragment) after decoding: if that leads to another route's path, the caller would get there by the rules of this
    /// one.
    fn every_reading_agrees(&self, host: &str, path: &str, at: Option<&[Entry]>) -> bool {
        let same = |reading: &str| {
            let found = self.at(host, reading);
            found.map(<[Entry]>::as_ptr) == at.map(<[Entry]>::as_ptr) && self.any_case_agrees(host, reading, found)
        };
        let mut reading = path.to_owned();
        for _ in 0..3 {
            let without: Vec<&str> = reading.split('/').map(|part| part.split(';').next().unwrap_or(part)).collect();
            let without = without.join("/");
            let before_query = |path: &str| path.find(['?', '#']).is_none_or(|end| same(&path[..end]));
            if !same(&reading) || !same(&without) || !before_query(&reading) || !before_query(&without) {
                return false;
            }
            // Neither an escape that is none nor bytes that are no text end the reading: what stands beside them is
            // decoded all the same.
            let decoded = String::from_utf8_lossy(&lenient(reading.as_bytes())).into_owned();
            if decoded == reading {
                return true;
            }
            reading = decoded;
        }
        // Three layers of escapes are nobody's honest path.
        false
    }

    fn suffix(&mut self, suffix: &str) -> &mut Paths {
        let at = self.suffixes.iter().position(|(own, _)| **own == *suffix).unwrap_or_else(|| {
            self.suffixes.push((suffix.into(), Paths::default()));
            self.suffixes.len() - 1
        });
        &mut self.suffixes[at].1
    }
}

impl Paths {
    fn insert(&mut self, matcher: &Matcher, route: RouteId, odd: bool) {
        // `/` as a prefix is the empty one: every path has its border there.
        let path = if matcher.exact { matcher.path.as_str() } else { matcher.path.trim_end_matches('/') };
        let depth = path.bytes().filter(|&byte| byte == b'/').count();
        self.depth = self.depth.max(depth);
        let at = self.by_path.entry(path);
        let own = matcher.listener.is_some();
        let entry = Entry { route, own, methods: matcher.methods.clone(), odd, depth };
        if matcher.exact { at.exact.push(entry) } else { at.prefix.push(entry) }
    }

    /// The entries of the longest path that matches.
    fn find(&self, path: &str) -> Option<&[Entry]> {
        if self.by_path.is_empty() {
            return None;
        }
        if let Some(at) = self.by_path.get(path) {
            let longest = if at.exact.is_empty() { &at.prefix } else { &at.exact };
            if !longest.is_empty() {
                return Some(longest);
            }
        }
        // Each border, the last one first; those that lie deeper than every prefix are skipped without a look-up.
        let mut end = deepest_border(path, self.depth);
        loop {
            if let Some(at) = self.by_path.get(&path[..end]).filter(|at| !at.prefix.is_empty()) {
                return Some(&at.prefix);
            }
            if end == 0 {
                return None;
            }
            end = path[..end].rfind('/').unwrap_or(0);
        }
    }
}

/// The same, as an upstream has it to which case is nothing.
fn lower_case(matcher: &Matcher) -> Matcher {
    Matcher { path: matcher.path.to_ascii_lowercase(), ..matcher.clone() }
}

/// The byte index at which the first `depth` segments end.
fn deepest_border(path: &str, depth: usize) -> usize {
    path.bytes().enumerate().filter(|&(_, byte)| byte == b'/').nth(depth).map_or(path.len(), |(index, _)| index)
}

trait ByMethod {
    fn method(&self, method: &Method) -> Result<RouteId, RouteError>;
}

impl ByMethod for [Entry] {
    fn method(&self, method: &Method) -> Result<RouteId, RouteError> {
        // A route that names the method beats one for every method, among those of the listener and then among the others.
        let of = |own: bool| self.iter().filter(move |entry| entry.own == own);
        let named = |own| of(own).find(|entry| entry.methods.contains(method));
        let open = |own| of(own).find(|entry| entry.methods.is_empty());
        match named(true).or_else(|| open(true)).or_else(|| named(false)).or_else(|| open(false)) {
            Some(entry) => Ok(entry.route),
            None => Err(RouteError::MethodNotAllowed {
                allow: self.iter().flat_map(|entry| entry.methods.iter().cloned()).collect(),
            }),
        }
    }
}

/// The host that a route may name: without port and trailing dot, lower case.
fn normal_host(host: &str) -> std::borrow::Cow<'_, str> {
    let host = match host.rfind(':') {
        // An IPv6 literal keeps its colons.
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) { host.to_ascii_lowercase().into() } else { host.into() }
}

/// Checks that the text is `uri-host [":" port]` (RFC 9110 section 7.2) that everybody reads alike.
///
/// # Errors
/// [`RouteError::OddHost`]: empty, with user info, or with bytes that no host has.
pub fn check_host(host: &str) -> Result<(), RouteError> {
    let (name, port) = match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => (&host[..colon], &host[colon + 1..]),
        _ => (host, ""),
    };
    let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let fits = match literal {
        Some(address) => {
            !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
        }
        None => !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')),
    };
    if fits && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(())
    } else {
        Err(RouteError::OddHost)
    }
}

#[cfg(test)]
mod tests;
