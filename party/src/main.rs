//! The party process; everything is in the library.

use std::process::ExitCode;

use clap::Parser;

/// Freed buffers are reused at once: mapping and faulting in a large message's
/// memory anew costs more than encrypting it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    party::cli::Arguments::parse().run()
}
