//! One step of a plan.

use std::sync::Arc;

use crate::ops::Operation;

/// Most steps of a plan.
pub const MAX_STEPS: usize = 1 << 17;

/// One step of a plan.
#[derive(Clone, Debug)]
pub struct Step {
    /// The layer it belongs to, `conv1` or `act2`: the label of the graph's node.
    pub layer: String,
    /// What happens.
    pub operation: Arc<dyn Operation>,
}
