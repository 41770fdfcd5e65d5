//! The operations on plaintext.

use ndarray::linalg::general_mat_mul;
use ndarray::{
    ArrayD, ArrayView2, ArrayViewD, ArrayViewMut2, Axis, ErrorKind, Ix2, ShapeError, Slice, Zip,
    concatenate,
};
use zeroize::Zeroizing;

use super::function::{Function, argmax, leaky_relu, maximum, relu, softmax, step};
use super::op::Op;
use super::tensor::Plaintext;
use crate::geometry::{Padding, Places, Stride, Windows};

/// Elements of images that a convolution gathers before it multiplies them.
const PATCHES: usize = 1 << 20;

/// The result of an operation, of `shape`, from operands that are row-major.
pub(super) fn compute(
    op: &Op,
    shape: &[usize],
    operands: &[ArrayViewD<'_, f64>],
) -> Result<Plaintext, ShapeError> {
    let array = match (op, operands) {
        (Op::Share { .. } | Op::Reveal { .. } | Op::Output { .. }, [x]) => x.to_owned(),
        (Op::Add { .. }, [x, y]) => element_wise(shape, x, y, |x, y| x + y)?,
        (Op::Sub { .. }, [x, y]) => element_wise(shape, x, y, |x, y| x - y)?,
        (Op::Mul { .. }, [x, y]) => element_wise(shape, x, y, |x, y| x * y)?,
        (Op::Neg { .. }, [x]) => x.mapv(|x| -x),
        (Op::Square { .. }, [x]) => x.mapv(|x| x * x),
        (Op::Relu { .. }, [x]) => x.mapv(relu),
        (Op::Maximum { .. }, [x, y]) => element_wise(shape, x, y, maximum)?,
        (Op::Minimum { .. }, [x, y]) => element_wise(shape, x, y, |x, y| -maximum(-x, -y))?,
        (Op::Abs { .. }, [x]) => x.mapv(f64::abs),
        (Op::Clip { low, high, .. }, [x]) => {
            let above = |x| low.map_or(x, |low| maximum(x, low));
            x.mapv(|x| high.map_or(above(x), |high| -maximum(-above(x), -high)))
        }
        (Op::LeakyRelu { slope, .. }, [x]) => x.mapv(|x| leaky_relu(x, *slope)),
        (Op::Prelu { .. }, [x, slopes]) => element_wise(shape, x, slopes, leaky_relu)?,
        (Op::Step { threshold, .. }, [x]) => x.mapv(|x| step(x, *threshold)),
        (Op::Piecewise { piecewise, .. }, [x]) => x.mapv(|x| piecewise.evaluate(x)),
        (Op::Activation { activation, .. }, [x]) => x.mapv(|x| activation.evaluate(x)),
        (Op::Polynomial { polynomial, .. }, [x]) => x.mapv(|x| polynomial.evaluate(x)),
        (Op::MatMul { .. }, [x, y]) => {
            let (x, y) = (x.view(), y.view());
            x.into_dimensionality::<Ix2>()?.dot(&y.into_dimensionality::<Ix2>()?).into_dyn()
        }
        (Op::Conv2d { stride, padding, .. }, [x, filter]) => {
            conv2d(x, filter, *stride, *padding, shape)?
        }
        (Op::SumPool { window, stride, .. }, [x]) => {
            let Windows { window, stride } = Windows::of(*window, *stride);
            let mut sums = ArrayD::zeros(shape);
            // The same place of every window of an axis.
            let every = |start: usize, stride: usize, axis: usize| {
                // Where there is one window only, the stride can be anything.
                let stride = stride.min(x.shape()[axis]);
                let end = start + (shape[axis] - 1) * stride + 1;
                Slice::new(start as isize, Some(end as isize), stride as isize)
            };
            for row in 0..window.height {
                for column in 0..window.width {
                    let mut part = x.view();
                    part.slice_axis_inplace(Axis(1), every(row, stride.vertical, 1));
                    part.slice_axis_inplace(Axis(2), every(column, stride.horizontal, 2));
                    sums += &part;
                }
            }
            sums
        }
        (Op::MaxPool { window, stride, padding, .. }, [x]) => {
            let (&[batch, height, width, channels], Some(pixels)) = (x.shape(), x.as_slice())
            else {
                return Err(ShapeError::from_kind(ErrorKind::IncompatibleShape));
            };
            let Windows { window, stride } = Windows::of(*window, *stride);
            let padding = *padding;
            let places = Places { batch, height, width, channels, window, stride, padding };
            let mut largest = vec![f64::NEG_INFINITY; places.place_len()];
            let mut next = 0;
            places.runs(|run| {
                for (largest, x) in largest[next..].iter_mut().zip(&pixels[run]) {
                    *largest = maximum(*largest, *x);
                }
                next = (next + channels) % places.place_len();
            });
            ArrayD::from_shape_vec(shape, largest)?
        }
        (Op::ArgMax { .. } | Op::OneHotArgMax { .. }, [x]) => {
            let side = x.shape().last().copied().unwrap_or(1);
            let rows = x.as_slice().unwrap_or_default().chunks_exact(side);
            let places = rows.map(argmax);
            let results = match op {
                Op::ArgMax { .. } => places.collect(),
                _ => {
                    let mut ones = vec![0.0; x.len()];
                    for (row, place) in ones.chunks_exact_mut(side).zip(places) {
                        row[place as usize] = 1.0;
                    }
                    ones
                }
            };
            ArrayD::from_shape_vec(shape, results)?
        }
        (Op::Reshape { .. }, [x]) => x.to_shape(shape)?.into_owned(),
        (Op::Transpose { axes, .. }, [x]) => x.view().permuted_axes(axes.as_slice()).to_owned(),
        (Op::Concat { axis, .. }, operands) => concatenate(Axis(*axis), operands)?,
        (Op::Slice { ranges, .. }, [x]) => {
            let mut part = x.view();
            for (axis, &(start, end, step)) in ranges.iter().enumerate() {
                // A step beyond the axis takes one element, however far it is.
                let step = step.min(x.shape()[axis]);
                let range = Slice::new(start as isize, Some(end as isize), step as isize);
                part.slice_axis_inplace(Axis(axis), range);
            }
            part.to_owned()
        }
        (Op::Expand { .. }, [x]) => broadcast(x, shape)?.to_owned(),
        (Op::ReduceSum { axes, .. }, [x]) => {
            // The last axis first: those before it keep their numbers.
            let mut sums = Plaintext::from(x.to_owned());
            for axis in axes.iter().rev() {
                sums = Plaintext::from(sums.as_array().sum_axis(Axis(*axis)));
            }
            return Ok(sums);
        }
        (Op::Function { function, .. }, [x]) => match function.of_elements() {
            Some(function) => x.mapv(function),
            None => {
                let side = x.shape().last().copied().unwrap_or(1);
                let values = x.as_slice().unwrap_or_default().chunks_exact(side);
                let results = match function {
                    Function::ArgMax => values.map(argmax).collect(),
                    _ => softmax(values, x.len()),
                };
                ArrayD::from_shape_vec(shape, results)?
            }
        },
        _ => return Err(ShapeError::from_kind(ErrorKind::Unsupported)),
    };
    Ok(Plaintext::from(array))
}

fn broadcast<'a>(
    x: &'a ArrayViewD<'_, f64>,
    shape: &[usize],
) -> Result<ArrayViewD<'a, f64>, ShapeError> {
    x.broadcast(shape).ok_or(ShapeError::from_kind(ErrorKind::IncompatibleShape))
}

