//! Products, convolutions and pooling: their dimensions, and where they read.

use super::windows::{Padding, Stride, Window};

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
