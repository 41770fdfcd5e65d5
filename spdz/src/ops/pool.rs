//! Sums over windows; with the division folded into the precision, average pooling. Local.

use std::fmt;

use super::operation::{Correlation, Execute, Operation};
use super::values::Values;
use crate::buffer::Buffer;
use crate::geometry::{Pooling, Windows};
use crate::ring::{Plane, Ring, kernels, planes, planes_mut};
use crate::share::Share;
use crate::tensors::{PrivateId, Table, TensorId};

/// Sums over windows.
#[derive(Clone, Debug)]
pub struct SumPool {
    /// The images.
    pub input: PrivateId,
    /// The dimensions.
    pub pooling: Pooling,
    /// The sums.
    pub output: PrivateId,
}

impl Operation for SumPool {
    fn name(&self) -> &'static str {
        "pool"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        let p = self.pooling;
        write!(f, " {} {}x{}x{}x{}", self.input, p.batch, p.height, p.width, p.channels)?;
        write!(f, " window {}", p.window)?;
        if Windows::from(p.window).stride != p.stride {
            write!(f, " stride {}", p.stride)?;
        }
        write!(f, " -> {}", self.output)
    }
}

impl<R: Ring> Execute<R> for SumPool {
    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let sums = sum_pool(values.get(self.input), self.pooling);
        values.put(self.output, sums);
    }
}

/// Sums each channel over windows: `[batch, height, width, channels]` to `[batch,
/// output_height, output_width, channels]`, as [`Pooling`] says. Local.
#[must_use]
pub fn sum_pool<R: Ring>(x: &Share<R>, pooling: Pooling) -> Share<R> {
    let mut sums = Share::<R>::zeros(pooling.output_len());
    let mut row = Buffer::zeros(pooling.width * pooling.channels);
    for (index, (words, sums)) in planes::<R>(&x.0).zip(planes_mut::<R>(&mut sums.0)).enumerate() {
        let plane = R::plane(index);
        // A modulus behind a reference would be read again for each sum: not vectorised, and
        // three to ten times as slow.
        sum_windows(words, pooling, move |x, y| plane.add(x, y), &mut row, sums);
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
    let Pooling { height, width, channels, window, stride, .. } = pooling;
    let output_row = pooling.output_width() * channels;
    let images = input
        .chunks_exact(height * row.len())
        .zip(output.chunks_exact_mut(pooling.output_height() * output_row));
    // Where there is one window only, the stride can be anything.
    let (place, step) = (window.width * channels, stride.horizontal.min(width) * channels);
    kernels::vectorized(
        #[inline(always)]
        move || {
            for (image, sums) in images {
                for (y, sums) in sums.chunks_exact_mut(output_row).enumerate() {
                    let band = &image[y * stride.vertical * row.len()..];
                    // Whole rows first, in long loops; what is left is a window's width less.
                    let (first, others) = band[..window.height * row.len()].split_at(row.len());
                    row.copy_from_slice(first);
                    for other in others.chunks_exact(row.len()) {
                        for (sum, &value) in row.iter_mut().zip(other) {
                            *sum = add(*sum, value);
                        }
                    }
                    let starts = (0..).step_by(step);
                    for (start, sums) in starts.zip(sums.chunks_exact_mut(channels)) {
                        let pixels = &row[start..start + place];
                        for pixel in pixels.chunks_exact(channels) {
                            for (sum, &value) in sums.iter_mut().zip(pixel) {
                                *sum = add(*sum, value);
                            }
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
    use crate::geometry::{Stride, Window};
    use crate::ring::{Int32, Int64, Int100};
    use proptest::prelude::*;

    #[test]
    fn windows_are_summed_channel_by_channel() {
        let (window, stride) = (2.into(), 2.into());
        let pooling = Pooling { batch: 2, height: 2, width: 4, channels: 2, window, stride };
        let input: Vec<u64> = (0..32).collect();
        // Pixel (y, x) of image n holds 16n + 8y + 2x and one more in channel 1.
        let expected = [20, 24, 36, 40].map(|sum| sum as u64);
        let mut found = vec![0; pooling.output_len()];
        sum_windows(&input, pooling, |x, y| x + y, &mut [0; 8], &mut found);
        assert_eq!(found[..4], expected);
        assert_eq!(found[4..], expected.map(|sum| sum + 64));
    }

    /// The sums that define a pooling.
    fn slow_sums(input: &[i128], pooling: Pooling) -> Vec<i128> {
        let Pooling { batch, height, width, channels, window, stride } = pooling;
        let mut sums = Vec::new();
        for image in 0..batch {
            for top in (0..=height - window.height).step_by(stride.vertical) {
                for left in (0..=width - window.width).step_by(stride.horizontal) {
                    for channel in 0..channels {
                        let pixel =
                            |y, x| input[((image * height + y) * width + x) * channels + channel];
                        let rows = top..top + window.height;
                        let row = |y| (left..left + window.width).map(move |x| pixel(y, x));
                        sums.push(rows.flat_map(row).sum());
                    }
                }
            }
        }
        sums
    }

    fn agrees<R: Ring>(pooling: Pooling) {
        let Pooling { batch, height, width, channels, .. } = pooling;
        let input: Vec<i128> = (0..batch * height * width * channels)
            .map(|i| (i * 7919 % 4001) as i128 - 2000)
            .collect();
        let mut share = Share::<R>::zeros(input.len());
        R::from_integers(&input, &mut share.0);
        let sums = sum_pool(&share, pooling);
        assert_eq!(R::to_integers(&sums.0), slow_sums(&input, pooling), "{pooling:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        /// Windows that overlap, lie apart and leave a rest.
        #[test]
        fn windows_of_any_sides_and_stride(
            (batch, channels) in (1usize..4, 1usize..20),
            (high, wide) in (1usize..5, 1usize..5),
            (below, right) in (0usize..9, 0usize..9),
            (vertical, horizontal) in (1usize..7, 1usize..7),
        ) {
            let window = Window { height: high, width: wide };
            let stride = Stride { vertical, horizontal };
            let (height, width) = (high + below, wide + right);
            let pooling = Pooling { batch, height, width, channels, window, stride };
            agrees::<Int32>(pooling);
            agrees::<Int64>(pooling);
            agrees::<Int100>(pooling);
        }
    }

    #[test]
    fn a_single_window_has_any_stride() {
        for stride in [1, 3, usize::MAX] {
            let (window, stride) = (3.into(), stride.into());
            let pooling = Pooling { batch: 2, height: 3, width: 3, channels: 5, window, stride };
            agrees::<Int32>(pooling);
            agrees::<Int64>(pooling);
            agrees::<Int100>(pooling);
        }
    }
}
