//! Fits of smooth functions by piecewise linear ones.

use super::Piecewise;

/// Points of the grid on which functions are looked at, in a unit. Points of a fit are among
/// them: every number format represents them exactly.
const GRID: i32 = 256;

/// How often the error of a fit is lowered.
const STEPS: u32 = 24;

/// A straight line, which a function comes near to beyond some argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// The slope.
    pub slope: f64,
    /// The value at zero.
    pub offset: f64,
}

impl Line {
    fn at(self, x: f64) -> f64 {
        self.slope * x + self.offset
    }
}

/// The function on the grid, and how it ends.
struct Samples {
    first: i32,
    values: Vec<f64>,
    tails: [Line; 2],
}

/// The piecewise linear function with few points that is nowhere on `[-bound, bound]` more than
/// `error` from `function`, and beyond is `tails`, the lines that the function comes near to on
/// either side. `None` if a tail is farther than the error at the bound, or `bound` or `error` is
/// not a positive number.
///
/// Where the function is convex its points are below the curve by the error, and where it is concave
/// above, so that chords go through the curve twice; each is as long as the error lets it be.
/// At last the error is lowered as far as the same number of points goes.
#[must_use]
pub fn fit(
    function: impl Fn(f64) -> f64,
    tails: [Line; 2],
    bound: u16,
    error: f64,
) -> Option<Piecewise> {
    if error.is_nan() || error <= 0.0 {
        return None;
    }
    let first = -i32::from(bound) * GRID;
    let argument = |index: i32| f64::from(index) / f64::from(GRID);
    let values = (first..=-first).map(|index| function(argument(index))).collect();
    let samples = Samples { first, values, tails };
    let mut best = samples.within(error)?;
    let (mut low, mut high) = (0.0, error);
    for _ in 0..STEPS {
        let middle = (low + high) / 2.0;
        match samples.within(middle) {
            Some(found) if found.len() <= best.len() => (best, high) = (found, middle),
            _ => low = middle,
        }
    }
    Some(Piecewise { points: best, slopes: tails.map(|tail| tail.slope) })
}

impl Samples {
    fn argument(&self, index: usize) -> f64 {
        f64::from(self.first + index as i32) / f64::from(GRID)
    }

    /// The points of a function within `error` of this one.
    fn within(&self, error: f64) -> Option<Vec<[f64; 2]>> {
        let off = |index: usize, tail: Line| self.values[index] - tail.at(self.argument(index));
        let [left, right] = self.tails;
        let all = 0..self.values.len();
        // The tails are taken for as long as they are near.
        let start = all.clone().find(|index| off(*index, left).abs() > error)?.checked_sub(1)?;
        let end = 1 + all.clone().rfind(|index| off(*index, right).abs() > error)?;
        if end >= self.values.len() || start >= end {
            return None;
        }
        let last = [self.argument(end), right.at(self.argument(end))];
        let mut points = vec![[self.argument(start), left.at(self.argument(start))]];
        let mut from = start;
        while from < end {
            let begin = points[points.len() - 1];
            let point = |to: usize| if to == end { last } else { self.beside(to, error) };
            let fits = |to: usize| self.is_near(from, begin, to, point(to), error);
            // The farthest that is found by doubling the distance and then halving the rest.
            let (mut near, mut step) = (from + 1, 1);
            if !fits(near) {
                return None;
            }
            while near < end && fits((near + step).min(end)) {
                near = (near + step).min(end);
                step *= 2;
            }
            while step > 0 {
                let to = (near + step).min(end);
                if to > near && fits(to) {
                    near = to;
                }
                step /= 2;
            }
            points.push(point(near));
            from = near;
        }
        Some(points)
    }

    /// A point beside the curve: below it where it is convex, else above.
    fn beside(&self, index: usize, error: f64) -> [f64; 2] {
        let (before, value, after) =
            (self.values[index - 1], self.values[index], self.values[index + 1]);
        let is_convex = before + after >= 2.0 * value;
        let value = if is_convex { value - error } else { value + error };
        [self.argument(index), value]
    }

    /// Whether the chord between two points is nowhere farther than the error from the curve.
    fn is_near(&self, from: usize, begin: [f64; 2], to: usize, end: [f64; 2], error: f64) -> bool {
        let slope = (end[1] - begin[1]) / (end[0] - begin[0]);
        // What is computed is rounded; the ends are at the error itself.
        let error = error + 1e-12;
        (from..=to).all(|index| {
            let chord = begin[1] + slope * (self.argument(index) - begin[0]);
            (chord - self.values[index]).abs() <= error
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: Line = Line { slope: 0.0, offset: 0.0 };
    const LINE: Line = Line { slope: 1.0, offset: 0.0 };

    #[test]
    fn a_parabola_takes_as_many_pieces_as_its_curvature_says() {
        // Between -4 and 4 a parabola with tangents beyond: of chords whose ends are below by `e`
        // and whose middles are above by as much, `h^2 f'' / 8 = 2 e`.
        let function = |x: f64| match x {
            ..-4.0 => 0.0,
            4.0.. => 16.0 * x,
            x => (x + 4.0) * (x + 4.0),
        };
        let tails = [ZERO, Line { slope: 16.0, offset: 0.0 }];
        for error in [0.5, 0.02, 0.001] {
            let found = fit(function, tails, 8, error).unwrap();
            let ideal = 8.0 / (8.0 * error).sqrt();
            let pieces = found.points.len() as f64;
            // A few more, as the points are those of a grid.
            assert!(pieces <= 1.05 * ideal + 1.0, "{pieces} {ideal}");
            let off = |x: f64| (found.evaluate(x) - function(x)).abs();
            let largest = (-80_000..80_000).map(|i| off(f64::from(i) / 1e4)).fold(0.0, f64::max);
            assert!(largest <= error + 1e-4, "{largest} {error}");
        }
    }

    #[test]
    fn a_fit_that_cannot_be_is_none() {
        let softplus = |x: f64| libm::log1p(libm::exp(x));
        assert!(fit(softplus, [ZERO, LINE], 16, 0.01).is_some());
        // At 2 it is still away from its tails.
        assert_eq!(fit(softplus, [ZERO, LINE], 2, 0.01), None);
        assert_eq!(fit(softplus, [ZERO, LINE], 16, -0.01), None);
        assert_eq!(fit(softplus, [ZERO, LINE], 16, f64::NAN), None);
        assert_eq!(fit(softplus, [ZERO, LINE], 0, 0.01), None);
    }
}
