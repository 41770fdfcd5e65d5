//! The dimensions of the linear operations and the index arithmetic that follows from them.
//!
//! Layouts are row-major and channels last: images `[batch, height, width,
//! channels]`, filters `[height, width, in, out]`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far apart neighbouring places of a filter or window are, pixels, at least 1.
///
/// Serialised as one number if both axes have the same, else as `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Axes", into = "Axes")]
pub struct Stride {
    /// From one row of places to the next.
    pub vertical: usize,
    /// From one place of a row to the next.
    pub horizontal: usize,
}

/// The sides of a window, pixels, at least 1.
///
/// Serialised as one number if it is square, else as `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Axes", into = "Axes")]
pub struct Window {
    /// Its height.
    pub height: usize,
    /// Its width.
    pub width: usize,
}

/// A number for both axes, or one for each.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of pixels, or [vertical, horizontal]")]
enum Axes {
    Both(usize),
    Each([usize; 2]),
}

impl From<Axes> for [usize; 2] {
    fn from(axes: Axes) -> Self {
        match axes {
            Axes::Both(pixels) => [pixels; 2],
            Axes::Each(pixels) => pixels,
        }
    }
}

impl From<[usize; 2]> for Axes {
    fn from(pixels: [usize; 2]) -> Self {
        if pixels[0] == pixels[1] { Self::Both(pixels[0]) } else { Self::Each(pixels) }
    }
}

/// The conversions and the text of two numbers, one for each axis: `2` or `2x3`.
macro_rules! of_axes {
    ($name:ident, $vertical:ident, $horizontal:ident) => {
        impl From<usize> for $name {
            /// The same along both axes.
            fn from(pixels: usize) -> Self {
                Self { $vertical: pixels, $horizontal: pixels }
            }
        }

        impl From<[usize; 2]> for $name {
            /// The vertical, then the horizontal one.
            fn from([$vertical, $horizontal]: [usize; 2]) -> Self {
                Self { $vertical, $horizontal }
            }
        }

        impl From<Axes> for $name {
            fn from(axes: Axes) -> Self {
                <[usize; 2]>::from(axes).into()
            }
        }

        impl From<$name> for Axes {
            fn from($name { $vertical, $horizontal }: $name) -> Self {
                [$vertical, $horizontal].into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match Axes::from(*self) {
                    Axes::Both(pixels) => write!(f, "{pixels}"),
                    Axes::Each([vertical, horizontal]) => write!(f, "{vertical}x{horizontal}"),
                }
            }
        }
    };
}

of_axes!(Stride, vertical, horizontal);
of_axes!(Window, height, width);

impl Window {
    /// Windows of these sides that are `stride` apart: they overlap, or leave pixels out,
    /// if it is smaller or larger than they are.
    #[must_use]
    pub fn every(self, stride: impl Into<Stride>) -> Windows {
        Windows { window: self, stride: stride.into() }
    }

    /// Pixels of a window; `usize::MAX` if there are more.
    #[must_use]
    pub fn area(&self) -> usize {
        self.height.saturating_mul(self.width)
    }
}

/// The windows of a pooling.
///
/// A number or `[height, width]` is windows next to each other, which neither overlap
/// nor leave anything between them; [`Window::every`] is any others. What is left at the
/// lower and right border, too small for another window, belongs to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// The sides of each.
    pub window: Window,
    /// How far apart they are.
    pub stride: Stride,
}

impl Windows {
    /// Windows that are `stride` apart, or next to each other.
    pub(crate) fn of(window: Window, stride: Option<Stride>) -> Self {
        stride.map_or_else(|| window.into(), |stride| window.every(stride))
    }
}

impl From<Window> for Windows {
    /// Next to each other.
    fn from(window: Window) -> Self {
        window.every([window.height, window.width])
    }
}

impl From<usize> for Windows {
    /// Squares next to each other.
    fn from(pixels: usize) -> Self {
        Window::from(pixels).into()
    }
}

