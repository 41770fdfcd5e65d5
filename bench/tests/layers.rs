//! Every layer of the networks with exact ReLU, bit for bit against the integers.
//!
//! The secure side is the protocol itself, all parties in one process, on the inspected graph,
//! whose client learns what every layer puts out. The other side computes each layer in integers,
//! from the quantised weights and from what the layer before it was found to put out. What is left
//! between the two is rounding: a number that is divided by `2^b` is the floor of the quotient or
//! one more, and the quotient itself if there is no remainder. Nothing else may differ.
//!
//! `make layers` follows 1,000 images through all networks and prints what was rounded how.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../spdz/tests/common/mod.rs"]
#[allow(unreachable_pub)]
mod common;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bench::data::Dataset;
use common::{PlayerInputs, Settings, run_compiled};
use ndarray::Array2;
use spdz::channel::Name;
use spdz::graph::{Lifetime, Plaintext, Tensors};
use spdz::network::weights::Weights;
use spdz::network::{Builtin, IMAGES, LOGITS, Layer, Network};
use spdz::plan::{NumberFormat, Plan};

/// Images of one evaluation.
const BATCH: usize = 50;

/// Fractional bits of what layers put out.
const FRACTION: i32 = 12;

/// The weights and bias of a linear layer in integers.
#[derive(Clone)]
struct Linear {
    /// `[in, out]`, or `[height, width, in, out]`.
    weight: Vec<i64>,
    weight_fraction: i32,
    bias: Vec<i64>,
    bias_fraction: i32,
}

/// What is known of a layer's output before the next one.
enum Known {
    /// The integers themselves, with so many fractional bits.
    Exact(Vec<i64>, i32),
    /// Integers that are divided when they are used: by a gate, or by what reveals them.
    Sums(Vec<i64>, i32),
}

/// How the values of a layer were rounded.
#[derive(Clone, Copy, Debug, Default)]
struct Rounded {
    /// Values that are compared.
    values: u64,
    /// Those of which the rounding is seen: there is a remainder, and what follows does not hide it.
    seen: u64,
    /// Those that are one more than the floor.
    up: u64,
    /// How many of them that is on average: the sum of the probabilities.
    expected: f64,
    variance: f64,
}

/// What a layer may put out for a value: `low`, or one more with a probability.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Allowed {
    low: i64,
    /// That of one more; 0 if the value is `low` for sure.
    up: f64,
}

impl Allowed {
    fn exactly(low: i64) -> Self {
        Self { low, up: 0.0 }
    }

    /// Of a quotient by `2^bits`: the floor, or one more as often as makes it right on average.
    fn quotient(dividend: i64, bits: i32) -> Self {
        let low = dividend >> bits;
        let remainder = dividend - (low << bits);
        Self { low, up: remainder as f64 / f64::from(bits).exp2() }
    }

    /// Of the largest of some, each rounded by itself.
    fn largest(all: &[Self]) -> Self {
        let low = all.iter().map(|one| one.low).max().unwrap();
        let not = all.iter().filter(|one| one.low == low).map(|one| 1.0 - one.up).product::<f64>();
        Self { low, up: 1.0 - not }
    }

    /// Of the larger of it and zero.
    fn relu(self) -> Self {
        if self.low < 0 { Self::exactly(0) } else { self }
    }
}

impl Rounded {
    /// Takes in a value; false if it is none of those allowed.
    fn take(&mut self, allowed: Allowed, found: i64) -> bool {
        self.values += 1;
        if allowed.up == 0.0 {
            return found == allowed.low;
        }
        self.seen += 1;
        self.expected += allowed.up;
        self.variance += allowed.up * (1.0 - allowed.up);
        self.up += u64::from(found == allowed.low + 1);
        found == allowed.low || found == allowed.low + 1
    }

    fn add(&mut self, other: Self) {
        self.values += other.values;
        self.seen += other.seen;
        self.up += other.up;
        self.expected += other.expected;
        self.variance += other.variance;
    }
}

