//! What the binary can be told to do, a file for each command.
//!
//! A command gets its arguments, the environment and its streams from `main`, and returns an exit status: it prints
//! nowhere else, so a test can read all of it.

pub mod check;
pub mod dev;
pub mod emulator;
pub mod run;
pub mod signals;
