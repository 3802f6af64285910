//! `mintgate init` and `mintgate completions`: what a newcomer begins with.

use std::process::{Command, Output};

use crate::support::directory::Directory;

fn mintgate(files: &Directory, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mintgate"));
    command.args(arguments).current_dir(files.path("")).env_remove("MINTGATE_CONFIG").env_remove("CLERK_SECRET_KEY");
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn what_init_prints_is_good_and_speaks_of_the_users_own_file() {
    for kind in ["api", "hasura", "supabase", "nextjs"] {
        let files = Directory::new();
        let (code, printed, err) = mintgate(&files, &["init", kind]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{kind}");
        assert!(printed.starts_with("# mintgate ") && printed.contains("--config mintgate.toml"), "{kind}: {printed}");
        assert!(!printed.contains("config/") && !printed.contains("#:schema"), "{kind}: {printed}");
        files.write("mintgate.toml", &printed);
        let (code, out, err) = mintgate(&files, &["check"]);
        assert_eq!(code, Some(0), "{kind}: {err}");
        // The secrets are not here, which is all that there is to warn of.
        let secrets = err.matches("the environment variable is not set").count();
        assert!(secrets > 0 && err.matches("warning: ").count() == secrets, "{kind}: {err}");
        assert!(out.contains(": ok ("), "{kind}: {out}");
    }
    let files = Directory::new();
    assert_eq!(mintgate(&files, &["init"]).1, mintgate(&files, &["init", "api"]).1);
}

/// Fails without `create_new`.
#[test]
fn init_overwrites_nothing() {
    let files = Directory::new();
    let (code, out, err) = mintgate(&files, &["init", "hasura", "--output", "gate.toml"]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    assert!(err.contains("mintgate check --config gate.toml"), "{err}");
    let written = std::fs::read_to_string(files.path("gate.toml")).unwrap();
    assert!(written.contains("mintgate run --config gate.toml"), "{written}");
    assert_eq!(mintgate(&files, &["check", "--config", "gate.toml"]).0, Some(0));

    let (code, _, err) = mintgate(&files, &["init", "api", "--output", "gate.toml"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("is there already and stays as it is"), "{err}");
    assert_eq!(std::fs::read_to_string(files.path("gate.toml")).unwrap(), written);
}

#[test]
fn without_a_configuration_a_newcomer_is_told_where_to_begin() {
    let files = Directory::new();
    for command in [&[][..], &["run"], &["check"]] {
        let (code, out, err) = mintgate(&files, command);
        assert_eq!((code, out.as_str()), (Some(64), ""), "{command:?}");
        for part in
            ["./mintgate.toml", "/etc/mintgate/mintgate.toml", "MINTGATE_CONFIG", "mintgate dev", "mintgate init"]
        {
            assert!(err.contains(part), "{command:?}: no {part} in {err}");
        }
    }
}

#[test]
fn each_shell_gets_completions_that_it_can_read() {
    let files = Directory::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, err) = mintgate(&files, &["completions", shell]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{shell}");
        for word in ["explain", "env-file", "completions"] {
            assert!(out.contains(word), "{shell}: no {word}");
        }
    }
    // The one shell that is surely here.
    files.write("completions", mintgate(&files, &["completions", "bash"]).1);
    let script = "source ./completions; COMP_WORDS=(mintgate exp); COMP_CWORD=1; _mintgate mintgate exp mintgate; echo ${COMPREPLY[*]}";
    let bash = Command::new("bash").args(["-c", script]).current_dir(files.path("")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&bash.stdout).trim(), "explain", "{bash:?}");
}
