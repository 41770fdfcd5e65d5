//! What a run reports: the same JSON on one machine and in a cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdz::network::Reveal;
use spdz::plan::{NumberFormat, Truncation};

use crate::config::OfflineMode;

/// The result of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunResult {
    /// The name of the network, or of whatever graph was computed.
    pub network: String,
    /// The number format.
    #[schemars(with = "String")]
    pub format: NumberFormat,
    /// The truncation.
    #[schemars(with = "String")]
    pub truncation: Truncation,
    /// What the client of a network learnt; `logits` without it, and of a graph that is no
    /// network.
    #[serde(default, skip_serializing_if = "Reveal::is_default")]
    #[schemars(with = "Option<String>")]
    pub reveal: Reveal,
    /// Inputs of one inference; 1 for a graph that is no network.
    pub batch_size: usize,
    /// Timed evaluations.
    pub repetitions: u64,
    /// When their correlated randomness was generated.
    pub offline_mode: OfflineMode,
    /// The paper's runtime. Inline: offline and online phase. Ahead: online phase alone.
    pub combined: Latency,
    /// From the masked input, with the randomness at hand, to the output.
    pub online: Latency,
    /// From the command until both servers hold an evaluation's randomness.
    pub offline: Latency,
    /// Bytes that all parties together send in the online phase of one evaluation,
    /// as gRPC messages, before HTTP/2 and TLS.
    pub online_bytes: u64,
    /// Bytes that all parties together send in the offline phase of one evaluation,
    /// the few of the command excepted.
    pub offline_bytes: u64,
    /// Exchanges between the servers in one evaluation.
    pub online_rounds: u64,
    /// Evaluations of the session, warm-up included, with an output beyond the format's range.
    /// They count as wrong.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub out_of_range: u64,
    /// Server 0's time by layer, in the order of the computation; the 16 longest if there are
    /// more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerTime>,
    /// Accuracy of the outputs computed on shares, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
    /// The outputs of layers; only of a run that was not private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspection: Option<Inspection>,
}

/// Whether it is zero, and left out.
// Serde hands over a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Most layers of a result.
pub const MAX_LAYERS: usize = 16;

/// Most characters of a layer's name in a result; longer names are cut off.
const MAX_LAYER_NAME: usize = 16;

/// What server 0 needs for a layer, with the waits for others in it: the mean of all
/// evaluations of the session, those that were not timed included, milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LayerTime {
    /// The layer's place in the computation, counted from 0.
    pub index: usize,
    /// What the graph calls it: `conv1` or `act2`.
    pub name: String,
    /// What it mainly does: `conv2d`, `matmul`, `polynomial`, `sum_pool` ...
    pub kind: String,
    /// Before the input is there.
    pub offline_ms: f64,
    /// From then on.
    pub online_ms: f64,
}

impl LayerTime {
    /// A layer with times of four significant digits, and no more of its name than a
    /// result has room for.
    #[must_use]
    pub fn new(index: usize, name: &str, kind: &str, offline_ms: f64, online_ms: f64) -> Self {
        Self {
            index,
            name: name.chars().take(MAX_LAYER_NAME).collect(),
            kind: kind.into(),
            offline_ms: four_digits(offline_ms),
            online_ms: four_digits(online_ms),
        }
    }

    /// Those of `layers` that take longest, at most [`MAX_LAYERS`], in their order.
    #[must_use]
    pub fn longest(mut layers: Vec<Self>) -> Vec<Self> {
        let total = |layer: &Self| layer.offline_ms + layer.online_ms;
        layers.sort_by(|a, b| total(b).total_cmp(&total(a)));
        layers.truncate(MAX_LAYERS);
        layers.sort_by_key(|layer| layer.index);
        layers
    }
}

/// Four significant digits: what a measurement of milliseconds is worth, and short.
fn four_digits(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

/// Most block means of a latency.
pub const MAX_BLOCKS: usize = 32;

/// The quantiles of a latency: the smallest sample, every 20th, the largest.
pub const QUANTILES: usize = 21;

/// A latency over repetitions, milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Latency {
    /// Mean.
    pub mean_ms: f64,
    /// Sample standard deviation.
    pub stddev_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// The quantiles 0, 0.05, ... 1, four significant digits each; empty where the
    /// distribution was not kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantiles_ms: Vec<f64>,
    /// Means of blocks of consecutive repetitions, as equally long as can be and at most
    /// 32, in the order in which they were measured, four significant digits each; empty
    /// where they were not kept. Neighbours share the machine's slow moments, so that it
    /// takes blocks to tell how sure a mean is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub block_means_ms: Vec<f64>,
}

