//! `mintgate check`: says whether the configuration is good, without running anything and without needing its secrets.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;
use crate::config::validate::{self, Diagnostics, Environment, NoConfig, Secrets};

/// The exit status for a configuration that cannot be used (`EX_USAGE` of sysexits.h), the same for every command.
pub const BAD_CONFIG: u8 = 64;

/// Prints what is wrong with the configuration to `err`, and a summary of a good one to `out`.
///
/// # Errors
/// When a stream cannot be written.
pub fn run(
    config: Option<&Path>,
    environment: &dyn Environment,
    colours: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitCode> {
    let path = match validate::locate(config, environment) {
        Ok(path) => path,
        Err(error) => return no_config(&error, err),
    };
    match validate::load(&path, environment, Secrets::Optional) {
        Ok((config, warnings)) => {
            write!(err, "{}", warnings.render(colours))?;
            writeln!(out, "{}: ok ({})", path.display(), summary(&config, warnings.warnings()))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(diagnostics) => refused(&path, &diagnostics, colours, err),
    }
}

/// Says where a configuration was looked for, and how to come by one.
pub(super) fn no_config(error: &NoConfig, err: &mut dyn Write) -> io::Result<ExitCode> {
    writeln!(err, "error: {error}")?;
    writeln!(err, "  To try mintgate without a configuration: mintgate dev")?;
    writeln!(err, "  To write one, begin with a sample of the folder config/, then: mintgate check --config FILE")?;
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
    use std::path::PathBuf;

    use super::*;

    struct Files(BTreeMap<PathBuf, &'static str>);

    impl Environment for Files {
        fn var(&self, _: &str) -> Option<String> {
            None
        }

        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            self.0.get(path).map(|text| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn exists(&self, path: &Path) -> bool {
            self.0.contains_key(path)
        }
    }

    fn check(files: &[(&str, &'static str)], config: Option<&str>) -> (String, String, String) {
        let files = Files(files.iter().map(|(path, text)| (PathBuf::from(path), *text)).collect());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(config.map(Path::new), &files, false, &mut out, &mut err).unwrap();
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
        assert!(err.contains("mintgate dev"), "{err}");
        let (code, _, err) = check(&[], Some("absent.toml"));
        assert_eq!(code, exit(64));
        assert!(err.contains("absent.toml") && err.contains("cannot read the file"), "{err}");
    }
}
