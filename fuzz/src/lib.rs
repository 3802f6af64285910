//! What the targets share: a gateway's configuration without any file, and a slow reader of cookies.

pub mod json;

use std::io;
use std::path::Path;
use std::sync::LazyLock;

use mintgate::clock::Clock;
use mintgate::config::Config;
use mintgate::config::validate::{self, Diagnostics, Environment, Secrets};
use mintgate::emulator::{Emulator, Options};

/// The key that the targets' configurations pin; made once in a process.
static PEM: LazyLock<String> =
    LazyLock::new(|| Emulator::new(Options::default(), Clock::system()).unwrap().jwt_key().unwrap());

/// An outside in which every file is that key, and one variable is set.
struct Outside;

impl Environment for Outside {
    fn var(&self, name: &str) -> Option<String> {
        (name == "CLERK_SECRET_KEY").then(|| "sk_test_fuzz".to_owned())
    }

    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Ok(PEM.clone().into())
    }

    fn exists(&self, _: &Path) -> bool {
        true
    }
}

/// Loads a text as `mintgate check` does.
pub fn load(text: &str) -> Result<(Config, Diagnostics), Diagnostics> {
    validate::parse(text, Path::new("fuzz.toml"), &Outside, Secrets::Required)
}

/// A good configuration: these routes behind a usual beginning.
pub fn gateway(routes: &str) -> Config {
    let text = format!(
        "[clerk]\nsecret_key = {{ env = \"CLERK_SECRET_KEY\" }}\njwt_key = {{ file = \"key.pem\" }}\n\
         issuer = \"https://clerk.example.com\"\nauthorized_parties = [\"https://app.example.com\"]\n\
         [server]\nlisten = [\"127.0.0.1:0\"]\n\
         [upstreams.up]\nurl = \"unix:/run/up\"\nremove_headers = [\"x-hasura-*\"]\n{routes}"
    );
    load(&text).unwrap_or_else(|problems| panic!("{}", problems.render(false))).0
}

/// A cookie's name and value.
pub type Cookie = (Vec<u8>, Vec<u8>);

/// The cookies of a line, read the slow way.
pub fn cookies(line: &[u8]) -> Vec<Cookie> {
    let trimmed = |part: &[u8]| part.trim_ascii().to_vec();
    let cookie = |part: &[u8]| {
        let mut halves = part.splitn(2, |&byte| byte == b'=');
        let name = trimmed(halves.next().unwrap());
        (name, trimmed(halves.next().unwrap_or_default()))
    };
    line.split(|&byte| byte == b';').map(cookie).collect()
}

/// Whether a cookie is one of Clerk's.
pub fn is_clerk(name: &[u8]) -> bool {
    let begins = |start: &[u8]| name.starts_with(start);
    name == b"__session"
        || name == b"__client_uat"
        || name == b"__refresh"
        || begins(b"__session_")
        || begins(b"__client_uat_")
        || begins(b"__refresh_")
        || begins(b"__clerk_")
}

/// A piece between semicolons in which nothing stands may come and go.
pub fn is_something((name, value): &Cookie) -> bool {
    !name.is_empty() || !value.is_empty()
}
