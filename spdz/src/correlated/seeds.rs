//! The seeds that a server and the producer have in common.

use crate::plan::Plan;
use crate::prg::{Purpose, Seed};

/// The seed of a server's share of the mask made at `step`; `key` is what the
/// server has in common with the producer for the evaluation or the set-up.
pub(crate) fn mask_seed(key: &Seed, plan: &Plan, inference: u64, step: usize) -> Seed {
    let Some((purpose, _)) = plan.steps()[step].operation.randomness(plan.table()).mask else {
        unreachable!("asked for steps with a mask");
    };
    key.derive(purpose, inference, step as u32)
}

/// The seed of the share that one server expands of what is generated for `step`.
pub(super) fn generated_seed(key: &Seed, inference: u64, step: usize) -> Seed {
    key.derive(Purpose::Generated, inference, step as u32)
}

/// The seed of a server's packed mask made at `step`.
pub(super) fn packed_mask_seed(key: &Seed, inference: u64, step: usize) -> Seed {
    key.derive(Purpose::PackedMask, inference, step as u32)
}

/// The seed of the share that one server expands of the packed values generated for `step`.
pub(super) fn packed_share_seed(key: &Seed, inference: u64, step: usize) -> Seed {
    key.derive(Purpose::PackedShare, inference, step as u32)
}
