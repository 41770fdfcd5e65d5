//! Lowering a graph to steps.
//!
//! Products keep the fractional bits of both operands; a tensor is truncated back to
//! the format's precision only when it is about to be masked or revealed, so that sums
//! and pooling come first and as few elements as possible are truncated. A tensor is
//! masked once however often it is used, and an operation of layout alone selects elements
//! of the masked tensor.

mod argmax;
mod bounds;
mod comparisons;
mod compiler;
mod differences;
mod elementwise;
mod forms;
mod gates;
mod hinges;
mod linear;
mod lowered;
mod lowering;
mod polynomial;
mod powers;
mod public;

pub(super) use lowering::{Program, compile};
