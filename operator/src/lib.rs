//! The operator: a `SecureInference` resource becomes the pods of a run.
//!
//! What to do is decided in [`plan`], which is pure; [`controller`] asks it whenever
//! something happens, publishes the status that it returns and does what it says.

pub mod admission_queue;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod conditions;
pub mod controller;
pub mod events;
pub mod health;
pub mod job;
pub mod leader;
pub mod manifests;
pub mod metrics;
pub mod party_state;
pub mod plan;
pub mod policy;
pub mod requests;
pub mod resources;
pub mod trace;
pub mod validator;
