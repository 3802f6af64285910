//! `mintgate check`: says whether the configuration is good, without running anything and without needing its secrets; and
//! with `--online`, what the issuer and Redis say of it.

mod finding;
mod online;
mod shared;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::address::ListenAddress;
use crate::config::Config;
use crate::config::validate::{self, Diagnostics, Environment, NoConfig, Secrets};
use crate::token::clerk::BuildError;

use self::finding::{Findings, Level};
use super::console::Console;

/// The exit status for a configuration that cannot be used (`EX_USAGE` of sysexits.h), the same for every command.
pub const BAD_CONFIG: u8 = 64;
/// The exit status when the issuer or Redis says that the configuration will not work.
const REFUSED: u8 = 1;
/// The exit status when one of them does not say (`EX_UNAVAILABLE` of sysexits.h).
const UNKNOWN: u8 = 69;

/// Says whether the configuration is good; secrets need not be present.
///
/// Exit status: 0 it is good, 64 it is bad or there is none; with --online also 1 the issuer or Redis says that it will
/// not work, 69 one of them does not say.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// The configuration; else $MINTGATE_CONFIG, ./mintgate.toml, /etc/mintgate/mintgate.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Variables for the configuration, as in .env.local; the environment's own go before them.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Ask the issuer too: whether it accepts the secret key, whether all keys are of one instance, whether the
    /// templates are there, and how many active sessions the budget carries; and Redis, where [cache.shared] names one.
    #[arg(long)]
    online: bool,
    /// Active sessions that are to be carried: those that make requests at one time.
    #[arg(long, value_name = "N", requires = "online")]
    sessions: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Why nothing could be said.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The runtime.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    /// The issuer's client.
    #[error("cannot ask the issuer")]
    Client(#[from] BuildError),
    /// A stream cannot be written.
    #[error("cannot write")]
    Output(#[from] io::Error),
}

// === impl Args ===

impl Args {
    /// `--env-file`
    pub fn env_file(&self) -> Option<&Path> {
        self.env_file.as_deref()
    }
}

/// Prints what is wrong with the configuration to `err`, and a summary of a good one to `out`; with `--json` all of it to
/// `out`.
///
/// # Errors
/// See [`CheckError`].
pub fn run(args: &Args, environment: &dyn Environment, to: &mut Console<'_>) -> Result<ExitCode, CheckError> {
    let path = match validate::locate(args.config.as_deref(), environment) {
        Ok(path) => path,
        Err(error) if args.json => {
            let problem = json!({ "severity": "error", "title": error.to_string() });
            tell(&json!({ "file": null, "ok": false, "problems": [problem] }), to.out)?;
            return Ok(ExitCode::from(BAD_CONFIG));
        }
        Err(error) => return Ok(no_config(&error, to.err)?),
    };
    let (config, diagnostics) = match validate::load(&path, environment, Secrets::Optional) {
        Ok((config, warnings)) => (config, warnings),
        Err(problems) if args.json => {
            tell(&report(&path, false, &problems), to.out)?;
            return Ok(ExitCode::from(BAD_CONFIG));
        }
        Err(problems) => return Ok(refused(&path, &problems, to.err_colours, to.err)?),
    };
    let findings = if args.online { Some(asked(&config, args.sessions)?) } else { None };
    let code = match &findings {
        Some(findings) if findings.any(Level::Error) => ExitCode::from(REFUSED),
        Some(findings) if findings.any(Level::Unknown) => ExitCode::from(UNKNOWN),
        _ => ExitCode::SUCCESS,
    };
    let hints = hints(&config, environment);
    if args.json {
        let mut report = report(&path, true, &diagnostics);
        report["hints"] = json!(hints);
        report["shared"] = json!(config.shared.as_ref().map(shared::report));
        report["online"] = json!(findings.as_ref().map(|findings| &findings.list));
        report["capacity"] = json!(findings.as_ref().map(|findings| &findings.capacity));
        tell(&report, to.out)?;
        return Ok(code);
    }
    write!(to.err, "{}", diagnostics.render(to.err_colours))?;
    for hint in hints {
        writeln!(to.err, "hint: {hint}")?;
    }
    writeln!(to.out, "{}: ok ({})", path.display(), summary(&config, diagnostics.warnings()))?;
    if let Some(configured) = &config.shared {
        writeln!(to.out, "  {}", shared::described(&config, configured))?;
    }
    write_findings(&findings.unwrap_or_default(), to.out)?;
    Ok(code)
}

fn tell(report: &Value, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{report:#}")
}

fn report(path: &Path, ok: bool, problems: &Diagnostics) -> Value {
    json!({
        "file": path.display().to_string(),
        "ok": ok,
        "errors": problems.errors(),
        "warnings": problems.warnings(),
        "problems": problems.told().collect::<Vec<_>>(),
    })
}

fn asked(config: &Config, sessions: Option<u64>) -> Result<Findings, CheckError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CheckError::Runtime)?;
    runtime.block_on(async {
        let mut findings = online::ask(config, sessions).await?;
        if let Some(configured) = &config.shared {
            shared::ask(configured, &mut findings).await;
        }
        Ok(findings)
    })
}

