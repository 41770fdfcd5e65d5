//! The paper's networks by name, and the forms that each has.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Layer, Network};
use crate::polynomial::Polynomial;

/// What follows each linear layer but the last.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// The paper's polynomial, a fit of ReLU.
    #[default]
    Polynomial,
    /// Exact ReLU, which needs a number format with comparisons.
    Relu,
}

/// How a convolution's output is made smaller.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The average of each window.
    #[default]
    Average,
    /// The largest value of each window, which needs a number format with comparisons.
    Max,
}

/// The form of a network; by default the paper's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variant {
    /// Its activations.
    pub activation: Activation,
    /// Its pooling; a network without one has [`Pooling::Average`].
    pub pooling: Pooling,
}

/// One of the paper's networks in one of its forms, such as `B-relu-max`: what it is called in
/// configurations and results, and what its files are named after.
///
/// ```
/// use spdz::network::{Activation, Builtin, Pooling, Variant};
///
/// let network: Builtin = "B-relu-max".parse()?;
/// assert_eq!(network.architecture(), "B");
/// assert_eq!(
///     network.variant(),
///     Variant { activation: Activation::Relu, pooling: Pooling::Max }
/// );
/// assert_eq!(network.file_stem(), "b-relu-max");
/// assert_eq!("A".parse::<Builtin>()?.to_string(), "A");
/// # Ok::<(), spdz::network::UnknownNetwork>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Builtin {
    architecture: Architecture,
    variant: Variant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Architecture {
    A,
    B,
    C,
}

/// Why there is no such network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownNetwork {
    /// The name is none.
    #[error("there is no network {found}; expected one of {}", known())]
    Name {
        /// What was found.
        found: String,
    },
    /// The network pools nothing.
    #[error(
        "network {architecture} has no pooling that could be max pooling; leave the pooling out"
    )]
    Unpooled {
        /// `A`.
        architecture: &'static str,
    },
    /// Max pooling goes with ReLU.
    #[error(
        "network {architecture} has max pooling with the activation relu alone; choose relu, or average pooling"
    )]
    Polynomial {
        /// `B` or `C`.
        architecture: &'static str,
    },
}

/// Why there is no such activation or pooling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {kind} {found}; expected {expected}")]
pub struct UnknownForm {
    kind: &'static str,
    found: String,
    expected: String,
}

impl UnknownForm {
    fn new(kind: &'static str, found: &str, names: [&str; 2]) -> Self {
        Self { kind, found: found.into(), expected: names.join(" or ") }
    }
}

/// `A, A-relu, B, ...`.
fn known() -> String {
    Builtin::ALL.map(Builtin::name).join(", ")
}

impl Activation {
    /// Each of them, the default first.
    pub const ALL: [Self; 2] = [Self::Polynomial, Self::Relu];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Polynomial => "polynomial",
            Self::Relu => "relu",
        }
    }

    fn layer(self) -> Layer {
        match self {
            Self::Polynomial => Layer::Activation(Polynomial::relu(3.0)),
            Self::Relu => Layer::Relu,
        }
    }
}

impl Pooling {
    /// Each of them, the default first.
    pub const ALL: [Self; 2] = [Self::Average, Self::Max];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Average => "average",
            Self::Max => "max",
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Activation {
    type Err = UnknownForm;

    fn from_str(name: &str) -> Result<Self, UnknownForm> {
        let found = Self::ALL.into_iter().find(|known| known.name() == name);
        found.ok_or_else(|| UnknownForm::new("activation", name, Self::ALL.map(Self::name)))
    }
}

impl FromStr for Pooling {
    type Err = UnknownForm;

    fn from_str(name: &str) -> Result<Self, UnknownForm> {
        let found = Self::ALL.into_iter().find(|known| known.name() == name);
        found.ok_or_else(|| UnknownForm::new("pooling", name, Self::ALL.map(Self::name)))
    }
}

impl Architecture {
    const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        }
    }
}

impl Variant {
    /// The paper's polynomial and average pooling.
    pub const PAPER: Self = Self { activation: Activation::Polynomial, pooling: Pooling::Average };

    /// Exact ReLU and average pooling, if there is pooling.
    pub const RELU: Self = Self { activation: Activation::Relu, pooling: Pooling::Average };

    /// Exact ReLU and max pooling.
    pub const RELU_MAX: Self = Self { activation: Activation::Relu, pooling: Pooling::Max };
}