impl Latency {
    /// The statistics of `samples`, milliseconds; zeros if there are none.
    ///
    /// Percentiles interpolate linearly between the two nearest samples.
    #[must_use]
    pub fn of(samples: &[f64]) -> Self {
        if samples.is_empty() {
            return Self::default();
        }
        let n = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / n;
        let squares: f64 = samples.iter().map(|x| (x - mean).powi(2)).sum();
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let percentile = |p: f64| quantile(&sorted, p);
        Self {
            mean_ms: mean,
            stddev_ms: if samples.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 },
            p50_ms: percentile(0.5),
            p95_ms: percentile(0.95),
            p99_ms: percentile(0.99),
            ..Self::default()
        }
    }

    /// The deviation, if so many repetitions have one: a single one does not.
    #[must_use]
    pub fn deviation_ms(&self, repetitions: u64) -> Option<f64> {
        (repetitions > 1).then_some(self.stddev_ms)
    }

    /// The statistics of `samples` in the order in which they were measured,
    /// milliseconds, with their distribution.
    #[must_use]
    pub fn with_distribution(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let quantiles = if sorted.is_empty() { 0 } else { QUANTILES };
        let place = |index: usize| index as f64 / (QUANTILES - 1) as f64;
        let blocks = samples.len().min(MAX_BLOCKS);
        let block = |index: usize| {
            let bound = |index: usize| index * samples.len() / blocks;
            let block = &samples[bound(index)..bound(index + 1)];
            block.iter().sum::<f64>() / block.len() as f64
        };
        Self {
            quantiles_ms: (0..quantiles)
                .map(|index| four_digits(quantile(&sorted, place(index))))
                .collect(),
            block_means_ms: (0..blocks).map(|index| four_digits(block(index))).collect(),
            ..Self::of(samples)
        }
    }
}

/// A quantile of values in ascending order, linear between the two nearest.
///
/// # Panics
/// If there are none.
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let place = p * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// The outputs of layers against those of the plaintext computation. Only a run that is not
/// private tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inspection {
    /// Always true: the outputs of every layer, and so the weights, were revealed to the client.
    pub not_private: bool,
    /// Images inspected.
    pub samples: usize,
    /// Images of inferences in which a value was out of the format's range, so that nothing
    /// could be compared.
    pub out_of_range: usize,
    /// The magnitude that the format's values stay below.
    pub limit: f64,
    /// The layers in the order of the computation; batch normalisation is folded into the
    /// layer before it.
    pub layers: Vec<LayerRange>,
}

/// The outputs of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LayerRange {
    /// The layer.
    pub name: String,
    /// How many values.
    pub values: u64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The largest difference to the plaintext computation.
    pub largest_error: f64,
    /// Values of at least half the format's limit.
    pub near_limit: u64,
}

impl LayerRange {
    /// Of a layer without outputs yet.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.chars().take(MAX_LAYER_NAME).collect(),
            values: 0,
            min: 0.0,
            max: 0.0,
            largest_error: 0.0,
            near_limit: 0,
        }
    }

    /// Takes in a value; `near` is the magnitude from which it counts as near the limit.
    pub(crate) fn add(&mut self, found: f64, expected: f64, near: f64) {
        let first = self.values == 0;
        self.values += 1;
        self.min = if first { found } else { self.min.min(found) };
        self.max = if first { found } else { self.max.max(found) };
        self.largest_error = self.largest_error.max((found - expected).abs());
        self.near_limit += u64::from(found.abs() >= near);
    }

    /// With numbers as short as a result has room for.
    pub(crate) fn rounded(&self) -> Self {
        Self {
            min: four_digits(self.min),
            max: four_digits(self.max),
            largest_error: four_digits(self.largest_error),
            ..self.clone()
        }
    }
}

/// Secure outputs against labels, and against the same network on plaintext where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Accuracy {
    /// Images scored.
    pub samples: usize,
    /// Part that the plaintext network gets right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plaintext: Option<f64>,
    /// Part that the secure computation gets right.
    pub secure: f64,
    /// Part where both predict the same class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Mean over the images of `KL(P || Q)`, nats: `P` is the softmax of the
    /// plaintext logits, `Q` that of the secure ones. Where only labels are revealed there is
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_kl_divergence: Option<f64>,
}

/// What the client learnt of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Prediction<'a> {
    /// The logits of its classes.
    Logits(&'a [f64]),
    /// The class alone, a number from 0 without a fraction.
    Label(f64),
}

impl Prediction<'_> {
    /// The predicted class; none without logits, and of a number that is no class.
    fn class(self) -> Option<usize> {
        match self {
            Self::Logits(logits) => argmax(logits),
            Self::Label(label) => {
                let class = label as usize;
                (class as f64 == label).then_some(class)
            }
        }
    }
}