impl From<[usize; 2]> for Windows {
    /// Of that height and width, next to each other.
    fn from(sides: [usize; 2]) -> Self {
        Window::from(sides).into()
    }
}

/// Zeros added around images, pixels.
///
/// Serialised as one number if all sides have the same, else as `[top, bottom, left,
/// right]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Borders", into = "Borders")]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

/// A number for all borders, or one for each.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of pixels, or [top, bottom, left, right]")]
enum Borders {
    All(usize),
    Each([usize; 4]),
}

impl From<Borders> for Padding {
    fn from(borders: Borders) -> Self {
        match borders {
            Borders::All(pixels) => pixels.into(),
            Borders::Each(pixels) => pixels.into(),
        }
    }
}

impl From<Padding> for Borders {
    fn from(Padding { top, bottom, left, right }: Padding) -> Self {
        if [bottom, left, right] == [top; 3] {
            Self::All(top)
        } else {
            Self::Each([top, bottom, left, right])
        }
    }
}

impl From<usize> for Padding {
    /// The same at all borders.
    fn from(pixels: usize) -> Self {
        [pixels; 4].into()
    }
}

impl From<[usize; 4]> for Padding {
    /// Top, bottom, left, right.
    fn from([top, bottom, left, right]: [usize; 4]) -> Self {
        Self { top, bottom, left, right }
    }
}

/// `1`, or `0,1,0,1` for top, bottom, left and right.
impl fmt::Display for Padding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Borders::from(*self) {
            Borders::All(pixels) => write!(f, "{pixels}"),
            Borders::Each([top, bottom, left, right]) => {
                write!(f, "{top},{bottom},{left},{right}")
            }
        }
    }
}

impl Padding {
    /// What TensorFlow calls `SAME`: as many outputs as images of `[height, width]` have
    /// pixels, divided by the stride and rounded up. The odd pixel of what filters of
    /// `[height, width]` need goes below and to the right.
    #[must_use]
    pub fn same(image: [usize; 2], filter: [usize; 2], stride: impl Into<Stride>) -> Self {
        let Stride { vertical, horizontal } = stride.into();
        let around = |pixels: usize, filter: usize, stride: usize| {
            // A stride of zero is refused where it is used.
            let places = pixels.div_ceil(stride.max(1));
            let covered = places.saturating_sub(1).saturating_mul(stride).saturating_add(filter);
            let missing = covered.saturating_sub(pixels);
            [missing / 2, missing - missing / 2]
        };
        let [top, bottom] = around(image[0], filter[0], vertical);
        let [left, right] = around(image[1], filter[1], horizontal);
        Self { top, bottom, left, right }
    }

    /// The `[height, width]` of padded images; `None` if nothing can be so large.
    pub(crate) fn around(&self, [height, width]: [usize; 2]) -> Option<[usize; 2]> {
        let Self { top, bottom, left, right } = *self;
        let along = |before: usize, pixels, after| before.checked_add(pixels)?.checked_add(after);
        Some([along(top, height, bottom)?, along(left, width, right)?])
    }
}

/// A product `[m, k] * [k, n] -> [m, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatMul {
    /// Rows of the left operand: the batch.
    pub m: usize,
    /// Inner dimension.
    pub k: usize,
    /// Columns of the right operand: the outputs.
    pub n: usize,
}

/// A convolution over a batch of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Number of images.
    pub batch: usize,
    /// Height of an image before padding, pixels.
    pub height: usize,
    /// Width of an image before padding, pixels.
    pub width: usize,
    /// Channels of the input.
    pub inputs: usize,
    /// Height of a filter, pixels.
    pub filter_height: usize,
    /// Width of a filter, pixels.
    pub filter_width: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// How far apart the places of the filter are.
    pub stride: Stride,
    /// Zeros added around each image.
    pub padding: Padding,
}

impl Convolution {
    /// Width of a padded image, pixels.
    #[must_use]
    pub fn padded_width(&self) -> usize {
        self.padding.left + self.width + self.padding.right
    }

