//! What to do about a resource: from what it says and what is observed to the actions to
//! take and the status to publish.
//!
//! Pure: no clock, no randomness, no API. It may be called at any moment, with any part of
//! what it asked for done or undone, and asks for what is missing. The status that it returns
//! is published before its actions are taken, so that what was decided is known to whoever
//! continues.

mod admission;
mod attempt;
mod cleanup;
mod decision;
mod model;
mod outcome;
mod planner;
mod progress;
mod verdict;

pub use decision::{clean_up, is_settled, plan};
pub use model::{Action, Admission, Observed, Plan, Pods, Refusal};
