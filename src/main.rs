//! The binary: reads the command line, hands the outside to a command, turns its end into an exit status.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mintgate::commands::{check, dev, emulator, run};
use mintgate::config::validate::Process;

/// A sidecar reverse proxy that turns a Clerk session into the JWT-template token its upstream expects.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: Config,
}

#[derive(Debug, clap::Args)]
struct Config {
    /// The configuration; else $MINTGATE_CONFIG, ./mintgate.toml, /etc/mintgate/mintgate.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve; what happens without a command too.
    Run(Config),
    /// Try it: gateway, Clerk emulator and echo upstream, without account or configuration.
    Dev,
    /// Say whether the configuration is good; secrets need not be present.
    Check(Config),
    /// Run the Clerk emulator alone.
    Emulator(Box<emulator::Args>),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let colours = err.is_terminal();
    match command(cli, colours, &mut out, &mut err) {
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

fn command(
    cli: Cli,
    colours: bool,
    out: &mut (dyn Write + Send),
    err: &mut dyn Write,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match cli.command.unwrap_or(Command::Run(cli.config)) {
        Command::Run(Config { config }) => Ok(run::run(config.as_deref(), &Process, colours, err)?),
        Command::Dev => Ok(dev::run(&Process, out).map(|()| ExitCode::SUCCESS)?),
        Command::Check(Config { config }) => Ok(check::run(config.as_deref(), &Process, colours, out, err)?),
        Command::Emulator(args) => Ok(emulator::run(*args, &Process, colours, out, err)?),
    }
}
