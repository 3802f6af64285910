//! `mintgate init`: a configuration to start from, one of the samples in `config/`.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::PathBuf;

use super::console::Console;

/// Prints a commented configuration to start from.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What mintgate is to stand before.
    #[arg(value_enum, default_value = "api")]
    kind: Kind,
    /// Write it there instead; a file that is there already stays as it is.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What a configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// An API of your own, which learns who the caller is.
    Api,
    /// Hasura, with a JWT template.
    Hasura,
    /// Supabase, with Clerk's session tokens.
    Supabase,
    /// A Next.js application with Clerk's SDK, and the API that its pages call.
    Nextjs,
}

/// Why nothing was printed or written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The file is there.
    #[error("{} is there already and stays as it is; name another file, or print with: mintgate init", .0.display())]
    Exists(PathBuf),
    /// The file cannot be made.
    #[error("cannot write {}", .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write")]
    Output(#[from] io::Error),
}

/// The line by which an editor finds the schema, which does not stand beside a user's file.
const FOR_EDITORS: &str = "#:schema ./mintgate.schema.json\n";

// === impl Kind ===

impl Kind {
    fn sample(self) -> &'static str {
        match self {
            Self::Api => include_str!("../../config/api.toml"),
            Self::Hasura => include_str!("../../config/hasura.toml"),
            Self::Supabase => include_str!("../../config/supabase.toml"),
            Self::Nextjs => include_str!("../../config/nextjs.toml"),
        }
    }

    /// The sample, speaking of the file that it will be.
    fn text(self, name: &str) -> String {
        let sample = self.sample();
        let text = sample.strip_prefix(FOR_EDITORS).unwrap_or(sample);
        let own = match self {
            Self::Api => "config/api.toml",
            Self::Hasura => "config/hasura.toml",
            Self::Supabase => "config/supabase.toml",
            Self::Nextjs => "config/nextjs.toml",
        };
        text.replace(own, name)
    }
}

/// Prints the configuration to `out`, or writes it and says so to `err`.
///
/// # Errors
/// See [`InitError`].
pub fn run(args: &Args, to: &mut Console<'_>) -> Result<(), InitError> {
    let Some(path) = &args.output else {
        return Ok(write!(to.out, "{}", args.kind.text("mintgate.toml"))?);
    };
    let name = path.display().to_string();
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => InitError::Exists(path.clone()),
        _ => InitError::File { path: path.clone(), source },
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(args.kind.text(&name).as_bytes()).map_err(failed)?;
    writeln!(to.err, "{name} is written. Put your own names into it, then: mintgate check --config {name}")?;
    Ok(())
}
