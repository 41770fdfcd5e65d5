//! Networks: layers, the paper's networks A, B and C, shapes and parameters.
//!
//! A network is public: every party knows its layers and shapes. Only the
//! parameters' values ([`weights`]) are private to the model owner.
//!
//! Tensors are laid out channels last, as in TensorFlow: activations are
//! `[batch, height, width, channels]`, convolution filters
//! `[height, width, in, out]`, dense weights `[in, out]`; flattening keeps that
//! order.

use serde::{Deserialize, Serialize};

pub mod weights;

/// The variance floor of batch normalisation, as the training uses it.
pub const BATCH_NORM_EPSILON: f64 = 1e-5;

/// A polynomial with real coefficients, the constant first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Polynomial {
    /// `coefficients[j]` multiplies `x^j`.
    pub coefficients: Vec<f64>,
}

impl Polynomial {
    /// The degree-4 least-squares fit of ReLU on `[-bound, bound]`.
    ///
    /// The paper fits its activation on `[-3, 3]` (its footnote 2) and does not
    /// print the coefficients; these follow from projecting ReLU on the Legendre
    /// polynomials. On `[-3, 3]` the largest error is 0.176, at zero.
    #[must_use]
    pub fn relu(bound: f64) -> Self {
        Self {
            coefficients: vec![
                15.0 * bound / 256.0,
                0.5,
                105.0 / (128.0 * bound),
                0.0,
                -105.0 / (256.0 * bound.powi(3)),
            ],
        }
    }

    /// The value at `x`.
    #[must_use]
    pub fn evaluate(&self, x: f64) -> f64 {
        self.coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * x + coefficient)
    }
}

/// One layer of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Layer {
    /// A fully connected layer with bias; flattens what comes in.
    Dense {
        /// Number of outputs.
        outputs: usize,
    },
    /// A two-dimensional convolution with bias and square filters.
    Conv2d {
        /// Side of the filter, pixels.
        filter: usize,
        /// Number of output channels.
        channels: usize,
        /// Distance between two applications of the filter, pixels.
        stride: usize,
        /// Zeros added at each border, pixels.
        padding: usize,
    },
    /// Batch normalisation over the last dimension, with the statistics of the
    /// training; folded into the linear layer before it (so it must follow one).
    BatchNorm,
    /// A polynomial applied to each element.
    Activation(Polynomial),
    /// Average pooling over disjoint square windows.
    AvgPool {
        /// Side of the window, pixels; it must divide the image.
        window: usize,
    },
}

/// A network: its input's shape and its layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// What people call it.
    pub name: String,
    /// Shape of one input, without the batch: `[height, width, channels]` or `[features]`.
    pub input: Vec<usize>,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
}

/// A parameter that a network needs: its name in a weights file and its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// `<layer>.<what>`, for example `conv1.weight` or `bn2.variance`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// Why layers do not make a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// A layer cannot take what the one before it gives.
    #[error(
        "network {network}: layer {index} ({layer}) cannot take an input of shape {input:?}: {reason}"
    )]
    Layer {
        /// The network's name.
        network: String,
        /// The layer's place, counted from 0.
        index: usize,
        /// The layer's name.
        layer: String,
        /// The shape it was given, without the batch.
        input: Vec<usize>,
        /// What is wrong with it.
        reason: String,
    },
}

impl Network {
    /// Network A of the paper's Figure 3: three dense layers.
    #[must_use]
    pub fn a() -> Self {
        let activation = || Layer::Activation(Polynomial::relu(3.0));
        Self {
            name: "A".into(),
            input: vec![28, 28, 1],
            layers: vec![
                Layer::Dense { outputs: 128 },
                Layer::BatchNorm,
                activation(),
                Layer::Dense { outputs: 128 },
                Layer::BatchNorm,
                activation(),
                Layer::Dense { outputs: 10 },
            ],
        }
    }

    /// Network B of the paper's Figure 3: two convolutions and two dense layers.
    ///
    /// The figure prints `Conv (5, 16, 1, 1)` as (field, channels, stride,
    /// padding), but only unpadded convolutions give the 256 inputs of its
    /// `FC (256, 100)`: 28 -> 24 -> 12 -> 8 -> 4 and 4 * 4 * 16 = 256.
    #[must_use]
    pub fn b() -> Self {
        Self::convolutional("B", 16, 16, 100)
    }

