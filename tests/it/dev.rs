//! `mintgate dev` as a user starts it: the real binary, and the very line that it prints pasted into a shell.

use std::io::{self, BufRead as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use mintgate::lifecycle::Shutdown;
use serde_json::Value;

use crate::harness::{claims, serve, until};

/// The last line that it prints.
const READY: &str = "Stop with ctrl-c.";

/// `mintgate dev`, running.
struct Dev {
    child: Child,
    out: Arc<Mutex<String>>,
}

/// The binary with these arguments, and an environment that says nothing of Clerk.
fn mintgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mintgate"));
    command.args(arguments).stdin(Stdio::null()).env_remove("CLERK_SECRET_KEY").env_remove("MINTGATE_LOG");
    command
}

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// A file for one test.
fn file(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn sample(name: &str) -> String {
    format!("{}/config/{name}", env!("CARGO_MANIFEST_DIR"))
}

// === impl Dev ===

impl Dev {
    /// On free ports; waits until it has told everything.
    async fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let free = ["dev", "--admin-port", "0", "--emulator-port", "0", "--echo-port", "0"];
        let mut command = mintgate(&free);
        command.args(arguments).envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::null());
        if !arguments.contains(&"--port") {
            command.args(["--port", "0"]);
        }
        let mut child = command.spawn().unwrap();
        let (out, stdout) = (Arc::<Mutex<String>>::default(), child.stdout.take().unwrap());
        let lines = Arc::clone(&out);
        drop(std::thread::spawn(move || {
            for line in io::BufReader::new(stdout).lines() {
                let mut lines = lines.lock().unwrap();
                lines.push_str(&line.unwrap());
                lines.push('\n');
            }
        }));
        let mut dev = Self { child, out };
        until("dev is ready", || {
            let ended = dev.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}\n{}", dev.told());
            dev.told().contains(READY)
        })
        .await;
        dev
    }

    fn told(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    /// The line to paste.
    fn line(&self) -> String {
        let told = self.told();
        told.lines().find(|line| line.starts_with("curl ")).unwrap_or_else(|| panic!("no line in\n{told}")).to_owned()
    }

    /// What comes of pasting a line.
    fn paste(line: &str) -> String {
        let (code, out, err) = output(Command::new("sh").args(["-c", line]));
        assert_eq!(code, Some(0), "{line}\n{err}");
        out
    }

    /// What the echo says that it received, when the line is pasted.
    fn pasted(&self) -> Value {
        let answer = Self::paste(&self.line());
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("not the echo's: {answer}"))
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended by itself, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_line_that_dev_prints_works_and_ctrl_c_ends_all() {
    let mut dev = Dev::start(&[], &[]).await;
    let echoed = dev.pasted();
    let minted = claims(echoed["headers"]["authorization"].as_str().unwrap());
    assert_eq!(minted["https://hasura.io/jwt/claims"]["x-hasura-user-id"], "user_emulator_alice");
    assert_eq!((&echoed["headers"]["x-user-id"], &echoed["path"]), (&"user_emulator_alice".into(), &"/hello".into()));
    assert!(!dev.told().contains("CLERK_API_URL"), "{}", dev.told());
    assert!(Command::new("kill").args(["-INT", &dev.child.id().to_string()]).status().unwrap().success());
    until("dev has ended", || dev.child.try_wait().unwrap().is_some_and(|status| status.success())).await;
}

#[tokio::test]
async fn dev_plays_a_users_configuration() {
    let config = file(
        "dev-user.toml",
        r#"
        [clerk]
        secret_key = { env = "CLERK_SECRET_KEY" }
        publishable_key = "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k"
        authorized_parties = ["https://a.example.com", "https://b.example.com"]
        audience = ["ours"]
        [server]
        listen = ["0.0.0.0:1"]
        [upstreams.billing]
        url = "http://billing.internal:8080"
        [[routes]]
        name = "billing"
        match = { host = "billing.internal", path = "/billing", methods = ["POST"] }
        upstream = "billing"
        strip_prefix = "/billing"
        authorized_parties = ["https://b.example.com"]
        session = [{ header = "x-session-token" }]
        inject = [
          { header = "authorization", prefix = "Bearer ", template = "made_here" },
          { header = "x-api-key", value = { env = "MINTGATE_TEST_NOT_SET" } },
          { header = "x-plan", value = { env = "MINTGATE_TEST_PLAN" } },
        ]
        "#,
    );
    let variables = file("dev-user.env", "MINTGATE_TEST_PLAN='from the file'\n");
    let arguments = ["--config", config.to_str().unwrap(), "--upstream", "echo"];
    let dev = Dev::start(&[&arguments[..], &["--env-file", variables.to_str().unwrap()]].concat(), &[]).await;
    let echoed = dev.pasted();
    let headers = &echoed["headers"];
    let minted = claims(headers["authorization"].as_str().unwrap());
    assert_eq!((&minted["sub"], &minted["email"]), (&"user_emulator_alice".into(), &"alice@example.com".into()));
    assert_eq!(minted["azp"], "https://a.example.com");
    assert_eq!(
        (&headers["x-api-key"], &headers["x-plan"]),
        (&"mintgate-dev-placeholder".into(), &"from the file".into())
    );
    assert_eq!((&echoed["method"], &echoed["path"]), (&"POST".into(), &"/".into()));
    assert_eq!(headers["x-session-token"], Value::Null);
    let told = dev.told();
    for part in ["MINTGATE_TEST_NOT_SET", "made_here", "clerk.audience"] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    assert!(!told.contains("MINTGATE_TEST_PLAN"), "{told}");
}

#[tokio::test]
async fn dev_plays_a_configuration_of_a_machine_that_this_is_not() {
    let config = file(
        "dev-elsewhere.toml",
        r#"
        [clerk]
        secret_key = { env = "MINTGATE_TEST_NOT_SET" }
        publishable_key = "${MINTGATE_TEST_NO_KEY}"
        [server]
        listen = ["127.0.0.1:6468", "unix:/absent/mintgate/proxy.sock"]
        [[routes]]
        name = "all"
        upstream = "http://127.0.0.1:1"
        [[routes]]
        name = "local"
        match = { listener = "unix:/absent/mintgate/proxy.sock", path = "/local" }
        upstream = "http://127.0.0.1:1"
        "#,
    );
    let dev = Dev::start(&["--config", config.to_str().unwrap(), "--upstream", "echo"], &[]).await;
    assert_eq!(dev.pasted()["method"], "GET");
    let (told, place) = (dev.told(), "unix:/absent/mintgate/proxy.sock is served at unix:");
    assert!(told.contains(place), "{told}");
}

#[tokio::test]
async fn dev_stands_before_an_application() {
    let shutdown = Shutdown::new();
    let application = axum::Router::new()
        .fallback(async |headers: http::HeaderMap| format!("hello {}", headers["x-user-id"].to_str().unwrap()));
    let upstream = format!("http://{}", serve(application, &shutdown));
    let dev = Dev::start(&["--upstream", &upstream], &[]).await;
    // The application runs on this thread's runtime.
    let line = dev.line();
    let answer = tokio::task::spawn_blocking(move || Dev::paste(&line)).await.unwrap();
    assert_eq!(answer, "hello user_emulator_alice");
    let told = dev.told();
    for part in [upstream.as_str(), "CLERK_API_URL=http://127.0.0.1:", "Nobody can sign in with a browser"] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    shutdown.stop();
}

#[tokio::test]
async fn a_taken_port_is_told_and_a_named_one_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let route =
        "[[routes]]\nname = \"a\"\nupstream = \"http://127.0.0.1:1\"\n[clerk]\nsecret_key = { env = \"NO_KEY\" }\n";
    let config = file("dev-taken.toml", &format!("[server]\nlisten = [\"{address}\"]\n{route}"));
    let arguments = ["dev", "--admin-port", "0", "--emulator-port", "0"];
    let mut child =
        mintgate(&arguments).arg("--config").arg(&config).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let stdout = io::BufReader::new(child.stdout.take().unwrap());
    let told: Vec<String> = stdout.lines().map(Result::unwrap).take_while(|line| line != READY).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let told = told.join("\n");
    assert!(told.contains(&format!("{address} is taken; a free port is used instead.")), "{told}");
    assert!(told.contains("curl -s 'http://127.0.0.1:"), "{told}");
    let port = address.port().to_string();
    for flag in ["--port", "--emulator-port", "--echo-port", "--admin-port"] {
        let mut all: Vec<&str> = ["--port", "--emulator-port", "--echo-port", "--admin-port"]
            .into_iter()
            .filter(|other| *other != flag)
            .flat_map(|other| [other, "0"])
            .collect();
        all.extend([flag, &port]);
        let (code, _, err) = output(mintgate(&["dev"]).args(all));
        assert_eq!(code, Some(1), "{flag}: {err}");
        assert!(err.contains(&format!("cannot listen on {address}")), "{flag}: {err}");
    }
}

