//! Tensor operations of the training that candle lacks or runs slowly on a CPU.
//!
//! Tensors are `f32` on the CPU and channels last, as everywhere in this
//! project, which lets a convolution be one matrix product over its patches.

use std::collections::BTreeMap;

use candle_core::{
    CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Storage, Tensor, WithDType, bail,
};
use spdz::network::BATCH_NORM_EPSILON;
use spdz::polynomial::Polynomial;

use crate::patches::Patches;

/// The values of a contiguous `f32` tensor on the CPU.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("expected a contiguous tensor, found {layout:?}");
    };
    Ok(&f32::cpu_storage_as_slice(storage)?[start..end])
}

/// Calls `read` with the values of a tensor.
pub(super) fn read<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => read(values(storage, layout)?),
        _ => bail!("expected a tensor on the CPU"),
    }
}

/// The patches of `[n, height, width, channels]` images as rows.
pub(super) struct Unfold(pub(super) Patches);

impl CustomOp1 for Unfold {
    fn name(&self) -> &'static str {
        "unfold"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let patches = self.0.unfold(values(storage, layout)?);
        let shape = (patches.len() / self.0.length(), self.0.length());
        Ok((CpuStorage::F32(patches), shape.into()))
    }

    fn bwd(&self, images: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let folded = read(gradient, |patches| Ok(self.0.fold(patches)))?;
        Tensor::from_vec(folded, images.shape(), images.device()).map(Some)
    }
}

/// A matrix of data times the weights it is applied to.
///
/// Unlike candle's product it spends nothing on a gradient for the data, which
/// in a first layer is as large as all the patches of a batch.
pub(super) struct DataTimes(pub(super) Tensor);

impl CustomOp1 for DataTimes {
    fn name(&self) -> &'static str {
        "data-times"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let weights = values(storage, layout)?;
        let weights = Tensor::from_slice(weights, layout.shape(), self.0.device())?;
        let product = self.0.matmul(&weights)?;
        let values = read(&product, |values| Ok(values.to_vec()))?;
        Ok((CpuStorage::F32(values), product.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        self.0.t()?.matmul(gradient).map(Some)
    }
}

/// Calls `visit(pixel of the image, pixel of the output)` for each pixel of `n` images, whose
/// disjoint square windows are a pixel each of the output.
fn for_each_pixel(
    (n, height, width): (usize, usize, usize),
    window: usize,
    mut visit: impl FnMut(usize, usize),
) {
    for row in 0..n * height {
        for column in 0..width {
            visit(row * width + column, row / window * (width / window) + column / window);
        }
    }
}

/// Averages over disjoint square windows of `[n, height, width, channels]` images.
pub(super) struct AveragePool {
    /// Side of the window, pixels; it divides the image.
    pub(super) window: usize,
}

impl CustomOp1 for AveragePool {
    fn name(&self) -> &'static str {
        "average-pool"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, height, width, channels) = layout.shape().dims4()?;
        let shape = (n, height / self.window, width / self.window, channels);
        let images = values(storage, layout)?;
        let factor = 1.0 / (self.window * self.window) as f32;
        let mut means = vec![0.0; images.len() / (self.window * self.window)];
        for_each_pixel((n, height, width), self.window, |pixel, output| {
            let mean = &mut means[output * channels..][..channels];
            for (mean, value) in mean.iter_mut().zip(&images[pixel * channels..]) {
                *mean += factor * value;
            }
        });
        Ok((CpuStorage::F32(means), shape.into()))
    }

    fn bwd(&self, images: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (n, height, width, channels) = images.dims4()?;
        let factor = 1.0 / (self.window * self.window) as f32;
        let mut spread = vec![0.0; images.elem_count()];
        read(gradient, |gradient| {
            for_each_pixel((n, height, width), self.window, |pixel, output| {
                let spread = &mut spread[pixel * channels..][..channels];
                for (spread, value) in spread.iter_mut().zip(&gradient[output * channels..]) {
                    *spread = factor * value;
                }
            });
            Ok(())
        })?;
        Tensor::from_vec(spread, images.shape(), images.device()).map(Some)
    }
}