fn element_wise(
    shape: &[usize],
    x: &ArrayViewD<'_, f64>,
    y: &ArrayViewD<'_, f64>,
    function: impl Fn(f64, f64) -> f64,
) -> Result<ArrayD<f64>, ShapeError> {
    let (x, y) = (broadcast(x, shape)?, broadcast(y, shape)?);
    Ok(Zip::from(&x).and(&y).map_collect(|x, y| function(*x, *y)))
}

/// Images `[batch, height, width, in]` with filters `[height, width, in, out]`, both
/// row-major: the patches that filters are applied to become the rows of a matrix.
fn conv2d(
    images: &ArrayViewD<'_, f64>,
    filter: &ArrayViewD<'_, f64>,
    stride: Stride,
    padding: Padding,
    shape: &[usize],
) -> Result<ArrayD<f64>, ShapeError> {
    let (
        &[_, height, width, channels],
        &[rows, columns, _, outputs],
        &[batch, high, wide, _],
        Some(pixels),
    ) = (images.shape(), filter.shape(), shape, images.as_slice())
    else {
        return Err(ShapeError::from_kind(ErrorKind::IncompatibleShape));
    };
    let row = columns * channels;
    let patch = rows * row;
    let filter = filter.to_shape((patch, outputs))?;
    let Padding { top: above, left: before, .. } = padding;
    let places = batch * high * wide;
    let at_once = (PATCHES / patch).clamp(1, places);
    let mut patches = Zeroizing::new(vec![0.0; at_once * patch]);
    let mut results = vec![0.0; places * outputs];
    for (block, results) in results.chunks_mut(at_once * outputs).enumerate() {
        let count = results.len() / outputs;
        let patches = &mut patches[..count * patch];
        for (place, patch) in (block * at_once..).zip(patches.chunks_exact_mut(patch)) {
            let (image, y, x) = (place / (high * wide), place / wide % high, place % wide);
            // Coordinates in the padded image, and the columns that are not padding.
            let (top, left) = (y * stride.vertical, x * stride.horizontal);
            let first = before.saturating_sub(left).min(columns);
            let last = (before + width).saturating_sub(left).clamp(first, columns);
            patch.fill(0.0);
            for (y, target) in (top..).zip(patch.chunks_exact_mut(row)) {
                if first < last && (above..above + height).contains(&y) {
                    let source = (image * height + y - above) * width + left + first - before;
                    let source = &pixels[source * channels..][..(last - first) * channels];
                    target[first * channels..last * channels].copy_from_slice(source);
                }
            }
        }
        let patches = ArrayView2::from_shape((count, patch), patches)?;
        let mut results = ArrayViewMut2::from_shape((count, outputs), results)?;
        general_mat_mul(1.0, &patches, &filter, 0.0, &mut results);
    }
    ArrayD::from_shape_vec(shape, results)
}
