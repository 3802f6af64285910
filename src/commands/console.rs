//! Where a command prints.

use std::error::Error;
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

/// Tells why something could not be done, with every cause.
pub fn tell(error: &dyn Error, err: &mut dyn Write) {
    // With nobody left to tell, the exit status tells.
    let _ = writeln!(err, "error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = writeln!(err, "  because: {cause}");
        source = cause.source();
    }
}
