//! How a polynomial is computed: of which products its powers are made, and how many
//! fractional bits each keeps.
//!
//! High powers are large and their coefficients small; were both encoded with the format's
//! precision, the coefficient would underflow. A power that keeps many bits leaves few for
//! its coefficient, as both are bits of one dividend; one that keeps few is itself rounded.
//! So every way to share the bits is tried, and the one with the smallest error is taken:
//! what is lost is known before anything runs ([`Scheme::error`]).

use std::collections::{BTreeMap, BTreeSet};

use crate::polynomial::Polynomial;

/// How many more bits than a number of order one the operands are given at most.
const SPARE: i32 = 24;

/// How many more bits than make its rounding one unit in the last place, times its
/// coefficient, a power is given at most that is truncated only for the sum.
const GUARD_BITS: i32 = 3;

/// Bits of a dividend that are left free where it is truncated interactively, so that a
/// polynomial's value may be four times what it reaches within its range.
const HEADROOM: i32 = 2;

/// The most bits of a power beyond the square that is truncated locally in the ring of 64, at
/// the end of a polynomial's range: there a truncation fails with a probability of `2^-28`, and
/// of `2^-36` for `x^4` where `x` is a quarter of that.
const LOCAL_POWER: i32 = 36;

/// The same for the sum of all terms, most of which are nearer to the end of their range.
const LOCAL_SUM: i32 = 34;

/// Arguments at which the largest value of a polynomial is looked for, to either side.
const GRID: i32 = 512;

/// What the number format and its truncation give a polynomial.
#[derive(Clone, Copy, Debug)]
pub(super) struct BitBudget {
    /// Fractional bits of arguments and values.
    pub fraction: i32,
    /// Bits of a dividend.
    pub dividend: i32,
    /// Whether truncating is free but for the chance that it fails, which grows with the
    /// dividend: then every power is truncated, and dividends are kept small. Else only the
    /// powers that others are made of are.
    pub free: bool,
    /// By how many units in the last place a quotient may be off.
    pub truncation_error: f64,
}

/// A way to compute a polynomial.
#[derive(Clone, Debug)]
pub(super) struct Scheme {
    /// The powers with a coefficient that matters, from 1 on.
    pub used: Vec<usize>,
    /// The powers to compute, each the product of its two halves, with the fractional bits
    /// that each is truncated to if it has more. Lower powers come first.
    pub kept: BTreeMap<usize, i32>,
    /// Fractional bits of the sum of all terms.
    pub total: i32,
    /// The largest magnitude of the polynomial within its range.
    pub peak: f64,
    /// A bound of the error within the range, in units in the last place, for an argument that
    /// the format holds exactly.
    pub error: f64,
}

impl Scheme {
    /// The one with the smallest error, which is infinite if the format has no bits for any.
    pub(super) fn best(polynomial: &Polynomial, budget: BitBudget) -> Self {
        let used = used(polynomial, budget.fraction);
        let start = Self {
            kept: needed(&used).into_iter().map(|power| (power, 0)).collect(),
            used,
            total: budget.fraction,
            peak: peak(polynomial),
            error: f64::INFINITY,
        };
        let guard = 0..=if budget.free { GUARD_BITS } else { 0 };
        (0..=SPARE)
            .flat_map(|spare| guard.clone().map(move |guard| (spare, guard)))
            .filter_map(|(spare, guard)| start.clone().with(polynomial, budget, spare, guard))
            .min_by(|left, right| left.error.total_cmp(&right.error))
            .unwrap_or(start)
    }

    /// The error as a share of the largest value.
    pub(super) fn share(&self, fraction: i32) -> f64 {
        self.error * f64::from(-fraction).exp2() / self.peak
    }

    /// Whether other powers are made of this one.
    pub(super) fn is_operand(&self, power: usize) -> bool {
        self.kept.keys().any(|higher| higher / 2 == power || higher - higher / 2 == power)
    }

