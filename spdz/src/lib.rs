//! Private neural-network inference on secret shares.
//!
//! Two servers and a crypto producer evaluate a network on additively shared
//! inputs and weights: the two-server SPDZ variant of "Private Machine Learning
//! in TensorFlow using Secure Computation" (Dahl et al. 2018). This crate is the
//! protocol and nothing else: synchronous, deterministic given its randomness,
//! with no sockets, clocks or files of its own, and no threads but those that
//! [`ring::Threads`] lends a session's products.

pub mod buffer;
pub mod channel;
pub mod correlated;
pub mod fixed;
pub mod geometry;
pub mod graph;
pub mod masked;
pub mod network;
mod observer;
pub mod ops;
pub mod plan;
pub mod polynomial;
pub mod prg;
pub mod protocol;
pub mod ring;
pub mod role;
pub mod share;
pub mod tensors;