/// Products of rows with columns, and a bias.
fn dense(x: &[i64], linear: &Linear, inputs: usize, outputs: usize) -> Vec<i64> {
    let mut sums = Vec::with_capacity(x.len() / inputs * outputs);
    for row in x.chunks(inputs) {
        let mut sum = vec![0; outputs];
        for (x, weights) in row.iter().zip(linear.weight.chunks(outputs)) {
            sum.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += x * weight);
        }
        sums.extend(sum);
    }
    sums
}

/// A convolution of images that are channels last.
fn convolved(
    x: &[i64],
    linear: &Linear,
    [height, width, inputs]: [usize; 3],
    [high, wide, outputs]: [usize; 3],
    (filter, stride, padding): (usize, usize, usize),
) -> Vec<i64> {
    let mut sums = Vec::new();
    for image in x.chunks(height * width * inputs) {
        for place in 0..high * wide {
            let (row, column) = (place / wide * stride, place % wide * stride);
            let mut sum = vec![0; outputs];
            for (tap, weights) in linear.weight.chunks(inputs * outputs).enumerate() {
                let (y, x) = (row + tap / filter, column + tap % filter);
                let inside = (padding..padding + height).contains(&y)
                    && (padding..padding + width).contains(&x);
                if !inside {
                    continue;
                }
                let pixel = ((y - padding) * width + x - padding) * inputs;
                for (x, weights) in image[pixel..][..inputs].iter().zip(weights.chunks(outputs)) {
                    sum.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += x * weight);
                }
            }
            sums.extend(sum);
        }
    }
    sums
}

/// The values of disjoint windows, one window after the other.
fn windows(x: &[i64], [height, width, channels]: [usize; 3], side: usize) -> Vec<Vec<i64>> {
    let mut all = Vec::new();
    for image in x.chunks(height * width * channels) {
        for row in (0..height).step_by(side) {
            for column in (0..width).step_by(side) {
                for channel in 0..channels {
                    let at = |place: usize| {
                        let (y, x) = (row + place / side, column + place % side);
                        image[(y * width + x) * channels + channel]
                    };
                    all.push((0..side * side).map(at).collect());
                }
            }
        }
    }
    all
}

fn image_shape(shape: &[usize]) -> [usize; 3] {
    shape.try_into().unwrap()
}

impl Known {
    /// What the layer's output may be found to be.
    fn allowed(&self) -> Vec<Allowed> {
        match self {
            Self::Exact(values, FRACTION) => values.iter().copied().map(Allowed::exactly).collect(),
            Self::Exact(values, fraction) | Self::Sums(values, fraction) => {
                let bits = fraction - FRACTION;
                values.iter().map(|value| Allowed::quotient(*value, bits)).collect()
            }
        }
    }
}

/// A network in integers.
#[derive(Clone)]
struct Model {
    network: Network,
    names: Vec<String>,
    shapes: Vec<Vec<usize>>,
    linear: HashMap<String, Linear>,
}

impl Model {
    /// With the weights as the plan has the model owner encode them.
    fn of(network: Network, plan: &Plan, weights: &Tensors) -> Self {
        let graph = plan.graph();
        let shared = graph.before_sharing(Name::MODEL_OWNER, Lifetime::Session, weights).unwrap();
        let mut linear: HashMap<String, Linear> = HashMap::new();
        for input in plan.inputs().iter().filter(|input| input.player == Name::MODEL_OWNER) {
            let (values, fraction) =
                (quantised(&shared[&input.node], input.fraction), input.fraction);
            let none = || Linear {
                weight: Vec::new(),
                weight_fraction: 0,
                bias: Vec::new(),
                bias_fraction: 0,
            };
            let label = &graph.nodes()[input.node.0].label;
            let (layer, what) = label.split_once('.').unwrap();
            let layer = linear.entry(layer.into()).or_insert_with(none);
            match what {
                "weight" => (layer.weight, layer.weight_fraction) = (values, fraction),
                _ => (layer.bias, layer.bias_fraction) = (values, fraction),
            }
        }
        let (names, shapes) = (network.layer_names(), network.shapes().unwrap());
        Self { network, names, shapes, linear }
    }