    /// The one whose operands have `spare` bits more than a number of order one, and whose
    /// other powers `guard` bits more than a unit in the last place of their term.
    fn with(
        mut self,
        polynomial: &Polynomial,
        budget: BitBudget,
        spare: i32,
        guard: i32,
    ) -> Option<Self> {
        let Polynomial { coefficients, range } = polynomial;
        let f = budget.fraction;
        // Of each power its fractional bits and largest error.
        let mut fractions = BTreeMap::from([(1, f)]);
        let mut errors = BTreeMap::from([(1, 0.0)]);
        for power in self.kept.keys().copied().collect::<Vec<_>>() {
            let (low, high) = (power / 2, power - power / 2);
            let (low_error, high_error) = (errors[&low], errors[&high]);
            let mut error = raised(*range, low) * high_error
                + raised(*range, high) * low_error
                + low_error * high_error;
            let mut fraction = fractions[&low] + fractions[&high];
            let large = fraction + magnitude(*range, power);
            // The argument has the bits that it has.
            let most = if budget.free && power > 2 { LOCAL_POWER } else { budget.dividend };
            if fraction > budget.dividend || large > most {
                return None;
            }
            let kept = if self.is_operand(power) {
                f + spare - magnitude(*range, power)
            } else if budget.free {
                f + log2_up(coefficients[power].abs()) + guard
            } else {
                fraction
            };
            if kept < fraction {
                fraction = kept;
                error += budget.truncation_error * f64::from(-fraction).exp2();
            }
            self.kept.insert(power, kept);
            fractions.insert(power, fraction);
            errors.insert(power, error);
        }
        // What makes the rounding of every coefficient less than a quarter of a unit is enough.
        let enough = |&j: &usize| fractions[&j] + magnitude(*range, j) + f + 2;
        let enough = self.used.iter().map(enough).max().unwrap_or(f);
        let most = if budget.free { LOCAL_SUM } else { budget.dividend - HEADROOM };
        self.total = enough.min(most - log2_up(self.peak.max(1.0)));
        let unit = f64::from(-f).exp2();
        let left_out = (1..coefficients.len()).filter(|power| !self.used.contains(power));
        let left_out: f64 = left_out.map(|j| coefficients[j].abs() * raised(*range, j)).sum();
        let mut error =
            budget.truncation_error * unit + f64::from(-self.total - 1).exp2() + left_out;
        for j in &self.used {
            let more = self.total - fractions[j];
            let factor = coefficients[*j] * f64::from(more).exp2();
            if factor.abs() >= f64::from(62).exp2() {
                return None;
            }
            let rounding = (factor - factor.round()).abs() * f64::from(-more).exp2();
            error += rounding * raised(*range, *j) + coefficients[*j].abs() * errors[j];
        }
        self.error = error / unit;
        (self.total >= f).then_some(self)
    }
}

/// The most that the terms' magnitudes sum up to within the range.
pub(super) fn reach(polynomial: &Polynomial) -> f64 {
    let Polynomial { coefficients, range } = polynomial;
    coefficients.iter().enumerate().map(|(j, c)| c.abs() * raised(*range, j)).sum()
}

/// `range^power`, by multiplications alone: all parties have to find the same plan, and how
/// exact `powi` is depends on the machine.
fn raised(range: f64, power: usize) -> f64 {
    (0..power).fold(1.0, |product, _| product * range)
}

/// Bits of the integral part of `x^power`, for arguments within the range.
pub(super) fn magnitude(range: f64, power: usize) -> i32 {
    log2_up(raised(range, power))
}

/// The logarithm to base 2, rounded up; of a positive number, from its digits: a logarithm's
/// last one, too, depends on the machine.
pub(super) fn log2_up(number: f64) -> i32 {
    const FRACTION: u32 = f64::MANTISSA_DIGITS - 1;
    if number.is_subnormal() {
        return log2_up(number * f64::from(64).exp2()) - 64;
    }
    let exponent = (number.to_bits() >> FRACTION) as i32 - (f64::MAX_EXP - 1);
    let is_power = number.to_bits() << (64 - FRACTION) == 0;
    exponent + i32::from(!is_power)
}

/// The largest magnitude of the polynomial at many arguments within its range.
fn peak(polynomial: &Polynomial) -> f64 {
    (-GRID..=GRID)
        .map(|step| polynomial.evaluate(polynomial.range * f64::from(step) / f64::from(GRID)))
        .fold(0.0, |peak, value| value.abs().max(peak))
}