    /// Network C of the paper's Figure 3, unpadded for the same reason as
    /// [`Network::b`]: 4 * 4 * 50 = 800 inputs of its `FC (800, 500)`.
    #[must_use]
    pub fn c() -> Self {
        Self::convolutional("C", 20, 50, 500)
    }

    fn convolutional(name: &str, first: usize, second: usize, hidden: usize) -> Self {
        let convolution = |channels| Layer::Conv2d { filter: 5, channels, stride: 1, padding: 0 };
        let activation = || Layer::Activation(Polynomial::relu(3.0));
        Self {
            name: name.into(),
            input: vec![28, 28, 1],
            layers: vec![
                convolution(first),
                Layer::BatchNorm,
                activation(),
                Layer::AvgPool { window: 2 },
                convolution(second),
                Layer::BatchNorm,
                activation(),
                Layer::AvgPool { window: 2 },
                Layer::Dense { outputs: hidden },
                Layer::BatchNorm,
                activation(),
                Layer::Dense { outputs: 10 },
            ],
        }
    }

    /// The paper's network of that name, `A`, `B` or `C`.
    #[must_use]
    pub fn builtin(name: &str) -> Option<Self> {
        match name {
            "A" => Some(Self::a()),
            "B" => Some(Self::b()),
            "C" => Some(Self::c()),
            _ => None,
        }
    }

    /// A name for each layer, kind and number of its kind: `conv1`, `bn1`, `act1`, `pool1`, `fc1`.
    #[must_use]
    pub fn layer_names(&self) -> Vec<String> {
        let mut counts = [0usize; 5];
        self.layers
            .iter()
            .map(|layer| {
                let (kind, prefix) = match layer {
                    Layer::Dense { .. } => (0, "fc"),
                    Layer::Conv2d { .. } => (1, "conv"),
                    Layer::BatchNorm => (2, "bn"),
                    Layer::Activation(_) => (3, "act"),
                    Layer::AvgPool { .. } => (4, "pool"),
                };
                counts[kind] += 1;
                format!("{prefix}{}", counts[kind])
            })
            .collect()
    }