#[test]
fn a_bad_configuration_is_told_as_by_check() {
    let config = file("dev-bad.toml", "[clerk]\nsecret_kye = 1\n[[routes]]\nname = \"a\"\n");
    let [checked, played, explained] = [&["check"][..], &["dev"], &["explain", "GET", "/"]]
        .map(|command| output(mintgate(command).arg("--config").arg(&config)));
    assert_eq!(checked.0, Some(64));
    assert!(checked.2.contains("did you mean `secret_key`?"), "{}", checked.2);
    assert_eq!(played, checked);
    assert_eq!(explained, checked);
    let (code, _, err) = output(&mut mintgate(&["dev", "--config", "/absent.toml"]));
    assert_eq!(code, Some(64));
    assert!(err.contains("cannot read the file"), "{err}");
    let (code, _, err) = output(&mut mintgate(&["dev", "--upstream", "ftp://a"]));
    assert_eq!(code, Some(2));
    assert!(err.contains("--upstream"), "{err}");
}

#[test]
fn variables_come_from_a_file_behind_the_environment() {
    let config = file(
        "env-file.toml",
        "[clerk]\nsecret_key = { env = \"CLERK_SECRET_KEY\" }\npublishable_key = \"${NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY}\"\n\
         [[routes]]\nname = \"a\"\nsession = [\"bearer\"]\nupstream = \"http://127.0.0.1:1\"\n",
    );
    let variables = file(
        ".env.local",
        "# Clerk\nNEXT_PUBLIC_CLERK_PUBLISHABLE_KEY=pk_test_Y2xlcmsuZXhhbXBsZS5jb20k\nCLERK_SECRET_KEY=sk_test_canary\n",
    );
    let check = |more: &[&str]| output(mintgate(&["check"]).arg("--config").arg(&config).args(more));
    let named = ["--env-file", variables.to_str().unwrap()];
    let (code, _, err) = check(&[]);
    assert_eq!(code, Some(64), "{err}");
    let (code, out, err) = check(&named);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("0 warnings"), "{out}");
    let mut command = mintgate(&["check"]);
    command.arg("--config").arg(&config).args(named).env("NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY", "no key");
    assert!(output(&mut command).2.contains("not a publishable key"));
    let broken = file("broken.env", "A=1\nsk_test_canary\n");
    for command in ["check", "run", "dev"] {
        let (code, out, err) = output(mintgate(&[command]).arg("--env-file").arg(&broken));
        assert_eq!(code, Some(64), "{command}: {err}");
        assert!(err.contains("broken.env:2: not a line") && !format!("{out}{err}").contains("canary"), "{err}");
    }
}

