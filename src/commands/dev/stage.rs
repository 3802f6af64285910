//! A user's configuration, set on the stage of `dev`: the emulator in Clerk's place, listeners on loopback, and a
//! placeholder for every secret that is not here. Everything else stays as it is written.
//!
//! The text is changed, not what was read from it: so a key that is added to the configuration needs nothing here.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use toml::{Table, Value};

use crate::config::raw::expand::expand;
use crate::config::validate::Environment;

/// What stands in place of a secret that is not here.
pub(super) const PLACEHOLDER: &str = "mintgate-dev-placeholder";

/// Where the gateway and its admin listener are when the configuration does not say where.
const GATEWAY: u16 = 6468;
const ADMIN: u16 = 6469;

/// The variables that the changed text refers to.
const SECRET_KEY: &str = "MINTGATE_DEV_SECRET_KEY";
const JWT_KEY: &str = "MINTGATE_DEV_JWT_KEY";
const ABSENT: &str = "MINTGATE_DEV_ABSENT";

/// What takes the place of Clerk.
pub(super) struct Clerk<'a> {
    pub(super) api_url: &'a str,
    pub(super) issuer: &'a str,
    pub(super) publishable_key: &'a str,
    pub(super) secret_key: &'a str,
    pub(super) jwt_key: &'a str,
}

/// What the command line says about the stage.
pub(super) struct Wishes<'a> {
    /// The port of the first listener, in place of the configuration's.
    pub(super) port: Option<u16>,
    pub(super) admin_port: Option<u16>,
    /// In place of every upstream.
    pub(super) upstream: Option<&'a str>,
}

/// The changed text with what belongs to it.
pub(super) struct Staged<'a> {
    pub(super) text: String,
    /// What the user should know about the changes.
    pub(super) notes: Vec<String>,
    environment: &'a dyn Environment,
    variables: HashMap<&'static str, String>,
}

/// Finds a free address: this one, when it is free.
type Free<'a> = &'a mut dyn FnMut(SocketAddr) -> io::Result<SocketAddr>;

/// Changes a configuration that is valid as it stands. `path` is where it stands: its directory is what relative paths
/// are relative to.
///
/// # Errors
/// When no port is free.
pub(super) fn set<'a>(
    mut file: Table,
    path: &Path,
    environment: &'a dyn Environment,
    clerk: &Clerk<'_>,
    wishes: &Wishes<'_>,
    free: Free<'_>,
) -> io::Result<Staged<'a>> {
    let mut notes = Vec::new();
    emulate(table(&mut file, "clerk"), clerk, &mut notes);
    listen(&mut file, environment, wishes, free, &mut notes)?;
    other_ways(&mut file, environment, free, &mut notes)?;
    table(&mut file, "log").insert("access".to_owned(), "all".into());
    if let Some(url) = wishes.upstream {
        redirect(&mut file, url);
    }
    let mut absent = BTreeSet::new();
    let base = path.parent().unwrap_or_else(|| Path::new(""));
    for (_, value) in file.iter_mut().filter(|(key, _)| *key != "clerk") {
        replace_absent(value, base, environment, &mut absent);
    }
    if !absent.is_empty() {
        let names = absent.into_iter().collect::<Vec<_>>().join(", ");
        notes.push(format!("Not set here, so \"{PLACEHOLDER}\" is sent in its place: {names}."));
    }
    let variables = HashMap::from([
        (SECRET_KEY, clerk.secret_key.to_owned()),
        (JWT_KEY, clerk.jwt_key.to_owned()),
        (ABSENT, PLACEHOLDER.to_owned()),
    ]);
    Ok(Staged { text: file.to_string(), notes, environment, variables })
}

/// The table of this name, made when it is not there.
fn table<'a>(file: &'a mut Table, name: &str) -> &'a mut Table {
    let value = file.entry(name).or_insert_with(|| Value::Table(Table::new()));
    if !value.is_table() {
        // Not in a configuration that is valid.
        *value = Value::Table(Table::new());
    }
    match value {
        Value::Table(table) => table,
        _ => unreachable!("made a table just now"),
    }
}

fn from_env(name: &str) -> Value {
    Value::Table(Table::from_iter([("env".to_owned(), Value::from(name))]))
}