    /// Height of a padded image, pixels.
    #[must_use]
    pub fn padded_height(&self) -> usize {
        self.padding.top + self.height + self.padding.bottom
    }

    /// Height of an output image, pixels.
    #[must_use]
    pub fn output_height(&self) -> usize {
        (self.padded_height() - self.filter_height) / self.stride.vertical + 1
    }

    /// Width of an output image, pixels.
    #[must_use]
    pub fn output_width(&self) -> usize {
        (self.padded_width() - self.filter_width) / self.stride.horizontal + 1
    }

    /// The product it comes down to: one row for each place of the filter.
    #[must_use]
    pub fn as_matmul(&self) -> MatMul {
        MatMul {
            m: self.batch * self.output_height() * self.output_width(),
            k: self.filter_height * self.filter_width * self.inputs,
            n: self.outputs,
        }
    }

    /// How a place of the filter reads the padded input: how many runs of elements,
    /// how far apart they start, and how long each is.
    #[must_use]
    pub fn segments(&self) -> (usize, usize, usize) {
        let pixels = self.filter_width * self.inputs;
        (self.filter_height, self.padded_width() * self.inputs, pixels)
    }

    /// Where in the padded input each place of the filter starts, in the order of the output.
    #[must_use]
    pub fn row_starts(&self) -> Vec<u32> {
        let row = self.padded_width() * self.inputs;
        let image = self.padded_height() * row;
        let Stride { vertical, horizontal } = self.stride;
        let mut starts = Vec::with_capacity(self.as_matmul().m);
        for n in 0..self.batch {
            for y in 0..self.output_height() {
                for x in 0..self.output_width() {
                    let start = n * image + y * vertical * row + x * horizontal * self.inputs;
                    starts.push(start as u32);
                }
            }
        }
        starts
    }

    /// Elements of the padded images.
    #[must_use]
    pub fn padded_len(&self) -> usize {
        self.batch * self.padded_height() * self.padded_width() * self.inputs
    }

    /// Copies the images of `input` into `padded`, which holds zeros. Any number of
    /// planes, each a whole batch, is padded alike.
    pub fn pad<E: Copy>(&self, input: &[E], padded: &mut [E]) {
        let row = self.width * self.inputs;
        let padded_row = self.padded_width() * self.inputs;
        for (index, pixels) in input.chunks_exact(row).enumerate() {
            let (image, y) = (index / self.height, index % self.height);
            let start = (image * self.padded_height() + self.padding.top + y) * padded_row
                + self.padding.left * self.inputs;
            padded[start..start + row].copy_from_slice(pixels);
        }
    }
}

/// Sums over windows of a batch of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// Number of images.
    pub batch: usize,
    /// Height of an image, pixels; at least the windows'.
    pub height: usize,
    /// Width of an image, pixels; at least the windows'.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// The sides of a window.
    pub window: Window,
    /// How far apart windows are.
    pub stride: Stride,
}

impl Pooling {
    /// Height of an output image, pixels.
    #[must_use]
    pub fn output_height(&self) -> usize {
        (self.height - self.window.height) / self.stride.vertical + 1
    }

    /// Width of an output image, pixels.
    #[must_use]
    pub fn output_width(&self) -> usize {
        (self.width - self.window.width) / self.stride.horizontal + 1
    }

    /// Elements of the output.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.batch * self.output_height() * self.output_width() * self.channels
    }
}

/// How a linear layer multiplies its input with its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linear {
    /// A dense layer.
    MatMul(MatMul),
    /// A convolution.
    Conv2d(Convolution),
}

impl Linear {
    /// The matrix product it comes down to.
    #[must_use]
    pub fn as_matmul(&self) -> MatMul {
        match self {
            Self::MatMul(dimensions) => *dimensions,
            Self::Conv2d(dimensions) => dimensions.as_matmul(),
        }
    }

