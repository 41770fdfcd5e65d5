//! Why parties could not connect.

use std::time::Duration;

use spdz::channel::{ChannelFault, Role};

use crate::config::ConfigError;
use crate::identity::IdentityError;

/// Why parties could not connect.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The configuration does not say what is needed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// This party's own identity is wrong.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The runtime could not start.
    #[error("cannot start the network runtime: {0}")]
    Runtime(std::io::Error),
    /// The port is taken or not ours.
    #[error("cannot listen on {address}: {source}; choose another address in `listen`")]
    Listen {
        /// The configured address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A peer did not come, or could not be reached.
    #[error("{peer} did not connect within {} s: {detail}", .waited.as_secs_f64())]
    Absent {
        /// The peer.
        peer: Role,
        /// How long it was waited for.
        waited: Duration,
        /// What was seen of it.
        detail: String,
    },
    /// A peer refused this party, or is not who it should be.
    #[error("{peer} and this party do not accept each other: {reason}")]
    Refused {
        /// The peer.
        peer: Role,
        /// Why.
        reason: String,
    },
    /// The two do not agree on what to do.
    #[error(
        "{peer} has another {what}: {theirs}, here {ours}; give all parties the same configuration"
    )]
    Mismatch {
        /// The peer.
        peer: Role,
        /// What differs.
        what: &'static str,
        /// The peer's.
        theirs: String,
        /// This party's.
        ours: String,
    },
    /// The connection failed while the two were introducing themselves.
    #[error("while {peer} and this party introduced themselves: {fault}")]
    Handshake {
        /// The peer.
        peer: Role,
        /// What went wrong.
        fault: ChannelFault,
    },
    /// This party was told to stop before all peers were there.
    #[error("told to stop while connecting to the peers")]
    Stopped,
}