impl Builtin {
    /// The names of the paper's networks without their forms.
    pub const ARCHITECTURES: [&'static str; 3] = ["A", "B", "C"];

    /// Network A of the paper's Figure 3: three dense layers.
    pub const A: Self = Self { architecture: Architecture::A, variant: Variant::PAPER };

    /// Network B of the paper's Figure 3: two convolutions and two dense layers.
    pub const B: Self = Self { architecture: Architecture::B, variant: Variant::PAPER };

    /// Network C of the paper's Figure 3: as B, and wider.
    pub const C: Self = Self { architecture: Architecture::C, variant: Variant::PAPER };

    /// Every network in every form that it has.
    pub const ALL: [Self; 8] = [
        Self::A,
        Self { variant: Variant::RELU, ..Self::A },
        Self::B,
        Self { variant: Variant::RELU, ..Self::B },
        Self { variant: Variant::RELU_MAX, ..Self::B },
        Self::C,
        Self { variant: Variant::RELU, ..Self::C },
        Self { variant: Variant::RELU_MAX, ..Self::C },
    ];

    /// The network `A`, `B` or `C` in that form.
    ///
    /// # Errors
    /// If there is no such network, or it has no such form.
    pub fn new(architecture: &str, variant: Variant) -> Result<Self, UnknownNetwork> {
        let architecture = Architecture::ALL
            .into_iter()
            .find(|known| known.name() == architecture)
            .ok_or_else(|| UnknownNetwork::Name { found: architecture.into() })?;
        let network = Self { architecture, variant };
        let architecture = architecture.name();
        match (Self::ALL.contains(&network), network.architecture) {
            (true, _) => Ok(network),
            (false, Architecture::A) => Err(UnknownNetwork::Unpooled { architecture }),
            (false, _) => Err(UnknownNetwork::Polynomial { architecture }),
        }
    }

    /// `A`, `B` or `C`.
    #[must_use]
    pub fn architecture(self) -> &'static str {
        self.architecture.name()
    }

