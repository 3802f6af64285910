//! What the binary can be told to do, a file for each command, and the command line that says which.
//!
//! A command gets its arguments, the environment and its streams from `main`, and returns an exit status: it prints
//! nowhere else, so a test can read all of it.

pub mod check;
pub mod completions;
pub mod console;
pub mod dev;
mod door;
pub mod emulator;
pub mod env_file;
pub mod explain;
mod handed;
pub mod init;
pub mod probe;
pub mod revoke;
pub mod run;
pub mod schema;
pub mod seal;
pub mod signals;
pub mod simulate;
pub mod token;
pub mod usage;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::validate::Environment;
use crate::version;

use self::console::Console;
use self::env_file::WithFile;

/// A sidecar reverse proxy that turns a Clerk session into the JWT-template token its upstream expects.
#[derive(Debug, Parser)]
#[command(version = version::SHOWN, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
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
    /// Variables for the configuration, as in .env.local; the environment's own go before them.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve; what happens without a command too.
    Run(Config),
    /// Try it: gateway, Clerk emulator and echo upstream, without account or configuration.
    Dev(dev::Args),
    /// Say whether the configuration is good; secrets need not be present.
    Check(check::Args),
    /// Say what would become of a request, without sending it.
    Explain(Box<explain::Args>),
    /// Say what a fleet of gateways would do to the issuer, in virtual time; in a build that can.
    Simulate(Box<simulate::Args>),
    /// Print a session token of a development instance, for trying.
    Token(Box<token::Args>),
    /// Run the Clerk emulator alone.
    Emulator(Box<emulator::Args>),
    /// Say by the exit status whether a running gateway is ready: 0, or 1.
    Health(probe::Where),
    /// Wait until a running gateway is ready.
    Wait(probe::Wait),
    /// Have a running gateway refuse a session or a user at once.
    Revoke(revoke::Revoke),
    /// Have a running gateway forget minted tokens.
    Purge(revoke::Purge),
    /// Print a commented configuration to start from.
    Init(init::Args),
    /// Print the JSON Schema of the configuration, for editors.
    Schema(schema::Args),
    /// Print what a shell needs to complete this command line.
    Completions(completions::Args),
}

// === impl Cli ===

impl Cli {
    /// Reads the command line of the process.
    ///
    /// # Errors
    /// When it cannot be followed, or asks for help. The error shows nothing that was typed but names of options.
    pub fn read() -> Result<Self, clap::Error> {
        Self::try_parse().map_err(|error| usage::told(error, &mut Self::command()))
    }

    /// Does what the command line says.
    ///
    /// # Errors
    /// When it could not be done: exit status 1. What is wrong with a configuration is printed instead.
    pub fn run(self, environment: &dyn Environment, to: &mut Console<'_>) -> Result<ExitCode, Box<dyn Error>> {
        let command = self.command.unwrap_or(Command::Run(self.config));
        let env_file = match &command {
            Command::Run(config) => config.env_file.as_deref(),
            Command::Check(args) => args.env_file(),
            Command::Simulate(args) => args.env_file(),
            Command::Token(args) => args.env_file(),
            Command::Dev(args) => args.env_file(),
            Command::Explain(args) => args.env_file(),
            Command::Revoke(args) => args.env_file(),
            Command::Purge(args) => args.env_file(),
            Command::Emulator(_)
            | Command::Health(_)
            | Command::Wait(_)
            | Command::Init(_)
            | Command::Schema(_)
            | Command::Completions(_) => None,
        };
        let environment = &match WithFile::new(environment, env_file) {
            Ok(environment) => environment,
            Err(error) => {
                writeln!(to.err, "error: {error}")?;
                return Ok(ExitCode::from(check::BAD_CONFIG));
            }
        };
        match command {
            Command::Run(config) => Ok(run::run(config.config.as_deref(), environment, to.err_colours, to.err)?),
            Command::Dev(args) => Ok(dev::run(&args, environment, to)?),
            Command::Check(args) => Ok(check::run(&args, environment, to)?),
            Command::Simulate(args) => Ok(simulate::run(&args, environment, to)?),
            Command::Token(args) => Ok(token::run(&args, environment, to)?),
            Command::Explain(args) => match explain::run(&args, environment, to) {
                Ok(code) => Ok(code),
                Err(error) => {
                    // Not 1, which says that the request would be refused.
                    console::tell(&error, to.err);
                    Ok(ExitCode::from(explain::UNJUDGED))
                }
            },
            Command::Health(at) => probe::health(&at, environment, to.err),
            Command::Wait(args) => probe::wait(&args, environment, to.err),
            Command::Revoke(args) => args.run(environment, to),
            Command::Purge(args) => args.run(environment, to),
            Command::Init(args) => Ok(init::run(&args, to).map(|()| ExitCode::SUCCESS)?),
            Command::Schema(args) => Ok(schema::run(&args, to.out).map(|()| ExitCode::SUCCESS)?),
            Command::Completions(args) => {
                Ok(completions::run(&args, &mut Self::command(), to.out).map(|()| ExitCode::SUCCESS)?)
            }
            Command::Emulator(args) => Ok(emulator::run(*args, environment, to.err_colours, to.out, to.err)?),
        }
    }
}
