//! Whether values fit: bits that can be truncated again, and how often that may fail.

use super::compiler::Compiler;
use crate::plan::error::PlanError;
use crate::plan::step::Step;
use crate::ring::Truncation;
use crate::tensors::Domain;

/// The largest probability that truncating one number locally fails, whatever its value
/// within the range.
const LARGEST_FAILURE: f64 = 1.0 / 65536.0;

impl Compiler<'_> {
    /// Makes sure that values with so many bits can be truncated again.
    pub(super) fn check_bits(&self, fraction: i32, integral: i32) -> Result<(), PlanError> {
        // Values far below one have fewer bits than their fraction; truncating takes all of them.
        if fraction.max(fraction + integral) <= self.precision.dividend as i32 {
            return Ok(());
        }
        Err(PlanError::Precision {
            layer: self.place(),
            fraction,
            integral: integral.max(0) as u32,
            available: self.precision.dividend,
            format: self.format,
        })
    }

    /// The low bits of the ring that an exact graph needs: those of its numbers, their sign, and one
    /// for what is added before a lift; and more than any wire has. `None` if it needs all.
    pub(super) fn low_bits(&self) -> Option<u32> {
        let all_bits = |step: &Step| step.operation.needs_all_bits();
        if !self.exact || self.setup.iter().chain(&self.evaluation).any(all_bits) {
            return None;
        }
        let fractions = self.lowered.iter().flat_map(|forms| {
            let private = [forms.raw, forms.reduced].into_iter().flatten();
            let masked = [forms.masked, forms.fine].into_iter().flatten();
            private.map(|form| form.fraction).chain(masked.map(|form| form.fraction))
        });
        let wires = self.table.masked.iter().filter_map(|spec| match spec.domain {
            Domain::Integers { bits } => Some(bits as i32),
            Domain::Ring | Domain::Bits => None,
        });
        let outputs = self.table.outputs.iter();
        let outputs = outputs.map(|output| output.fraction + output.integral as i32 + 2);
        let bits = (fractions.max()? + self.integral() + 2)
            .max(wires.max().unwrap_or(0) + 1)
            .max(outputs.max().unwrap_or(0));
        (bits < self.precision.ring as i32).then_some(bits as u32)
    }

    /// Whether numbers below `2^integral` are truncated locally without failing too often.
    pub(super) fn truncates_safely(&self, fraction: i32, integral: i32) -> bool {
        self.truncation == Truncation::Local && self.failure(fraction, integral) <= LARGEST_FAILURE
    }

    /// Notes if a dividend of an interactive truncation has more bits than that takes. It takes all
    /// that [`Compiler::check_bits`] admits, except where the format's range is declared.
    pub(super) fn check_dividend(&mut self, fraction: i32, integral: i32) {
        let available = self.format.dividend_bits();
        if fraction.max(fraction + integral) > available as i32 && self.unreliable.is_none() {
            self.unreliable = Some(PlanError::Precision {
                layer: self.place(),
                fraction,
                integral: integral.max(0) as u32,
                available,
                format: self.format,
            });
        }
    }

    /// Whether values with so many bits can be truncated again, and locally without failing
    /// too often once they are within the format's range.
    pub(super) fn truncates_well(&self, fraction: i32, integral: i32) -> bool {
        let local = self.truncation == Truncation::Local && !self.exact;
        let failure = self.failure(fraction, integral.min(self.integral()));
        self.check_bits(fraction, integral).is_ok() && !(local && failure > LARGEST_FAILURE)
    }

    /// The bits of values that `integral` bounds, if they are declared to have fewer: no more than
    /// are left of the ring, and not fewer than the format's.
    pub(super) fn declared(&self, fraction: i32, integral: i32) -> i32 {
        if !self.format.declares_ranges() {
            return integral;
        }
        integral.min(self.integral().max(self.precision.dividend as i32 - fraction))
    }

    /// The probability that the local truncation of a number of so many bits fails: its share of
    /// the ring.
    pub(super) fn failure(&self, fraction: i32, integral: i32) -> f64 {
        f64::from(fraction + integral - self.precision.ring as i32).exp2()
    }

    /// Counts that `len` numbers below `2^integral` are truncated locally.
    pub(super) fn may_fail(&mut self, fraction: i32, integral: i32, len: usize) {
        let probability = self.failure(fraction, integral);
        self.local_failures += probability * len as f64;
        if probability > LARGEST_FAILURE && self.unreliable.is_none() {
            self.unreliable = Some(PlanError::Truncation {
                layer: self.place(),
                fraction,
                integral,
                one_in: probability.recip().round() as u64,
                format: self.format,
            });
        }
    }
}

/// How many bits a sum of so many terms has more than one of them.
pub(super) fn bits(terms: usize) -> i32 {
    terms.next_power_of_two().ilog2() as i32
}
