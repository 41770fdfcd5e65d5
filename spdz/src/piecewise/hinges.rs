//! A piecewise linear function in fixed point: a function of integers.

use super::Piecewise;

/// A place where a slope changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knot {
    /// The argument, in units in the last place.
    pub threshold: i64,
    /// By how much the slope grows there, times `2^fraction`.
    pub change: i64,
}

/// `slope * x + offset + sum_k change_k * max(0, x - threshold_k)`, of integers: a piecewise linear
/// function of numbers in fixed point. The results have `fraction` fractional bits more.
///
/// The slope after the last knot is the sum of the first one and all changes, exactly, and the values at
/// the first and the last point are those of the function, rounded: a function that saturates does,
/// and at the right value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hinges {
    /// The slope before the first knot, times `2^fraction`.
    pub slope: i64,
    /// What the line before the first knot is at zero, times `2^fraction`.
    pub offset: i128,
    /// Where the slope changes, ascending; one more than the function has points at most.
    pub knots: Vec<Knot>,
    /// Fractional bits that results have more than arguments.
    pub fraction: i32,
}

/// A number times a power of two.
fn scaled(x: f64, bits: i32) -> f64 {
    x * f64::from(bits).exp2()
}

impl Hinges {
    /// The function for arguments with `argument` fractional bits and below `limit` in magnitude, with
    /// the fewest fractional bits of slopes, of at most `most`, for which it is within a unit in the
    /// last place at its points, and its outer slopes are right to `2^-argument` of themselves or make a unit
    /// in the last place at the limit. If there are none, with `most`.
    ///
    /// The function is one that [`Piecewise::check`] accepts, with all arguments, values and slopes
    /// below the limit.
    ///
    /// # Errors
    /// Two points that are one in fixed point: their arguments.
    pub fn of(
        function: &Piecewise,
        argument: i32,
        limit: f64,
        most: i32,
    ) -> Result<Self, [f64; 2]> {
        let threshold = |x: f64| scaled(x, argument).round() as i64;
        let thresholds: Vec<i64> = function.points.iter().map(|p| threshold(p[0])).collect();
        for (pair, points) in thresholds.windows(2).zip(function.points.windows(2)) {
            if pair[0] == pair[1] {
                return Err([points[0][0], points[1][0]]);
            }
        }
        // At the points in fixed point, not at those that were written.
        let values: Vec<f64> = thresholds
            .iter()
            .map(|threshold| function.evaluate(scaled(*threshold as f64, -argument)))
            .collect();
        let quantised = |fraction: i32| {
            let (hinges, off) =
                Self::with(&thresholds, &values, function.slopes, argument, fraction);
            let is_right = |slope: f64| {
                let found = scaled(scaled(slope, fraction).round(), -fraction);
                let most = scaled((slope.abs() * limit).max(1.0), -argument);
                (found - slope).abs() * limit <= most
            };
            let is_near =
                scaled(off, -fraction) <= 1.0 && function.slopes.iter().all(|x| is_right(*x));
            (hinges, is_near)
        };
        let near = (0..most).map(quantised).find(|(_, is_near)| *is_near);
        Ok(near.unwrap_or_else(|| quantised(most.max(0))).0)
    }

