//! Polynomials.

use std::sync::Arc;

use super::compiler::Compiler;
use super::lowered::{LoweredValue, Scaled};
use super::powers::{self, BitBudget, Scheme};
use crate::graph::NodeId;
use crate::ops;
use crate::plan::error::PlanError;
use crate::polynomial::Polynomial;
use crate::tensors::PrivateId;

/// Errors of a polynomial that are none of its own: those of a few truncations.
const FEW_UNITS: f64 = 8.0;

/// The largest error of a polynomial, as a share of the largest value that it takes.
const LARGEST_SHARE: f64 = 1.0 / 32.0;

impl Compiler<'_> {
    /// `sum_j c_j x^j` from powers that are squares or products of lower powers, as the best
    /// [`Scheme`] says.
    pub(super) fn polynomial(
        &mut self,
        index: usize,
        input: NodeId,
        polynomial: &Polynomial,
    ) -> Result<(), PlanError> {
        let Polynomial { coefficients, range } = polynomial;
        let degree = coefficients.len().saturating_sub(1);
        let limit = self.precision.limit();
        let reach = powers::reach(polynomial);
        for found in [*range, reach] {
            if found.is_nan() || found >= limit {
                return Err(PlanError::Polynomial {
                    layer: self.place(),
                    range: *range,
                    degree,
                    found,
                    limit,
                    format: self.format,
                });
            }
        }
        let f = self.f();
        let budget = BitBudget {
            fraction: f,
            dividend: self.format.dividend_bits() as i32,
            free: !self.truncates_seldom(),
            truncation_error: self.format.truncation_error(self.truncation),
        };
        let scheme = Scheme::best(polynomial, budget);
        let share = scheme.share(f);
        if scheme.error > FEW_UNITS && share > LARGEST_SHARE {
            return Err(PlanError::Coarse {
                layer: self.place(),
                range: *range,
                degree,
                error: scheme.error,
                share,
                format: self.format,
                truncation: self.truncation,
            });
        }
        self.polynomial_error = self.polynomial_error.max(scheme.error);
        let magnitude = |power: usize| powers::magnitude(*range, power);

        let mut slots = vec![input.0; coefficients.len().max(2)];
        // In an exact graph a number is lifted in as many bits as it has, for whoever else reads it.
        if let Some(raw) = &mut self.lowered[input.0].raw
            && !self.exact
        {
            raw.integral = raw.integral.min(magnitude(1));
        }
        if !scheme.kept.is_empty() && budget.free {
            // Read both masked and private: truncated before it is masked.
            if self.lowered[input.0].masked.is_none() {
                self.reduced(input.0);
            }
        }
        for (&power, &kept) in &scheme.kept {
            let (low, high) = (power / 2, power - power / 2);
            let (left, right) = (self.masked(slots[low]), self.masked(slots[high]));
            let slot = self.lowered.len();
            let len = self.lowered[index].len;
            self.lowered.push(LoweredValue { len, ..LoweredValue::default() });
            slots[power] = slot;
            let fraction = left.fraction + right.fraction;
            self.set(slot, fraction, magnitude(power), |output| {
                if low == high {
                    Arc::new(ops::Square { input: left.id, output })
                } else {
                    Arc::new(ops::Mul { left: left.id, right: right.id, output })
                }
            })?;
            let value = self.private(slot);
            if budget.free {
                let (truncated, _) = self.truncated(value, kept, magnitude(power));
                self.lowered[slot].raw = Some(truncated);
                if scheme.is_operand(power) {
                    self.lowered[slot].masked =
                        Some(self.opened(truncated, kept, magnitude(power)));
                }
            } else if scheme.is_operand(power) {
                self.lowered[slot].masked = Some(self.opened(value, kept, magnitude(power)));
                self.lowered[slot].raw = None;
            }
        }

        let values: Vec<(usize, Scaled)> = scheme
            .used
            .iter()
            .map(|&j| {
                let value = match j {
                    // Where a masked form was made, it costs nothing.
                    1 if !scheme.kept.is_empty() => self.reduced(slots[1]),
                    1 => self.with_room(slots[1], f + 2, magnitude(1)),
                    _ => self.private(slots[j]),
                };
                (j, value)
            })
            .collect();
        let scaled = |number: f64, fraction: i32| (number * f64::from(fraction).exp2()).round();
        let mut total = scheme.total;
        if let ([(1, value)], true) = (&values[..], scheme.kept.is_empty()) {
            // An argument that did not have to be truncated has more bits.
            total += (value.fraction - f).max(0);
        }
        let terms: Vec<(PrivateId, i64)> = values
            .iter()
            .map(|(j, value)| (value.id, scaled(coefficients[*j], total - value.fraction) as i64))
            .collect();
        if let Some((_, large)) = terms.iter().find(|(_, factor)| factor.abs() >= 1 << 62) {
            // Only where an argument has few bits.
            self.check_bits(total, (*large as f64).abs().log2() as i32)?;
        }
        let constant = scaled(coefficients.first().copied().unwrap_or_default(), total) as i64;
        let integral = powers::log2_up(scheme.peak.max(1.0));
        self.set(index, total, integral, |output| {
            Arc::new(ops::Combine { terms, constant, output })
        })
    }
}
