//! The binary: reads the command line, runs the command, turns its end into an exit status.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use mintgate::commands::Cli;
use mintgate::commands::console::{self, Console};
use mintgate::config::validate::Process;

fn main() -> ExitCode {
    let cli = Cli::read().unwrap_or_else(|error| error.exit());
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let colours = (out.is_terminal(), err.is_terminal());
    let mut console = Console { out: &mut out, err: &mut err, out_colours: colours.0, err_colours: colours.1 };
    match cli.run(&Process, &mut console) {
        Ok(code) => code,
        Err(error) => {
            console::tell(&*error, &mut err);
            ExitCode::FAILURE
        }
    }
}
