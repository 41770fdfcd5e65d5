//! Who may look into this process's memory, which holds keys and shares.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Keeps other processes of the same user from reading it, and the system from writing it to
/// disk when this process crashes. Root may still look.
///
/// # Errors
/// If the system does not let it.
pub(crate) fn close() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // A core may also be piped to a program, which the limit does not keep from reading it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
