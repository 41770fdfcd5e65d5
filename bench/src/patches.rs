//! Convolution as a matrix product: the patches under a filter, and their sum back.

/// Where a square filter is applied to images of `[height, width, channels]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patches {
    /// Height of the image, pixels.
    pub height: usize,
    /// Width of the image, pixels.
    pub width: usize,
    /// Channels of the image.
    pub channels: usize,
    /// Side of the filter, pixels; it must fit into the padded image.
    pub filter: usize,
    /// Distance between two applications, pixels; at least 1.
    pub stride: usize,
    /// Zeros added at each border, pixels.
    pub padding: usize,
}

impl Patches {
    /// Height and width of the convolution's output, pixels.
    #[must_use]
    pub fn output(&self) -> [usize; 2] {
        [self.height, self.width]
            .map(|side| (side + 2 * self.padding - self.filter) / self.stride + 1)
    }

    /// Values in one patch: `filter * filter * channels`.
    #[must_use]
    pub fn length(&self) -> usize {
        self.filter * self.filter * self.channels
    }

    /// The patches of `[n, height, width, channels]` images, one a row:
    /// `[n * output height * output width, filter * filter * channels]`.
    #[must_use]
    pub fn unfold(&self, images: &[f32]) -> Vec<f32> {
        let mut patches = vec![0.0; self.count(images.len()) * self.patch_values()];
        self.for_each_run(patches.len(), |patch, image, length| {
            patches[patch..patch + length].copy_from_slice(&images[image..image + length]);
        });
        patches
    }

    /// The transpose of [`Patches::unfold`]: adds each patch up where it came from.
    #[must_use]
    pub fn fold(&self, patches: &[f32]) -> Vec<f32> {
        let count = patches.len() / self.patch_values();
        let mut images = vec![0.0; count * self.image_values()];
        self.for_each_run(patches.len(), |patch, image, length| {
            let sums = &mut images[image..image + length];
            for (sum, value) in sums.iter_mut().zip(&patches[patch..patch + length]) {
                *sum += value;
            }
        });
        images
    }

    fn image_values(&self) -> usize {
        self.height * self.width * self.channels
    }

    fn patch_values(&self) -> usize {
        let [height, width] = self.output();
        height * width * self.length()
    }

    fn count(&self, values: usize) -> usize {
        values / self.image_values()
    }

    /// Calls `visit(place in the patches, place in the images, length)` for
    /// every run of values that lie side by side in both.
    fn for_each_run(&self, patches: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let [output_height, output_width] = self.output();
        let row = self.filter * self.channels;
        for image in 0..patches / self.patch_values() {
            for y in 0..output_height {
                for x in 0..output_width {
                    let patch = ((image * output_height + y) * output_width + x) * self.length();
                    // The columns of the filter that lie on the image, not on its padding.
                    let left = x * self.stride;
                    let skipped = self.padding.saturating_sub(left);
                    let end = self.filter.min(self.width + self.padding - left);
                    if skipped >= end {
                        continue;
                    }
                    for filter_y in 0..self.filter {
                        let padded_y = y * self.stride + filter_y;
                        if padded_y < self.padding || padded_y >= self.height + self.padding {
                            continue;
                        }
                        let image_y = image * self.height + padded_y - self.padding;
                        let image_x = left + skipped - self.padding;
                        visit(
                            patch + filter_y * row + skipped * self.channels,
                            (image_y * self.width + image_x) * self.channels,
                            (end - skipped) * self.channels,
                        );
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_rows_of_what_lies_under_the_filter() {
        let patches =
            Patches { height: 2, width: 3, channels: 1, filter: 2, stride: 1, padding: 0 };
        let unfolded = patches.unfold(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(unfolded, [1.0, 2.0, 4.0, 5.0, 2.0, 3.0, 5.0, 6.0]);
        assert_eq!(patches.fold(&unfolded), [1.0, 4.0, 3.0, 4.0, 10.0, 6.0]);
    }

    #[test]
    fn padding_is_zero() {
        let patches =
            Patches { height: 1, width: 1, channels: 2, filter: 3, stride: 2, padding: 1 };
        let mut expected = vec![0.0; 18];
        expected[8..10].copy_from_slice(&[7.0, 9.0]);
        assert_eq!(patches.unfold(&[7.0, 9.0]), expected);
    }

    #[test]
    fn fold_is_the_transpose_of_unfold() {
        let patches =
            Patches { height: 5, width: 4, channels: 2, filter: 3, stride: 2, padding: 1 };
        let images: Vec<f32> = (0..2 * 5 * 4 * 2).map(|i| (i * 7 % 11) as f32).collect();
        let unfolded = patches.unfold(&images);
        let others: Vec<f32> = (0..unfolded.len()).map(|i| (i * 5 % 13) as f32).collect();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        assert_eq!(dot(&unfolded, &others), dot(&images, &patches.fold(&others)));
    }
}
