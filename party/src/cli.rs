//! The command line of `party`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::config::PartyConfig;
use crate::run::{self, RunError};
use crate::telemetry;

/// One party of a private computation.
///
/// Plays the role that its configuration says (server0, server1, producer, or one
/// of the players, such as the model-owner and the client of a network), connects
/// to the other parties over mutual TLS 1.3, and ends when the player that
/// commands has what it wanted.
#[derive(Debug, Parser)]
#[command(
    name = "party",
    version,
    after_help = "\
Exit codes:
  0  the run is complete
  1  something failed inside this process
  2  bad configuration, identity, inputs or outputs, or a number out of range; a retry fails alike
  3  the parties do not agree: another plan, session or role, or a message that does not belong
  4  a peer never came, left, fell silent or gave up; a new run may succeed

Log level: RUST_LOG (default info). Logs are JSON when standard error is no terminal."
)]
pub struct Arguments {
    /// The configuration of this party, YAML
    #[arg(long, value_name = "FILE", env = "PARTY_CONFIG")]
    config: PathBuf,
}

impl Arguments {
    /// Runs the party. The exit code says how it ended.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        telemetry::start();
        let outcome = PartyConfig::load(&self.config)
            .map_err(RunError::from)
            .and_then(|config| run::run(&config));
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let code = error.exit_code();
                tracing::error!(exit_code = code, "{error}");
                ExitCode::from(code)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
