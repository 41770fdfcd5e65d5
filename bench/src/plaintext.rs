//! The reference: a network evaluated in plaintext, in single precision.
//!
//! Batch normalisation is applied as a layer of its own, not folded, as the
//! training applies it.

use ndarray::{Array2, ArrayD, ArrayView2, ArrayViewD, Axis, ErrorKind, ShapeError};
use spdz::network::weights::{Weights, WeightsError};
use spdz::network::{BATCH_NORM_EPSILON, Layer, Network, NetworkError};

use crate::patches::Patches;
use party::idx::Images;
use party::result::argmax;

/// Images evaluated at once; bounds the memory that a convolution's patches take.
const BATCH: usize = 500;

/// Why a network cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum PlaintextError {
    /// The layers do not make a network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The weights are not the network's.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The images have another size.
    #[error("images of {found} values, network {network} takes {expected:?}")]
    Input {
        /// The network's name.
        network: String,
        /// The shape of one input.
        expected: Vec<usize>,
        /// Values in one image given.
        found: usize,
    },
    /// A layer's values do not have the shape that the layer before it gives.
    #[error("a layer's values do not have its shape: {0}")]
    Shape(#[from] ShapeError),
}

/// Images as the networks take them: `[count, height * width]`, each value `pixel / 255`.
#[must_use]
pub fn inputs(images: &Images) -> Array2<f32> {
    let size = images.height * images.width;
    Array2::from_shape_fn((images.count, size), |(image, pixel)| {
        f32::from(images.pixels[image * size + pixel]) / 255.0
    })
}

