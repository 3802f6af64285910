//! `mintgate schema`: what a configuration may hold, for an editor or for a reader.

use std::io::{self, Write};

use crate::config::{reference, schema};

/// Prints the JSON Schema of the configuration, by which editors complete and check it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the reference of all keys instead, in Markdown.
    #[arg(long)]
    markdown: bool,
}

/// Prints to `out`.
///
/// # Errors
/// When it cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> io::Result<()> {
    if args.markdown { write!(out, "{}", reference::reference()) } else { writeln!(out, "{:#}", schema::schema()) }
}
