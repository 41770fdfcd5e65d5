//! The operator; see `operator --help`.

use std::process::ExitCode;

use clap::Parser;
use operator::cli::Arguments;

fn main() -> ExitCode {
    Arguments::parse().run()
}