/// The logits `[n, classes]` of images `[n, values]`.
///
/// `observe` is called with the name and the output `[batch, ...]` of each
/// layer, for one batch of at most 500 images after the other.
///
/// # Errors
/// If the weights are not the network's, or the images have another size.
pub fn logits(
    network: &Network,
    weights: &Weights,
    images: ArrayView2<'_, f32>,
    mut observe: impl FnMut(&str, &ArrayViewD<'_, f32>),
) -> Result<Array2<f32>, PlaintextError> {
    let names = network.layer_names();
    let shapes = network.shapes()?;
    check(network, weights, images.ncols())?;
    let classes = shapes.last().unwrap_or(&network.input).iter().product();
    let mut logits = Array2::zeros((images.nrows(), classes));
    for (images, mut logits) in
        images.axis_chunks_iter(Axis(0), BATCH).zip(logits.axis_chunks_iter_mut(Axis(0), BATCH))
    {
        let mut current: Vec<f32> = images.iter().copied().collect();
        let mut shape = network.input.as_slice();
        for ((layer, name), output) in network.layers.iter().zip(&names).zip(&shapes) {
            current = apply(layer, name, weights, shape, current)?;
            shape = output;
            let dimensions = [&[images.nrows()], shape].concat();
            observe(name, &ArrayViewD::from_shape(dimensions, &current)?);
        }
        logits.assign(&ArrayView2::from_shape((images.nrows(), classes), &current)?);
    }
    Ok(logits)
}

/// The share of rows of logits whose class is the label, `0.0` to `1.0`.
#[must_use]
pub fn accuracy(logits: ArrayView2<'_, f32>, labels: &[u8]) -> f64 {
    let right = logits
        .rows()
        .into_iter()
        .zip(labels)
        .filter(|(row, label)| argmax(&row.to_vec()) == Some(usize::from(**label)))
        .count();
    right as f64 / labels.len().max(1) as f64
}

/// Refuses weights or images that are not the network's.
fn check(network: &Network, weights: &Weights, values: usize) -> Result<(), PlaintextError> {
    if values != network.input.iter().product::<usize>() {
        return Err(PlaintextError::Input {
            network: network.name.clone(),
            expected: network.input.clone(),
            found: values,
        });
    }
    for parameter in network.parameters()? {
        let found = weights.get(&parameter.name)?.shape();
        if found != parameter.shape {
            return Err(PlaintextError::Weights(WeightsError::Shape {
                tensor: parameter.name,
                found: found.to_vec(),
                expected: parameter.shape,
            }));
        }
    }
    Ok(())
}

/// One layer's output for the values of a batch of inputs of that shape.
fn apply(
    layer: &Layer,
    name: &str,
    weights: &Weights,
    shape: &[usize],
    mut values: Vec<f32>,
) -> Result<Vec<f32>, PlaintextError> {
    let parameter = |what: &str| weights.get(&format!("{name}.{what}"));
    match *layer {
        Layer::Dense { .. } => product(&values, parameter("weight")?, parameter("bias")?),
        Layer::Conv2d { filter, stride, padding, .. } => {
            let [height, width, channels] = image_shape(shape)?;
            let patches = Patches { height, width, channels, filter, stride, padding };
            let unfolded = patches.unfold(&values);
            product(&unfolded, parameter("weight")?, parameter("bias")?)
        }
        Layer::BatchNorm => {
            let [gamma, beta] = [parameter("gamma")?, parameter("beta")?];
            let [mean, variance] = [parameter("mean")?, parameter("variance")?];
            let factor = variance.mapv(|v| (v + BATCH_NORM_EPSILON as f32).sqrt().recip()) * gamma;
            let offset = beta - mean * &factor;
            for row in values.chunks_exact_mut(factor.len()) {
                for ((value, factor), offset) in row.iter_mut().zip(&factor).zip(&offset) {
                    *value = *value * factor + offset;
                }
            }
            Ok(values)
        }
        Layer::Activation(ref polynomial) => {
            for value in &mut values {
                *value = polynomial.evaluate(f64::from(*value)) as f32;
            }
            Ok(values)
        }
        Layer::Relu => {
            values.iter_mut().for_each(|value| *value = value.max(0.0));
            Ok(values)
        }
        Layer::AvgPool { window } => {
            let factor = 1.0 / (window * window) as f32;
            let add = |sum: f32, value: f32| sum + factor * value;
            Ok(pool(&values, image_shape(shape)?, window, 0.0, add))
        }
        Layer::MaxPool { window } => {
            Ok(pool(&values, image_shape(shape)?, window, f32::NEG_INFINITY, f32::max))
        }
    }
}

fn image_shape(shape: &[usize]) -> Result<[usize; 3], ShapeError> {
    shape.try_into().map_err(|_| ShapeError::from_kind(ErrorKind::IncompatibleShape))
}

/// Rows times `weight` `[..., out]` plus `bias` `[out]`, in C order.
fn product(
    rows: &[f32],
    weight: &ArrayD<f32>,
    bias: &ArrayD<f32>,
) -> Result<Vec<f32>, PlaintextError> {
    let (inputs, outputs) = (weight.len() / bias.len(), bias.len());
    let rows = ArrayView2::from_shape((rows.len() / inputs, inputs), rows)?;
    let mut product = rows.dot(&weight.view().into_shape_with_order((inputs, outputs))?);
    product += bias;
    Ok(product.iter().copied().collect())
}

/// Disjoint windows of `[n, height, width, channels]` images, each folded into one value of each
/// channel.
fn pool(
    values: &[f32],
    [_, width, channels]: [usize; 3],
    window: usize,
    first: f32,
    fold: impl Fn(f32, f32) -> f32,
) -> Vec<f32> {
    let mut pooled = vec![first; values.len() / (window * window)];
    for (pixel, values) in values.chunks_exact(channels).enumerate() {
        // Images lie below each other, and windows tile them.
        let (row, column) = (pixel / width, pixel % width);
        let output = row / window * (width / window) + column / window;
        for (pooled, value) in pooled[output * channels..][..channels].iter_mut().zip(values) {
            *pooled = fold(*pooled, *value);
        }
    }
    pooled
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::{Dtype, tensor::TensorView};
    use spdz::polynomial::Polynomial;

    /// Every kind of layer, small, with these two between the convolution and the dense layer.
    fn with(between: [Layer; 2]) -> Network {
        let mut layers =
            vec![Layer::Conv2d { filter: 3, channels: 3, stride: 1, padding: 1 }, Layer::BatchNorm];
        layers.extend(between);
        layers.push(Layer::Dense { outputs: 4 });
        Network { name: "small".into(), input: vec![4, 4, 2], range: None, layers }
    }

    fn small() -> Network {
        with([Layer::Activation(Polynomial::relu(3.0)), Layer::AvgPool { window: 2 }])
    }

    fn wave(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (step * i as f32).sin()).collect()
    }

    fn weights(network: &Network) -> Weights {
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = network
            .parameters()
            .unwrap()
            .into_iter()
            .map(|parameter| {
                let mut values = wave(parameter.shape.iter().product(), 0.6);
                if parameter.name.ends_with("variance") {
                    values.iter_mut().for_each(|value| *value = value.abs() + 0.5);
                }
                let bytes = values.iter().flat_map(|value| value.to_le_bytes());
                (parameter.name, parameter.shape, bytes.collect())
            })
            .collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
            (name.clone(), view)
        });
        let file = safetensors::serialize(views, None).unwrap();
        Weights::from_safetensors(&file, network).unwrap()
    }

    /// A small network's logits for one image, from its folded weights, term by term: `fold`
    /// puts a value into its window, which begins with 0.
    fn by_hand(weights: &Weights, image: &[f32], fold: &dyn Fn(f64, f64) -> f64) -> Vec<f64> {
        let folded = weights.fold(&small()).unwrap();
        let mut pooled = [0.0; 2 * 2 * 3];
        for (y, x, out) in (0..4 * 4 * 3).map(|i| (i / 12, i / 3 % 4, i % 3)) {
            let mut sum = folded[0].bias[[out]];
            for (dy, dx, channel) in (0..3 * 3 * 2).map(|i| (i / 6, i / 2 % 3, i % 2)) {
                if (1..=4).contains(&(y + dy)) && (1..=4).contains(&(x + dx)) {
                    let pixel = image[((y + dy - 1) * 4 + x + dx - 1) * 2 + channel];
                    sum += f64::from(pixel) * folded[0].weight[[dy, dx, channel, out]];
                }
            }
            let pooled = &mut pooled[(y / 2 * 2 + x / 2) * 3 + out];
            *pooled = fold(*pooled, sum);
        }
        let logit = |out: usize| {
            let terms = pooled.iter().enumerate();
            terms.fold(folded[1].bias[[out]], |sum, (index, value)| {
                sum + value * folded[1].weight[[index, out]]
            })
        };
        (0..4).map(logit).collect()
    }

    #[test]
    fn logits_are_those_computed_by_hand_with_folded_weights() {
        let network = small();
        let weights = weights(&network);
        // More than a batch, and not a multiple of it.
        let images = Array2::from_shape_vec((503, 32), wave(503 * 32, 0.31)).unwrap();
        let mut observed = Vec::new();
        let logits = logits(&network, &weights, images.view(), |name, output| {
            observed.push((name.to_owned(), output.shape().to_vec()));
        })
        .unwrap();
        let polynomial = Polynomial::relu(3.0);
        compare(&weights, &images, &logits, &|mean, x| mean + polynomial.evaluate(x) / 4.0);
        assert_eq!(observed[3], ("pool1".to_owned(), vec![500, 2, 2, 3]));
        assert_eq!(observed[9], ("fc1".to_owned(), vec![3, 4]));
    }

    /// Compares some of the logits with those computed by hand.
    fn compare(
        weights: &Weights,
        images: &Array2<f32>,
        logits: &Array2<f32>,
        fold: &dyn Fn(f64, f64) -> f64,
    ) {
        for index in [0, 1, 499, 500, 502] {
            let expected = by_hand(weights, images.row(index).as_slice().unwrap(), fold);
            for (found, expected) in logits.row(index).iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} {expected}");
            }
        }
    }

    #[test]
    fn exact_layers_are_those_computed_by_hand() {
        let weights = weights(&small());
        let images = Array2::from_shape_vec((503, 32), wave(503 * 32, 0.31)).unwrap();
        let logits = |between| logits(&with(between), &weights, images.view(), |_, _| {}).unwrap();
        let average = logits([Layer::Relu, Layer::AvgPool { window: 2 }]);
        compare(&weights, &images, &average, &|mean, x| mean + x.max(0.0) / 4.0);
        // Of numbers that are not negative, and the largest of all, which is.
        let (max, relu) = (Layer::MaxPool { window: 2 }, Layer::Relu);
        let pooled_first = logits([max.clone(), relu.clone()]);
        compare(&weights, &images, &pooled_first, &f64::max);
        assert_eq!(pooled_first, logits([relu, max]));
        let largest = Layer::MaxPool { window: 2 };
        let values = apply(&largest, "", &weights, &[2, 2, 1], vec![-3.0, -1.0, -2.0, -4.0]);
        assert_eq!(values.unwrap(), [-1.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let network = small();
        let weights = weights(&network);
        let refusal = |network: &Network, values: usize| {
            logits(network, &weights, Array2::zeros((1, values)).view(), |_, _| {})
                .unwrap_err()
                .to_string()
        };
        let images = refusal(&network, 31);
        assert!(images.contains("images of 31 values"), "{images}");
        let mut other = small();
        other.layers[4] = Layer::Dense { outputs: 5 };
        let weights = refusal(&other, 32);
        assert!(weights.contains("fc1.weight has shape [12, 4]"), "{weights}");
    }

    #[test]
    fn the_earliest_of_equal_logits_counts() {
        let logits = ndarray::array![[0.0, 2.0, 2.0], [1.0, 1.0, 1.0], [-3.0, -2.0, -1.0]];
        assert!((accuracy(logits.view(), &[1, 0, 0]) - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn inputs_are_pixels_over_255() {
        let images = Images { count: 2, height: 1, width: 2, pixels: vec![0, 255, 51, 102] };
        assert_eq!(inputs(&images), ndarray::array![[0.0, 1.0], [0.2, 0.4]]);
    }
}
