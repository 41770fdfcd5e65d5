//! The command line of `party`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use spdz::channel::Name;

use crate::config::{ConfigError, PartyConfig};
use crate::describe::Description;
use crate::run::{self, RunError};
use crate::telemetry;
use crate::termination::{Failure, Termination};

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
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
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
    #[arg(long, value_name = "FILE", env = "PARTY_CONFIG", required = true)]
    config: Option<PathBuf>,
    /// Where to leave, as the last act, how the run ended, JSON of at most 4096 bytes; in a
    /// container /dev/termination-log
    #[arg(long, value_name = "FILE", env = "PARTY_TERMINATION_MESSAGE")]
    termination_message: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do other than to play the role.
#[derive(Debug, Subcommand)]
enum Command {
    /// Print what a configuration computes, and play no role
    ///
    /// First the plan's listing; then its digest and, for one evaluation, the exchanges
    /// between the servers and the bytes that all parties send online and the producer
    /// offline, without the transport's own. With --player also the messages of that
    /// player in their order: from and to whom, tag (phase, inference, step; k counts
    /// evaluations, n commands), bytes, and what it is; docs/wire.md explains them.
    Plan(PlanArguments),
}

/// Arguments of `party plan`.
#[derive(Debug, Args)]
struct PlanArguments {
    /// The configuration of any of the parties, YAML
    #[arg(long, value_name = "FILE", env = "PARTY_CONFIG")]
    config: PathBuf,
    /// Print the messages of this player too
    #[arg(long, value_name = "NAME")]
    player: Option<Name>,
}

impl PlanArguments {
    fn run(&self) -> Result<(), RunError> {
        let plan = PartyConfig::load(&self.config)?.computation.plan()?;
        let players = plan.graph().players();
        if let Some(found) = self.player.filter(|player| !players.contains(player)) {
            let players = players.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
            let graph = plan.graph().name().into();
            return Err(ConfigError::Player { graph, found, players }.into());
        }
        let description = Description { plan: &plan, player: self.player };
        write!(std::io::stdout().lock(), "{description}")
            .map_err(|source| RunError::Write { path: "standard output".into(), source })
    }
}

impl Arguments {
    /// Runs the party. The exit code says how it ended.
    #[must_use]
    pub fn run(&self) -> ExitCode {
        telemetry::start();
        match (&self.command, &self.config) {
            (Some(Command::Plan(arguments)), _) => match arguments.run() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => ExitCode::from(report(&error).reason.exit_code()),
            },
            (None, Some(config)) => self.end(&play(config)),
            (None, None) => unreachable!("the configuration is required without a command"),
        }
    }

    /// Leaves the termination message.
    fn end(&self, termination: &Termination) -> ExitCode {
        if let Some(path) = &self.termination_message
            && let Err(error) = termination.write(path)
        {
            tracing::warn!("cannot write the termination message {}: {error}", path.display());
        }
        ExitCode::from(termination.exit_code)
    }
}

/// Plays the role that the configuration at `path` says, to the end.
fn play(path: &Path) -> Termination {
    let config = match PartyConfig::load(path) {
        Ok(config) => config,
        Err(error) => return Termination::failure(None, report(&error.into())),
    };
    match run::run(&config) {
        Ok(result) => Termination::success(config.role, result),
        Err(error) => Termination::failure(Some(config.role), report(&error)),
    }
}

/// Logs an error.
fn report(error: &RunError) -> Failure {
    let failure = error.failure();
    tracing::error!(exit_code = failure.reason.exit_code(), "{error}");
    failure
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
