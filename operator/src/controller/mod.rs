//! The shell around [`plan`](crate::plan): watches, reads, publishes and does what it says.

mod act;
mod context;
mod error;
mod make;
mod observe;
mod publish;
mod reconcile;

pub(crate) use context::MANAGER;
pub use reconcile::{Settings, run};
