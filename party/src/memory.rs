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

/// Has the system give memory by pages of 4 KiB where evaluations take less than [`LARGE`], or
/// nothing is known of them yet (`None`), and lets the allocator ask for huge ones otherwise.
/// Of 2 MiB a small evaluation fills little: a party holds twice of what it uses, and grows by
/// as much at a touch. A large one takes a twentieth longer without them.
pub(crate) fn page(evaluation: Option<usize>) {
    let small = evaluation.is_none_or(|bytes| bytes < LARGE);
    // A system without huge pages needs no such word.
    let _ = disable_transparent_huge_pages(small);
}
