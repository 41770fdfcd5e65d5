//! Callbacks for those who measure what a role does.
//!
//! The protocol knows no clock and reports to no place. An observer that wants to know how
//! long things take reads its own clock in each callback.

use crate::channel::Phase;

/// Callbacks from a role, in the order of its work. They must not block: the role, and with
/// it all others, waits.
///
/// A role is in at most one phase of one evaluation at a time, [`Phase::Offline`] or
/// [`Phase::Online`]; there are no callbacks before its first phase begins and after its last
/// one ends. A role that fails ends no phase.
pub trait Observer {
    /// The role begins with the phase of an evaluation, counted from 0.
    fn begin(&mut self, phase: Phase, inference: u64);

    /// The role has done its part of a step of the plan, by its number in
    /// [`Plan::steps`](crate::plan::Plan::steps). All of its work since the last callback
    /// belongs to that step; the exchanges of a round are reported one after the other when the
    /// round is over. There is no callback for a step in which the role has no part.
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

/// Nobody measures.
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
