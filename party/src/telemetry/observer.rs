//! Observers of a role that want to know when it did what share one reading of the clock.

use std::time::Instant;

use spdz::channel::Phase;
use spdz::role::{Observer, Outcome};

/// As [`Observer`], with the time of each event.
pub(crate) trait TimedObserver {
    /// A phase of an evaluation begins.
    fn begin(&mut self, phase: Phase, inference: u64, at: Instant);
    /// A step of the plan is done.
    fn step(&mut self, step: usize, at: Instant);
    /// The phase is done.
    fn end(&mut self, outcome: Outcome, at: Instant);
}

/// Reads the clock for its observer.
pub(crate) struct Clocked<W>(pub(crate) W);

impl<W: TimedObserver> Observer for Clocked<W> {
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

impl<W: TimedObserver> TimedObserver for Option<W> {
    fn begin(&mut self, phase: Phase, inference: u64, at: Instant) {
        self.iter_mut().for_each(|observer| observer.begin(phase, inference, at));
    }

    fn step(&mut self, step: usize, at: Instant) {
        self.iter_mut().for_each(|observer| observer.step(step, at));
    }

    fn end(&mut self, outcome: Outcome, at: Instant) {
        self.iter_mut().for_each(|observer| observer.end(outcome, at));
    }
}

impl<W: TimedObserver> TimedObserver for &mut W {
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

impl<V: TimedObserver, W: TimedObserver> TimedObserver for (V, W) {
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