/// Adds up [`Accuracy`] image by image.
#[derive(Clone, Debug)]
pub struct AccuracyCounter {
    reveal: Reveal,
    samples: usize,
    secure: usize,
    /// Images of which the plaintext logits are known.
    compared: usize,
    plaintext: usize,
    agreement: usize,
    divergence: f64,
}

/// Probabilities are not taken to be smaller than this.
const SMALLEST_PROBABILITY: f64 = 1e-12;

impl AccuracyCounter {
    /// A counter of images of which the client learns what `reveal` says.
    #[must_use]
    pub fn of(reveal: Reveal) -> Self {
        Self {
            reveal,
            samples: 0,
            secure: 0,
            compared: 0,
            plaintext: 0,
            agreement: 0,
            divergence: 0.0,
        }
    }

    /// Scores one image. `plaintext` is there for all images or for none. `secure` is
    /// `None` where the output was out of range: no prediction, counted as wrong and as
    /// divergent as can be.
    pub fn add(&mut self, label: u8, plaintext: Option<&[f32]>, secure: Option<Prediction<'_>>) {
        let found = secure.and_then(Prediction::class);
        let label = usize::from(label);
        self.samples += 1;
        self.secure += usize::from(found == Some(label));
        let Some(plaintext) = plaintext else { return };
        let plaintext: Vec<f64> = plaintext.iter().map(|&x| f64::from(x)).collect();
        let expected = argmax(&plaintext);
        self.compared += 1;
        self.plaintext += usize::from(expected == Some(label));
        self.agreement += usize::from(found.is_some() && found == expected);
        let p = softmax(&plaintext);
        let q = match secure {
            Some(Prediction::Logits(logits)) => softmax(logits),
            Some(Prediction::Label(_)) | None => vec![0.0; p.len()],
        };
        self.divergence += kl_divergence(&p, &q);
    }

    /// The means so far.
    #[must_use]
    pub fn finish(&self) -> Accuracy {
        let compared = |sum: f64| (self.compared > 0).then(|| sum / self.compared as f64);
        Accuracy {
            samples: self.samples,
            plaintext: compared(self.plaintext as f64),
            secure: self.secure as f64 / self.samples.max(1) as f64,
            agreement: compared(self.agreement as f64),
            mean_kl_divergence: match self.reveal {
                Reveal::Logits => compared(self.divergence),
                // A class has no probabilities.
                Reveal::Label => None,
            },
        }
    }
}

/// The place of the largest value, the earliest of equals.
#[must_use]
pub fn argmax<T: PartialOrd>(values: &[T]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (index, value) in values.iter().enumerate() {
        if best.is_none_or(|best| *value > values[best]) {
            best = Some(index);
        }
    }
    best
}

/// The probabilities that logits stand for.
#[must_use]
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|x| (x - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|x| x / sum).collect()
}

