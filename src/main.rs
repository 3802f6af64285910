//! The binary: reads the command line, runs the command, turns its end into an exit status.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use mintgate::commands::Cli;
use mintgate::commands::console::Console;
use mintgate::config::validate::Process;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let colours = (out.is_terminal(), err.is_terminal());
    let mut console = Console { out: &mut out, err: &mut err, out_colours: colours.0, err_colours: colours.1 };
    match cli.run(&Process, &mut console) {
        Ok(code) => code,
        Err(error) => {
            // With nobody left to tell, the exit status tells.
            let _ = writeln!(err, "error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                let _ = writeln!(err, "  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}
