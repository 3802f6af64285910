//! A real `redis-server` of a test's own, which it may kill, stop, and ask. REDIS_SERVER names another one to try, such as
//! `valkey-server`.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::directory::Directory;
use super::eventually;

/// It listens on a Unix socket in a directory of its own, and ends with this.
pub(crate) struct Redis {
    child: Child,
    directory: Directory,
    arguments: Vec<String>,
}

// === impl Redis ===

impl Redis {
    /// One that answers.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The same with more arguments.
    pub(crate) async fn with(arguments: &[&str]) -> Self {
        let directory = Directory::new();
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let child = spawn(&directory, &arguments);
        let redis = Self { child, directory, arguments };
        redis.answers().await;
        redis
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path("redis.sock")
    }

    /// As `cache.shared.url` has it.
    pub(crate) fn url(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// What is kept on its disk.
    pub(crate) fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.directory.path(name)).unwrap()
    }

    /// What it answers.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Every name that is there.
    pub(crate) fn names(&self) -> Vec<String> {
        self.ask(&["--scan"]).lines().map(str::to_owned).collect()
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let mut cli = Command::new("redis-cli");
        cli.arg("-s").arg(self.socket()).args(arguments).stdin(Stdio::null());
        cli.output().expect("redis-cli is missing: `tests/run prepare` installs redis-server")
    }

    /// Kills it, as a machine that is lost; what was in its memory is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Another one in its place.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.directory, &self.arguments);
        self.answers().await;
    }

    /// It stands still: it takes connections, and answers nothing.
    pub(crate) fn pause(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    pub(crate) fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    async fn answers(&self) {
        eventually("redis answers", || {
            let said = self.cli(&["PING"]);
            // Whoever needs a password is there too.
            String::from_utf8_lossy(&said.stdout).contains("PONG")
                || String::from_utf8_lossy(&said.stdout).contains("NOAUTH")
        })
        .await;
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have been killed by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is started as Redis.
#[expect(clippy::disallowed_methods, reason = "whoever runs the tests names it")]
pub(crate) fn server() -> String {
    std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

fn spawn(directory: &Directory, arguments: &[String]) -> Child {
    let mut server = Command::new(server());
    server.args(["--port", "0", "--unixsocket"]).arg(directory.path("redis.sock"));
    server.args(["--save", "", "--rdbcompression", "no", "--dir"]).arg(directory.path(""));
    server.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    server.spawn().expect("redis-server is missing: `tests/run prepare` installs it")
}
