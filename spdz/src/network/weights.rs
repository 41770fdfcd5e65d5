//! A network's weights: read from a safetensors file, checked, and folded.
//!
//! Folding turns batch normalisation into part of the linear layer before it
//! (`w * gamma / sqrt(variance + epsilon)` and so on), so that its parameters
//! are as private as the weights and cost nothing online.

use std::collections::BTreeMap;

use ndarray::ArrayD;
use safetensors::{Dtype, SafeTensors};
use zeroize::Zeroize;

use super::{BATCH_NORM_EPSILON, Layer, Network, NetworkError};

/// What is wrong with a weights file.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The bytes are not a safetensors file.
    #[error("not a readable safetensors file ({0}); it may be truncated")]
    Unreadable(String),
    /// A tensor is not there.
    #[error("tensor {tensor} is missing; the network needs it with shape {shape:?}")]
    Missing {
        /// Its name.
        tensor: String,
        /// The shape it should have.
        shape: Vec<usize>,
    },
    /// A tensor has another shape.
    #[error("tensor {tensor} has shape {found:?}, the network needs {expected:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// The shape that the network needs.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has another element type.
    #[error("tensor {tensor} holds {found}, expected F32")]
    Type {
        /// Its name.
        tensor: String,
        /// The type in the file.
        found: String,
    },
    /// A value is NaN or infinite.
    #[error("tensor {tensor} holds {value} at index {index}; every weight must be a finite number")]
    NotFinite {
        /// Its name.
        tensor: String,
        /// Place in the flattened tensor.
        index: usize,
        /// The value there.
        value: f32,
    },
    /// A variance is negative.
    #[error("tensor {tensor} holds a negative number at index {index}; a variance is not negative")]
    Variance {
        /// Its name.
        tensor: String,
        /// Place in the flattened tensor.
        index: usize,
    },
    /// The network itself is wrong.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// The parameters of a network as trained, by name; wiped when dropped.
pub struct Weights {
    tensors: BTreeMap<String, ArrayD<f32>>,
}

/// A linear layer with its batch normalisation folded in; wiped when dropped.
pub struct FoldedLinear {
    /// The layer's name, `conv1` or `fc2`.
    pub name: String,
    /// `[in, out]` or `[height, width, in, out]`.
    pub weight: ArrayD<f64>,
    /// `[out]`.
    pub bias: ArrayD<f64>,
}

impl Drop for Weights {
    fn drop(&mut self) {
        for tensor in self.tensors.values_mut() {
            tensor.iter_mut().for_each(Zeroize::zeroize);
        }
    }
}

impl Drop for FoldedLinear {
    fn drop(&mut self) {
        self.weight.iter_mut().for_each(Zeroize::zeroize);
        self.bias.iter_mut().for_each(Zeroize::zeroize);
    }
}

impl Weights {
    /// Reads the network's parameters from the bytes of a safetensors file.
    ///
    /// Tensors that the network does not use are ignored.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape or type, or holds a value that
    /// is not finite; the error names the tensor.
    pub fn from_safetensors(bytes: &[u8], network: &Network) -> Result<Self, WeightsError> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| WeightsError::Unreadable(error.to_string()))?;
        let mut tensors = BTreeMap::new();
        for parameter in network.parameters()? {
            let view = file.tensor(&parameter.name).map_err(|_| WeightsError::Missing {
                tensor: parameter.name.clone(),
                shape: parameter.shape.clone(),
            })?;
            if view.dtype() != Dtype::F32 {
                return Err(WeightsError::Type {
                    tensor: parameter.name,
                    found: format!("{:?}", view.dtype()),
                });
            }
            let shape_error = || WeightsError::Shape {
                tensor: parameter.name.clone(),
                expected: parameter.shape.clone(),
                found: view.shape().to_vec(),
            };
            if view.shape() != parameter.shape {
                return Err(shape_error());
            }
            let values: Vec<f32> = view
                .data()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect();
            check_values(&parameter.name, &values)?;
            let tensor = ArrayD::from_shape_vec(parameter.shape.clone(), values)
                .map_err(|_| shape_error())?;
            tensors.insert(parameter.name, tensor);
        }
        Ok(Self { tensors })
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, name: &str) -> Result<&ArrayD<f32>, WeightsError> {
        self.tensors
            .get(name)
            .ok_or_else(|| WeightsError::Missing { tensor: name.to_owned(), shape: Vec::new() })
    }

    /// The linear layers in order, each with the batch normalisation after it folded in.
    ///
    /// # Errors
    /// If these are not the weights of that network.
    pub fn fold(&self, network: &Network) -> Result<Vec<FoldedLinear>, WeightsError> {
        let names = network.layer_names();
        let mut folded: Vec<FoldedLinear> = Vec::new();
        for (layer, name) in network.layers.iter().zip(&names) {
            match layer {
                Layer::Dense { .. } | Layer::Conv2d { .. } => folded.push(FoldedLinear {
                    name: name.clone(),
                    weight: self.get(&format!("{name}.weight"))?.mapv(f64::from),
                    bias: self.get(&format!("{name}.bias"))?.mapv(f64::from),
                }),
                Layer::BatchNorm => {
                    let gamma = self.get(&format!("{name}.gamma"))?;
                    let beta = self.get(&format!("{name}.beta"))?;
                    let mean = self.get(&format!("{name}.mean"))?;
                    let variance = self.get(&format!("{name}.variance"))?;
                    let Some(linear) = folded.last_mut() else {
                        continue;
                    };
                    let factor =
                        ndarray::Zip::from(gamma).and(variance).map_collect(|&gamma, &variance| {
                            f64::from(gamma) / (f64::from(variance) + BATCH_NORM_EPSILON).sqrt()
                        });
                    // The last dimension is the output's, so the factor broadcasts over it.
                    linear.weight *= &factor;
                    linear.bias -= &mean.mapv(f64::from);
                    linear.bias *= &factor;
                    linear.bias += &beta.mapv(f64::from);
                }
                Layer::Activation(_)
                | Layer::Relu
                | Layer::AvgPool { .. }
                | Layer::MaxPool { .. } => {}
            }
        }
        Ok(folded)
    }
}

