//! `mintgate emulator`: the Clerk emulator alone, until it is told to stop.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use crate::clock::Clock;
use crate::commands::check::BAD_CONFIG;
use crate::commands::signals::Signals;
use crate::config::validate::{Diagnostics, Environment};
use crate::emulator::keys::CryptoError;
use crate::emulator::limit::RateLimit;
use crate::emulator::seed::file::Seed;
use crate::emulator::webhooks::{DEFAULT_WEBHOOK_SECRET, Webhook, WebhookSecret, WebhookUrl};
use crate::emulator::{DEFAULT_SECRET_KEY, Emulator, Options, SecretKey, base_url};
use crate::lifecycle::{Shutdown, Spawner};
use crate::surface::Surface;

/// Runs a Clerk emulator: sessions, tokens, templates and keys without an account.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen; port 0 takes a free one. Keep it on loopback: whoever reaches it gets session tokens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6470", value_parser = address)]
    listen: SocketAddr,
    /// The secret key that callers must present: sk_test_... or sk_live_...
    #[arg(long, value_name = "KEY", default_value = DEFAULT_SECRET_KEY)]
    secret_key: SecretKey,
    /// Users, organizations, sessions and templates, in TOML; by default two users with a session each.
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// Which of Clerk's rate limits holds; by default the one for the key.
    #[arg(long, value_enum)]
    rate_limit: Option<RateLimit>,
    /// Send events there, signed as Svix signs them for Clerk: http://127.0.0.1:3000/webhooks
    #[arg(long, value_name = "URL")]
    webhook_url: Option<WebhookUrl>,
    /// What the events are signed with: whsec_...
    #[arg(long, value_name = "SECRET", default_value = DEFAULT_WEBHOOK_SECRET)]
    webhook_secret: WebhookSecret,
    /// Let --webhook-url lead to another machine; events hold whole users.
    #[arg(long, requires = "webhook_url")]
    webhook_anywhere: bool,
    /// Print one line of JSON: address, keys, JWKS URL, sessions.
    #[arg(long)]
    json: bool,
}

/// What a run lives in.
#[derive(Debug)]
struct Process {
    clock: Clock,
    tasks: Spawner,
    shutdown: Shutdown,
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
    /// The seed is bad.
    #[error("the seed cannot be used\n{0}")]
    Seed(Diagnostics),
    /// The webhook leads to another machine.
    #[error("{0} is not on this machine, and events hold whole users; --webhook-anywhere sends them all the same")]
    Away(WebhookUrl),
    /// The machine has no randomness.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The runtime cannot begin, or signals cannot be waited for.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// The output is gone.
    #[error("cannot write to the output")]
    Output(#[from] io::Error),
}

/// What is under way at the first signal gets so long to finish: a scripted fault may hang for ever.
const DRAIN: Duration = Duration::from_secs(5);

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "not an IP address with a port, such as 127.0.0.1:6470 or 127.0.0.1:0")
}

/// Serves until a signal. What is wrong with the seed goes to `err`, with the exit status of a bad configuration.
///
/// # Errors
/// When it cannot begin.
pub fn run(
    args: Args,
    environment: &dyn Environment,
    colours: bool,
    out: &mut (dyn Write + Send),
    err: &mut dyn Write,
) -> Result<ExitCode, EmulatorError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(EmulatorError::Runtime)?;
    let served = runtime.block_on(async {
        let process = Process { clock: Clock::system(), tasks: Spawner::current(), shutdown: Shutdown::new() };
        serve(args, environment, process, out).await
    });
    match served {
        Err(EmulatorError::Seed(problems)) => {
            write!(err, "{}", problems.render(colours))?;
            Ok(ExitCode::from(BAD_CONFIG))
        }
        served => served.map(|()| ExitCode::SUCCESS),
    }
}

