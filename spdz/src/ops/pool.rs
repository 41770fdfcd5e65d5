//! Sums over windows; with the division folded into the precision, average pooling.

use crate::buffer::Buffer;
use crate::geometry::Pooling;
use crate::ring::{Plane, Ring, kernels, planes, planes_mut};
use crate::share::Share;

/// Sums each channel over disjoint windows: `[batch, height, width, channels]`
/// to `[batch, height / window, width / window, channels]`. Local.
#[must_use]
pub fn sum_pool<R: Ring>(x: &Share<R>, pooling: Pooling) -> Share<R> {
    let mut sums = Share::<R>::zeros(pooling.output_len());
    let mut row = Buffer::zeros(pooling.width * pooling.channels);
    for (index, (words, sums)) in planes::<R>(&x.0).zip(planes_mut::<R>(&mut sums.0)).enumerate() {
        let plane = R::plane(index);
        sum_windows(words, pooling, |x, y| plane.add(x, y), &mut row, sums);
    }
    sums
}

/// Adds windows up in `output`, zeros at first; `row` is room for a row of an image.
fn sum_windows<E: Copy>(
    input: &[E],
    pooling: Pooling,
    add: impl Fn(E, E) -> E + Copy,
    row: &mut [E],
    output: &mut [E],
) {
    let Pooling { width, channels, window, .. } = pooling;
    let output_row = width / window * channels;
    // Images are a multiple of the window high, so a band of rows never spans two.
    let bands = input.chunks_exact(row.len() * window).zip(output.chunks_exact_mut(output_row));
    kernels::vectorized(
        #[inline(always)]
        || {
            for (band, sums) in bands {
                // Whole rows first, in long loops; what is left is a window's width less.
                let (first, others) = band.split_at(row.len());
                row.copy_from_slice(first);
                for other in others.chunks_exact(row.len()) {
                    for (sum, &value) in row.iter_mut().zip(other) {
                        *sum = add(*sum, value);
                    }
                }
                let places = row.chunks_exact(window * channels);
                for (pixels, sums) in places.zip(sums.chunks_exact_mut(channels)) {
                    for pixel in pixels.chunks_exact(channels) {
                        for (sum, &value) in sums.iter_mut().zip(pixel) {
                            *sum = add(*sum, value);
                        }
                    }
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_summed_channel_by_channel() {
        let pooling = Pooling { batch: 2, height: 2, width: 4, channels: 2, window: 2 };
        let input: Vec<u64> = (0..32).collect();
        // Pixel (y, x) of image n holds 16n + 8y + 2x and one more in channel 1.
        let expected = [20, 24, 36, 40].map(|sum| sum as u64);
        let mut found = vec![0; pooling.output_len()];
        sum_windows(&input, pooling, |x, y| x + y, &mut [0; 8], &mut found);
        assert_eq!(found[..4], expected);
        assert_eq!(found[4..], expected.map(|sum| sum + 64));
    }
}
