//! What a role tells of its work as it does it.
//!
//! The protocol knows no clock and no place to report to. Whoever wants to know how long
//! things take looks at its own clock when it is told.

use crate::channel::Phase;

/// Is told what a role does, in the order in which it does it. It must not dawdle: the
/// role, and with it all others, waits.
///
/// A role is in at most one phase of one evaluation at a time, [`Phase::Offline`] or
/// [`Phase::Online`]; what happens before it begins and after it ends is not told. A role
/// that fails ends no phase.
pub trait Observer {
    /// The role begins with the phase of an evaluation, counted from 0.
    fn begin(&mut self, phase: Phase, inference: u64);

    /// It has done its part of a step of the plan, by its number in
    /// [`Plan::steps`](crate::plan::Plan::steps). All that it did since it was last told of
    /// something belongs to that step. It is not told of steps without a part for it.
    fn step(&mut self, step: usize);

    /// It is done with the phase.
    fn end(&mut self, outcome: Outcome);
}

/// How a phase ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// With an output that the number format cannot hold; the session goes on. Only a
    /// player that learns an output sees it.
    OutOfRange,
}

/// Nobody looks.
impl Observer for () {
    fn begin(&mut self, _: Phase, _: u64) {}

    fn step(&mut self, _: usize) {}

    fn end(&mut self, _: Outcome) {}
}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn begin(&mut self, phase: Phase, inference: u64) {
        (**self).begin(phase, inference);
    }

    fn step(&mut self, step: usize) {
        (**self).step(step);
    }

    fn end(&mut self, outcome: Outcome) {
        (**self).end(outcome);
    }
}
