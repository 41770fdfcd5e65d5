//! The command line of `bench`.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use party::console::{Completions, Manual, Verbosity};

use crate::console;
use crate::launch::local::LaunchError;

mod calibrate;
mod common;
mod compare;
mod data;
mod exit;
mod floor;
mod inputs;
mod inspect;
mod pods;
mod reference;
mod report;
mod run;
mod selection;
mod sweep;
mod table1;
mod train;
#[cfg(feature = "train")]
mod training;

use exit::NO_COMPARISON;

/// Data, trained models and measurements of the secure-inference toolkit.
#[derive(Debug, Parser)]
#[command(name = "bench", version = party::VERSION, after_help = exit::HELP)]
pub struct Cli {
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(subcommand)]
    command: Command,
}

/// What `bench` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fetch MNIST and check it
    Data(data::Arguments),
    /// Train the networks on MNIST, in the paper's form or with exact ReLU
    ///
    /// Writes NAME.safetensors, the weights, and NAME.json, the model card, for
    /// each network. The same command gives the same files on the same machine.
    ///
    /// With glibc, MALLOC_MMAP_THRESHOLD_=4294967296 and
    /// MALLOC_TRIM_THRESHOLD_=8589934592 in the environment halve the time: they
    /// keep the memory of one step for the next. RAYON_NUM_THREADS=1 does so on a machine
    /// that is busy, whose threads wait for each other.
    #[command(hide = cfg!(not(feature = "train")))]
    Train(train::Arguments),
    /// Measure the paper's Table 1 on this machine
    ///
    /// Starts the five parties of a private inference as five processes on
    /// loopback, runs timed inferences and then the test set, prints the paper's
    /// Table 1 beside what it measured, each row as soon as it is known, and writes
    /// DIR/results.json. Measures first how fast the machine is, to set the runtimes
    /// against their floor (see floor). Interrupted, the same command goes on where it was.
    Table1(table1::Arguments),
    /// Measure networks, batch sizes and number formats, in alternating trials
    ///
    /// Each cell, a network at a batch size in a number format, has several trials, each of
    /// which launches the parties anew; trials alternate, so that a slow minute does not
    /// land on one cell. Writes DIR/results.json. Interrupted, the same command goes on where it
    /// was.
    #[command(after_long_help = sweep::HELP)]
    Sweep(Box<sweep::Arguments>),
    /// Tell whether one build is slower than another
    ///
    /// Exits with 0 if nothing is slower beyond the threshold, with 1 if something is, and
    /// with 2 if there is no comparison, whatever the reason.
    #[command(after_long_help = compare::HELP)]
    Compare(compare::Arguments),
    /// Measure how fast an inference could be on this machine
    ///
    /// Times matrix products on one core, and messages between two processes on
    /// loopback, and prints what those of one inference alone would take. Takes a
    /// few seconds and writes nothing.
    #[command(after_long_help = crate::floor::HELP)]
    Floor(floor::Arguments),
    /// Run a graph of your own between any number of players on this machine
    ///
    /// Starts two servers, the producer and a process for each of the graph's
    /// players on loopback, over the same mutual TLS as between machines. Each
    /// player reads its inputs from a safetensors file, and writes its outputs,
    /// the only values it receives, to another.
    #[command(after_long_help = crate::run::HELP)]
    Run(run::Arguments),
    /// Tell how large the numbers of a graph of your own get, and which range it can declare
    ///
    /// Evaluates the graph in plaintext on the inputs of all players, and prints the largest
    /// magnitude of what will be on shares, label by label. Not private.
    #[command(after_long_help = crate::calibrate::HELP)]
    Calibrate(calibrate::Arguments),
    /// Evaluate the test set in plaintext, for clients to score their outputs against
    ///
    /// Writes NAME.safetensors for each network, with logits of F32, [10000, 10]: the
    /// accuracy.reference of a client's configuration. table1 makes its own.
    Reference(reference::Arguments),
    /// Compare the outputs of each layer of a network with the plaintext network's
    ///
    /// Whether values stay in the number format's range, and how far from the plaintext
    /// values they get, layer by layer. Not private.
    #[command(after_long_help = crate::inspect::HELP)]
    Inspect(inspect::Arguments),
    /// Turn results into a report: a page, Markdown, CSV and JSON
    ///
    /// Sets the paper's Table 1 beside what was measured, latency and throughput against
    /// batch size, offline against online, each layer, one number format against the
    /// other, and these results against earlier ones. Marks what failed and what is
    /// suspicious, and says what it was measured on.
    Report(report::Arguments),
    /// Print what a shell reads to complete the command line
    Completions(Completions),
    /// Write manual pages
    Manual(Manual),
    /// One end of the connection that floor measures
    #[command(name = crate::floor::transport::COMMAND, hide = true)]
    Link(floor::LinkArguments),
}

impl Command {
    /// Whether exit code 1 tells of a worse build.
    fn compares(&self) -> bool {
        match self {
            Self::Compare(_) => true,
            Self::Sweep(arguments) => arguments.compares(),
            _ => false,
        }
    }
}

/// An error and its causes on one line; most of ours quote their cause already.
fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

impl Cli {
    /// Does what the command line asks for, and says on standard error why if it cannot.
    #[must_use]
    pub fn main(self) -> ExitCode {
        console::start(self.verbosity);
        let compares = self.command.compares();
        let error = match self.run() {
            Ok(code) => return code,
            Err(error) => error,
        };
        let interrupted = error
            .chain()
            .any(|cause| matches!(cause.downcast_ref(), Some(LaunchError::Interrupted)));
        if interrupted {
            // Without a place to complain to, the exit code has to do.
            let _ = writeln!(io::stderr().lock(), "interrupted");
            return ExitCode::from(exit::interrupted());
        }
        party::console::error(&explain(&error));
        ExitCode::from(if compares { NO_COMPARISON } else { exit::of(&error) })
    }

    /// Does what the command line asks for.
    ///
    /// # Errors
    /// If it cannot be done; the error says why.
    fn run(self) -> anyhow::Result<ExitCode> {
        let done = match self.command {
            Command::Data(arguments) => arguments.run(),
            Command::Train(arguments) => arguments.run(),
            Command::Table1(arguments) => arguments.run(),
            Command::Sweep(arguments) => return arguments.run(),
            Command::Compare(arguments) => return arguments.run(),
            Command::Floor(arguments) => arguments.run(),
            Command::Run(arguments) => arguments.run(),
            Command::Calibrate(arguments) => arguments.run(),
            Command::Reference(arguments) => arguments.run(),
            Command::Inspect(arguments) => arguments.run(),
            Command::Report(arguments) => arguments.run(),
            Command::Link(arguments) => arguments.run(),
            Command::Completions(arguments) => Ok(arguments.print(Self::command())?),
            Command::Manual(arguments) => arguments
                .write(Self::command())
                .with_context(|| format!("cannot write into {}", arguments.folder().display())),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_is_quoted_already_is_not_repeated() {
        let error = anyhow::anyhow!("no such file").context("cannot read x: no such file");
        assert_eq!(explain(&error), "cannot read x: no such file");
        let error = error.context("A failed");
        assert_eq!(explain(&error), "A failed: cannot read x: no such file");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn unknown_networks_are_refused() {
        let error = Cli::try_parse_from(["bench", "train", "--networks", "A,D"]).unwrap_err();
        assert!(error.to_string().contains("[possible values: A, B, C]"), "{error}");
    }
}