/// Terms that stay far below a unit in the last place are not worth their powers.
fn used(polynomial: &Polynomial, fraction: i32) -> Vec<usize> {
    let Polynomial { coefficients, range } = polynomial;
    let smallest = f64::from(-fraction - 8).exp2();
    (1..coefficients.len())
        .filter(|&j| coefficients[j].abs() * raised(*range, j) >= smallest)
        .collect()
}

/// All powers that those are made of.
fn needed(used: &[usize]) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    let mut pending = used.to_vec();
    while let Some(power) = pending.pop() {
        if power > 1 && needed.insert(power) {
            pending.extend([power / 2, power - power / 2]);
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: BitBudget =
        BitBudget { fraction: 12, dividend: 62, free: true, truncation_error: 1.0 };
    const INTERACTIVE: BitBudget = BitBudget { free: false, ..LOCAL };

    fn polynomial(coefficients: &[f64], range: f64) -> Polynomial {
        Polynomial { coefficients: coefficients.to_vec(), range }
    }

    #[test]
    fn the_logarithm_is_rounded_up() {
        for number in
            [1e-310, 1e-9, 0.25, 0.26, 0.5, 0.99, 1.0, 1.01, 2.0, 3.0, 1024.0, 1025.0, 1e30]
        {
            assert_eq!(log2_up(number), number.log2().ceil() as i32, "{number}");
        }
    }

    #[test]
    fn powers_are_made_of_their_halves_and_those_of_no_weight_are_left_out() {
        let scheme = Scheme::best(&polynomial(&[0.0, 0.5, 0.0, 0.0, 0.0, 0.1, 1e-9], 2.0), LOCAL);
        assert_eq!(scheme.used, [1, 5]);
        assert_eq!(scheme.kept.keys().copied().collect::<Vec<_>>(), [2, 3, 5]);
        assert!(scheme.is_operand(2) && scheme.is_operand(3) && !scheme.is_operand(5));
    }

    #[test]
    fn the_error_is_that_of_the_quotients_and_the_coefficients() {
        // Both coefficients are exact, the square is not rounded before the sum is.
        let exact = Scheme::best(&polynomial(&[0.25, 0.5, 0.125], 4.0), INTERACTIVE);
        assert!((1.0..1.001).contains(&exact.error), "{exact:?}");
        // Locally the square is truncated, too: less than an eighth of its weight.
        let local = Scheme::best(&polynomial(&[0.25, 0.5, 0.125], 4.0), LOCAL);
        assert!((1.0..1.2).contains(&local.error), "{local:?}");
        // What is left out counts.
        let error = |last| Scheme::best(&polynomial(&[0.0, 0.5, last], 1.0), INTERACTIVE).error;
        let unit = f64::from(12).exp2();
        assert!((error(5e-7) - error(0.0) - 5e-7 * unit).abs() < 1e-9);
    }

    #[test]
    fn dividends_stay_within_their_bits() {
        for range in [0.5, 1.0, 3.0, 8.0, 60.0, 900.0] {
            for degree in 1..=12 {
                let mut coefficients = vec![0.0; degree + 1];
                coefficients[degree] = raised(range, degree).recip();
                let polynomial = polynomial(&coefficients, range);
                for budget in [LOCAL, INTERACTIVE] {
                    let scheme = Scheme::best(&polynomial, budget);
                    assert!(scheme.error.is_finite(), "{range} {degree} {budget:?}");
                    let peak = log2_up(scheme.peak);
                    let most = if budget.free { LOCAL_SUM } else { budget.dividend - HEADROOM };
                    assert!(scheme.total + peak.max(0) <= most, "{scheme:?}");
                }
            }
        }
    }

    #[test]
    fn more_bits_are_never_worse() {
        let steep = polynomial(&[0.0, 0.5, 0.3, 0.0, -0.015], 8.0);
        let error = |dividend| Scheme::best(&steep, BitBudget { dividend, ..INTERACTIVE }).error;
        let errors: Vec<f64> = (36..=62).map(error).collect();
        assert!(errors.is_sorted_by(|fewer, more| fewer >= more), "{errors:?}");
        assert!(error(20).is_infinite());
    }
}
