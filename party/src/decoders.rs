//! For tests: the decoders of bytes from outside that are no part of this crate's interface.

use std::path::Path;

use spdz::graph::InputSpec;

use crate::data::DataError;
pub use crate::net::replay::{FRAME_BYTES, ReplayError, replay};
use crate::tensors::{Inputs, TensorError};
use crate::workload;

/// Reads a player's inputs.
///
/// # Errors
/// If these are not the bytes of a safetensors file with `inputs`.
pub fn tensors(bytes: &[u8], inputs: Vec<InputSpec>, variances: bool) -> Result<(), TensorError> {
    Inputs::read(bytes, inputs, variances).map(drop)
}

/// Reads the logits of a plaintext network for so many images.
///
/// # Errors
/// If these are not the bytes of a safetensors file with such `logits`.
pub fn logits(bytes: &[u8], samples: usize, classes: usize) -> Result<Vec<f32>, DataError> {
    workload::plaintext_logits(bytes, Path::new("logits.safetensors"), samples, classes)
}
