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

use crate::channel::Name;
use crate::graph::{BatchNorm, Graph, GraphBuilder, GraphError, Tensor};
use crate::polynomial::Polynomial;

mod builtin;
mod reveal;
#[cfg(feature = "weights")]
pub mod weights;

pub use builtin::{Activation, Builtin, Pooling, UnknownForm, UnknownNetwork, Variant};
pub use reveal::{Reveal, UnknownReveal};

/// Largest batch.
pub const MAX_BATCH: usize = 1024;

/// What the client calls the images of a network's graph.
pub const IMAGES: &str = "images";

/// What the client calls the outputs of a network's graph.
pub const LOGITS: &str = "logits";

/// What the client calls the outputs of a network's graph that reveals labels.
pub const LABELS: &str = "labels";

/// The variance floor of batch normalisation, as the training uses it.
pub const BATCH_NORM_EPSILON: f64 = 1e-5;

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
    /// `max(x, 0)` of each element, exact.
    Relu,
    /// Average pooling over disjoint square windows.
    AvgPool {
        /// Side of the window, pixels; it must divide the image.
        window: usize,
    },
    /// The largest values of disjoint square windows, exact.
    MaxPool {
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
    /// What all values within it are below in magnitude, if that is less than the number format
    /// allows: the graph's [`range`](Graph::range).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<u32>,
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
    /// There are no layers.
    #[error("network {network} needs at least one layer")]
    Empty {
        /// The network's name.
        network: String,
    },
    /// The batch is too small or too large.
    #[error("batch size {found} is outside 1 to {MAX_BATCH}")]
    Batch {
        /// The batch size.
        found: usize,
    },
    /// The graph is too large.
    #[error("network {network}: {source}")]
    Graph {
        /// The network's name.
        network: String,
        /// What is wrong.
        source: GraphError,
    },
}

impl Network {
    /// The network as a computation between the player that knows the weights
    /// ([`Name::MODEL_OWNER`], with the names and shapes of [`Network::parameters`]) and
    /// the one that knows `batch` images and learns the logits ([`Name::CLIENT`], [`IMAGES`]
    /// and [`LOGITS`]). The model owner folds batch normalisation into the weights alone,
    /// before sharing them, so that its statistics are as private as the weights.
    ///
    /// # Errors
    /// If the layers do not fit together, none has weights, or the batch is outside 1 to
    /// [`MAX_BATCH`].
    pub fn graph(&self, batch: usize) -> Result<Graph, NetworkError> {
        self.revealing_graph(batch, Reveal::Logits)
    }

    /// The [`graph`](Self::graph) of which the client learns what `reveal` says. A label takes
    /// comparisons, which the number format must have.
    ///
    /// # Errors
    /// As [`graph`](Self::graph); and if there are no two logits to choose from.
    pub fn revealing_graph(&self, batch: usize, reveal: Reveal) -> Result<Graph, NetworkError> {
        self.compose(batch, false, reveal)
    }

    /// The [`graph`](Self::graph) in which the client also learns what every layer puts out,
    /// under the layer's name: for benchmarks, in which the weights are no secret. What the
    /// layers put out tells the weights.
    ///
    /// # Errors
    /// As [`graph`](Self::graph).
    pub fn inspected_graph(&self, batch: usize) -> Result<Graph, NetworkError> {
        self.compose(batch, true, Reveal::Logits)
    }

