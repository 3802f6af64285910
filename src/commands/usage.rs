//! What is said of a command line that cannot be followed: never what was typed, which may be a token in the wrong
//! place, but for the names of options.

use std::error::Error as _;

use clap::Command;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Said where an argument must not be shown.
const QUOTES: &str = "it is not shown here, since it may be a secret. A header is one argument, in quotes: \
                      --header 'Name: value'";

/// clap's error, with nothing in it that was typed.
pub fn told(error: Error, command: &mut Command) -> Error {
    let kind = error.kind();
    let argument = text(&error, ContextKind::InvalidArg).unwrap_or_default();
    let message = match kind {
        ErrorKind::ValueValidation => {
            let why = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            format!("the value of {argument} cannot be used{why}")
        }
        ErrorKind::InvalidValue => {
            match (text(&error, ContextKind::InvalidValue), error.get(ContextKind::ValidValue)) {
                (Some(typed), _) if typed.is_empty() => format!("{argument} needs a value"),
                (_, Some(ContextValue::Strings(values))) if !values.is_empty() => {
                    format!("{argument} is one of: {}", values.join(", "))
                }
                _ => format!("the value of {argument} cannot be used"),
            }
        }
        ErrorKind::TooManyValues => format!("{argument} takes no value"),
        ErrorKind::UnknownArgument if is_option(&argument) => format!("there is no option {argument} here"),
        ErrorKind::UnknownArgument => format!("there is an argument too many; {QUOTES}"),
        ErrorKind::InvalidSubcommand => {
            let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
            format!("the command is one of: {}", names.join(", "))
        }
        ErrorKind::ArgumentConflict if error.get(ContextKind::InvalidSubcommand).is_some() || argument.is_empty() => {
            "options stand behind the command: mintgate check --config FILE".to_owned()
        }
        // These hold names that the binary knows, and no values.
        ErrorKind::ArgumentConflict
        | ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::InvalidUtf8
        | ErrorKind::DisplayHelp
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::DisplayVersion => return error,
        _ => "it cannot be followed".to_owned(),
    };
    command.error(kind, message)
}

fn text(error: &Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// Whether it can be nothing but the name of an option, as somebody misspells one.
fn is_option(argument: &str) -> bool {
    let long = argument
        .strip_prefix("--")
        .is_some_and(|name| name.len() <= 20 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
    long || (argument.len() == 2 && argument.starts_with('-'))
}
