//! The certificates of a session as files, a folder for each role, for sessions that people
//! start by hand. It knows nothing of a party that runs.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use spdz::channel::{Name, Role};
use spdz::graph::MAX_PLAYERS;
use spdz::prg::{NoRandomness, SessionId};
use spdz::protocol::{Protocol, Spdz};

use crate::config::Session;
use crate::identity::{self, IdentityError};
use crate::termination::{Failure, Reason};

/// The certificates that somebody asks for.
pub(crate) struct Request {
    /// The players, besides the three roles of every session.
    pub(crate) players: Vec<Name>,
    /// The session; a fresh one without it.
    pub(crate) session: Option<Session>,
    /// For how long the certificates are valid.
    pub(crate) days: u16,
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueError {
    /// There are too many players, or one is named twice.
    #[error("{0}")]
    Players(String),
    /// The folder is there already.
    #[error("{} is there already, and nothing in it is overwritten; name a folder that is not", .0.display())]
    Exists(PathBuf),
    /// A file or folder could not be made.
    #[error("cannot make {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificates could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl IssueError {
    /// The failure as whoever asked reads it.
    pub(crate) fn failure(&self) -> Failure {
        let reason = match self {
            Self::Players(_) | Self::Exists(_) | Self::Write { .. } => Reason::BadInput,
            Self::Identity(_) | Self::NoRandomness(_) => Reason::Internal,
        };
        Failure { reason, message: self.to_string(), peer: None }
    }
}

/// Issues certificates for the servers, the producer and the players, and makes the folder
/// `out` with a folder for each. Returns the session.
///
/// # Errors
/// If a player is named twice or there are too many, `out` is there already, or it cannot be
/// made.
pub(crate) fn write(request: &Request, out: &Path) -> Result<SessionId, IssueError> {
    let roles = roles(&request.players)?;
    let session = match request.session {
        Some(Session(session)) => session,
        None => SessionId::fresh()?,
    };
    let validity = Duration::from_secs(24 * 3600 * u64::from(request.days));
    let issued = identity::issue_for(session, &roles, Some(validity))?;
    folder(out)?;
    for (role, party) in &issued.parties {
        let own = out.join(role.name());
        folder(&own)?;
        file(&own.join("ca.crt"), 0o644, &issued.authority)?;
        file(&own.join("tls.crt"), 0o644, &party.certificate)?;
        file(&own.join("tls.key"), 0o600, &party.key)?;
    }
    Ok(session)
}

/// The roles of a session between `players`.
fn roles(players: &[Name]) -> Result<Vec<Role>, IssueError> {
    if players.len() > MAX_PLAYERS {
        let found = players.len();
        return Err(IssueError::Players(format!(
            "a session has at most {MAX_PLAYERS} players, found {found}"
        )));
    }
    for (index, player) in players.iter().enumerate() {
        if players[..index].contains(player) {
            return Err(IssueError::Players(format!("player {player} is named twice")));
        }
    }
    Ok(Spdz::roles(players))
}

/// Makes a folder that this user alone can look into.
fn folder(path: &Path) -> Result<(), IssueError> {
    DirBuilder::new().mode(0o700).create(path).map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => IssueError::Exists(path.into()),
        _ => IssueError::Write { path: path.into(), source },
    })
}

fn file(path: &Path, mode: u32, text: &str) -> Result<(), IssueError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| IssueError::Write { path: path.into(), source })
}
