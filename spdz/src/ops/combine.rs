//! Linear combinations with public coefficients: the sum of a polynomial's terms.

use crate::ring::{Ring, Side, kernels};
use crate::share::Share;

/// `constant + sum_t coefficient_t * x_t`, element by element; every `x_t` has
/// `len` elements. Local; server 0 alone adds the constant.
#[must_use]
pub fn combine<R: Ring>(
    terms: &[(&Share<R>, i64)],
    constant: i64,
    len: usize,
    side: Side,
) -> Share<R> {
    let start = match side {
        Side::Zero => R::from_integer(i128::from(constant)),
        Side::One => R::Element::default(),
    };
    let factor = |coefficient: i64| R::from_integer(i128::from(coefficient));
    let mut sum = vec![start; len];
    // Three terms at a time: a sum that is bound by memory should pass over it rarely.
    let (triples, rest) = terms.as_chunks::<3>();
    for [(x, p), (y, q), (z, r)] in triples {
        let (p, q, r) = (factor(*p), factor(*q), factor(*r));
        kernels::vectorized(|| {
            for (((sum, &x), &y), &z) in sum.iter_mut().zip(&x.0).zip(&y.0).zip(&z.0) {
                let terms = R::add(R::mul(p, x), R::add(R::mul(q, y), R::mul(r, z)));
                *sum = R::add(*sum, terms);
            }
        });
    }
    for (x, coefficient) in rest {
        let coefficient = factor(*coefficient);
        kernels::vectorized(|| {
            for (sum, &x) in sum.iter_mut().zip(&x.0) {
                *sum = R::add(*sum, R::mul(coefficient, x));
            }
        });
    }
    Share(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::Seed;
    use crate::ring::Int64;
    use crate::share::{reconstruct, share};

    #[test]
    fn terms_are_scaled_and_summed_on_shares() {
        let mut stream = Seed::from_bytes([4; 32]).into_stream();
        let columns: Vec<Vec<u64>> =
            (1..=5u64).map(|c| vec![c, 10 * c, c.wrapping_neg()]).collect();
        let factors = [3, -7, 1 << 40, 0, -1];
        let shares: Vec<_> =
            columns.iter().map(|column| share::<Int64>(column, &mut stream)).collect();
        for count in 0..=5 {
            let coefficients = factors.iter().copied();
            let zeros: Vec<_> = shares.iter().map(|(x, _)| x).zip(coefficients.clone()).collect();
            let ones: Vec<_> = shares.iter().map(|(_, x)| x).zip(coefficients.clone()).collect();
            let z0 = combine(&zeros[..count], -11, 3, Side::Zero);
            let z1 = combine(&ones[..count], -11, 3, Side::One);
            let found = reconstruct(&z0, &z1);
            for (i, found) in found.into_iter().enumerate() {
                let expected: i128 = (0..count)
                    .map(|t| i128::from(columns[t][i] as i64) * i128::from(factors[t]))
                    .sum::<i128>()
                    - 11;
                assert_eq!(Int64::to_integer(found), expected);
            }
        }
    }
}
