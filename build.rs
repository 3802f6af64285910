//! Tells the crate which commit it is built from: for `mintgate --version` and `mintgate_build_info`.
//!
//! `MINTGATE_COMMIT` says it where it is set, as for a build without a repository. Else git is asked, in builds for release
//! alone: a commit compiles nothing anew where somebody works. Without git, and in a source tarball, there is no commit.

use std::path::Path;
use std::process::Command;

/// What the binary is made of: a change here makes it another one than the commit's.
const SOURCES: [&str; 5] = ["src", "config", "build.rs", "Cargo.toml", "Cargo.lock"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=MINTGATE_COMMIT");
    #[expect(clippy::disallowed_methods, reason = "cargo tells a build script everything so")]
    let variable = |name| std::env::var(name).unwrap_or_default();
    let release = variable("PROFILE") == "release";
    let given = variable("MINTGATE_COMMIT");
    let commit = match given.as_str() {
        "" if release => from_git(Path::new(&variable("CARGO_MANIFEST_DIR"))).unwrap_or_default(),
        given => given.to_owned(),
    };
    if !commit.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte)) {
        println!("cargo::error=MINTGATE_COMMIT is letters, digits, `-`, `_`, `.` and `+`");
    }
    let shown = match commit.as_str() {
        "" if release => String::new(),
        "" => " (debug build)".to_owned(),
        commit => format!(" ({commit})"),
    };
    println!("cargo::rustc-env=MINTGATE_BUILT_FROM={commit}");
    println!("cargo::rustc-env=MINTGATE_BUILT_FROM_SHOWN={shown}");
}

/// The commit, with `-dirty` when the sources differ from it; `None` when this is not the root of a repository: a tarball
/// that was unpacked within another project's has nothing to do with that one's commits.
fn from_git(root: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        let text = output.status.success().then(|| String::from_utf8(output.stdout).ok()).flatten()?;
        Some(text.trim_end().to_owned())
    };
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let mut status = vec!["--no-optional-locks", "status", "--porcelain", "--"];
    status.extend(SOURCES);
    let dirty = git(&status).is_none_or(|changed| !changed.is_empty());
    // A file that is not there would have this run at each build.
    for name in ["HEAD", "logs/HEAD", "packed-refs"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| root.join(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    if let Some(path) = git(&["symbolic-ref", "-q", "HEAD"]).and_then(|name| git(&["rev-parse", "--git-path", &name]))
        && root.join(&path).exists()
    {
        println!("cargo::rerun-if-changed={path}");
    }
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    Some(if dirty { format!("{commit}-dirty") } else { commit })
}