    /// The function with so many fractional bits of slopes, and how far it is from `values` at its
    /// points at most. Each slope makes up for what those before have left, and the last two points
    /// are joined by two of them if one does not meet the last.
    fn with(
        thresholds: &[i64],
        values: &[f64],
        [first, last]: [f64; 2],
        argument: i32,
        fraction: i32,
    ) -> (Self, f64) {
        let wanted = |index: usize| scaled(values[index], argument + fraction);
        let integer = |slope: f64| scaled(slope, fraction).round() as i64;
        let begin = wanted(0).round() as i128;
        let (mut value, mut off) = (begin, (begin as f64 - wanted(0)).abs());
        // Where each slope begins.
        let mut slopes = Vec::with_capacity(values.len() + 1);
        for index in 1..values.len() {
            let (threshold, end) = (thresholds[index - 1], thresholds[index]);
            let (width, missing) = (end - threshold, wanted(index) - value as f64);
            if index + 1 < values.len() {
                let slope = (missing / width as f64).round() as i64;
                slopes.push((threshold, slope));
                value += i128::from(slope) * i128::from(width);
                off = off.max((value as f64 - wanted(index)).abs());
                continue;
            }
            let missing = wanted(index).round() as i128 - value;
            let slope = missing.div_euclid(i128::from(width)) as i64;
            let steeper = missing.rem_euclid(i128::from(width)) as i64;
            if steeper > 0 {
                slopes.push((threshold, slope + 1));
            }
            slopes.push((threshold + steeper, slope));
            off = off.max(steeper as f64 * (width - steeper) as f64 / width as f64);
        }
        slopes.push((thresholds[values.len() - 1], integer(last)));
        let mut knots = Vec::with_capacity(slopes.len());
        let mut before = integer(first);
        for (threshold, slope) in slopes {
            if slope != before {
                knots.push(Knot { threshold, change: slope.wrapping_sub(before) });
            }
            before = slope;
        }
        let slope = integer(first);
        let offset = begin - i128::from(slope) * i128::from(thresholds[0]);
        (Self { slope, offset, knots, fraction }, off)
    }

    /// The result for an integer.
    #[must_use]
    pub fn evaluate(&self, x: i64) -> i128 {
        let hinge = |knot: &Knot| i128::from((x - knot.threshold).max(0)) * i128::from(knot.change);
        i128::from(x) * i128::from(self.slope)
            + self.offset
            + self.knots.iter().map(hinge).sum::<i128>()
    }

    /// The largest magnitude of a result for integers of at most `limit` in magnitude.
    #[must_use]
    pub fn peak(&self, limit: i64) -> u128 {
        let ends = self.knots.iter().map(|knot| knot.threshold).chain([-limit, limit]);
        ends.map(|x| self.evaluate(x).unsigned_abs()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ACTIVATION_ERROR, Activation};
    use super::*;

    /// The two formats: fractional bits, the limit, and bits that slopes may have.
    const FORMATS: [(i32, f64, i32); 2] = [(12, 1024.0, 24), (12, 128.0, 12)];

    const ACTIVATIONS: [Activation; 8] = [
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Gelu,
        Activation::Silu,
        Activation::HardSwish,
        Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 },
        Activation::HardSigmoid { alpha: 3.0, beta: -1.5 },
    ];

    /// On the integers that the servers compute with: all from -16 to 16, and many beyond.
    #[test]
    fn activations_are_within_their_error_at_every_number() {
        for (argument, limit, most) in FORMATS {
            for activation in ACTIVATIONS {
                let function = activation.piecewise();
                let hinges = Hinges::of(&function, argument, limit, most).unwrap();
                let unit = scaled(1.0, -argument);
                let end = scaled(limit, argument) as i64 - 1;
                let near = -(16 << argument)..=16 << argument;
                let far = (0..40_000).map(|i| (i * 2_654_435_761) % (2 * end + 1) - end);
                let all = near.chain(far).chain([-end, end]);
                let off = |x: i64| {
                    let expected = activation.evaluate(scaled(x as f64, -argument));
                    let result = hinges.evaluate(x);
                    // Rounded to either neighbour.
                    let floor = result >> hinges.fraction;
                    let exact = floor << hinges.fraction == result;
                    [floor, floor + i128::from(!exact)]
                        .map(|found| (scaled(found as f64, -argument) - expected).abs())
                        .into_iter()
                        .fold(0.0, f64::max)
                };
                let largest = all.map(off).fold(0.0, f64::max);
                assert!(largest <= ACTIVATION_ERROR, "{activation:?} {most}: {}", largest / unit);
            }
        }
    }

