//! The `bench` program; see [`bench::cli`].

use std::path::Path;
use std::process::ExitCode;

use bench::launch::local::PARTY;
use clap::Parser;

/// The parties' own, so that the connection that the floor measures is theirs. Training
/// keeps the system's: its help says how to set that up.
#[cfg(not(feature = "train"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let name = std::env::args_os().next();
    if name.is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == PARTY)) {
        return party::cli::Arguments::parse().run();
    }
    bench::cli::Cli::parse().main()
}
