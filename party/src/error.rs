//! Why a run failed: an error for each idea, and how others see it.
//!
//! Whoever started a party reads the kind of failure from its exit code ([`Reason`]), and people
//! the message. The peers get a reason that says nothing about this party's own files and values.

use std::path::PathBuf;

use spdz::channel::{ChannelError, ChannelFault, Role};
use spdz::prg::NoRandomness;
use spdz::ring::ThreadsError;
use spdz::role::{self, report_tag};

use crate::config::ConfigError;
use crate::data::DataError;
use crate::net::ConnectError;
use crate::store::FolderError;
use crate::tensors::OutputTooLarge;
use crate::termination::{Failure, Reason};
use crate::trace::SettingsError;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file that the party reads.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The folder of the preprocessing store.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// What the process needs of the system.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The peers could not be connected.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The protocol.
    #[error(transparent)]
    Protocol(#[from] role::Error),
    /// A player's outputs.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// What the process needs of the system and does not get.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The port for probes is taken or not ours.
    #[error("cannot listen on {address}: {source}; choose another address in `telemetry.listen`")]
    Listen {
        /// The configured address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Traces cannot be sent as the environment says.
    #[error(transparent)]
    Traces(#[from] SettingsError),
    /// The metrics.
    #[error("cannot make the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The background thread.
    #[error("cannot start the thread that listens for signals: {0}")]
    Background(std::io::Error),
    /// Others may read this process's memory.
    #[error("cannot keep others from reading this process's memory: {0}; --debuggable lets them")]
    Memory(std::io::Error),
    /// The threads.
    #[error("{0}; lower `threads`")]
    Threads(#[from] ThreadsError),
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// What to do about outputs that are out of range.
pub(crate) const SCALE: &str = "inputs and weights may not be of the size that the model expects, \
     such as pixels from 0 to 255 in place of 0 to 1";

/// What keeps outputs from being kept.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// They do not fit.
    #[error(transparent)]
    TooLarge(#[from] OutputTooLarge),
    /// Some are no numbers of the format.
    #[error(
        "the outputs of {count} of {evaluations} evaluations are out of range, NaN where they are kept; the first: {first}; {SCALE}"
    )]
    OutOfRange {
        /// Evaluations with such outputs.
        count: u64,
        /// Of how many.
        evaluations: u64,
        /// The first of them.
        first: role::Error,
    },
    /// They, or the result, could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The kind of a failure, and with [`Reason::PeerLost`] whose.
type Kind = (Reason, Option<Role>);

impl RunError {
    /// The reason that the peers receive. Nothing about this party's own files and values.
    pub(crate) fn public_reason(&self) -> String {
        match self {
            _ if self.reason() == Reason::Terminated => "terminated".into(),
            Self::Protocol(error @ (role::Error::Channel { .. } | role::Error::Command { .. })) => {
                error.to_string()
            }
            // Sizes that follow from the plan, settings, and names of files that say the session.
            Self::Protocol(error @ role::Error::Store(_)) => error.to_string(),
            Self::Protocol(_) | Self::Output(OutputError::TooLarge(_)) => {
                "its input or output does not fit; its own log says why".into()
            }
            _ => "a failure of its own; its own log says why".into(),
        }
    }

    /// What kind of failure it is.
    pub(crate) fn reason(&self) -> Reason {
        self.kind().0
    }

    pub(crate) fn is_disagreement(&self) -> bool {
        self.reason() == Reason::Disagreement
    }

    /// The failure as whoever started this party reads it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let (reason, peer) = self.kind();
        Failure { reason, message: self.to_string(), peer }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Config(_) | Self::Data(_) => (Reason::BadInput, None),
            Self::Folder(error) => (error.reason(), None),
            Self::Process(error) => (of_process(error), None),
            Self::Connect(error) => of_connecting(error),
            Self::Protocol(error) => of_protocol(error),
            Self::Output(OutputError::TooLarge(_) | OutputError::OutOfRange { .. }) => {
                (Reason::BadInput, None)
            }
            Self::Output(OutputError::Write { .. }) => (Reason::Internal, None),
        }
    }
}

fn of_process(error: &ProcessError) -> Reason {
    match error {
        ProcessError::Listen { .. } | ProcessError::Traces(_) => Reason::BadInput,
        ProcessError::Metrics(_)
        | ProcessError::Background(_)
        | ProcessError::Memory(_)
        | ProcessError::Threads(_)
        | ProcessError::NoRandomness(_) => Reason::Internal,
    }
}

fn of_connecting(error: &ConnectError) -> Kind {
    match error {
        ConnectError::Absent { peer, .. } => (Reason::PeerLost, Some(*peer)),
        ConnectError::Handshake { fault, .. } => of_channel(fault),
        ConnectError::Config(_) | ConnectError::Identity(_) | ConnectError::Listen { .. } => {
            (Reason::BadInput, None)
        }
        ConnectError::Runtime(_) => (Reason::Internal, None),
        ConnectError::Stopped => (Reason::Terminated, None),
        ConnectError::Refused { .. } | ConnectError::Mismatch { .. } => {
            (Reason::Disagreement, None)
        }
    }
}

fn of_protocol(error: &role::Error) -> Kind {
    match error {
        role::Error::Channel { error, .. } => of_channel(&error.fault),
        role::Error::Command { .. } => (Reason::Disagreement, None),
        role::Error::Range { .. }
        | role::Error::OutputRange { .. }
        | role::Error::Local(_)
        | role::Error::Store(_) => (Reason::BadInput, None),
    }
}

fn of_channel(fault: &ChannelFault) -> Kind {
    match fault {
        ChannelFault::Lost { peer, .. }
        | ChannelFault::Deadline { peer, .. }
        | ChannelFault::Unread { peer, .. }
        | ChannelFault::Aborted { disagreement: false, peer, .. } => {
            (Reason::PeerLost, Some(*peer))
        }
        ChannelFault::Aborted { disagreement: true, .. }
        | ChannelFault::Tag { .. }
        | ChannelFault::Length { .. }
        | ChannelFault::Padding { .. }
        | ChannelFault::Envelope { .. } => (Reason::Disagreement, None),
        ChannelFault::Stopped => (Reason::Terminated, None),
    }
}

/// A failure of a message that is this crate's affair, not the plan's.
pub(crate) fn at(place: &'static str) -> impl Fn(ChannelError) -> RunError {
    move |error| RunError::Protocol(role::Error::Channel { place: place.into(), error })
}

/// A failure after the last message.
pub(crate) fn parting(fault: ChannelFault) -> RunError {
    at("closing the connections")(ChannelError { tag: report_tag(), fault })
}