/// Secret, keys, issuer and API URL of the emulator. What the file does not have it does not get, so that a suffixed
/// cookie is read only where it would be.
fn emulate(section: &mut Table, clerk: &Clerk<'_>, notes: &mut Vec<String>) {
    section.insert("secret_key".to_owned(), from_env(SECRET_KEY));
    section.insert("issuer".to_owned(), clerk.issuer.into());
    section.insert("api_url".to_owned(), clerk.api_url.into());
    if section.contains_key("publishable_key") {
        section.insert("publishable_key".to_owned(), clerk.publishable_key.into());
    }
    if section.contains_key("jwt_key") {
        section.insert("jwt_key".to_owned(), from_env(JWT_KEY));
    }
    for key in ["jwks_url", "ca_file"] {
        section.remove(key);
    }
    if section.remove("audience").is_some_and(|audience| audience.as_array().is_some_and(|list| !list.is_empty())) {
        notes.push("clerk.audience is not looked at: the emulator's session tokens name no audience.".to_owned());
    }
}

/// Every TCP listener on loopback, where its port is free; nobody else reaches tokens that anybody can have.
fn listen(
    file: &mut Table,
    environment: &dyn Environment,
    wishes: &Wishes<'_>,
    free: Free<'_>,
    notes: &mut Vec<String>,
) -> io::Result<()> {
    let server = table(file, "server");
    if server.remove("tls").is_some() {
        notes.push("[server] tls is off: http on loopback.".to_owned());
    }
    let mut list = match server.remove("listen") {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    // No socket comes from systemd in a shell.
    list.retain(|entry| !address_text(entry, environment).starts_with("systemd:"));
    let is_tcp = |entry: &Value| !address_text(entry, environment).starts_with("unix:");
    if !list.iter().any(is_tcp) {
        list.insert(0, format!("127.0.0.1:{GATEWAY}").into());
    }
    let moved = move_sockets(&mut list, environment, notes);
    let mut port = wishes.port;
    for (index, entry) in list.iter_mut().enumerate().filter(|(_, entry)| is_tcp(entry)) {
        let text = address_text(entry, environment);
        let Ok(written) = text.parse::<SocketAddr>() else { continue };
        let address = on_loopback(written, port.take(), free, notes)?;
        let named = Table::from_iter([("address".to_owned(), Value::from(address.to_string()))]);
        match entry {
            Value::Table(table) => table.extend(named),
            // Two free ports must not share the name that an address gives.
            other if address.port() == 0 => {
                *other = Value::Table(named);
                if let Value::Table(table) = other {
                    table.insert("name".to_owned(), format!("dev-{index}").into());
                }
            }
            other => *other = address.to_string().into(),
        }
    }
    server.insert("listen".to_owned(), Value::Array(list));
    for (from, to) in moved {
        for route in file.get_mut("routes").and_then(Value::as_array_mut).into_iter().flatten() {
            let named = route.get_mut("match").and_then(|at| at.get_mut("listener"));
            if let Some(named) = named.filter(|named| named.as_str() == Some(&from)) {
                *named = to.clone().into();
            }
        }
    }
    let admin = table(file, "admin");
    let text = admin.get("listen").and_then(Value::as_str).unwrap_or_default();
    let text = expand(text, &|name| environment.var(name)).unwrap_or_default().into_owned();
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN));
    let address = on_loopback(text.parse().unwrap_or(usual), wishes.admin_port, free, notes)?;
    admin.insert("listen".to_owned(), address.to_string().into());
    Ok(())
}

/// Other ways in on loopback, where something can come in by them.
fn other_ways(
    file: &mut Table,
    environment: &dyn Environment,
    free: Free<'_>,
    notes: &mut Vec<String>,
) -> io::Result<()> {
    if file.remove("webhooks").is_some() {
        notes.push("[webhooks] is off: the emulator sends none to it.".to_owned());
    }
    for section in ["authz", "token_api"] {
        let Some(Value::Table(way)) = file.get_mut(section) else { continue };
        let written = address_text(way.get("listen").unwrap_or(&Value::Boolean(false)), environment);
        let Ok(written) = written.parse() else {
            notes.push(format!("[{section}] is off: it does not listen on TCP."));
            file.remove(section);
            continue;
        };
        way.insert("listen".to_owned(), on_loopback(written, None, free, notes)?.to_string().into());
        if way.remove("tls").is_some() {
            notes.push(format!("[{section}] tls is off: http on loopback."));
        }
        if way.remove("callers").is_some() {
            notes.push(format!("[{section}] takes the emulator's secret key alone."));
        }
    }
    Ok(())
}

