//! The places of windows over padded images.

use std::fmt;
use std::ops::Range;

use super::{Padding, Stride, View, Window};

/// The places of windows over images `[batch, height, width, channels]` with padding, which has no
/// values: where a window reaches into it, its nearest pixel of the image is there again. So no
/// side of the padding is as long as the windows'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Number of images.
    pub batch: usize,
    /// Height of an image without padding, pixels.
    pub height: usize,
    /// Width of an image without padding, pixels.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// The sides of a window, at most those of the padded images.
    pub window: Window,
    /// How far apart windows are.
    pub stride: Stride,
    /// What lies around each image.
    pub padding: Padding,
}

impl Places {
    /// How many windows there are in a column and in a row.
    #[must_use]
    pub fn windows(&self) -> [usize; 2] {
        let Self { height, width, window, stride, padding, .. } = self;
        let Padding { top, bottom, left, right } = padding;
        let along = |pixels: usize, window, stride| (pixels - window) / stride + 1;
        [
            along(top + height + bottom, window.height, stride.vertical),
            along(left + width + right, window.width, stride.horizontal),
        ]
    }

    /// Values at one place of all windows.
    #[must_use]
    pub fn place_len(&self) -> usize {
        self.batch * self.windows().iter().product::<usize>() * self.channels
    }

    /// Values at all places.
    #[must_use]
    pub fn len(&self) -> usize {
        self.window.area() * self.place_len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no pixel is in two places.
    #[must_use]
    pub fn are_apart(&self) -> bool {
        let [rows, columns] = self.windows();
        let Self { window, stride, padding, .. } = self;
        padding.is_none()
            && (rows == 1 || stride.vertical >= window.height)
            && (columns == 1 || stride.horizontal >= window.width)
    }

    /// The same elements as [`Places::runs`] where no pixel is in two places.
    #[must_use]
    pub fn view(&self) -> View {
        let Self { batch, height, width, channels, window, stride, .. } = *self;
        let [rows, columns] = self.windows();
        let row = width * channels;
        let axes = vec![
            (window.height, row),
            (window.width, channels),
            (batch, height * row),
            // A single window may have any stride.
            (rows, stride.vertical.min(height) * row),
            (columns, stride.horizontal.min(width) * channels),
            (channels, 1),
        ];
        View { offset: 0, axes }
    }

    /// Hands `take` the numbers of the images' elements, channel by channel, at the first place of
    /// all windows, then at the second, and so on: `[place, batch, rows, columns, channels]`.
    pub fn runs(&self, mut take: impl FnMut(Range<usize>)) {
        let Self { batch, height, width, channels, window, stride, padding } = *self;
        let [rows, columns] = self.windows();
        // A single window may have any stride.
        let at = |window: usize, stride: usize, place: usize, before: usize, pixels: usize| {
            (window * stride + place).saturating_sub(before).min(pixels - 1)
        };
        for place in 0..window.area() {
            let (down, right) = (place / window.width, place % window.width);
            for image in 0..batch {
                for row in 0..rows {
                    let y = at(row, stride.vertical, down, padding.top, height);
                    for column in 0..columns {
                        let x = at(column, stride.horizontal, right, padding.left, width);
                        let first = ((image * height + y) * width + x) * channels;
                        take(first..first + channels);
                    }
                }
            }
        }
    }
}

/// `8x12x12x16 window 3 stride 2 padding 1`, the stride of more than one window and the padding if
/// there is any.
impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batch, height, width, channels, window, stride, padding } = self;
        write!(f, "{batch}x{height}x{width}x{channels} window {window} stride {stride}")?;
        if !padding.is_none() {
            write!(f, " padding {padding}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(places: &Places) -> Vec<usize> {
        let mut found = Vec::new();
        places.runs(|run| found.extend(run));
        assert_eq!(found.len(), places.len());
        found
    }

    #[test]
    fn windows_reach_into_padding_and_find_their_own_pixels() {
        for (window, stride, padding) in [
            ([2, 2], [2, 2], [0; 4]),
            ([3, 3], [2, 2], [1; 4]),
            ([2, 3], [1, 2], [1, 0, 2, 1]),
            ([5, 4], [3, 1], [4, 4, 3, 0]),
            ([1, 2], [3, usize::MAX], [0; 4]),
        ] {
            let (window, stride) = (Window::from(window), Stride::from(stride));
            let padding = Padding::from(padding);
            let (batch, height, width, channels) = (2, 4, 5, 3);
            let places = Places { batch, height, width, channels, window, stride, padding };
            let [rows, columns] = places.windows();
            let found = runs(&places);
            let mut next = found.iter();
            let mut all = vec![Vec::new(); batch * rows * columns];
            for _ in 0..window.area() {
                for pixels in &mut all {
                    let pixel = next.next().unwrap();
                    assert!(pixel.is_multiple_of(channels));
                    assert!((1..channels).all(|more| next.next() == Some(&(pixel + more))));
                    pixels.push(pixel / channels);
                }
            }
            for (index, pixels) in all.iter_mut().enumerate() {
                let (image, row, column) =
                    (index / (rows * columns), index / columns % rows, index % columns);
                let inside = |first: usize, before: usize, side: usize, pixels: usize| {
                    let from = first.saturating_sub(before);
                    from..(first + side).saturating_sub(before).min(pixels)
                };
                let ys = inside(row * stride.vertical, padding.top, window.height, height);
                let xs = inside(
                    column.saturating_mul(stride.horizontal),
                    padding.left,
                    window.width,
                    width,
                );
                let pixel = |y, x| (image * height + y) * width + x;
                let expected: Vec<usize> =
                    ys.flat_map(|y| xs.clone().map(move |x| pixel(y, x))).collect();
                assert!(!expected.is_empty());
                pixels.sort_unstable();
                pixels.dedup();
                assert_eq!(*pixels, expected, "{places}");
            }
            let mut sorted = found.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(places.are_apart(), sorted.len() == found.len(), "{places}");
            if places.are_apart() {
                let elements: Vec<usize> = (0..batch * height * width * channels).collect();
                let mut viewed = vec![0; places.len()];
                places.view().read(&elements, &mut viewed);
                assert_eq!(viewed, found, "{places}");
            }
        }
    }
}