/// The largest values of disjoint square windows of `[n, height, width, channels]` images. The
/// gradient goes to the first of them.
pub(super) struct MaxPool {
    /// Side of the window, pixels; it divides the image.
    pub(super) window: usize,
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, height, width, channels) = layout.shape().dims4()?;
        let shape = (n, height / self.window, width / self.window, channels);
        let images = values(storage, layout)?;
        let mut largest = vec![f32::NEG_INFINITY; images.len() / (self.window * self.window)];
        for_each_pixel((n, height, width), self.window, |pixel, output| {
            let largest = &mut largest[output * channels..][..channels];
            for (largest, value) in largest.iter_mut().zip(&images[pixel * channels..]) {
                *largest = largest.max(*value);
            }
        });
        Ok((CpuStorage::F32(largest), shape.into()))
    }

    fn bwd(&self, images: &Tensor, largest: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (n, height, width, channels) = images.dims4()?;
        let mut spread = vec![0.0; images.elem_count()];
        // What is left to give: nothing once the first of the largest has it.
        let mut left = read(gradient, |gradient| Ok(gradient.to_vec()))?;
        read(images, |images| {
            read(largest, |largest| {
                for_each_pixel((n, height, width), self.window, |pixel, output| {
                    let pixel = pixel * channels..(pixel + 1) * channels;
                    let output = output * channels..(output + 1) * channels;
                    for (((spread, value), largest), left) in spread[pixel.clone()]
                        .iter_mut()
                        .zip(&images[pixel])
                        .zip(&largest[output.clone()])
                        .zip(&mut left[output])
                    {
                        if value == largest {
                            *spread = std::mem::take(left);
                        }
                    }
                });
                Ok(())
            })
        })?;
        Tensor::from_vec(spread, images.shape(), images.device()).map(Some)
    }
}

/// A polynomial applied to each element.
pub(super) struct Activation {
    coefficients: Vec<f32>,
    derivative: Vec<f32>,
}

impl From<&Polynomial> for Activation {
    fn from(polynomial: &Polynomial) -> Self {
        let coefficients: Vec<f32> = polynomial.coefficients.iter().map(|&c| c as f32).collect();
        let derivative = coefficients
            .iter()
            .enumerate()
            .skip(1)
            .map(|(power, coefficient)| power as f32 * coefficient)
            .collect();
        Self { coefficients, derivative }
    }
}

/// `sum_j coefficients[j] * x^j` for each `x`.
fn evaluate(coefficients: &[f32], inputs: &[f32]) -> Vec<f32> {
    // Powers outside, elements inside, so that the elements are vectorised.
    const BLOCK: usize = 256;
    let mut outputs = vec![0.0f32; inputs.len()];
    for (outputs, inputs) in outputs.chunks_mut(BLOCK).zip(inputs.chunks(BLOCK)) {
        for &coefficient in coefficients.iter().rev() {
            for (output, input) in outputs.iter_mut().zip(inputs) {
                *output = *output * input + coefficient;
            }
        }
    }
    outputs
}

impl CustomOp1 for Activation {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let outputs = evaluate(&self.coefficients, values(storage, layout)?);
        Ok((CpuStorage::F32(outputs), layout.shape().clone()))
    }

    fn bwd(&self, inputs: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let mut result = read(inputs, |inputs| Ok(evaluate(&self.derivative, inputs)))?;
        read(gradient, |gradient| {
            for (result, gradient) in result.iter_mut().zip(gradient) {
                *result *= gradient;
            }
            Ok(())
        })?;
        Tensor::from_vec(result, inputs.shape(), inputs.device()).map(Some)
    }
}

/// The sum of `(|x| - limit)^2` over the elements beyond the limit, a scalar.
pub(super) struct Excess {
    /// Magnitude from which on an element counts.
    pub(super) limit: f32,
}