/// Every Unix socket at a place of its own: the folder of a service may not be here, and its socket not ours to take.
/// The addresses before and after, for routes that name a listener by its address.
fn move_sockets(list: &mut [Value], environment: &dyn Environment, notes: &mut Vec<String>) -> Vec<(String, String)> {
    let mut moved = Vec::new();
    for (index, entry) in list.iter_mut().enumerate() {
        let from = address_text(entry, environment);
        if !from.starts_with("unix:") {
            continue;
        }
        let socket = format!("mintgate-dev-{}-{index}.sock", std::process::id());
        let to = format!("unix:{}", std::env::temp_dir().join(socket).display());
        notes.push(format!("{from} is served at {to} instead."));
        match entry {
            Value::Table(table) => drop(table.insert("address".to_owned(), to.clone().into())),
            other => *other = to.clone().into(),
        }
        moved.push((from, to));
    }
    moved
}

/// The address of a listener, with its variables in it.
fn address_text(entry: &Value, environment: &dyn Environment) -> String {
    let text = match entry {
        Value::Table(table) => table.get("address").and_then(Value::as_str),
        other => other.as_str(),
    };
    expand(text.unwrap_or_default(), &|name| environment.var(name)).unwrap_or_default().into_owned()
}

fn on_loopback(
    written: SocketAddr,
    port: Option<u16>,
    free: Free<'_>,
    notes: &mut Vec<String>,
) -> io::Result<SocketAddr> {
    let ip = if written.ip().is_loopback() { written.ip() } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
    if let Some(port) = port {
        return Ok(SocketAddr::new(ip, port));
    }
    let wanted = SocketAddr::new(ip, written.port());
    let address = free(wanted)?;
    if ip != written.ip() {
        notes.push(format!("{written} is served on loopback only."));
    }
    if address != wanted {
        notes.push(format!("{wanted} is taken; a free port is used instead."));
    }
    Ok(address)
}

/// One URL in place of every upstream.
fn redirect(file: &mut Table, url: &str) {
    if let Some(Value::Table(upstreams)) = file.get_mut("upstreams") {
        for (_, upstream) in upstreams.iter_mut() {
            let Value::Table(upstream) = upstream else { continue };
            for key in ["urls", "tls"] {
                upstream.remove(key);
            }
            upstream.insert("url".to_owned(), url.into());
        }
    }
    for route in file.get_mut("routes").and_then(Value::as_array_mut).into_iter().flatten() {
        // A name has no colon.
        if let Some(upstream) = route.get_mut("upstream").filter(|upstream| is_url(upstream)) {
            *upstream = url.into();
        }
    }
}

fn is_url(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.contains(':'))
}

/// Every `{ env = "..." }` and `{ file = "..." }` behind which there is nothing.
fn replace_absent(value: &mut Value, base: &Path, environment: &dyn Environment, absent: &mut BTreeSet<String>) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|value| replace_absent(value, base, environment, absent)),
        Value::Table(table) => {
            let reference = ["env", "file"].into_iter().find(|key| table.len() == 1 && table.contains_key(*key));
            let Some(text) = reference.and_then(|key| table[key].as_str()) else {
                table.iter_mut().for_each(|(_, value)| replace_absent(value, base, environment, absent));
                return;
            };
            let text = expand(text, &|name| environment.var(name)).unwrap_or_default().into_owned();
            let there = match reference {
                Some("env") => environment.var(&text).is_some_and(|secret| !secret.is_empty()),
                _ => environment.read(&base.join(&text)).is_ok_and(|secret| !secret.is_empty()),
            };
            if !there {
                absent.insert(text);
                *value = from_env(ABSENT);
            }
        }
        _ => {}
    }
}

// === impl Staged ===