    /// What a layer may put out, given what the one before it put out.
    fn layer(&self, index: usize, input: &[usize], before: Known) -> (Vec<Allowed>, Known) {
        let layer = &self.network.layers[index];
        let output = &self.shapes[index];
        match (layer, before) {
            (Layer::Dense { .. } | Layer::Conv2d { .. }, Known::Exact(x, fraction)) => {
                let linear = &self.linear[&self.names[index]];
                let mut sums = match layer {
                    Layer::Conv2d { filter, stride, padding, .. } => convolved(
                        &x,
                        linear,
                        image_shape(input),
                        image_shape(output),
                        (*filter, *stride, *padding),
                    ),
                    _ => dense(&x, linear, input.iter().product(), output[0]),
                };
                let fraction = fraction + linear.weight_fraction;
                let finer = fraction - linear.bias_fraction;
                for (sum, bias) in sums.iter_mut().zip(linear.bias.iter().cycle()) {
                    *sum += bias << finer;
                }
                let known = Known::Sums(sums, fraction);
                (known.allowed(), known)
            }
            // It is folded into the layer before it.
            (Layer::BatchNorm, known) => (known.allowed(), known),
            (Layer::Relu, known) => {
                let allowed = known.allowed().into_iter().map(Allowed::relu).collect();
                (allowed, known)
            }
            (Layer::MaxPool { window }, known) => {
                let allowed = known.allowed();
                let places: Vec<i64> = (0..allowed.len() as i64).collect();
                let largest = |window: Vec<i64>| {
                    let all: Vec<Allowed> =
                        window.iter().map(|place| allowed[*place as usize]).collect();
                    Allowed::largest(&all)
                };
                let windows = windows(&places, image_shape(input), *window);
                (windows.into_iter().map(largest).collect(), known)
            }
            (Layer::AvgPool { window }, Known::Exact(x, fraction)) => {
                let sums = windows(&x, image_shape(input), *window);
                let sums = sums.into_iter().map(|window| window.iter().sum()).collect();
                // The sum of a power of two of values, read with more fractional bits.
                let bits = (window * window).trailing_zeros().cast_signed();
                assert_eq!(1 << bits, window * window);
                let known = Known::Exact(sums, fraction + bits);
                (known.allowed(), known)
            }
            (layer, Known::Sums(..)) => panic!("{layer:?} of sums is not in these networks"),
            (layer, _) => panic!("{layer:?} is not in these networks"),
        }
    }

    /// What is known of a layer's output once it was found.
    fn after(&self, index: usize, known: Known, found: Vec<i64>) -> Known {
        match self.network.layers[index] {
            // What a gate puts out has the fractional bits of what is learnt, so all of it was.
            Layer::Relu | Layer::MaxPool { .. } => Known::Exact(found, FRACTION),
            _ => known,
        }
    }
}

impl Batch {
    /// Follows it through all layers; adds up how each was rounded, or says what is wrong.
    fn follow(&self, rounded: &mut BTreeMap<usize, Rounded>) -> Result<(), String> {
        let Self { model, first, images, found } = self;
        let layers = &model.network.layers;
        let mut known = Known::Exact(images.clone(), FRACTION);
        let mut input = &model.network.input;
        for index in 0..layers.len() {
            let (allowed, next) = model.layer(index, input, known);
            (known, input) = (next, &model.shapes[index]);
            let name = if index + 1 == layers.len() { LOGITS } else { &model.names[index] };
            let Some(revealed) = found.get(name) else {
                // Of a linear layer and its batch normalisation the second is learnt.
                assert!(matches!(layers[index + 1], Layer::BatchNorm), "nobody learns {name}");
                continue;
            };
            let found = quantised(revealed, FRACTION);
            assert_eq!(found.len(), allowed.len(), "{name}");
            let each = allowed.len() / revealed.shape()[0];
            let counted = rounded.entry(index).or_default();
            for (at, (allowed, found)) in allowed.iter().zip(&found).enumerate() {
                if !counted.take(*allowed, *found) {
                    let or = if allowed.up > 0.0 { " or one more" } else { "" };
                    return Err(format!(
                        "layer {name}, image {}, place {:?} of {input:?}: expected {}{or}, found {found}, \
                         in units of 2^-{FRACTION}",
                        first + at / each,
                        place(at % each, input),
                        allowed.low,
                    ));
                }
            }
            known = model.after(index, known, found);
        }
        Ok(())
    }
}

