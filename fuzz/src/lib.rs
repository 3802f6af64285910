//! What the targets share: a gateway's configuration without any file, and slow readers of cookies and base64.

pub mod json;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::LazyLock;

use mintgate::clock::Clock;
use mintgate::commands::check;
use mintgate::commands::console::Console;
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

/// What `mintgate check` says to a text: whether it is good, its output and its complaints.
pub fn check(text: &str) -> (bool, String, String) {
    struct File<'a>(&'a str);

    impl Environment for File<'_> {
        fn var(&self, name: &str) -> Option<String> {
            if name == "MINTGATE_CONFIG" { Some("fuzz.toml".to_owned()) } else { Outside.var(name) }
        }

        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            if path == Path::new("fuzz.toml") { Ok(self.0.into()) } else { Outside.read(path) }
        }

        fn exists(&self, path: &Path) -> bool {
            Outside.exists(path)
        }
    }

    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut console = Console { out: &mut out, err: &mut err, out_colours: false, err_colours: false };
    let code = check::run(&check::Args::default(), &File(text), &mut console).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    // `ExitCode` tells its number in `Debug` alone.
    (format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS), text(out), text(err))
}

/// Loads a text as `mintgate run` does.
pub fn load(text: &str) -> Result<(Config, Diagnostics), Diagnostics> {
    validate::parse(text, Path::new("fuzz.toml"), &Outside, Secrets::Required)
}

/// A good configuration: these routes behind a usual beginning.
pub fn gateway(routes: &str) -> Config {
    gateway_of("", routes)
}

/// The same with these lines more in `[clerk]`.
pub fn gateway_of(clerk: &str, routes: &str) -> Config {
    let text = format!(
        "[clerk]\n{clerk}secret_key = {{ env = \"CLERK_SECRET_KEY\" }}\njwt_key = {{ file = \"key.pem\" }}\n\
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

const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 for URLs, without padding.
pub fn base64url(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let digit = |bits: &[u8]| {
        let value = (0..6).fold(0, |value, at| value << 1 | bits.get(at).copied().unwrap_or(0));
        char::from(BASE64URL[usize::from(value)])
    };
    bits.chunks(6).map(digit).collect()
}

/// The same backwards: canonical base64 alone.
pub fn unbase64url(text: &str) -> Option<Vec<u8>> {
    let digits = text.bytes().map(|byte| BASE64URL.iter().position(|&own| own == byte));
    let digits: Vec<usize> = digits.collect::<Option<_>>()?;
    let bits: Vec<usize> = digits.iter().flat_map(|digit| (0..6).rev().map(move |bit| digit >> bit & 1)).collect();
    let whole = bits.len() / 8 * 8;
    let rest = &bits[whole..];
    if rest.len() >= 6 || rest.contains(&1) {
        return None;
    }
    bits[..whole].chunks(8).map(|byte| u8::try_from(byte.iter().fold(0, |value, bit| value << 1 | bit)).ok()).collect()
}
