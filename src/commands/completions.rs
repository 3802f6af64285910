//! `mintgate completions`: what a shell needs to complete mintgate's command line.

use std::io::{self, Write};

use clap_complete::Shell;

/// Prints the completions of a shell.
///
/// For this session: source <(mintgate completions bash). For all of them: into /usr/share/bash-completion/completions/mintgate,
/// a directory of zsh's $fpath as _mintgate, or ~/.config/fish/completions/mintgate.fish.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints to `out`.
///
/// # Errors
/// When it cannot be written.
pub fn run(args: &Args, command: &mut clap::Command, out: &mut dyn Write) -> io::Result<()> {
    // The generator panics where it cannot write.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, command, "mintgate", &mut text);
    out.write_all(&text)
}