    #[test]
    fn what_saturates_is_constant_beyond_its_points() {
        for (argument, limit, most) in FORMATS {
            for activation in ACTIVATIONS {
                let function = activation.piecewise();
                let hinges = Hinges::of(&function, argument, limit, most).unwrap();
                let end = scaled(limit, argument) as i64 - 1;
                let sum: i64 = hinges.knots.iter().map(|knot| knot.change).sum();
                let slopes = function.slopes.map(|slope| scaled(slope, hinges.fraction) as i64);
                assert_eq!([hinges.slope, hinges.slope + sum], slopes);
                let knots = hinges.knots.len();
                assert!(knots <= function.points.len() + 1);
                let last = hinges.knots[knots - 1].threshold;
                // To the last bit, where the function's own ends are numbers of the format.
                if !matches!(activation, Activation::HardSigmoid { .. }) {
                    let exact = |x: f64| scaled(function.evaluate(x), argument + hinges.fraction);
                    for x in [-60.0, 60.0] {
                        assert_eq!(hinges.evaluate(scaled(x, argument) as i64) as f64, exact(x));
                    }
                }
                for (x, other) in [(last, end), (-end, hinges.knots[0].threshold)] {
                    let (first, second) = (hinges.evaluate(x), hinges.evaluate(other));
                    let slope = i128::from(if x == last { slopes[1] } else { slopes[0] });
                    assert_eq!(second - first, slope * i128::from(other - x), "{activation:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_exact_in_fixed_point_has_slopes_without_fractions() {
        for (argument, limit, most) in FORMATS {
            let of = |function: Piecewise| Hinges::of(&function, argument, limit, most).unwrap();
            let clip = of(Piecewise::clip(Some(0.0), Some(6.0)));
            assert_eq!((clip.slope, clip.offset, clip.fraction), (0, 0, 0));
            let knot = |threshold, change| Knot { threshold, change };
            assert_eq!(clip.knots, [knot(0, 1), knot(6 << argument, -1)]);
            for x in [-70_000, -1, 0, 1, 6 << argument, (6 << argument) + 1, 400_000] {
                assert_eq!(clip.evaluate(x), i128::from(x.clamp(0, 6 << argument)));
            }
            // Ends that are no multiples of a unit are rounded to one.
            let clip = of(Piecewise::clip(Some(-0.1), Some(0.30001)));
            assert_eq!(clip.fraction, 0);
            let [low, high] = [-0.1, 0.30001].map(|end| scaled(end, argument).round() as i64);
            for x in [-3000, low - 1, low, low + 1, 0, high - 1, high, high + 1, 9999] {
                assert_eq!(clip.evaluate(x), i128::from(x.clamp(low, high)));
            }
            let leaky = of(Piecewise::leaky_relu(0.125));
            assert_eq!((leaky.slope, leaky.fraction, leaky.knots.len()), (1, 3, 1));
            // One line is no hinge.
            assert_eq!(of(Piecewise::leaky_relu(1.0)).knots, []);
        }
    }

    #[test]
    fn a_slope_has_as_many_bits_as_it_needs() {
        let leaky = |slope, (argument, limit, most)| {
            Hinges::of(&Piecewise::leaky_relu(slope), argument, limit, most).unwrap()
        };
        for slope in [0.01, 0.3, -0.2, 1e-5, 0.999] {
            let [wide, narrow] = FORMATS.map(|format| leaky(slope, format));
            let off =
                |hinges: &Hinges| (scaled(hinges.slope as f64, -hinges.fraction) - slope).abs();
            assert!(off(&wide) <= (slope.abs() / 4096.0).max(1.0 / 4096.0 / 1024.0), "{wide:?}");
            assert!(off(&narrow) <= 1.0 / 8192.0 && narrow.fraction <= 12, "{narrow:?}");
        }
    }

    #[test]
    fn points_that_are_one_in_fixed_point_are_refused() {
        let steep = Piecewise { points: vec![[0.0, 0.0], [1e-5, 1.0]], slopes: [0.0; 2] };
        assert_eq!(Hinges::of(&steep, 12, 1024.0, 24), Err([0.0, 1e-5]));
    }

    #[test]
    fn the_peak_is_the_largest_magnitude() {
        let hat = Piecewise { points: vec![[-1.0, 0.0], [0.0, 3.0], [1.0, 0.0]], slopes: [0.0; 2] };
        let hinges = Hinges::of(&hat, 12, 1024.0, 24).unwrap();
        assert_eq!(hinges.peak(1 << 22), 3 << 12);
        let steep = Piecewise { points: vec![[0.0, 0.0]], slopes: [-2.0, 4.0] };
        assert_eq!(Hinges::of(&steep, 12, 1024.0, 24).unwrap().peak(1 << 22), 4 << 22);
    }
}
