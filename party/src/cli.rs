//! The command line of `party`.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, CommandFactory, Parser, Subcommand};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use spdz::channel::Name;
use spdz::ring::kernels::InstructionSet;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::background::Background;
use crate::config::{ConfigError, PartyConfig, Session};
use crate::console::{self, Completions, Manual, Verbosity};
use crate::describe::Description;
use crate::error::{OutputError, ProcessError, RunError};
use crate::fits;
use crate::issue::{self, Request};
use crate::logs;
use crate::memory;
use crate::run;
use crate::termination::{Ending, Failure, Reason, TERMINATION_VARIABLE, Termination};
use crate::transcript::{self, Transcript};

/// One party of a private computation.
///
/// Plays the role that its configuration says (server0, server1, producer, or one
/// of the players, such as the model-owner and the client of a network), connects
/// to the other parties over mutual TLS 1.3, and ends when the coordinator has
/// its result. docs/party.md has a session to copy, every setting,
/// and what a party prints.
#[derive(Debug, Parser)]
#[command(
    name = "party",
    version = crate::VERSION,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Exit codes:
  0  the run is complete
  1  something failed inside this process
  2  bad configuration, identity, inputs or outputs, or a number out of range; a retry fails too
  3  the parties do not agree: another plan, session or role, or a message that does not belong
  4  a peer never came, left, fell silent or gave up; a new run may succeed
  129, 130, 143  SIGHUP, SIGINT or SIGTERM told the process to stop

Log level: RUST_LOG (default info), --quiet (warn) or --verbose (debug). Logs are JSON when standard
error is no terminal. Colours: NO_COLOR, CLICOLOR and CLICOLOR_FORCE say whether."
)]
pub struct Arguments {
    /// The configuration of this party, YAML
    #[arg(long, value_name = "FILE", env = "PARTY_CONFIG", required = true)]
    config: Option<PathBuf>,
    /// Where to leave, as the last act, how the run ended, JSON of at most 4096 bytes; in a
    /// container /dev/termination-log
    #[arg(long, value_name = "FILE", env = TERMINATION_VARIABLE)]
    termination_message: Option<PathBuf>,
    /// Let debuggers and profilers of the same user look into this process, and the system write
    /// a core dump if it crashes: its memory holds keys and shares
    #[arg(long)]
    debuggable: bool,
    /// Keep a signed transcript of the session in this folder: a digest of each message, which
    /// `party transcript verify` compares with those of other parties
    #[arg(long, value_name = "DIR")]
    transcript: Option<PathBuf>,
    #[command(flatten)]
    instructions: Instructions,
    /// The process that started this one, which ends when that does, however it does
    #[arg(long, value_name = "PID", env = PARENT_VARIABLE, hide = true)]
    parent: Option<u32>,
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(subcommand)]
    command: Option<Command>,
}

/// The environment variable of [`Instructions`], which processes that this one starts inherit.
pub const INSTRUCTION_SET_VARIABLE: &str = "PARTY_INSTRUCTION_SET";

/// Which instructions the kernels use.
#[derive(Args, Clone, Copy, Debug)]
pub struct Instructions {
    /// Compute with no wider vector instructions than these, to see on one machine what another
    /// would do: Avx512Vnni, Avx512, Avx2 or Portable. Without it the widest that there are
    #[arg(long, value_name = "NAME", env = INSTRUCTION_SET_VARIABLE)]
    instruction_set: Option<InstructionSet>,
}

impl Instructions {
    /// Limits the kernels of this process.
    pub fn apply(self) {
        if let Some(widest) = self.instruction_set {
            widest.limit();
        }
    }
}

