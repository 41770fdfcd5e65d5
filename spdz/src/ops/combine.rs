//! Linear combinations with public coefficients. Local.

use std::fmt;

use super::operation::{Correlation, Execute, Operation};
use super::values::Values;
use crate::ring::{Plane, Ring, Side, kernels, planes_mut};
use crate::share::Share;
use crate::tensors::{PrivateId, Table, TensorId};

/// A linear combination with public integer coefficients, plus a constant.
#[derive(Clone, Debug)]
pub struct Combine {
    /// Tensors and their coefficients.
    pub terms: Vec<(PrivateId, i64)>,
    /// Added to each element.
    pub constant: i64,
    /// The result.
    pub output: PrivateId,
}

impl Operation for Combine {
    fn name(&self) -> &'static str {
        "combine"
    }

    fn reads(&self) -> Vec<TensorId> {
        self.terms.iter().map(|(id, _)| TensorId::from(*id)).collect()
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        for (id, coefficient) in &self.terms {
            write!(f, " {coefficient}*{id}")?;
        }
        write!(f, " + {} -> {}", self.constant, self.output)
    }
}

impl<R: Ring> Execute<R> for Combine {
    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let len = values.len(self.output);
        let terms: Vec<_> =
            self.terms.iter().map(|(id, factor)| (values.get(*id), *factor)).collect();
        let sum = combine(&terms, self.constant, len, values.side());
        values.put(self.output, sum);
    }
}

/// `constant + sum_t coefficient_t * x_t`, element by element; every `x_t` has
/// `len` elements. Local; server 0 alone adds the constant.
#[must_use]
pub fn combine<R: Ring>(
    terms: &[(&Share<R>, i64)],
    constant: i64,
    len: usize,
    side: Side,
) -> Share<R> {
    let mut sum = Share::<R>::zeros(len);
    for (index, sum) in planes_mut::<R>(&mut sum.0).enumerate() {
        let plane = R::plane(index);
        let constant = match side {
            Side::Zero => plane.of(i128::from(constant)),
            Side::One => R::Word::default(),
        };
        sum.fill(constant);
        let term = |(x, coefficient): &(&Share<R>, i64)| {
            (plane.of(i128::from(*coefficient)), index * len..index * len + x.len())
        };
        // Three terms at a time: a sum that is bound by memory should pass over it rarely.
        let (triples, rest) = terms.as_chunks::<3>();
        for triple in triples {
            let [(p, words), (q, _), (r, _)] = triple.each_ref().map(term);
            let [x, y, z] = triple.each_ref().map(|(x, _)| &x.0[words.clone()]);
            let sum = &mut *sum;
            kernels::vectorized(
                #[inline(always)]
                move || {
                    for (((sum, &x), &y), &z) in sum.iter_mut().zip(x).zip(y).zip(z) {
                        let rest = plane.add(plane.mul(q, y), plane.mul(r, z));
                        *sum = plane.add(*sum, plane.add(plane.mul(p, x), rest));
                    }
                },
            );
        }
        for pair in rest {
            let (coefficient, words) = term(pair);
            let (x, sum) = (&pair.0.0[words], &mut *sum);
            kernels::vectorized(
                #[inline(always)]
                move || {
                    for (sum, &x) in sum.iter_mut().zip(x) {
                        *sum = plane.add(*sum, plane.mul(coefficient, x));
                    }
                },
            );
        }
    }
    sum
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
            let found = Int64::to_integers(&reconstruct(&z0, &z1));
            for (i, found) in found.into_iter().enumerate() {
                let expected: i128 = (0..count)
                    .map(|t| i128::from(columns[t][i] as i64) * i128::from(factors[t]))
                    .sum::<i128>()
                    - 11;
                assert_eq!(found, expected);
            }
        }
    }
}
