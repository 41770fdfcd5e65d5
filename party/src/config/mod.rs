//! What a party runs and where its peers are: the process's only input.
//!
//! The same type is written by whoever launches parties (on one machine, in a
//! cluster) and read here, so the two cannot drift.

mod computation;
mod deadlines;
mod error;
mod identity;
pub mod limits;
mod offline;
mod party;
mod player;
mod session;
mod store;
mod telemetry;
mod transport;
mod workload;

pub use computation::Computation;
pub use deadlines::Deadlines;
pub use error::ConfigError;
pub use identity::Identity;
pub use limits::{MAX_CHUNK_BYTES, MAX_CONFIG_BYTES, MAX_INSPECTED, OutOfRange};
pub use offline::OfflineMode;
pub use party::PartyConfig;
pub use player::PlayerTask;
pub use session::Session;
pub use store::Store;
pub use telemetry::Telemetry;
pub use transport::{Conditions, Transport};
pub use workload::{AccuracyWorkload, InspectWorkload, Workload};
