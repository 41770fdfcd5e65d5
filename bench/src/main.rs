//! The `bench` program; see [`bench::cli`].

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    bench::cli::Cli::parse().main()
}