impl Excess {
    /// How far an element is beyond the limit, with its sign.
    fn of(&self, value: f32) -> f32 {
        value - value.clamp(-self.limit, self.limit)
    }
}

impl CustomOp1 for Excess {
    fn name(&self) -> &'static str {
        "excess"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let sum: f32 = values(storage, layout)?
            .chunks(1 << 10)
            .map(|chunk| chunk.iter().map(|&x| self.of(x).powi(2)).sum::<f32>())
            .sum();
        Ok((CpuStorage::F32(vec![sum]), Shape::from(())))
    }

    fn bwd(&self, inputs: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let factor = 2.0 * gradient.to_scalar::<f32>()?;
        let result =
            read(inputs, |inputs| Ok(inputs.iter().map(|&x| factor * self.of(x)).collect()))?;
        Tensor::from_vec(result, inputs.shape(), inputs.device()).map(Some)
    }
}

/// Mean and variance of each channel over a batch, both `[channels]`.
pub(super) struct Statistics {
    pub(super) mean: Vec<f64>,
    pub(super) variance: Vec<f64>,
}

/// The sums over all rows of `[rows, channels]` of what `term` gives for each element.
///
/// `term(row, sums)` adds one row; blocks of rows are added up in single
/// precision and the blocks in double.
fn sum_rows(rows: usize, channels: usize, mut term: impl FnMut(usize, &mut [f32])) -> Vec<f64> {
    const BLOCK: usize = 64;
    let mut totals = vec![0.0f64; channels];
    let mut sums = vec![0.0f32; channels];
    for start in (0..rows).step_by(BLOCK) {
        sums.fill(0.0);
        for row in start..rows.min(start + BLOCK) {
            term(row, &mut sums);
        }
        for (total, sum) in totals.iter_mut().zip(&sums) {
            *total += f64::from(*sum);
        }
    }
    totals
}

impl Statistics {
    /// Of a tensor whose last dimension is the channels.
    pub(super) fn of(tensor: &Tensor) -> Result<Self> {
        let channels = tensor.dim(candle_core::D::Minus1)?;
        read(tensor, |values| {
            let rows = values.len() / channels;
            let row = |index: usize| &values[index * channels..][..channels];
            let mean: Vec<f64> = sum_rows(rows, channels, |index, sums| {
                for (sum, value) in sums.iter_mut().zip(row(index)) {
                    *sum += value;
                }
            })
            .into_iter()
            .map(|sum| sum / rows as f64)
            .collect();
            let center: Vec<f32> = mean.iter().map(|&mean| mean as f32).collect();
            let variance = sum_rows(rows, channels, |index, sums| {
                for ((sum, value), center) in sums.iter_mut().zip(row(index)).zip(&center) {
                    *sum += (value - center) * (value - center);
                }
            })
            .into_iter()
            .map(|sum| sum / rows as f64)
            .collect();
            Ok(Self { mean, variance })
        })
    }

    /// Of several batches of equal size together, by the name of the batch normalisation.
    pub(super) fn merge(batches: &[BTreeMap<String, Self>]) -> BTreeMap<String, Self> {
        let merge = |(name, first): (&String, &Self)| {
            let of_name: Vec<&Self> = batches.iter().filter_map(|b| b.get(name)).collect();
            let average = |value: &dyn Fn(&Self) -> f64| {
                of_name.iter().map(|batch| value(batch)).sum::<f64>() / of_name.len() as f64
            };
            let channels = 0..first.mean.len();
            let mean: Vec<f64> =
                channels.clone().map(|channel| average(&|batch| batch.mean[channel])).collect();
            let variance = channels
                .map(|channel| {
                    average(&|batch| {
                        let apart = batch.mean[channel] - mean[channel];
                        batch.variance[channel] + apart * apart
                    })
                })
                .collect();
            (name.clone(), Self { mean, variance })
        };
        batches.first().into_iter().flatten().map(merge).collect()
    }
}

