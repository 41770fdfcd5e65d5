//! One look at the clock for all who want to know when a role did what.

use std::time::Instant;

use spdz::channel::Phase;
use spdz::role::{Observer, Outcome};

/// As [`Observer`], but told when it happened.
pub(crate) trait Witness {
    /// A phase of an evaluation begins.
    fn begin(&mut self, phase: Phase, inference: u64, at: Instant);
    /// A step of the plan is done.
    fn step(&mut self, step: usize, at: Instant);
    /// The phase is done.
    fn end(&mut self, outcome: Outcome, at: Instant);
}

/// Looks at the clock.
pub(crate) struct Watcher<W>(pub(crate) W);

impl<W: Witness> Observer for Watcher<W> {
    fn begin(&mut self, phase: Phase, inference: u64) {
        self.0.begin(phase, inference, Instant::now());
    }

    fn step(&mut self, step: usize) {
        self.0.step(step, Instant::now());
    }

    fn end(&mut self, outcome: Outcome) {
        self.0.end(outcome, Instant::now());
    }
}

impl<W: Witness> Witness for Option<W> {
    fn begin(&mut self, phase: Phase, inference: u64, at: Instant) {
        self.iter_mut().for_each(|witness| witness.begin(phase, inference, at));
    }

    fn step(&mut self, step: usize, at: Instant) {
        self.iter_mut().for_each(|witness| witness.step(step, at));
    }

    fn end(&mut self, outcome: Outcome, at: Instant) {
        self.iter_mut().for_each(|witness| witness.end(outcome, at));
    }
}

impl<W: Witness> Witness for &mut W {
    fn begin(&mut self, phase: Phase, inference: u64, at: Instant) {
        (**self).begin(phase, inference, at);
    }

    fn step(&mut self, step: usize, at: Instant) {
        (**self).step(step, at);
    }

    fn end(&mut self, outcome: Outcome, at: Instant) {
        (**self).end(outcome, at);
    }
}

impl<V: Witness, W: Witness> Witness for (V, W) {
    fn begin(&mut self, phase: Phase, inference: u64, at: Instant) {
        self.0.begin(phase, inference, at);
        self.1.begin(phase, inference, at);
    }

    fn step(&mut self, step: usize, at: Instant) {
        self.0.step(step, at);
        self.1.step(step, at);
    }

    fn end(&mut self, outcome: Outcome, at: Instant) {
        self.0.end(outcome, at);
        self.1.end(outcome, at);
    }
}