/// Where an element is.
fn place(at: usize, shape: &[usize]) -> Vec<usize> {
    let mut left = at;
    let mut place: Vec<usize> = shape
        .iter()
        .rev()
        .map(|side| {
            let digit = left % side;
            left /= side;
            digit
        })
        .collect();
    place.reverse();
    place
}

/// The nearest integers to numbers times a power of two, ties away from zero.
fn quantised(values: &Plaintext, fraction: i32) -> Vec<i64> {
    let scale = f64::from(fraction).exp2();
    values.as_slice().iter().map(|value| (value * scale).round() as i64).collect()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What the model owner brings.
fn weights(model: Builtin) -> Tensors {
    let file = folder("models").join(model.file_stem()).with_extension("safetensors");
    let network = model.network();
    let weights = Weights::from_safetensors(&std::fs::read(file).unwrap(), &network).unwrap();
    let tensor = |name: String| {
        let values = weights.get(&name).unwrap();
        let numbers = values.iter().map(|value| f64::from(*value)).collect();
        (name, Plaintext::new(values.shape(), numbers).unwrap())
    };
    network.parameters().unwrap().into_iter().map(|parameter| tensor(parameter.name)).collect()
}

/// How a network's layers were rounded, as a table.
fn table(network: &Network, rounded: &BTreeMap<usize, Rounded>) -> String {
    let names = network.layer_names();
    let mut text = format!(
        "{:8} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
        "layer", "values", "exact", "floor", "one more", "expected"
    );
    for (index, Rounded { values, seen, up, expected, .. }) in rounded {
        writeln!(
            text,
            "{:8} {values:>10} {:>10} {:>10} {up:>10} {expected:>10.0}",
            names[*index],
            values - seen,
            seen - up
        )
        .unwrap();
    }
    text
}

/// A network and images of the test set.
struct Subject {
    network: Network,
    format: NumberFormat,
    weights: Tensors,
    pixels: Array2<f32>,
}

/// What the client of a batch learnt, and what it is compared with.
#[derive(Clone)]
struct Batch {
    model: Model,
    /// The place of its first image in the test set.
    first: usize,
    images: Vec<i64>,
    found: Tensors,
}

impl Subject {
    fn of(name: &str, format: NumberFormat) -> Self {
        assert_eq!(format.precision().fraction.cast_signed(), FRACTION);
        let builtin: Builtin = name.parse().unwrap();
        let pixels = bench::plaintext::inputs(&Dataset::test(&folder("data")).unwrap().images);
        Self { network: builtin.network(), format, weights: weights(builtin), pixels }
    }

    /// Infers images from `first` on, and has every layer's output revealed.
    fn infer(&self, first: usize, batch: usize) -> Batch {
        let Self { network, format, weights, pixels } = self;
        let truncation = format.usual_truncation();
        let graph = network.inspected_graph(batch).unwrap();
        let plan = Plan::compile(&graph, *format, truncation).unwrap();
        assert_eq!(plan.local_failure(), 0.0);
        let model = Model::of(network.clone(), &plan, weights);
        let shape: Vec<usize> = [batch].iter().chain(&network.input).copied().collect();
        let rows = pixels.rows().into_iter().skip(first).take(batch);
        let values = rows.flatten().map(|pixel| f64::from(*pixel)).collect();
        let pixels = Plaintext::new(shape, values).unwrap();
        let images = quantised(&pixels, FRACTION);
        let client = Tensors::from([(IMAGES.to_owned(), pixels)]);
        let inputs =
            PlayerInputs::from([(Name::MODEL_OWNER, weights.clone()), (Name::CLIENT, client)]);
        let settings = Settings::new(*format, truncation, (first / BATCH) as u8);
        let mut outcome = run_compiled(plan, settings, &[inputs]);
        let found = outcome.player_outputs[0].remove(&Name::CLIENT).unwrap().unwrap();
        Batch { model, first, images, found }
    }
}

/// Follows so many images of the test set through every layer; says how each was rounded.
fn follow(name: &str, format: NumberFormat, images: usize) -> String {
    let subject = Subject::of(name, format);
    let mut rounded = BTreeMap::new();
    for first in (0..images).step_by(BATCH) {
        let batch = subject.infer(first, BATCH.min(images - first));
        if let Err(why) = batch.follow(&mut rounded) {
            panic!("{name} {format}: {why}");
        }
    }
    let mut all = Rounded::default();
    for (index, layer) in &rounded {
        all.add(*layer);
        // Right on average, within six standard deviations.
        let apart = (layer.up as f64 - layer.expected).abs();
        assert!(apart <= 6.0 * layer.variance.sqrt() + 6.0, "{name} {format} {index}: {layer:?}");
    }
    assert_eq!(
        rounded.len(),
        subject.network.inspected_graph(1).unwrap().outputs_of(Name::CLIENT).len()
    );
    assert!(all.up > 0 && all.up < all.seen, "{all:?}");
    format!("{name} {format}, {images} images\n{}", table(&subject.network, &rounded))
}

#[test]
fn a_thousand_images_leave_network_a_as_the_integers_do() {
    for format in NumberFormat::with_gates() {
        println!("{}", follow("A-relu", format, 1000));
    }
}

#[test]
fn images_leave_larger_networks_as_the_integers_do() {
    for name in ["B-relu", "C-relu", "B-relu-max", "C-relu-max"] {
        for format in NumberFormat::with_gates() {
            println!("{}", follow(name, format, 250));
        }
    }
}

/// A value that is a unit off is found, wherever it is, and so is a model whose weights are.
#[test]
fn one_wrong_unit_is_named() {
    const UNIT: f64 = 1.0 / 4096.0;
    for (name, layers) in [
        ("A-relu", &["bn1", "act1", "bn2", "act2", "logits"][..]),
        ("B-relu", &["bn1", "act1", "pool1", "act2", "pool2", "act3", "logits"]),
        ("B-relu-max", &["bn1", "pool1", "act1", "bn2", "pool2", "act2", "act3", "logits"]),
    ] {
        let right = Subject::of(name, NumberFormat::Int32).infer(7, 2);
        assert_eq!(right.follow(&mut BTreeMap::new()), Ok(()));
        for layer in layers {
            // One more than the one more of what is rounded up, and one less than the floor.
            for units in [2.0, -2.0] {
                let found = &right.found[*layer];
                let each = found.as_slice().len() / 2;
                let mut values = found.as_slice().to_vec();
                values[each + 3] += units * UNIT;
                let mut found_all = right.found.clone();
                let wrong = Plaintext::new(found.shape(), values).unwrap();
                found_all.insert((*layer).into(), wrong);
                let batch = Batch { found: found_all, ..right.clone() };
                let error = batch.follow(&mut BTreeMap::new()).unwrap_err();
                assert!(error.starts_with(&format!("layer {layer}, image 8, place [")), "{error}");
                assert!(error.contains("3] of [") && error.contains("expected "), "{error}");
            }
        }
        let mut wrong = right.clone();
        wrong.model.linear.get_mut("fc1").unwrap().bias[0] += 2 << 14;
        let error = wrong.follow(&mut BTreeMap::new()).unwrap_err();
        assert!(error.starts_with("layer "), "{error}");
    }
}

/// `make layers`: a few minutes.
#[test]
#[ignore = "follows 1,000 images through every network; make layers"]
fn a_thousand_images_leave_every_network_as_the_integers_do() {
    for name in ["A-relu", "B-relu", "C-relu", "B-relu-max", "C-relu-max"] {
        for format in NumberFormat::with_gates() {
            println!("{}", follow(name, format, 1000));
        }
    }
}
