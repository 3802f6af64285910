//! `mintgate emulator`: the Clerk emulator alone, until it is told to stop.

use std::io::{self, Write};
use std::net::SocketAddr;

use serde_json::Value;

use crate::clock::Clock;
use crate::commands::signals::Signals;
use crate::emulator::keys::CryptoError;
use crate::emulator::limit::RateLimit;
use crate::emulator::{DEFAULT_SECRET_KEY, Emulator, Options, SecretKey, base_url};
use crate::lifecycle::{Shutdown, Spawner};
use crate::surface::Surface;

/// Runs a Clerk emulator: sessions, tokens, templates and keys without an account.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen; port 0 takes a free one. Keep it on loopback: whoever reaches it gets session tokens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6470")]
    listen: SocketAddr,
    /// The secret key that callers must present: sk_test_... or sk_live_...
    #[arg(long, value_name = "KEY", default_value = DEFAULT_SECRET_KEY)]
    secret_key: SecretKey,
    /// Which of Clerk's rate limits holds; by default the one for the key.
    #[arg(long, value_enum)]
    rate_limit: Option<RateLimit>,
    /// Print one line of JSON: address, keys, JWKS URL, sessions.
    #[arg(long)]
    json: bool,
}

/// Why the emulator did not run.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}; --listen 127.0.0.1:0 takes a free port")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The machine has no randomness.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// The output is gone.
    #[error("cannot write to the output")]
    Output(#[from] io::Error),
}

/// Serves until the shutdown, or a signal. The output is written and flushed once the address is taken.
///
/// # Errors
/// When it cannot begin.
pub async fn run(
    args: Args,
    clock: Clock,
    tasks: Spawner,
    shutdown: Shutdown,
    out: &mut (dyn Write + Send),
) -> Result<(), EmulatorError> {
    let options = Options { secret_key: args.secret_key, rate_limit: args.rate_limit, ..Options::default() };
    let emulator = Emulator::new(options, clock)?;
    let surface = Surface::bind(args.listen, emulator.router())
        .map_err(|source| EmulatorError::Bind { address: args.listen, source })?;
    let mut signals = Signals::new().map_err(EmulatorError::Signals)?;
    let address = surface.address();
    let about = emulator.describe(address)?;
    if args.json {
        writeln!(out, "{about}")?;
    } else {
        explain(out, &emulator, address, &about)?;
    }
    out.flush()?;
    let served = async {
        let draining = shutdown.draining();
        surface.run(tasks.clone(), shutdown.clone(), draining).await?;
        tokio::select! {
            () = tasks.idle() => {}
            () = shutdown.stopped() => {}
        }
        Ok(())
    };
    // The first signal lets what is under way finish, the second does not.
    let told = async {
        signals.next().await;
        shutdown.drain();
        signals.next().await;
    };
    tokio::select! {
        served = served => served.map_err(|source| EmulatorError::Bind { address, source })?,
        () = told => {}
    }
    Ok(())
}

/// What runs where, and two lines to paste.
fn explain(out: &mut dyn Write, emulator: &Emulator, address: SocketAddr, about: &Value) -> io::Result<()> {
    let text = |name: &str| about[name].as_str().unwrap_or_default().to_owned();
    let base = base_url(address);
    let limit = about["rate_limit"].as_u64();
    let limit = limit.map_or_else(|| "off".to_owned(), |limit| format!("{limit} requests in 10 s"));
    writeln!(out, "Clerk emulator on {base}")?;
    if !address.ip().is_loopback() {
        writeln!(out, "  It listens beyond this machine: whoever reaches it gets session tokens.")?;
    }
    for (label, value) in [
        ("API", format!("{base}/v1")),
        ("JWKS", text("jwks_url")),
        ("issuer", text("issuer")),
        ("secret key", text("secret_key")),
        ("publishable key", text("publishable_key")),
        ("rate limit", limit),
    ] {
        writeln!(out, "  {label:<16}{value}")?;
    }
    let sessions = about["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut label = "sessions";
    for session in sessions {
        let part = |name: &str| session[name].as_str().unwrap_or_default();
        writeln!(out, "  {label:<16}{:<22}{:<22}{}", part("id"), part("user_id"), part("organization_id"))?;
        label = "";
    }
    let names = about["templates"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
    writeln!(out, "  {:<16}{}", "templates", names.join(", "))?;
    if let Some(first) = sessions.first().and_then(|session| session["id"].as_str()) {
        writeln!(out, "\nA session token, as a browser would hold it:\n  {}", emulator.token_command(address, first))?;
        writeln!(
            out,
            "\nA token of the template {}:\n  curl -s -X POST '{base}/v1/sessions/{first}/tokens/{}' -H 'Authorization: Bearer {}'",
            names.first().unwrap_or(&"plain"),
            names.first().unwrap_or(&"plain"),
            text("secret_key"),
        )?;
    }
    writeln!(out, "\nStop with ctrl-c.")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
        let flags = ["emulator", "--listen", "127.0.0.1:0"].iter().chain(flags);
        Ok(Cli::try_parse_from(flags)?.args)
    }

    /// Begins and ends at once: the drain has begun already.
    async fn output(flags: &[&str]) -> Result<String, EmulatorError> {
        let (shutdown, mut out) = (Shutdown::new(), Vec::new());
        shutdown.drain();
        run(parse(flags).unwrap(), Clock::system(), Spawner::current(), shutdown, &mut out).await?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn json_is_one_line_with_address_keys_and_sessions() {
        let text = output(&["--json", "--secret-key", "sk_live_1", "--rate-limit", "off"]).await.unwrap();
        assert_eq!((text.lines().count(), text.ends_with('\n')), (1, true));
        let about: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&about["secret_key"], &about["rate_limit"]), (&"sk_live_1".into(), &Value::Null));
        assert!(about["publishable_key"].as_str().unwrap().starts_with("pk_live_"));
        assert_eq!(about["jwks_url"], format!("http://{}/.well-known/jwks.json", about["address"].as_str().unwrap()));
        assert_eq!(about["sessions"][0]["id"], "sess_emulator_alice");
    }

    #[tokio::test]
    async fn the_text_names_everything_and_has_lines_to_paste() {
        let text = output(&[]).await.unwrap();
        for part in
            [DEFAULT_SECRET_KEY, "pk_test_", "100 requests in 10 s", "sess_emulator_bob", "custom_hasura, plain"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("  curl -s ")).count(), 2);
    }

    #[tokio::test]
    async fn a_taken_address_is_an_error_with_advice() {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let args = Args { listen: taken.local_addr().unwrap(), ..parse(&[]).unwrap() };
        let ended = run(args, Clock::system(), Spawner::current(), Shutdown::new(), &mut Vec::new()).await;
        assert!(ended.unwrap_err().to_string().contains("--listen 127.0.0.1:0"));
    }

    #[test]
    fn bad_flags_are_refused() {
        for flags in [["--secret-key", "pk_test_1"], ["--rate-limit", "some"], ["--listen", "localhost"]] {
            assert!(parse(&flags).is_err(), "{flags:?}");
        }
    }
}
