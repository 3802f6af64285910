//! `mintgate emulator`: the Clerk emulator alone, until it is told to stop.

use std::io::{self, Write};
use std::net::SocketAddr;

use serde_json::Value;

use crate::clock::Clock;
use crate::emulator::keys::CryptoError;
use crate::emulator::limit::RateLimit;
use crate::emulator::{DEFAULT_SECRET_KEY, Emulator, Options, SecretKey, base_url, serve};
use crate::lifecycle::{Shutdown, Spawner};

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
    /// The output is gone.
    #[error("cannot write to the output")]
    Output(#[from] io::Error),
}

/// Serves until the shutdown. The output is written and flushed once the address is taken.
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
    let options = Options { secret_key: args.secret_key, rate_limit: args.rate_limit, authorized_party: None };
    let emulator = Emulator::new(options, clock)?;
    let bound = serve::bind(args.listen, emulator.router())
        .await
        .map_err(|source| EmulatorError::Bind { address: args.listen, source })?;
    let about = emulator.describe(bound.address())?;
    if args.json {
        writeln!(out, "{about}")?;
    } else {
        explain(out, &emulator, bound.address(), &about)?;
    }
    out.flush()?;
    bound.run(tasks.clone(), shutdown.clone()).await;
    tokio::select! {
        () = tasks.idle() => {}
        () = shutdown.stopped() => {}
    }
    Ok(())
}

/// What runs where, and two lines to paste.
fn explain(out: &mut dyn Write, emulator: &Emulator, address: SocketAddr, about: &Value) -> io::Result<()> {
    let text = |name: &str| about[name].as_str().unwrap_or_default().to_owned();
    let base = base_url(address);
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
    Ok(())
}