impl Environment for Staged<'_> {
    fn var(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned().or_else(|| self.environment.var(name))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.environment.read(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.environment.exists(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeySource;
    use crate::config::validate::{self, Secrets};
    use crate::config::{Access, Config};

    struct Outside;

    impl Environment for Outside {
        fn var(&self, name: &str) -> Option<String> {
            match name {
                "SET" => Some("from the environment".to_owned()),
                "EMPTY" => Some(String::new()),
                "HOST" => Some("0.0.0.0".to_owned()),
                _ => None,
            }
        }

        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            if path == Path::new("/etc/there") {
                Ok(b"in a file".to_vec())
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        }

        fn exists(&self, _: &Path) -> bool {
            false
        }
    }

    const CLERK: Clerk<'_> = Clerk {
        api_url: "http://127.0.0.1:6470",
        issuer: "https://emulated.example.com",
        publishable_key: "pk_test_Y2xlcmsuZXhhbXBsZS5jb20k",
        secret_key: "sk_test_emulator",
        jwt_key: include_str!("../../config/validate/tests/public.pem"),
    };
    const NO_WISHES: Wishes<'_> = Wishes { port: None, admin_port: None, upstream: None };

    /// Port 443 is taken.
    fn staged(text: &str, wishes: &Wishes<'_>) -> (Config, Vec<String>) {
        let mut free =
            |address: SocketAddr| Ok(if address.port() == 443 { ([127, 0, 0, 1], 0).into() } else { address });
        let path = Path::new("/etc/mintgate.toml");
        let staged = set(text.parse().unwrap(), path, &Outside, &CLERK, wishes, &mut free).unwrap();
        let parsed = validate::parse(&staged.text, path, &staged, Secrets::Required);
        (parsed.unwrap_or_else(|problems| panic!("{problems}\n{}", staged.text)).0, staged.notes)
    }

    const ROUTE: &str = "[[routes]]\nname = \"a\"\nupstream = \"http://db.internal:80\"\n";

    #[test]
    fn the_emulator_takes_clerks_place() {
        let text = format!(
            "[clerk]\nsecret_key = {{ env = \"NONE\" }}\npublishable_key = \"pk_live_Y2xlcmsuZXhhbXBsZS5jb20k\"\n\
             issuer = \"https://clerk.example.com\"\njwks_url = \"https://clerk.example.com/jwks\"\n\
             api_url = \"https://api.clerk.com\"\nca_file = \"absent.pem\"\naudience = [\"a\"]\ntimeout = \"2s\"\n{ROUTE}"
        );
        let (config, notes) = staged(&text, &NO_WISHES);
        assert_eq!(config.clerk.secret_keys[0].expose(), CLERK.secret_key);
        assert_eq!(config.clerk.issuer.as_deref(), Some(CLERK.issuer));
        assert_eq!(config.clerk.publishable_key.unwrap().text, CLERK.publishable_key);
        let KeySource::Jwks { url, with_secret, .. } = config.clerk.keys else { panic!("{:?}", config.clerk.keys) };
        assert_eq!((url.as_str(), with_secret), ("http://127.0.0.1:6470/v1/jwks", true));
        assert_eq!((config.clerk.timeout.as_secs(), config.log.access), (2, Access::All));
        assert!(config.clerk.audience.is_empty() && notes.len() == 1 && notes[0].contains("audience"), "{notes:?}");
        let (config, notes) = staged(&format!("[clerk]\njwt_key = {{ file = \"absent.pem\" }}\n{ROUTE}"), &NO_WISHES);
        assert!(matches!(config.clerk.keys, KeySource::Pinned(_)) && config.clerk.publishable_key.is_none());
        assert_eq!(notes, Vec::<String>::new());
    }

    #[test]
    fn every_listener_is_on_loopback() {
        let text = format!(
            "[server]\nlisten = [\"${{HOST}}:443\", \"[::1]:8080\", {{ name = \"in\", address = \"0.0.0.0:9000\" }}]\n\
             [admin]\nlisten = \"10.0.0.1:7000\"\n{ROUTE}[clerk]\nsecret_key = {{ env = \"SET\" }}\n"
        );
        let (config, notes) = staged(&text, &NO_WISHES);
        let listen: Vec<_> = config.server.listen.iter().map(|listen| listen.address.to_string()).collect();
        assert_eq!(listen, ["127.0.0.1:0", "[::1]:8080", "127.0.0.1:9000"]);
        assert_eq!(config.server.listen[2].name, "in");
        assert_eq!(config.admin.unwrap().listen.to_string(), "127.0.0.1:7000");
        assert!(notes[0].contains("0.0.0.0:443 is served on loopback only") && notes[1].contains("taken"), "{notes:?}");
        let wishes = Wishes { port: Some(1000), admin_port: Some(1001), upstream: None };
        let (config, _) = staged(&text, &wishes);
        let listen = [0, 1].map(|index: usize| config.server.listen[index].address.to_string());
        assert_eq!(listen, ["127.0.0.1:1000", "[::1]:8080"]);
        assert_eq!(config.admin.unwrap().listen.to_string(), "127.0.0.1:1001");
        let (config, _) = staged(&format!("{ROUTE}session = []"), &NO_WISHES);
        assert_eq!(config.server.listen[0].address.to_string(), "127.0.0.1:6468");
        assert_eq!(config.admin.unwrap().listen.to_string(), "127.0.0.1:6469");
    }

    #[test]
    fn other_ways_in_are_on_loopback_or_off() {
        let text = format!(
            "[authz]\nlisten = \"0.0.0.0:7001\"\n[token_api]\nlisten = \"10.0.0.1:7002\"\n\
             tls = {{ cert = \"absent.pem\", key = \"absent.pem\" }}\n\
             callers = [{{ name = \"a\", token = {{ env = \"NONE\" }}, templates = [\"t\"] }}]\n\
             [webhooks]\nlisten = \"0.0.0.0:7003\"\nsigning_secret = {{ env = \"NONE\" }}\n\
             {ROUTE}[clerk]\nsecret_key = {{ env = \"SET\" }}\n"
        );
        let (config, notes) = staged(&text, &NO_WISHES);
        let (authz, api) = (config.authz.unwrap(), config.token_api.unwrap());
        assert_eq!(authz.way.listen.to_string(), "127.0.0.1:7001");
        assert_eq!((api.way.listen.to_string().as_str(), api.callers.len()), ("127.0.0.1:7002", 0));
        assert!(api.way.tls.is_none() && config.webhooks.is_none() && notes.len() == 5, "{notes:?}");
        let (config, _) = staged(&text.replace("0.0.0.0:7001", "unix:authz.sock"), &NO_WISHES);
        assert!(config.authz.is_none());
    }

    #[test]
    fn absent_secrets_are_placeholders_and_named() {
        let inject = ["{ env = \"NONE\" }", "{ env = \"EMPTY\" }", "{ env = \"SET\" }", "{ file = \"there\" }"];
        let inject = inject.iter().zip(["a", "b", "c", "d"]);
        let inject: Vec<_> = inject.map(|(from, at)| format!("{{ header = \"x-{at}\", value = {from} }}")).collect();
        let (config, notes) = staged(&format!("{ROUTE}session = []\ninject = [{}]", inject.join(", ")), &NO_WISHES);
        let values: Vec<_> =
            config.routes[0].inject.iter().map(|injection| format!("{:?}", injection.source)).collect();
        assert_eq!(values.len(), 4);
        assert_eq!(notes, [format!("Not set here, so \"{PLACEHOLDER}\" is sent in its place: EMPTY, NONE.")]);
    }

    #[test]
    fn one_upstream_takes_the_place_of_all() {
        let wishes = Wishes { upstream: Some("http://127.0.0.1:3000"), ..NO_WISHES };
        let text = format!(
            "[upstreams.db]\nurl = \"http://db:1\"\nhttp2 = true\n{ROUTE}session = []\n\
             [[routes]]\nname = \"b\"\nmatch = {{ path = \"/b\" }}\nupstream = \"db\"\nsession = []\n"
        );
        let (config, _) = staged(&text, &wishes);
        let here = |config: &Config| {
            let all = config.upstreams.iter().map(|upstream| format!("{upstream:?}").matches("port: 3000").count());
            all.collect::<Vec<_>>()
        };
        assert_eq!(here(&config), [1, 1]);
        assert_eq!(here(&staged(&text, &NO_WISHES).0), [0, 0]);
    }
}
