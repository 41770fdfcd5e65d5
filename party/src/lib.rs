//! One party of a private inference: a process that plays one role.
//!
//! The protocol is [`spdz`]'s. This crate gives it what it must not know: a
//! configuration file, an identity, connections over mutual TLS, deadlines,
//! tensors and images from files, and a result that others can read.

mod background;
pub mod cli;
pub mod config;
pub mod console;
mod data;
#[cfg(feature = "decoders")]
pub mod decoders;
mod describe;
mod error;
pub mod files;
pub mod fits;
pub mod http;
pub mod identity;
pub mod idx;
pub mod inspection;
mod issue;
mod logs;
mod memory;
pub mod net;
mod player;
mod progress;
mod report;
pub mod result;
pub mod run;
mod server;
pub mod signals;
mod slots;
pub mod stop;
mod store;
mod telemetry;
pub mod tensors;
pub mod termination;
pub mod trace;
pub mod transcript;
mod workload;
pub mod yaml;

/// The commit that this was built from; `unknown` where its sources came without their
/// history and nobody said.
pub const COMMIT: &str = env!("COMMIT");

/// What `--version` says: the version, and the commit in brackets.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("COMMIT"), ")");