/// The environment variable of the process that starts parties and that they do not outlive.
pub const PARENT_VARIABLE: &str = "PARTY_PARENT";

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
    /// Make the certificates and keys of a session's parties
    ///
    /// Makes the folder DIR, which must not be there yet, with a folder for each role:
    ///
    ///   DIR/server0/tls.crt   its certificate
    ///   DIR/server0/tls.key   its private key; nobody but this user can read it
    ///   DIR/server0/ca.crt    the certificate of the session's authority
    ///
    /// The `identity` of a configuration names the three. Give each party its own folder
    /// and no other's: whoever has a key can play its role. The authority's key is
    /// forgotten, so nobody can make another certificate for the session; nobody needs
    /// to: a session is run once. Prints the session, which goes into
    /// every configuration:
    ///
    ///   session=$(party issue --players alice,bob --out certificates)
    #[command(verbatim_doc_comment)]
    Issue(IssueArguments),
    /// Look into transcripts of sessions
    #[command(subcommand)]
    Transcript(TranscriptCommand),
    /// Print what a shell reads to complete the command line
    Completions(Completions),
    /// Write manual pages
    Manual(Manual),
}

/// What to do with transcripts.
#[derive(Debug, Subcommand)]
enum TranscriptCommand {
    /// Check that transcripts of one session have genuine signatures and agree
    ///
    /// Each must be signed with the key of its role's certificate, which the authority
    /// issued for the session. Of every two parties whose transcripts are there, the
    /// receiver must have the messages that the sender has, with the same digests. The
    /// first difference is named, and the exit code is 3.
    Verify(VerifyArguments),
}

/// Arguments of `party transcript verify`.
#[derive(Debug, Args)]
struct VerifyArguments {
    /// The certificate of the session's authority, PEM: the ca.crt of any of its parties
    #[arg(long, value_name = "FILE")]
    authority: PathBuf,
    /// The transcripts
    #[arg(value_name = "FILES", required = true)]
    files: Vec<PathBuf>,
}

impl VerifyArguments {
    fn run(&self) -> Result<(), Failure> {
        let refuse = |reason, message: String| Failure { reason, message, peer: None };
        let unusable = |path: &Path, problem: &dyn std::fmt::Display| {
            refuse(Reason::BadInput, format!("cannot use {}: {problem}", path.display()))
        };
        let authority = CertificateDer::from_pem_file(&self.authority)
            .map_err(|error| unusable(&self.authority, &error))?;
        let mut transcripts = Vec::with_capacity(self.files.len());
        for path in &self.files {
            let text = transcript::read(path).map_err(|error| unusable(path, &error))?;
            transcripts.push(Transcript::parse(&text).map_err(|error| unusable(path, &error))?);
        }
        let agreement = transcript::verify(&transcripts, &authority)
            .map_err(|error| refuse(Reason::Disagreement, error.to_string()))?;
        writeln!(std::io::stdout().lock(), "{agreement}")
            .map_err(|source| unwritten(source).failure())
    }
}

/// Arguments of `party issue`.
#[derive(Debug, Args)]
struct IssueArguments {
    /// The players, separated by commas; of networks A, B and C model-owner,client. The
    /// servers and the producer are in every session
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
    players: Vec<Name>,
    /// The session, 32 hexadecimal digits; without it a fresh one
    #[arg(long, value_name = "SESSION", value_parser = |text: &str| Session::try_from(text.to_owned()))]
    session: Option<Session>,
    /// The folder to make
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// For how many days the certificates are valid
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
}

impl IssueArguments {
    fn run(self) -> Result<(), Failure> {
        memory::close().map_err(|error| RunError::from(ProcessError::Memory(error)).failure())?;
        let request = Request { players: self.players, session: self.session, days: self.days };
        let session = issue::write(&request, &self.out).map_err(|error| error.failure())?;
        writeln!(std::io::stdout().lock(), "{session}")
            .map_err(|source| unwritten(source).failure())
    }
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
    /// Print JSON: the graph, its inputs and outputs by name, all steps and rounds, and the
    /// messages of every player, or of the one that is named
    #[arg(long)]
    json: bool,
}

impl PlanArguments {
    fn run(&self) -> Result<(), RunError> {
        let text = PartyConfig::read(&self.config)?;
        let plan = PartyConfig::parse(&text, &self.config)?.computation.plan()?;
        let fits = fits::in_text(&text);
        let players = plan.graph().players();
        if let Some(found) = self.player.filter(|player| !players.contains(player)) {
            let players = players.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
            let graph = plan.graph().name().into();
            return Err(ConfigError::Player { graph, found, players }.into());
        }
        let description = Description { plan: &plan, fits: &fits, player: self.player };
        let text = if self.json {
            let json = serde_json::to_string_pretty(&description.to_json());
            format!("{}\n", json.map_err(|error| unwritten(error.into()))?)
        } else {
            description.to_string()
        };
        std::io::stdout().lock().write_all(text.as_bytes()).map_err(unwritten)
    }
}