fn write_findings(findings: &Findings, out: &mut dyn Write) -> io::Result<()> {
    for finding in &findings.list {
        writeln!(out, "  {:<8} {}", finding.level.as_str(), finding.text)?;
        if let Some(advice) = finding.advice {
            writeln!(out, "           {advice}")?;
        }
    }
    Ok(())
}

/// What is often not meant where mintgate runs now. A sidecar on loopback is right where its own pod calls it, so it is no
/// warning; and nobody is told who does not run in a pod.
fn hints(config: &Config, environment: &dyn Environment) -> Vec<&'static str> {
    let in_a_pod = environment.var("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty());
    if !in_a_pod {
        return Vec::new();
    }
    let loopback =
        |address: &ListenAddress| matches!(address, ListenAddress::Tcp(address) if address.ip().is_loopback());
    let mut hints = Vec::new();
    if config.server.listen.iter().all(|listen| loopback(&listen.address)) {
        hints.push("server.listen is on loopback: only containers of this pod reach it, no Service does");
    }
    if config.admin.as_ref().is_some_and(|admin| loopback(&admin.listen)) {
        hints.push("admin.listen is on loopback: the kubelet's HTTP probes and Prometheus do not reach it; write \"0.0.0.0:6469\"");
    }
    hints
}

/// The configuration of a gateway that runs, for a command that asks it: its secrets need not be here. The exit status, where it
/// was said that there is none.
pub(super) fn configured(
    config: Option<&Path>,
    environment: &dyn Environment,
    err: &mut dyn Write,
) -> io::Result<Result<(PathBuf, Config), ExitCode>> {
    let path = match validate::locate(config, environment) {
        Ok(path) => path,
        Err(error) => return no_config(&error, err).map(Err),
    };
    match validate::load(&path, environment, Secrets::Replaced) {
        Ok((config, _)) => Ok(Ok((path, config))),
        Err(diagnostics) => refused(&path, &diagnostics, false, err).map(Err),
    }
}

/// Says where a configuration was looked for, and how to come by one.
pub(super) fn no_config(error: &NoConfig, err: &mut dyn Write) -> io::Result<ExitCode> {
    writeln!(err, "error: {error}")?;
    writeln!(err, "  To try mintgate without a configuration: mintgate dev")?;
    writeln!(err, "  To write one: mintgate init --output mintgate.toml, then: mintgate check")?;
    Ok(ExitCode::from(BAD_CONFIG))
}

/// Says everything that is wrong with a configuration.
pub(super) fn refused(
    path: &Path,
    diagnostics: &Diagnostics,
    colours: bool,
    err: &mut dyn Write,
) -> io::Result<ExitCode> {
    write!(err, "{}", diagnostics.render(colours))?;
    let (errors, warnings) = (diagnostics.errors(), diagnostics.warnings());
    writeln!(err, "{}: {}, {}", path.display(), count(errors, "error"), count(warnings, "warning"))?;
    Ok(ExitCode::from(BAD_CONFIG))
}

