//! The plan of a run: a graph compiled to the steps that all roles follow in lock-step.
//!
//! A plan is public and complete: it names every message and its length, every
//! mask and every Beaver triple, so that the producer can work ahead alone
//! and each party can refuse what does not belong. Parties compare its
//! [`Digest`] before anything private moves.
//!
//! Its first steps are the *set-up*: they happen once a session, need no
//! interaction but the arrival of inputs, and what they make lasts. The others
//! happen in every evaluation.

mod compile;
mod compiled;
mod cost;
mod digest;
mod error;
mod layers;
mod listing;
mod rounds;
mod step;

pub use compiled::Plan;
pub use digest::Digest;
pub use error::PlanError;
pub use layers::PlanLayer;
pub use step::{MAX_STEPS, Step};

pub use crate::ring::{NumberFormat, Truncation};
pub use crate::tensors::{
    InputSpec, MaskedId, Message, OutputSpec, PrivateId, PublicId, PublicTensor, Route, TensorId,
};
