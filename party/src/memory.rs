//! This process's memory: who may look into it, since it holds keys and shares, and how it
//! is paged.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::disable_transparent_huge_pages;

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

/// From how much on that evaluations take huge pages are worth it, bytes.
const LARGE: usize = 16 << 20;

/// Allows huge pages (2 MiB instead of 4 KiB) if an evaluation takes [`LARGE`] or more, and forbids
/// them if it takes less or is not known yet (`None`). A large evaluation takes a twentieth longer
/// without them. A small one fills little of each, so that a party would hold twice the memory
/// that it uses.
pub(crate) fn page(evaluation: Option<usize>) {
    let small = evaluation.is_none_or(|bytes| bytes < LARGE);
    // Fails on a system without huge pages, which needs no setting.
    let _ = disable_transparent_huge_pages(small);
}