    /// Elements of the input.
    #[must_use]
    pub fn input_len(&self) -> usize {
        match self {
            Self::MatMul(MatMul { m, k, .. }) => m * k,
            Self::Conv2d(c) => c.batch * c.height * c.width * c.inputs,
        }
    }

    /// Elements of the output.
    #[must_use]
    pub fn output_len(&self) -> usize {
        let MatMul { m, n, .. } = self.as_matmul();
        m * n
    }
}

/// A selection of a tensor's elements by strides, as in NumPy: transposed, sliced or
/// repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The first element.
    pub offset: usize,
    /// Length and stride of each axis of the result, outermost first.
    pub axes: Vec<(usize, usize)>,
}

impl View {
    /// All elements of a row-major tensor of `shape`.
    #[must_use]
    pub fn of(shape: &[usize]) -> Self {
        let mut axes = vec![(0, 0); shape.len()];
        let mut stride = 1;
        for (axis, &side) in axes.iter_mut().zip(shape).rev() {
            *axis = (side, stride);
            stride *= side;
        }
        Self { offset: 0, axes }
    }

    /// Elements of the result.
    #[must_use]
    pub fn len(&self) -> usize {
        self.axes.iter().map(|(length, _)| length).product()
    }

    /// Whether it selects nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the selected elements of `input` to `out`, which has as many.
    pub fn read<E: Copy>(&self, input: &[E], out: &mut [E]) {
        Self::read_axes(&self.axes, input, self.offset, out);
    }