    /// The shape that each layer puts out, without the batch.
    ///
    /// # Errors
    /// If a layer cannot take what the one before it gives.
    pub fn shapes(&self) -> Result<Vec<Vec<usize>>, NetworkError> {
        let names = self.layer_names();
        let mut current = self.input.clone();
        let mut shapes = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let refuse = |reason: String| NetworkError::Layer {
                network: self.name.clone(),
                index,
                layer: names[index].clone(),
                input: current.clone(),
                reason,
            };
            let next = match layer {
                Layer::Dense { outputs } => vec![*outputs],
                Layer::Conv2d { filter, channels, stride, padding } => {
                    let [height, width, _] = current[..] else {
                        return Err(refuse("a convolution takes [height, width, channels]".into()));
                    };
                    let side = |length: usize| {
                        let padded = length + 2 * padding;
                        (*stride > 0 && *filter > 0 && padded >= *filter)
                            .then(|| (padded - filter) / stride + 1)
                            .ok_or_else(|| {
                                refuse(format!(
                                    "a {filter}x{filter} filter with stride {stride} does not fit into {padded} pixels"
                                ))
                            })
                    };
                    vec![side(height)?, side(width)?, *channels]
                }
                Layer::BatchNorm => {
                    let follows_linear = index > 0
                        && matches!(
                            self.layers[index - 1],
                            Layer::Dense { .. } | Layer::Conv2d { .. }
                        );
                    if !follows_linear {
                        return Err(refuse(
                            "batch normalisation must follow a dense or convolutional layer, into which it is folded".into(),
                        ));
                    }
                    current.clone()
                }
                Layer::Activation(polynomial) => {
                    if polynomial.coefficients.iter().any(|c| !c.is_finite()) {
                        return Err(refuse("a coefficient of the activation is not finite".into()));
                    }
                    current.clone()
                }
                Layer::AvgPool { window } => {
                    let [height, width, channels] = current[..] else {
                        return Err(refuse("pooling takes [height, width, channels]".into()));
                    };
                    if *window == 0 || height % window != 0 || width % window != 0 {
                        return Err(refuse(format!(
                            "windows of {window}x{window} do not tile {height}x{width} pixels"
                        )));
                    }
                    vec![height / window, width / window, channels]
                }
            };
            if next.iter().product::<usize>() == 0 {
                return Err(refuse("its output would be empty".into()));
            }
            shapes.push(next.clone());
            current = next;
        }
        Ok(shapes)
    }

    /// The parameters the network needs, in the order of its layers.
    ///
    /// # Errors
    /// If the layers do not fit together.
    pub fn parameters(&self) -> Result<Vec<Parameter>, NetworkError> {
        let shapes = self.shapes()?;
        let names = self.layer_names();
        let mut input = &self.input;
        let mut parameters = Vec::new();
        for ((layer, name), output) in self.layers.iter().zip(&names).zip(&shapes) {
            let mut add = |what: &str, shape: Vec<usize>| {
                parameters.push(Parameter { name: format!("{name}.{what}"), shape });
            };
            match layer {
                Layer::Dense { outputs } => {
                    add("weight", vec![input.iter().product(), *outputs]);
                    add("bias", vec![*outputs]);
                }
                Layer::Conv2d { filter, channels, .. } => {
                    add("weight", vec![*filter, *filter, input[2], *channels]);
                    add("bias", vec![*channels]);
                }
                Layer::BatchNorm => {
                    let channels = output[output.len() - 1];
                    for what in ["gamma", "beta", "mean", "variance"] {
                        add(what, vec![channels]);
                    }
                }
                Layer::Activation(_) | Layer::AvgPool { .. } => {}
            }
            input = output;
        }
        Ok(parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_networks_have_the_shapes_of_figure_3() {
        let sizes = |network: &Network| {
            network
                .shapes()
                .unwrap()
                .iter()
                .map(|shape| shape.iter().product())
                .collect::<Vec<usize>>()
        };
        assert_eq!(sizes(&Network::a()), [128, 128, 128, 128, 128, 128, 10]);
        let b = sizes(&Network::b());
        assert_eq!((b[0], b[3], b[4], b[7], b[11]), (16 * 576, 16 * 144, 16 * 64, 256, 10));
        let c = sizes(&Network::c());
        assert_eq!((c[0], c[3], c[4], c[7], c[8]), (20 * 576, 20 * 144, 50 * 64, 800, 500));
    }

    #[test]
    fn parameters_are_named_after_their_layers() {
        let parameters = Network::c().parameters().unwrap();
        let find = |name: &str| parameters.iter().find(|p| p.name == name).unwrap().shape.clone();
        assert_eq!(find("conv2.weight"), [5, 5, 20, 50]);
        assert_eq!(find("bn2.variance"), [50]);
        assert_eq!(find("fc1.weight"), [800, 500]);
        assert_eq!(find("fc2.bias"), [10]);
        assert_eq!(parameters.len(), 4 * 2 + 3 * 4);
    }

    #[test]
    fn the_relu_fit_is_the_published_one() {
        let relu = Polynomial::relu(3.0);
        let expected = [0.1757813, 0.5, 0.2734375, 0.0, -0.0151910];
        for (found, expected) in relu.coefficients.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-7, "{found} {expected}");
        }
        let largest = (-300..=300)
            .map(|i| f64::from(i) / 100.0)
            .map(|x| (relu.evaluate(x) - x.max(0.0)).abs())
            .fold(0.0, f64::max);
        assert!((largest - 0.1758).abs() < 1e-3, "{largest}");
    }

    #[test]
    fn layers_that_do_not_fit_are_named() {
        let pooled = Network {
            name: "odd".into(),
            input: vec![5, 5, 1],
            layers: vec![Layer::AvgPool { window: 2 }],
        };
        let message = pooled.shapes().unwrap_err().to_string();
        assert!(message.contains("pool1") && message.contains("5x5"), "{message}");
        let loose =
            Network { name: "loose".into(), input: vec![4], layers: vec![Layer::BatchNorm] };
        assert!(loose.shapes().unwrap_err().to_string().contains("must follow"));
    }
}