/// Batch normalisation of (input, gamma, beta) with the statistics of that input.
pub(super) struct BatchNorm {
    mean: Vec<f32>,
    /// `1 / sqrt(variance + epsilon)`.
    scale: Vec<f32>,
}

impl From<&Statistics> for BatchNorm {
    fn from(statistics: &Statistics) -> Self {
        Self {
            mean: statistics.mean.iter().map(|&mean| mean as f32).collect(),
            scale: statistics
                .variance
                .iter()
                .map(|variance| (variance + BATCH_NORM_EPSILON).sqrt().recip() as f32)
                .collect(),
        }
    }
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
        gamma: &CpuStorage,
        gamma_layout: &Layout,
        beta: &CpuStorage,
        beta_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let channels = self.mean.len();
        let gamma = values(gamma, gamma_layout)?;
        let beta = values(beta, beta_layout)?;
        let factor: Vec<f32> = gamma.iter().zip(&self.scale).map(|(g, s)| g * s).collect();
        let offset: Vec<f32> = beta
            .iter()
            .zip(&self.mean)
            .zip(&factor)
            .map(|((beta, mean), factor)| beta - mean * factor)
            .collect();
        let inputs = values(storage, layout)?;
        let mut outputs = vec![0.0; inputs.len()];
        for (outputs, inputs) in
            outputs.chunks_exact_mut(channels).zip(inputs.chunks_exact(channels))
        {
            for (((output, input), factor), offset) in
                outputs.iter_mut().zip(inputs).zip(&factor).zip(&offset)
            {
                *output = input * factor + offset;
            }
        }
        Ok((CpuStorage::F32(outputs), layout.shape().clone()))
    }

    fn bwd(
        &self,
        inputs: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let channels = self.mean.len();
        let rows = inputs.elem_count() / channels;
        let (result, gamma_gradient, beta_gradient) = read(inputs, |inputs| {
            read(gradient, |gradient| {
                read(gamma, |gamma| {
                    let row = |index: usize| {
                        let range = index * channels..(index + 1) * channels;
                        gradient[range.clone()].iter().zip(&inputs[range])
                    };
                    let beta_gradient = sum_rows(rows, channels, |index, sums| {
                        for (sum, (gradient, _)) in sums.iter_mut().zip(row(index)) {
                            *sum += gradient;
                        }
                    });
                    let gamma_gradient: Vec<f64> = sum_rows(rows, channels, |index, sums| {
                        for ((sum, (gradient, input)), mean) in
                            sums.iter_mut().zip(row(index)).zip(&self.mean)
                        {
                            *sum += gradient * (input - mean);
                        }
                    })
                    .into_iter()
                    .zip(&self.scale)
                    .map(|(sum, &scale)| sum * f64::from(scale))
                    .collect();
                    // With z the normalised input, the gradient is
                    // gamma * scale * (g - mean(g) - z * mean(g * z)) = a * g + b * input + c.
                    let terms: Vec<[f32; 3]> = (0..channels)
                        .map(|channel| {
                            let scale = f64::from(self.scale[channel]);
                            let factor = f64::from(gamma[channel]) * scale;
                            let slope = -factor * scale * gamma_gradient[channel] / rows as f64;
                            let offset = -factor * beta_gradient[channel] / rows as f64
                                - slope * f64::from(self.mean[channel]);
                            [factor, slope, offset].map(|term| term as f32)
                        })
                        .collect();
                    let [factor, slope, offset] =
                        [0, 1, 2].map(|i| terms.iter().map(|t| t[i]).collect::<Vec<f32>>());
                    let mut result = vec![0.0; inputs.len()];
                    for (index, result) in result.chunks_exact_mut(channels).enumerate() {
                        for ((((result, (gradient, input)), factor), slope), offset) in
                            result.iter_mut().zip(row(index)).zip(&factor).zip(&slope).zip(&offset)
                        {
                            *result = factor * gradient + slope * input + offset;
                        }
                    }
                    Ok((result, gamma_gradient, beta_gradient))
                })
            })
        })?;
        let vector = |values: Vec<f64>, like: &Tensor| {
            let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
            Tensor::from_vec(values, like.shape(), like.device())
        };
        Ok((
            Some(Tensor::from_vec(result, inputs.shape(), inputs.device())?),
            Some(vector(gamma_gradient, gamma)?),
            Some(vector(beta_gradient, beta)?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn wave(shape: &[usize], step: f32) -> Var {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| 2.0 * (step * i as f32).sin()).collect();
        Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
    }

    /// Compares the gradient of `sum(weights * f(x))` with differences of it.
    fn check(variable: &Var, f: impl Fn() -> Tensor) {
        let objective = || {
            let output = f().flatten_all().unwrap();
            let weights = wave(&[output.elem_count()], 0.7);
            (output * weights.as_tensor()).unwrap().sum_all().unwrap()
        };
        let gradients = objective().backward().unwrap();
        let gradient = gradients.get(variable).unwrap().flatten_all().unwrap();
        let gradient = gradient.to_vec1::<f32>().unwrap();
        let start = variable.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let step = 1e-2;
        for index in 0..start.len() {
            let at = |value: f32| {
                let mut values = start.clone();
                values[index] = value;
                let moved = Tensor::from_vec(values, variable.shape(), &Device::Cpu).unwrap();
                variable.set(&moved).unwrap();
                objective().to_scalar::<f32>().unwrap()
            };
            let difference = (at(start[index] + step) - at(start[index] - step)) / (2.0 * step);
            at(start[index]);
            let error = (difference - gradient[index]).abs();
            assert!(
                error < 2e-2 * (1.0 + difference.abs()),
                "{index}: {difference} {}",
                gradient[index]
            );
        }
    }

    #[test]
    fn gradients_agree_with_differences() {
        let images = wave(&[2, 4, 4, 3], 0.37);
        let patches =
            Patches { height: 4, width: 4, channels: 3, filter: 3, stride: 1, padding: 1 };
        check(&images, || images.apply_op1(Unfold(patches)).unwrap());
        let weights = wave(&[3, 2], 0.3);
        check(&weights, || {
            let data = wave(&[4, 3], 0.8).as_detached_tensor();
            weights.apply_op1(DataTimes(data)).unwrap()
        });
        check(&images, || images.apply_op1(AveragePool { window: 2 }).unwrap());
        check(&images, || images.apply_op1(MaxPool { window: 2 }).unwrap());
        check(&images, || images.apply_op1(Activation::from(&Polynomial::relu(3.0))).unwrap());
        check(&images, || images.apply_op1(Excess { limit: 1.0 }).unwrap());
    }

    #[test]
    fn the_first_of_equal_values_gets_the_gradient() {
        let images = [1.0f32, 3.0, 3.0, 0.0, -1.0, -1.0, -2.0, -1.0];
        let images = Tensor::from_slice(&images, (2, 2, 2, 1), &Device::Cpu).unwrap();
        let images = Var::from_tensor(&images).unwrap();
        let largest = images.apply_op1(MaxPool { window: 2 }).unwrap();
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&largest), [3.0, -1.0]);
        let gradients = (largest * 5.0).unwrap().backward().unwrap();
        let gradient = values(gradients.get(&images).unwrap());
        assert_eq!(gradient, [0.0, 5.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn gradients_of_batch_norm_agree_with_differences() {
        let (inputs, gamma, beta) = (wave(&[4, 3], 0.9), wave(&[3], 1.3), wave(&[3], 0.4));
        let normalise = || {
            let statistics = Statistics::of(&inputs).unwrap();
            inputs.apply_op3(&gamma, &beta, BatchNorm::from(&statistics)).unwrap()
        };
        for variable in [&inputs, &gamma, &beta] {
            check(variable, normalise);
        }
    }
}
