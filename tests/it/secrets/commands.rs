//! What commands print: the secrets of a user's configuration are in none of it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::canaries::Canaries;
use crate::harness::until;
use crate::support::directory::Directory;

/// Letters that stand nowhere else; the second one does not look like a secret.
const SECRET: &str = "sk_live_canaryQ7x9Zk2Vw4mN8r";
const FIXED: &str = "canaryFixed8Hj3LpW6sD2x";

/// A file in which somebody wrote the secrets themselves, and made mistakes beside them.
const LITERAL: &str = r#"
[clerk]
secret_key = "sk_live_canaryQ7x9Zk2Vw4mN8r"
publishable_key = "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k"
[upstreams.up]
url = "http://user:canaryFixed8Hj3LpW6sD2x@127.0.0.1:1"
[[routes]]
name = "all"
upstream = "up"
session = [{ session_id_header = "x-sid", trust = "unverified", caller_token = "canaryFixed8Hj3LpW6sD2x" }]
inject = [{ header = "x-a", value = "canaryFixed8Hj3LpW6sD2x", wrong = 1 }, { header = "x-b", vale = "canaryFixed8Hj3LpW6sD2x" }]
"#;

const GOOD: &str = r#"
[clerk]
secret_key = { env = "CLERK_SECRET_KEY" }
publishable_key = "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k"
authorized_parties = ["https://app.example.com"]
[[routes]]
name = "all"
upstream = "http://127.0.0.1:1"
inject = [
  { header = "authorization", prefix = "Bearer ", template = "mine" },
  { header = "x-session-token", session_token = true },
  { header = "apikey", value = { env = "MINTGATE_TEST_FIXED" } },
]
"#;

/// `mintgate dev`, which ends when this is dropped.
struct Dev {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
}

fn mintgate(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mintgate"));
    command.args(arguments).arg("--config").arg(config).stdin(Stdio::null());
    command.env("CLERK_SECRET_KEY", SECRET).env("MINTGATE_TEST_FIXED", FIXED).env("MINTGATE_LOG", "trace");
    command
}

fn canaries() -> Canaries {
    let mut canaries = Canaries::default();
    canaries.add("the secret key", &SECRET["sk_live_".len()..]);
    canaries.add("the fixed value", FIXED);
    canaries
}

/// Case 39. Fails without `Problems::hide` for what stands where a secret may.
#[test]
fn no_command_repeats_a_secret_that_stands_in_the_configuration() {
    let files = Directory::new();
    let config = files.write("literal.toml", LITERAL);
    for command in [&["check"][..], &["run"], &["dev"], &["explain", "GET", "/"]] {
        let output = mintgate(&config, command).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(64), "{command:?}: {said}");
        assert!(said.contains("a secret is never written in the configuration"), "{command:?}: {said}");
        canaries().assert_clean(command[0], &said);
    }
}

/// Case 39. `dev` tells its emulator's own secret, which is everybody's; nothing of the user's, and no token. Fails where
/// it logged what it injects, or told what it reads from the environment.
#[tokio::test]
async fn dev_tells_no_secret_of_the_users_and_no_token() {
    let files = Directory::new();
    let config = files.write("good.toml", GOOD);
    let free =
        ["dev", "--upstream", "echo", "--port", "0", "--admin-port", "0", "--emulator-port", "0", "--echo-port", "0"];
    let mut child = mintgate(&config, &free).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (out, err) = (collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap()));
    let dev = Dev { child, out, err };
    until("dev is ready", || dev.out.lock().unwrap().contains("Stop with ctrl-c.")).await;
    let told = dev.out.lock().unwrap().clone();
    let line = told.lines().find(|line| line.starts_with("curl ")).unwrap_or_else(|| panic!("{told}"));
    let pasted = Command::new("sh").args(["-c", line]).output().unwrap();
    let echoed: Value = serde_json::from_slice(&pasted.stdout).unwrap_or_else(|error| panic!("{error}: {pasted:?}"));
    let mut canaries = canaries();
    for (name, header) in [("the minted token", "authorization"), ("the session token", "x-session-token")] {
        canaries.add_token(name, echoed["headers"][header].as_str().unwrap());
    }
    assert_eq!(echoed["headers"]["apikey"], FIXED, "the echo got it");
    until("the request is logged", || dev.err.lock().unwrap().contains("hyper")).await;
    canaries.assert_clean("what dev tells", &dev.out.lock().unwrap());
    canaries.assert_clean("what dev logs", &dev.err.lock().unwrap());
}

fn collect(mut pipe: impl std::io::Read + Send + 'static) -> Arc<Mutex<String>> {
    let all = Arc::<Mutex<String>>::default();
    let there = Arc::clone(&all);
    drop(std::thread::spawn(move || {
        let mut bytes = [0; 8192];
        while let Ok(count @ 1..) = pipe.read(&mut bytes) {
            there.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }));
    all
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