    /// The architecture, and what is not as in the paper: `A`, `A-relu`, `B-relu-max`.
    #[must_use]
    pub fn name(self) -> &'static str {
        use Activation::{Polynomial, Relu};
        use Architecture::{A, B, C};
        let Variant { activation, pooling } = self.variant;
        match (self.architecture, activation, pooling) {
            // Of the forms that there are, that with max pooling is the one with ReLU.
            (A, Polynomial, _) => "A",
            (A, Relu, _) => "A-relu",
            (B, Polynomial, _) => "B",
            (B, Relu, Pooling::Average) => "B-relu",
            (B, Relu, Pooling::Max) => "B-relu-max",
            (C, Polynomial, _) => "C",
            (C, Relu, Pooling::Average) => "C-relu",
            (C, Relu, Pooling::Max) => "C-relu-max",
        }
    }

    /// Its form.
    #[must_use]
    pub fn variant(self) -> Variant {
        self.variant
    }

    /// Whether it needs a number format with comparisons.
    #[must_use]
    pub fn compares(self) -> bool {
        self.variant != Variant::PAPER
    }

    /// What the values of the networks with ReLU are below in magnitude: those of the shipped ones
    /// are below 7 on the test set. The paper's leave the range to the number format.
    fn range(self) -> Option<u32> {
        self.compares().then_some(32)
    }

    /// What its files are called without their ending: `b-relu-max`.
    #[must_use]
    pub fn file_stem(self) -> String {
        self.name().to_lowercase()
    }

    /// Its layers.
    #[must_use]
    pub fn network(self) -> Network {
        match self.architecture {
            Architecture::A => self.dense(),
            // The figure prints `Conv (5, 16, 1, 1)` as (field, channels, stride, padding), but
            // only unpadded convolutions give the 256 inputs of its `FC (256, 100)` and the 800
            // of its `FC (800, 500)`: 28 -> 24 -> 12 -> 8 -> 4, and 4 * 4 * 16 = 256, 4 * 4 * 50
            // = 800.
            Architecture::B => self.convolutional(16, 16, 100),
            Architecture::C => self.convolutional(20, 50, 500),
        }
    }

    fn dense(self) -> Network {
        let activation = || self.variant.activation.layer();
        Network {
            name: self.name().into(),
            input: vec![28, 28, 1],
            range: self.range(),
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

    fn convolutional(self, first: usize, second: usize, hidden: usize) -> Network {
        let convolution = |channels| Layer::Conv2d { filter: 5, channels, stride: 1, padding: 0 };
        let activation = || self.variant.activation.layer();
        let pooled = || match self.variant.pooling {
            Pooling::Average => [activation(), Layer::AvgPool { window: 2 }],
            // In this order, which makes the same numbers, a quarter of them meets the ReLU.
            Pooling::Max => [Layer::MaxPool { window: 2 }, activation()],
        };
        let mut layers = vec![convolution(first), Layer::BatchNorm];
        layers.extend(pooled());
        layers.extend([convolution(second), Layer::BatchNorm]);
        layers.extend(pooled());
        layers.extend([Layer::Dense { outputs: hidden }, Layer::BatchNorm, activation()]);
        layers.push(Layer::Dense { outputs: 10 });
        let range = self.range();
        Network { name: self.name().into(), input: vec![28, 28, 1], range, layers }
    }
}

impl fmt::Display for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Builtin {
    type Err = UnknownNetwork;

    fn from_str(name: &str) -> Result<Self, UnknownNetwork> {
        let network = Self::ALL.into_iter().find(|network| network.name() == name);
        network.ok_or_else(|| UnknownNetwork::Name { found: name.into() })
    }
}

impl Network {
    /// Network A of the paper's Figure 3: three dense layers.
    #[must_use]
    pub fn a() -> Self {
        Builtin::A.network()
    }

    /// Network B of the paper's Figure 3: two convolutions and two dense layers.
    #[must_use]
    pub fn b() -> Self {
        Builtin::B.network()
    }

    /// Network C of the paper's Figure 3: as [`Network::b`], and wider.
    #[must_use]
    pub fn c() -> Self {
        Builtin::C.network()
    }

    /// The paper's network of that name in one of its forms: `A`, `B-relu-max`, and others of
    /// [`Builtin`].
    #[must_use]
    pub fn builtin(name: &str) -> Option<Self> {
        name.parse().ok().map(Builtin::network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_is_found_by_its_name_and_by_its_form() {
        for network in Builtin::ALL {
            let name = network.to_string();
            assert_eq!(name.parse(), Ok(network));
            assert_eq!(Builtin::new(network.architecture(), network.variant()), Ok(network));
            assert_eq!(network.network().name, name);
            assert_eq!(Network::builtin(&name), Some(network.network()));
        }
        let mut stems: Vec<String> = Builtin::ALL.map(Builtin::file_stem).into();
        assert_eq!(stems[..5], ["a", "a-relu", "b", "b-relu", "b-relu-max"]);
        stems.dedup();
        assert_eq!(stems.len(), Builtin::ALL.len());
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for name in ["D", "a", "A-relu-max", "B-max", "B-relu average", "B  relu", "B-relu ", ""] {
            let error = name.parse::<Builtin>().unwrap_err().to_string();
            assert!(error.contains("expected one of A, A-relu, B, "), "{error}");
        }
        let max = Variant { pooling: Pooling::Max, ..Variant::default() };
        for (architecture, variant, expected) in [
            ("A", max, "network A has no pooling"),
            ("A", Variant::RELU_MAX, "network A has no pooling"),
            ("B", max, "network B has max pooling with the activation relu alone"),
            ("D", Variant::RELU, "there is no network D"),
        ] {
            let error = Builtin::new(architecture, variant).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn forms_are_found_by_their_names() {
        for activation in Activation::ALL {
            assert_eq!(activation.to_string().parse(), Ok(activation));
            let json = serde_json::to_string(&activation).unwrap();
            assert_eq!(json, format!("\"{activation}\""));
        }
        for pooling in Pooling::ALL {
            assert_eq!(pooling.to_string().parse(), Ok(pooling));
            let json = serde_json::to_string(&pooling).unwrap();
            assert_eq!(json, format!("\"{pooling}\""));
        }
        let error = "gelu".parse::<Activation>().unwrap_err().to_string();
        assert_eq!(error, "there is no activation gelu; expected polynomial or relu");
    }

    #[test]
    fn forms_have_the_shapes_and_parameters_of_the_papers_networks() {
        for network in Builtin::ALL {
            let paper = Builtin::new(network.architecture(), Variant::default()).unwrap();
            let (network, paper) = (network.network(), paper.network());
            assert_eq!(network.parameters(), paper.parameters());
            let [shapes, others] = [&network, &paper].map(|network| network.shapes().unwrap());
            assert_eq!(shapes.last(), others.last());
            assert_eq!(shapes.len(), others.len());
        }
    }
}