/// The output is written and flushed once the address is taken.
async fn serve(
    args: Args,
    environment: &dyn Environment,
    process: Process,
    out: &mut (dyn Write + Send),
) -> Result<(), EmulatorError> {
    let Process { clock, tasks, shutdown } = process;
    let webhook = match args.webhook_url {
        Some(url) if !url.is_loopback() && !args.webhook_anywhere => return Err(EmulatorError::Away(url)),
        url => url.map(|url| Webhook { url, secret: args.webhook_secret }),
    };
    let seed = match &args.seed {
        Some(path) => Some(Seed::load(path, environment, clock.wall()).map_err(EmulatorError::Seed)?.0),
        None => None,
    };
    let options =
        Options { secret_key: args.secret_key, rate_limit: args.rate_limit, authorized_party: None, seed, webhook };
    let emulator = Emulator::new(options, clock)?;
    let surface = Surface::bind(args.listen, emulator.router())
        .map_err(|source| EmulatorError::Bind { address: args.listen, source })?;
    let mut signals = Signals::new().map_err(EmulatorError::Runtime)?;
    if let Some(courier) = emulator.courier() {
        // Beside the tasks that a drain waits for: an event that nobody takes holds nothing up.
        drop(tasks.sibling().spawn(courier.run(tasks.sibling())));
    }
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
            () = tokio::time::sleep(DRAIN) => {}
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
    let mut lines = vec![
        ("API", format!("{base}/v1")),
        ("JWKS", text("jwks_url")),
        ("issuer", text("issuer")),
        ("secret key", text("secret_key")),
        ("publishable key", text("publishable_key")),
        ("rate limit", limit),
    ];
    if about["webhook_url"].is_string() {
        lines.extend([("webhook", text("webhook_url")), ("webhook secret", text("webhook_secret"))]);
    }
    for (label, value) in lines {
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

    /// One file, and no variables.
    struct OneFile(&'static str);

    impl Environment for OneFile {
        fn var(&self, _: &str) -> Option<String> {
            None
        }

        fn read(&self, _: &std::path::Path) -> io::Result<Vec<u8>> {
            Ok(self.0.as_bytes().to_vec())
        }

        fn exists(&self, _: &std::path::Path) -> bool {
            true
        }
    }

    fn process() -> Process {
        Process { clock: Clock::system(), tasks: Spawner::current(), shutdown: Shutdown::new() }
    }

    async fn seeded(flags: &[&str], seed: &'static str) -> Result<String, EmulatorError> {
        let (process, mut out) = (process(), Vec::new());
        // Begins and ends at once: the drain has begun already.
        process.shutdown.drain();
        serve(parse(flags).unwrap(), &OneFile(seed), process, &mut out).await?;
        Ok(String::from_utf8(out).unwrap())
    }

    async fn output(flags: &[&str]) -> Result<String, EmulatorError> {
        seeded(flags, "").await
    }

    #[tokio::test]
    async fn a_seed_replaces_the_default_one() {
        let flags = ["--json", "--seed", "seed.toml"];
        let seed = "[[users]]\nid = \"u\"\n[[sessions]]\nid = \"s\"\nuser = \"u\"\nstatus = \"pending\"";
        let about: Value = serde_json::from_str(&seeded(&flags, seed).await.unwrap()).unwrap();
        let expected = serde_json::json!([
            {"id": "s", "user_id": "u", "organization_id": null, "status": "pending"}
        ]);
        assert_eq!((&about["sessions"], &about["users"]), (&expected, &serde_json::json!(["u"])));
        let refused = seeded(&flags, "[[user]]").await.unwrap_err();
        assert!(refused.to_string().contains("seed.toml:1:3") && refused.to_string().contains("`users`"), "{refused}");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = parse(&flags).unwrap();
        let ran = tokio::task::spawn_blocking(move || {
            let code = run(args, &OneFile("x"), false, &mut out, &mut err).unwrap();
            (code, out, String::from_utf8(err).unwrap())
        });
        let (code, out, err) = ran.await.unwrap();
        assert_eq!((code, out.len()), (ExitCode::from(64), 0));
        assert!(err.contains("seed.toml:1"), "{err}");
    }

    #[tokio::test]
    async fn events_leave_the_machine_only_when_told_so() {
        let away = "http://192.0.2.1/hook";
        let refused = output(&["--webhook-url", away]).await.unwrap_err().to_string();
        assert!(refused.contains(away) && refused.contains("--webhook-anywhere"), "{refused}");
        for flags in [
            &["--json", "--webhook-url", away, "--webhook-anywhere"][..],
            &["--json", "--webhook-url", "http://localhost:3000/hook"][..],
        ] {
            let about: Value = serde_json::from_str(&output(flags).await.unwrap()).unwrap();
            assert_eq!(
                (&about["webhook_url"], &about["webhook_secret"]),
                (&flags[2].into(), &DEFAULT_WEBHOOK_SECRET.into())
            );
        }
        assert!(parse(&["--webhook-anywhere"]).is_err());
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
        let ended = serve(args, &OneFile(""), process(), &mut Vec::new()).await;
        assert!(ended.unwrap_err().to_string().contains("--listen 127.0.0.1:0"));
    }

    #[test]
    fn bad_flags_are_refused() {
        for flags in [
            ["--secret-key", "pk_test_1"],
            ["--rate-limit", "some"],
            ["--listen", "localhost"],
            ["--webhook-url", "https://127.0.0.1/"],
            ["--webhook-secret", "secret"],
        ] {
            assert!(parse(&flags).is_err(), "{flags:?}");
        }
    }
}