fn check_values(name: &str, values: &[f32]) -> Result<(), WeightsError> {
    for (index, &value) in values.iter().enumerate() {
        let tensor = || name.to_owned();
        if !value.is_finite() {
            return Err(WeightsError::NotFinite { tensor: tensor(), index, value });
        }
        if value < 0.0 && name.ends_with(".variance") {
            return Err(WeightsError::Variance { tensor: tensor(), index });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    fn tiny() -> Network {
        Network {
            name: "tiny".into(),
            input: vec![2],
            range: None,
            layers: vec![Layer::Dense { outputs: 2 }, Layer::BatchNorm],
        }
    }

    fn file(edit: impl Fn(&mut BTreeMap<String, (Vec<usize>, Vec<f32>)>)) -> Vec<u8> {
        let mut tensors = BTreeMap::from([
            ("fc1.weight".to_owned(), (vec![2, 2], vec![1.0, 2.0, 3.0, 4.0])),
            ("fc1.bias".to_owned(), (vec![2], vec![0.5, -0.5])),
            ("bn1.gamma".to_owned(), (vec![2], vec![2.0, 1.0])),
            ("bn1.beta".to_owned(), (vec![2], vec![0.25, 0.0])),
            ("bn1.mean".to_owned(), (vec![2], vec![0.5, 1.0])),
            ("bn1.variance".to_owned(), (vec![2], vec![4.0, 0.25])),
        ]);
        edit(&mut tensors);
        let bytes: BTreeMap<String, (Vec<usize>, Vec<u8>)> = tensors
            .into_iter()
            .map(|(name, (shape, values))| {
                (name, (shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
            })
            .collect();
        let views = bytes.iter().map(|(name, (shape, data))| {
            (name.clone(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    fn refusal(edit: impl Fn(&mut BTreeMap<String, (Vec<usize>, Vec<f32>)>)) -> String {
        match Weights::from_safetensors(&file(edit), &tiny()) {
            Ok(_) => panic!("accepted"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn batch_norm_folds_into_the_layer_before_it() {
        let weights = Weights::from_safetensors(&file(|_| {}), &tiny()).unwrap();
        let folded = weights.fold(&tiny()).unwrap();
        let input = [0.3, -0.7];
        let dense = [0.3 * 1.0 - 0.7 * 3.0 + 0.5, 0.3 * 2.0 - 0.7 * 4.0 - 0.5];
        let expected = [
            (dense[0] - 0.5) / (4.0 + BATCH_NORM_EPSILON).sqrt() * 2.0 + 0.25,
            (dense[1] - 1.0) / (0.25 + BATCH_NORM_EPSILON).sqrt(),
        ];
        for (out, expected) in expected.into_iter().enumerate() {
            let found = input[0] * folded[0].weight[[0, out]]
                + input[1] * folded[0].weight[[1, out]]
                + folded[0].bias[[out]];
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn a_bad_tensor_is_named() {
        let missing = refusal(|t| drop(t.remove("bn1.mean")));
        assert!(missing.contains("bn1.mean is missing"), "{missing}");
        let shaped = refusal(|t| drop(t.insert("fc1.weight".into(), (vec![4, 1], vec![0.0; 4]))));
        assert!(
            shaped.contains("fc1.weight has shape [4, 1], the network needs [2, 2]"),
            "{shaped}"
        );
        for value in [f32::NAN, f32::INFINITY] {
            let bad = refusal(|t| t.get_mut("fc1.bias").unwrap().1[1] = value);
            assert!(bad.contains("fc1.bias") && bad.contains("index 1"), "{bad}");
        }
        let variance = refusal(|t| t.get_mut("bn1.variance").unwrap().1[0] = -1.0);
        assert!(variance.contains("bn1.variance"), "{variance}");
    }

    #[test]
    fn a_truncated_file_says_so() {
        let bytes = file(|_| {});
        for length in [0, 7, 20, bytes.len() - 1] {
            let error = Weights::from_safetensors(&bytes[..length], &tiny()).err().unwrap();
            assert!(error.to_string().contains("truncated"), "{error}");
        }
    }
}
