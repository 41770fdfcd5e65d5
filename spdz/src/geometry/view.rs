//! Selections of a tensor's elements.

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
