//! Where a command prints.

use std::io::Write;

/// The two streams, and whether colours are understood there.
pub struct Console<'a> {
    /// What was asked for.
    pub out: &'a mut (dyn Write + Send),
    /// What is wrong.
    pub err: &'a mut (dyn Write + Send),
    /// `out` is a terminal.
    pub out_colours: bool,
    /// `err` is a terminal.
    pub err_colours: bool,
}
