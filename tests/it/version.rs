//! Which commit a build says that it is of: `build.rs`, run as cargo runs it, in repositories of the test's own.

use std::path::Path;
use std::process::Command;

use mintgate::version;

use crate::support::directory::Directory;

/// The build script, compiled.
fn script(files: &Directory) -> std::path::PathBuf {
    let binary = files.path("build-script");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
    let rustc = Command::new("rustc").args(["--edition", "2024", "-o"]).arg(&binary).arg(source).output().unwrap();
    assert!(rustc.status.success(), "{rustc:?}");
    binary
}

/// Everything that it tells cargo, for a package at this place.
fn told(script: &Path, root: &Path, variables: &[(&str, &str)]) -> Vec<String> {
    let mut command = Command::new(script);
    command.current_dir(root).env("CARGO_MANIFEST_DIR", root).env_remove("MINTGATE_COMMIT");
    let output = command.envs(variables.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn commit(told: &[String]) -> &str {
    let line = told.iter().find_map(|line| line.strip_prefix("cargo::rustc-env=MINTGATE_BUILT_FROM="));
    line.unwrap_or_else(|| panic!("{told:?}"))
}

fn git(root: &Path, arguments: &[&str]) -> String {
    let user = ["-c", "user.name=t", "-c", "user.email=t@t.test", "-c", "commit.gpgsign=false"];
    let output = Command::new("git").arg("-C").arg(root).args(user).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

const RELEASE: (&str, &str) = ("PROFILE", "release");

/// Fails without any of: the comparison with the root, `-dirty`, the look at the profile.
#[test]
fn a_release_build_tells_its_commit_and_a_tarball_none() {
    let files = Directory::new();
    let (script, root) = (script(&files), files.path("repository"));
    std::fs::create_dir_all(root.join("src")).unwrap();
    git(&root, &["init", "-q"]);
    std::fs::write(root.join("src/lib.rs"), "//! One.\n").unwrap();
    git(&root, &["add", "."]);
    git(&root, &["commit", "-q", "-m", "one"]);
    let head = git(&root, &["rev-parse", "--short=12", "HEAD"]);

    let clean = told(&script, &root, &[RELEASE]);
    assert_eq!(commit(&clean), head);
    assert!(clean.contains(&format!("cargo::rustc-env=MINTGATE_BUILT_FROM_SHOWN= ({head})")), "{clean:?}");
    // Cargo runs it again when HEAD moves, and at each build where a file is not there.
    let watched: Vec<_> = clean.iter().filter_map(|line| line.strip_prefix("cargo::rerun-if-changed=")).collect();
    assert!(watched.contains(&".git/HEAD") && watched.iter().any(|path| path.starts_with(".git/refs/heads/")));
    assert!(watched.iter().filter(|path| path.starts_with(".git")).all(|path| root.join(path).exists()), "{watched:?}");

    // What is no part of the binary makes it no other one.
    std::fs::write(root.join("README.md"), "Changed.\n").unwrap();
    assert_eq!(commit(&told(&script, &root, &[RELEASE])), head);
    std::fs::write(root.join("src/lib.rs"), "//! Two.\n").unwrap();
    assert_eq!(commit(&told(&script, &root, &[RELEASE])), format!("{head}-dirty"));

    // Nobody who works waits for a commit, or for git.
    let debug = told(&script, &root, &[("PROFILE", "debug")]);
    assert_eq!(commit(&debug), "");
    assert!(debug.contains(&"cargo::rustc-env=MINTGATE_BUILT_FROM_SHOWN= (debug build)".to_owned()), "{debug:?}");
    assert!(!debug.iter().any(|line| line.contains(".git")), "{debug:?}");

    // A tarball that was unpacked within somebody's repository.
    let tarball = root.join("vendor/mintgate-0.1.0");
    std::fs::create_dir_all(&tarball).unwrap();
    for (variables, expected) in
        [(&[RELEASE][..], ""), (&[RELEASE, ("MINTGATE_COMMIT", "v0.1.0-3-gabc1234")], "v0.1.0-3-gabc1234")]
    {
        assert_eq!(commit(&told(&script, &tarball, variables)), expected);
    }
    // And where there is no git at all.
    let nothing = told(&script, &tarball, &[RELEASE, ("PATH", "/nonexistent")]);
    assert_eq!(commit(&nothing), "");
    assert!(nothing.contains(&"cargo::rustc-env=MINTGATE_BUILT_FROM_SHOWN=".to_owned()), "{nothing:?}");
    let bad = told(&script, &tarball, &[RELEASE, ("MINTGATE_COMMIT", "a\"} 1")]);
    assert!(bad.iter().any(|line| line.starts_with("cargo::error=")), "{bad:?}");
}

#[test]
fn the_version_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_mintgate")).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("mintgate {}\n", version::SHOWN));
    assert!(version::SHOWN.starts_with(version::VERSION) && version::SHOWN.contains(version::COMMIT));
}