fn summary(config: &Config, warnings: usize) -> String {
    [
        count(config.server.listen.len(), "listener"),
        count(config.routes.len(), "route"),
        count(config.upstreams.len(), "upstream"),
        count(config.templates().count(), "template"),
        count(warnings, "warning"),
    ]
    .join(", ")
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Files; one that is called after a variable is what that holds.
    struct Files(BTreeMap<PathBuf, &'static str>);

    impl Environment for Files {
        fn var(&self, name: &str) -> Option<String> {
            self.0.get(Path::new(name)).map(|text| (*text).to_owned())
        }

        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            self.0.get(path).map(|text| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn exists(&self, path: &Path) -> bool {
            self.0.contains_key(path)
        }
    }

    fn check(files: &[(&str, &'static str)], config: Option<&str>) -> (String, String, String) {
        check_with(Args::default(), files, config)
    }

    fn check_with(args: Args, files: &[(&str, &'static str)], config: Option<&str>) -> (String, String, String) {
        let files = Files(files.iter().map(|(path, text)| (PathBuf::from(path), *text)).collect());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = Args { config: config.map(PathBuf::from), ..args };
        let mut to = Console { out: &mut out, err: &mut err, out_colours: false, err_colours: false };
        let code = run(&args, &files, &mut to).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        // `ExitCode` tells its number in `Debug` alone.
        (format!("{code:?}"), text(out), text(err))
    }

    fn exit(code: u8) -> String {
        format!("{:?}", ExitCode::from(code))
    }

    const GOOD: &str = "[[routes]]\nname = \"a\"\nupstream = \"http://127.0.0.1:1\"\nsession = []\n";

    #[test]
    fn a_good_file_is_ok_on_stdout() {
        let (code, out, err) = check(&[("./mintgate.toml", GOOD)], None);
        assert_eq!((code, err.as_str()), (exit(0), ""));
        assert_eq!(out, "./mintgate.toml: ok (1 listener, 1 route, 1 upstream, 0 templates, 0 warnings)\n");
    }

    #[test]
    fn an_absent_secret_is_a_warning() {
        let text = "[clerk]\nsecret_key = { env = \"NOT_SET\" }\n[[routes]]\nname = \"a\"\nupstream = \"http://127.0.0.1:1\"\nsession = [\"bearer\"]\n";
        let (code, out, err) = check(&[("a.toml", text)], Some("a.toml"));
        assert_eq!(code, exit(0), "{err}");
        assert!(out.contains("1 warning)"), "{out}");
        assert!(err.contains("the environment variable is not set"), "{err}");
    }

    #[test]
    fn a_bad_file_exits_with_64() {
        let (code, out, err) = check(&[("a.toml", "[servre]\n[logg]\n")], Some("a.toml"));
        assert_eq!((code, out.as_str()), (exit(64), ""));
        assert!(err.contains("did you mean `server`?") && err.contains("did you mean `log`?"), "{err}");
        assert!(err.ends_with("a.toml: 3 errors, 0 warnings\n"), "{err}");
    }

    #[test]
    fn no_file_exits_with_64_and_says_where_it_looked() {
        let (code, _, err) = check(&[], None);
        assert_eq!(code, exit(64));
        assert!(err.contains("./mintgate.toml") && err.contains("/etc/mintgate/mintgate.toml"), "{err}");
        assert!(err.contains("mintgate dev") && err.contains("mintgate init"), "{err}");
        let (code, _, err) = check(&[], Some("absent.toml"));
        assert_eq!(code, exit(64));
        assert!(err.contains("absent.toml") && err.contains("cannot read the file"), "{err}");
    }

    #[test]
    fn a_program_reads_what_is_wrong_and_where() {
        let json = |files: &[(&str, &'static str)]| {
            let (code, out, err) = check_with(Args { json: true, ..Args::default() }, files, None);
            assert_eq!(err, "");
            (code, serde_json::from_str::<Value>(&out).unwrap())
        };
        let (code, report) = json(&[("./mintgate.toml", GOOD)]);
        assert_eq!((code, &report["ok"], &report["errors"]), (exit(0), &json!(true), &json!(0)));
        assert_eq!((&report["problems"], &report["hints"], &report["online"]), (&json!([]), &json!([]), &Value::Null));
        let (code, report) = json(&[("./mintgate.toml", "# \u{fc}\n[servre]\n")]);
        assert_eq!((code, &report["ok"], &report["errors"]), (exit(64), &json!(false), &json!(2)));
        let unknown = report["problems"].as_array().unwrap().iter().find(|problem| problem["line"] == 2).unwrap();
        assert_eq!(unknown["label"], "did you mean `server`?");
        assert_eq!((&unknown["severity"], &unknown["column"]), (&json!("error"), &json!(2)));
        let (code, report) = json(&[]);
        assert_eq!((code, &report["ok"], &report["file"]), (exit(64), &json!(false), &Value::Null));
    }

    /// Fails where it says nothing of it, or too much.
    #[test]
    fn what_is_said_of_the_shared_cache_names_everything_but_secrets() {
        const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let lines = "url = \"redis-sentinel://a,b:1/4#main\"\nusername = \"who\"\npassword = { env = \"PASSWORD\" }\n\
                     encryption_key = { env = \"KEY\" }\nencryption_key_previous = { env = \"PREVIOUS\" }\n";
        let budget = "[clerk.budget]\nrequests = 100\nreplicas = 4\n";
        let text: &'static str = format!("{budget}[cache.shared]\n{lines}{GOOD}").leak();
        let secrets =
            [("PASSWORD", "redis-canary"), ("KEY", KEY), ("PREVIOUS", "BBECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")];
        for present in [true, false] {
            let files: Vec<_> =
                [("./mintgate.toml", text)].into_iter().chain(secrets.into_iter().filter(|_| present)).collect();
            let (code, out, err) = check(&files, None);
            let expected = "  cache.shared: redis-sentinel://a:26379,b:1/4#main (user who), prefix \"mintgate:\", timeout 50ms, two \
                            keys; one budget of 80 mints in 10s for all gateways, and while Redis is down 20 for each of 4\n";
            assert_eq!(code, exit(0), "{err}");
            assert!(out.ends_with(expected), "{out}");
            let (_, json, _) = check_with(Args { json: true, ..Args::default() }, &files, None);
            let report: Value = serde_json::from_str(&json).unwrap();
            assert_eq!((&report["shared"]["keys"], &report["shared"]["timeout_ms"]), (&json!(2), &json!(50)));
            for secret in ["redis-canary", &KEY[..20], "BBECAwQFBgcICQoLDA0O"] {
                assert!(![&out, &err, &json].iter().any(|text| text.contains(secret)), "{secret}");
            }
        }
        let (_, json, _) = check_with(Args { json: true, ..Args::default() }, &[("./mintgate.toml", GOOD)], None);
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["shared"], Value::Null);
    }

    /// Fails where a hint is given outside of a pod, or for a listener that others reach.
    #[test]
    fn loopback_is_hinted_at_in_a_pod_alone() {
        let admin = format!("{GOOD}[admin]\n");
        let admin: &'static str = admin.leak();
        let (_, _, err) = check(&[("./mintgate.toml", admin)], None);
        assert_eq!(err, "");
        let pod = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        let (code, _, err) = check(&[("./mintgate.toml", admin), pod], None);
        assert_eq!((code, err.matches("hint: ").count()), (exit(0), 2), "{err}");
        let open = "[server]\nlisten = [\"0.0.0.0:6468\", \"127.0.0.1:6467\"]\n[admin]\nlisten = \"0.0.0.0:6469\"\n";
        let open: &'static str = format!("{open}{GOOD}").leak();
        assert_eq!(check(&[("./mintgate.toml", open), pod], None).2, "");
    }
}