    fn read_axes<E: Copy>(axes: &[(usize, usize)], input: &[E], offset: usize, out: &mut [E]) {
        match axes {
            [] => out[0] = input[offset],
            &[(length, 1)] => out.copy_from_slice(&input[offset..offset + length]),
            &[(_, stride)] => {
                for (index, out) in out.iter_mut().enumerate() {
                    *out = input[offset + index * stride];
                }
            }
            &[(length, stride), ref inner @ ..] => {
                let block = out.len() / length;
                for (index, out) in out.chunks_exact_mut(block).enumerate() {
                    Self::read_axes(inner, input, offset + index * stride, out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_puts_zeros_around_each_image() {
        let convolution = Convolution {
            batch: 2,
            height: 2,
            width: 1,
            inputs: 2,
            filter_height: 3,
            filter_width: 3,
            outputs: 1,
            stride: 1.into(),
            padding: 1.into(),
        };
        let mut padded = vec![0; convolution.padded_len()];
        convolution.pad(&[1, 2, 3, 4, 5, 6, 7, 8], &mut padded);
        let image = |a, b, c, d| {
            [[0, 0, 0, 0, 0, 0], [0, 0, a, b, 0, 0], [0, 0, c, d, 0, 0], [0, 0, 0, 0, 0, 0]]
                .concat()
        };
        assert_eq!(padded, [image(1, 2, 3, 4), image(5, 6, 7, 8)].concat());
    }

    #[test]
    fn filters_start_where_stride_and_padding_say() {
        let convolution = Convolution {
            batch: 2,
            height: 3,
            width: 3,
            inputs: 2,
            filter_height: 3,
            filter_width: 3,
            outputs: 4,
            stride: 2.into(),
            padding: 1.into(),
        };
        assert_eq!((convolution.output_height(), convolution.output_width()), (2, 2));
        // Padded rows are 5 pixels of 2 channels, images 5 rows.
        assert_eq!(convolution.row_starts(), [0, 4, 20, 24, 50, 54, 70, 74]);
        assert_eq!(convolution.as_matmul(), MatMul { m: 8, k: 18, n: 4 });
    }

    #[test]
    fn each_axis_has_its_stride_and_each_border_its_padding() {
        let convolution = Convolution {
            batch: 2,
            height: 2,
            width: 3,
            inputs: 1,
            filter_height: 2,
            filter_width: 1,
            outputs: 1,
            stride: [2, 3].into(),
            padding: [0, 1, 2, 3].into(),
        };
        assert_eq!((convolution.padded_height(), convolution.padded_width()), (3, 8));
        assert_eq!((convolution.output_height(), convolution.output_width()), (1, 3));
        assert_eq!(convolution.row_starts(), [0, 3, 6, 24, 27, 30]);
        let mut padded = vec![0; convolution.padded_len()];
        convolution.pad(&(1..=12).collect::<Vec<_>>(), &mut padded);
        let image = |[a, b, c, d, e, f]: [i32; 6]| {
            [[0, 0, a, b, c, 0, 0, 0], [0, 0, d, e, f, 0, 0, 0], [0; 8]].concat()
        };
        let expected = [image([1, 2, 3, 4, 5, 6]), image([7, 8, 9, 10, 11, 12])].concat();
        assert_eq!(padded, expected);
    }

    /// What TensorFlow 2 pads: sides, filter and stride of one axis, before and after.
    #[test]
    fn same_padding_is_tensorflows() {
        let cases = [
            (5, 3, 1, [1, 1]),
            (5, 2, 1, [0, 1]),
            (5, 4, 1, [1, 2]),
            (6, 3, 2, [0, 1]),
            (7, 3, 2, [1, 1]),
            (28, 5, 2, [1, 2]),
            (224, 7, 2, [2, 3]),
            (10, 3, 4, [0, 1]),
            // Filters that lie apart need none.
            (4, 1, 2, [0, 0]),
            (9, 2, 5, [0, 0]),
        ];
        for (pixels, filter, stride, [before, after]) in cases {
            let padding = Padding::same([pixels, 1], [filter, 1], stride);
            let vertical = Padding { top: before, bottom: after, ..Padding::default() };
            assert_eq!(padding, vertical, "{pixels} {filter} {stride}");
            let padding = Padding::same([1, pixels], [1, filter], [1, stride]);
            let horizontal = Padding { left: before, right: after, ..Padding::default() };
            assert_eq!(padding, horizontal, "{pixels} {filter} {stride}");
            assert_eq!((before + pixels + after - filter) / stride + 1, pixels.div_ceil(stride));
        }
        assert_eq!(Padding::same([3, 3], [3, 3], 0), Padding::default());
        let largest = Padding::same([1, usize::MAX], [usize::MAX, 1], usize::MAX);
        assert_eq!(largest, [usize::MAX / 2, usize::MAX / 2, 0, 0].into());
    }

    #[test]
    fn what_is_alike_is_written_as_one_number() {
        fn check<T>(value: T, json: &str, text: &str)
        where
            T: Serialize + for<'de> Deserialize<'de> + fmt::Debug + fmt::Display + PartialEq,
        {
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
            assert_eq!(serde_json::from_str::<T>(json).unwrap(), value);
            assert_eq!(value.to_string(), text);
        }
        check(Stride::from(2), "2", "2");
        check(Stride::from([2, 1]), "[2,1]", "2x1");
        check(Window::from([3, 3]), "3", "3");
        check(Window::from([3, 4]), "[3,4]", "3x4");
        check(Padding::from([1; 4]), "1", "1");
        check(Padding::from([0, 1, 0, 1]), "[0,1,0,1]", "0,1,0,1");
        // The longer form means the same.
        assert_eq!(serde_json::from_str::<Stride>("[2,2]").unwrap(), 2.into());
        assert_eq!(serde_json::from_str::<Padding>("[1,1,1,1]").unwrap(), 1.into());

        for text in ["-1", "1.5", "[1]", "[1,2,3]", "\"1\"", "null"] {
            let axes = serde_json::from_str::<Stride>(text).unwrap_err().to_string();
            assert!(axes.contains("a number of pixels, or [vertical, horizontal]"), "{axes}");
            let borders = serde_json::from_str::<Padding>(text).unwrap_err().to_string();
            assert!(borders.contains("or [top, bottom, left, right]"), "{borders}");
        }
    }
}
