//! The dimensions of the linear operations and the index arithmetic that follows from them.
//!
//! Layouts are row-major and channels last: images `[batch, height, width,
//! channels]`, filters `[height, width, in, out]`.

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
    /// Distance between two applications of the filter, pixels.
    pub stride: usize,
    /// Zeros added at each border, pixels.
    pub padding: usize,
}

impl Convolution {
    /// Width of a padded image, pixels.
    #[must_use]
    pub fn padded_width(&self) -> usize {
        self.width + 2 * self.padding
    }

    /// Height of a padded image, pixels.
    #[must_use]
    pub fn padded_height(&self) -> usize {
        self.height + 2 * self.padding
    }

    /// Height of an output image, pixels.
    #[must_use]
    pub fn output_height(&self) -> usize {
        (self.padded_height() - self.filter_height) / self.stride + 1
    }

    /// Width of an output image, pixels.
    #[must_use]
    pub fn output_width(&self) -> usize {
        (self.padded_width() - self.filter_width) / self.stride + 1
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
        let mut starts = Vec::with_capacity(self.as_matmul().m);
        for n in 0..self.batch {
            for y in 0..self.output_height() {
                for x in 0..self.output_width() {
                    let start = n * image + y * self.stride * row + x * self.stride * self.inputs;
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
            let start = (image * self.padded_height() + y + self.padding) * padded_row
                + self.padding * self.inputs;
            padded[start..start + row].copy_from_slice(pixels);
        }
    }
}

/// Sums over disjoint square windows of a batch of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// Number of images.
    pub batch: usize,
    /// Height of an image, pixels; a multiple of the window.
    pub height: usize,
    /// Width of an image, pixels; a multiple of the window.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// Side of the window, pixels.
    pub window: usize,
}

impl Pooling {
    /// Elements of the output.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.batch * (self.height / self.window) * (self.width / self.window) * self.channels
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
            stride: 1,
            padding: 1,
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
            stride: 2,
            padding: 1,
        };
        assert_eq!((convolution.output_height(), convolution.output_width()), (2, 2));
        // Padded rows are 5 pixels of 2 channels, images 5 rows.
        assert_eq!(convolution.row_starts(), [0, 4, 20, 24, 50, 54, 70, 74]);
        assert_eq!(convolution.as_matmul(), MatMul { m: 8, k: 18, n: 4 });
    }
}
