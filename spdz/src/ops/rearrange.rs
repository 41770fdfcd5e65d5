//! Moving elements: transposing, slicing, repeating, concatenating. Local, and the
//! same for shares, masks and public values.

use crate::buffer::Buffer;
use crate::geometry::View;
use crate::ring::{Ring, planes, planes_mut};

/// The elements that `view` names, in its order.
#[must_use]
pub fn view<R: Ring>(words: &[R::Word], view: &View) -> Buffer<R::Word> {
    let mut out = Buffer::zeros(R::PLANES * view.len());
    for (words, out) in planes::<R>(words).zip(planes_mut::<R>(&mut out)) {
        view.read(words, out);
    }
    out
}

/// Tensors after each other along an axis: of each the next block for each of `outer`
/// outer indices.
#[must_use]
pub fn concat<R: Ring>(tensors: &[&[R::Word]], outer: usize) -> Buffer<R::Word> {
    let total = tensors.iter().map(|words| words.len()).sum();
    let mut out = Buffer::zeros(total);
    let mut place = 0;
    for plane in 0..R::PLANES {
        for index in 0..outer {
            for words in tensors {
                let len = words.len() / R::PLANES;
                let block = len / outer;
                let start = plane * len + index * block;
                out[place..place + block].copy_from_slice(&words[start..start + block]);
                place += block;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Int64;

    #[test]
    fn views_transpose_slice_and_repeat() {
        let words: Vec<u64> = (0..6).collect();
        let transposed = View { offset: 0, axes: vec![(3, 1), (2, 3)] };
        assert_eq!(view::<Int64>(&words, &transposed)[..], [0, 3, 1, 4, 2, 5]);
        let sliced = View { offset: 1, axes: vec![(2, 3), (1, 2)] };
        assert_eq!(view::<Int64>(&words, &sliced)[..], [1, 4]);
        let repeated = View { offset: 4, axes: vec![(3, 0), (2, 1)] };
        assert_eq!(view::<Int64>(&words, &repeated)[..], [4, 5, 4, 5, 4, 5]);
        assert_eq!(view::<Int64>(&words, &View { offset: 2, axes: vec![] })[..], [2]);
    }

    #[test]
    fn concatenation_interleaves_blocks() {
        let (x, y): (Vec<u64>, Vec<u64>) = ((0..4).collect(), (10..16).collect());
        assert_eq!(concat::<Int64>(&[&x, &y], 2)[..], [0, 1, 10, 11, 12, 2, 3, 13, 14, 15]);
    }
}