/// `sum P ln(P / Q)`, nats.
#[must_use]
pub fn kl_divergence(p: &[f64], q: &[f64]) -> f64 {
    p.iter()
        .zip(q)
        .map(|(p, q)| {
            let (p, q) = (p.max(SMALLEST_PROBABILITY), q.max(SMALLEST_PROBABILITY));
            p * (p / q).ln()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_statistics_are_the_textbook_ones() {
        let samples: Vec<f64> = (1..=5).rev().map(f64::from).collect();
        let latency = Latency::of(&samples);
        assert_eq!((latency.mean_ms, latency.p50_ms), (3.0, 3.0));
        assert!((latency.stddev_ms - 2.5f64.sqrt()).abs() < 1e-12);
        assert!((latency.p95_ms - 4.8).abs() < 1e-12 && (latency.p99_ms - 4.96).abs() < 1e-12);
        assert_eq!(Latency::of(&[]), Latency::default());
        assert_eq!(Latency::of(&[7.0]).stddev_ms, 0.0);
    }

    #[test]
    fn a_distribution_has_quantiles_and_blocks_in_their_order() {
        let samples: Vec<f64> = (0..=100).rev().map(|x| f64::from(x) / 3.0).collect();
        let latency = Latency::with_distribution(&samples);
        assert_eq!(latency.quantiles_ms.len(), QUANTILES);
        assert_eq!(latency.quantiles_ms[..3], [0.0, 1.667, 3.333], "0, 5/3, 10/3");
        assert_eq!(latency.quantiles_ms[20], 33.33);
        assert_eq!(latency.block_means_ms.len(), MAX_BLOCKS);
        assert_eq!(latency.block_means_ms[0], four_digits((100 + 99 + 98) as f64 / 9.0));
        assert!(latency.block_means_ms.windows(2).all(|pair| pair[0] > pair[1]));
        assert_eq!(
            Latency { quantiles_ms: vec![], block_means_ms: vec![], ..latency },
            Latency::of(&samples)
        );
        // Never more blocks than samples, and nothing of nothing.
        assert_eq!(Latency::with_distribution(&[1.0, 2.0]).block_means_ms, [1.0, 2.0]);
        assert_eq!(Latency::with_distribution(&[]), Latency::default());
        assert_eq!((four_digits(0.000_123_456), four_digits(98_765.4)), (0.000_123_5, 98_770.0));
    }

    #[test]
    fn the_longest_layers_stay_in_their_order() {
        let layer = |index: usize| {
            LayerTime::new(index, &"é".repeat(index), "matmul", (index % 5) as f64, 1.0 / 3.0)
        };
        let layers = LayerTime::longest((0..40).map(layer).collect());
        assert_eq!(layers.len(), MAX_LAYERS);
        assert!(layers.iter().all(|layer| layer.index % 5 >= 3 && layer.online_ms == 0.3333));
        assert!(layers.windows(2).all(|pair| pair[0].index < pair[1].index));
        assert_eq!(layers[15].name.chars().count(), 16);
    }

    #[test]
    fn divergence_is_that_of_the_textbook() {
        // KL((1/2, 1/2) || (1/4, 3/4)) = ln(2) - ln(3)/2.
        let found = kl_divergence(&[0.5, 0.5], &[0.25, 0.75]);
        assert!((found - (2f64.ln() - 3f64.ln() / 2.0)).abs() < 1e-12);
        assert_eq!(kl_divergence(&[0.3, 0.7], &[0.3, 0.7]), 0.0);
        assert!(kl_divergence(&[0.5, 0.5], &[0.0, 1.0]).is_finite());
    }

    #[test]
    fn accuracy_counts_each_image_once() {
        let mut counter = AccuracyCounter::of(Reveal::Logits);
        let plaintext = Some(&[0.0, 1.0][..]);
        counter.add(1, plaintext, Some(Prediction::Logits(&[0.0, 1.0])));
        counter.add(1, plaintext, Some(Prediction::Logits(&[1.0, 0.0])));
        counter.add(0, plaintext, Some(Prediction::Logits(&[0.5, 0.25])));
        counter.add(1, plaintext, None);
        let accuracy = counter.finish();
        assert_eq!((accuracy.samples, accuracy.secure), (4, 0.5));
        assert_eq!((accuracy.plaintext, accuracy.agreement), (Some(0.75), Some(0.25)));
        assert!(accuracy.mean_kl_divergence > Some(5.0), "a failed output is not forgotten");
    }

    #[test]
    fn a_label_has_an_accuracy_and_no_divergence() {
        let mut counter = AccuracyCounter::of(Reveal::Label);
        let plaintext = Some(&[0.0, 0.5, 2.0][..]);
        counter.add(2, plaintext, Some(Prediction::Label(2.0)));
        counter.add(1, plaintext, Some(Prediction::Label(1.0)));
        // Numbers that are no class, and no number.
        for wrong in [-1.0, 0.5, f64::NAN, f64::INFINITY] {
            counter.add(0, plaintext, Some(Prediction::Label(wrong)));
        }
        counter.add(0, plaintext, None);
        counter.add(0, plaintext, Some(Prediction::Label(0.0)));
        let accuracy = counter.finish();
        assert_eq!((accuracy.samples, accuracy.secure), (8, 3.0 / 8.0));
        assert_eq!((accuracy.plaintext, accuracy.agreement), (Some(1.0 / 8.0), Some(1.0 / 8.0)));
        let json = serde_json::to_string(&accuracy).unwrap();
        assert!(!json.contains("meanKlDivergence"), "{json}");
    }

    #[test]
    fn without_logits_in_the_clear_labels_are_what_counts() {
        let mut counter = AccuracyCounter::of(Reveal::Logits);
        counter.add(1, None, Some(Prediction::Logits(&[0.0, 1.0])));
        counter.add(1, None, None);
        let accuracy = counter.finish();
        let (samples, secure) = (2, 0.5);
        let expected = Accuracy {
            samples,
            secure,
            plaintext: None,
            agreement: None,
            mean_kl_divergence: None,
        };
        assert_eq!(accuracy, expected);
        let json = serde_json::to_string(&accuracy).unwrap();
        assert_eq!(json, r#"{"samples":2,"secure":0.5}"#);
    }

    #[test]
    fn the_earliest_of_equal_logits_wins() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(argmax::<f64>(&[]), None);
    }
}