    fn compose(
        &self,
        batch: usize,
        inspected: bool,
        reveal: Reveal,
    ) -> Result<Graph, NetworkError> {
        if !(1..=MAX_BATCH).contains(&batch) {
            return Err(NetworkError::Batch { found: batch });
        }
        let outputs = self.shapes()?;
        if self.layers.is_empty() {
            return Err(NetworkError::Empty { network: self.name.clone() });
        }
        let (owner, client) = (Name::MODEL_OWNER, Name::CLIENT);
        let g = GraphBuilder::named(&self.name, [owner.as_str(), client.as_str()]);
        if let Some(range) = self.range {
            g.range(range);
        }
        g.label("input");
        let shape: Vec<usize> = [batch].iter().chain(&self.input).copied().collect();
        let mut x = g.share(g.local_input(client.as_str(), IMAGES, shape));
        let names = self.layer_names();
        let inputs = [&self.input].into_iter().chain(&outputs);
        for ((index, layer), (name, input)) in
            self.layers.iter().enumerate().zip(names.iter().zip(inputs))
        {
            g.label(name);
            let normalised = matches!(self.layers.get(index + 1), Some(Layer::BatchNorm))
                .then(|| &names[index + 1]);
            x = match layer {
                Layer::Dense { outputs } => {
                    let shape = [input.iter().product(), *outputs];
                    let (w, b) = linear_parameters(&g, name, normalised, &shape);
                    g.add(g.matmul(g.flatten(x), w), b)
                }
                Layer::Conv2d { filter, channels, stride, padding } => {
                    // It is an image, as `shapes` has found.
                    let shape = [*filter, *filter, input[2], *channels];
                    let (w, b) = linear_parameters(&g, name, normalised, &shape);
                    g.add(g.conv2d(x, w, *stride, *padding), b)
                }
                Layer::BatchNorm => x,
                Layer::Activation(polynomial) => g.polynomial(x, polynomial.clone()),
                Layer::Relu => g.relu(x),
                Layer::AvgPool { window } => g.avg_pool(x, *window),
                Layer::MaxPool { window } => g.max_pool(x, *window, *window, 0),
            };
            // Of a linear layer and the batch normalisation that is folded into it, the second
            // has the output of both. The output of the last layer is the logits.
            if inspected && normalised.is_none() && index + 1 < self.layers.len() {
                g.output(name, g.reveal(client.as_str(), x));
            }
        }
        match reveal {
            Reveal::Logits => g.output(LOGITS, g.reveal(client.as_str(), x)),
            Reveal::Label => {
                g.label("label");
                g.output(LABELS, g.reveal(client.as_str(), g.argmax(x)));
            }
        }
        g.build().map_err(|source| NetworkError::Graph { network: self.name.clone(), source })
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
                    Layer::Activation(_) | Layer::Relu => (3, "act"),
                    Layer::AvgPool { .. } | Layer::MaxPool { .. } => (4, "pool"),
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
                Layer::Relu => current.clone(),
                Layer::AvgPool { window } | Layer::MaxPool { window } => {
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
                Layer::Activation(_)
                | Layer::Relu
                | Layer::AvgPool { .. }
                | Layer::MaxPool { .. } => {}
            }
            input = output;
        }
        Ok(parameters)
    }
}

/// Weight and bias of the linear layer `name`, shared after the batch normalisation that
/// follows it, if one does, was folded in.
fn linear_parameters(
    g: &GraphBuilder,
    name: &str,
    normalised: Option<&String>,
    shape: &[usize],
) -> (Tensor, Tensor) {
    let channels = shape[shape.len() - 1];
    let variable = |layer: &str, what: &str, shape: &[usize]| {
        g.local_variable(Name::MODEL_OWNER.as_str(), &format!("{layer}.{what}"), shape)
    };
    let mut weight = variable(name, "weight", shape);
    let mut bias = variable(name, "bias", &[channels]);
    if let Some(norm) = normalised {
        let statistic = |what| variable(norm, what, &[channels]);
        let (factor, offset) = g.batch_norm_factors(BatchNorm {
            gamma: statistic("gamma"),
            beta: statistic("beta"),
            mean: statistic("mean"),
            variance: statistic("variance"),
            epsilon: BATCH_NORM_EPSILON,
        });
        weight = g.mul(weight, factor);
        bias = g.add(g.mul(bias, factor), offset);
    }
    g.label(&format!("{name}.weight"));
    let weight = g.share(weight);
    g.label(&format!("{name}.bias"));
    let bias = g.share(bias);
    g.label(name);
    (weight, bias)
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
    fn layers_that_do_not_fit_are_named() {
        let pooled = Network {
            name: "odd".into(),
            input: vec![5, 5, 1],
            range: None,
            layers: vec![Layer::AvgPool { window: 2 }],
        };
        let message = pooled.shapes().unwrap_err().to_string();
        assert!(message.contains("pool1") && message.contains("5x5"), "{message}");
        // A name that a listing cannot show as it is.
        for name in ["", "B relu"] {
            let error = Network { name: name.into(), ..Network::b() }.graph(1).unwrap_err();
            assert!(error.to_string().contains("a graph's name has"), "{error}");
        }
        let loose = Network {
            name: "loose".into(),
            input: vec![4],
            range: None,
            layers: vec![Layer::BatchNorm],
        };
        assert!(loose.shapes().unwrap_err().to_string().contains("must follow"));
    }
}