/// The samples; the first route of each that injects something injects a token of the caller's here, or the caller's id.
const SAMPLES: [&str; 7] =
    ["api.toml", "egress.toml", "hasura.toml", "hub.toml", "nextjs.toml", "sidecar.toml", "supabase.toml"];

/// What they need to be there, so that nothing is left to warn about.
const SECRETS: &str =
    "CLERK_SECRET_KEY=sk_live_1\nBILLING_API_KEY=1\nSUPABASE_ANON_KEY=1\nBILLING_TOKEN=2\nHUB_TOKEN=2\n";

#[tokio::test]
async fn every_sample_plays() {
    let mut known: Vec<_> = SAMPLES.map(str::to_owned).into();
    known.extend(["full.toml", "mintgate.schema.json"].map(str::to_owned));
    let files = std::fs::read_dir(sample("")).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let unknown: Vec<_> = files.filter(|name| !known.contains(name)).collect();
    assert!(unknown.is_empty(), "samples that nothing drives: {unknown:?}");
    let secrets = file("samples.env", SECRETS);
    for name in SAMPLES {
        let checked = output(mintgate(&["check", "--config", &sample(name), "--env-file"]).arg(&secrets));
        assert_eq!((checked.0, checked.2.as_str()), (Some(0), ""), "{name}");
        let dev = Dev::start(&["--config", &sample(name), "--upstream", "echo"], &[]).await;
        let echoed = dev.pasted();
        // An API of one's own needs no token: it gets values of the session.
        let user = match echoed["headers"]["authorization"].as_str() {
            Some(token) => claims(token)["sub"].clone(),
            None => echoed["headers"]["x-user-id"].clone(),
        };
        assert_eq!(user, "user_emulator_alice", "{name}: {echoed}");
        for gone in ["cookie", "x-session-token"] {
            assert_eq!(echoed["headers"][gone], Value::Null, "{name}");
        }
    }
}

#[tokio::test]
async fn a_seed_gives_dev_its_sessions_and_templates() {
    let seed = file(
        "dev-seed.toml",
        r#"
        [[users]]
        id = "user_carol"
        [[sessions]]
        id = "sess_carol"
        user = "user_carol"
        [[templates]]
        name = "custom_hasura"
        claims = { seeded = true }
        "#,
    );
    let dev = Dev::start(&["--seed", seed.to_str().unwrap()], &[]).await;
    let echoed = dev.pasted();
    let minted = claims(echoed["headers"]["authorization"].as_str().unwrap());
    assert_eq!((&minted["sub"], &minted["seeded"]), (&"user_carol".into(), &true.into()));
    let bad = file("dev-bad-seed.toml", "[[usres]]\n");
    let (code, _, err) = output(mintgate(&["dev", "--seed"]).arg(&bad));
    assert_eq!(code, Some(64), "{err}");
    assert!(err.contains("dev-bad-seed.toml:1"), "{err}");
}
