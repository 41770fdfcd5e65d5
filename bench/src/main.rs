//! The `bench` program; see [`bench::cli`].

use std::process::ExitCode;

use clap::Parser;

/// The parties' own, so that the connection that the floor measures is theirs. Training
/// keeps the system's: its help says how to set that up.
#[cfg(not(feature = "train"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bench::cli::Cli::parse().main()
}