/// Nobody reads standard output.
fn unwritten(source: std::io::Error) -> RunError {
    OutputError::Write { path: "standard output".into(), source }.into()
}

impl Command {
    fn run(self) -> Result<(), Failure> {
        match self {
            Self::Plan(arguments) => arguments.run().map_err(|error| error.failure()),
            Self::Issue(arguments) => arguments.run(),
            Self::Completions(arguments) => {
                arguments.print(Arguments::command()).map_err(|source| unwritten(source).failure())
            }
            Self::Manual(arguments) => arguments.write(Arguments::command()).map_err(|source| {
                let path = arguments.folder().into();
                RunError::from(OutputError::Write { path, source }).failure()
            }),
            Self::Transcript(TranscriptCommand::Verify(arguments)) => arguments.run(),
        }
    }
}

impl Arguments {
    /// Runs the party. The exit code says how it ended.
    #[must_use]
    pub fn run(self) -> ExitCode {
        logs::start(self.verbosity);
        self.instructions.apply();
        match (self.command, self.config) {
            (Some(command), _) => match command.run() {
                Ok(()) => ExitCode::SUCCESS,
                // For who has typed it: it is no run that has a log.
                Err(failure) => {
                    console::error(&failure.message);
                    ExitCode::from(failure.reason.exit_code())
                }
            },
            (None, Some(config)) => {
                let ending = Arc::new(Ending::new(self.termination_message));
                if let Some(parent) = self.parent
                    && let Err(error) = end_with(parent)
                {
                    tracing::error!("cannot end when process {parent} does: {error}");
                    return ExitCode::FAILURE;
                }
                let transcript = self.transcript.as_deref();
                let termination = play(&config, transcript, self.debuggable, &ending);
                report(&termination);
                ExitCode::from(ending.end(&termination))
            }
            (None, None) => unreachable!("the configuration is required without a command"),
        }
    }
}

/// Has the system send SIGTERM to this process when the thread that started it ends, as when its
/// process is killed.
fn end_with(parent: u32) -> std::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // It may have ended before.
    let found = getppid().map_or(0, |pid| pid.as_raw_pid());
    if found.cast_unsigned() == parent {
        return Ok(());
    }
    Err(std::io::Error::other(format!("the parent is process {found}")))
}

/// Plays the role that the configuration at `path` says, to the end.
fn play(
    path: &Path,
    transcript: Option<&Path>,
    debuggable: bool,
    ending: &Arc<Ending>,
) -> Termination {
    memory::page(None);
    if !debuggable && let Err(error) = memory::close() {
        return Termination::failure(None, RunError::from(ProcessError::Memory(error)).failure());
    }
    let background = match Background::start(ending.clone()) {
        Ok(background) => background,
        Err(error) => {
            return Termination::failure(
                None,
                RunError::from(ProcessError::Background(error)).failure(),
            );
        }
    };
    let run = || {
        let config = PartyConfig::load(path)?;
        ending.set_role(config.role);
        Ok::<_, RunError>((config.role, run::run(&config, transcript, &background)?))
    };
    // Peers notice a panic by the connections that it closes; whoever started this party
    // is told too.
    let outcome = catch_unwind(AssertUnwindSafe(run));
    let failure = match outcome {
        Ok(Ok((role, result))) => return Termination::success(role, result),
        Ok(Err(error)) => error.failure(),
        Err(_) => {
            let message = "a bug: the party panicked; its log says where".into();
            Failure { reason: Reason::Internal, message, peer: None }
        }
    };
    match background.stop().signal() {
        // What fails then fails because of it.
        Some(signal) => Termination::stopped(ending.role(), signal),
        None => Termination::failure(ending.role(), failure),
    }
}

/// Logs a failure.
fn report(termination: &Termination) {
    let _lines = logs::run().entered();
    if let Some(Failure { message, .. }) = &termination.failure {
        tracing::error!(exit_code = termination.exit_code, "{message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
