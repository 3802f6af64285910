//! Keeps secrets and tokens within the process: no core dump of it is written, and no other process of the same user may
//! trace it or read its memory and its environment.

use std::io;

/// Seals the process, from now to its end. A process that it starts later is not sealed by it.
///
/// # Errors
/// When the system refuses; nothing else is wrong then.
pub fn seal() -> io::Result<()> {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Core, none)?;
    // The limit does not bind a core_pattern that is a pipe; this does, and it keeps debuggers away as well.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
