//! What a run reports: the same JSON on one machine and in a cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
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
    /// Inputs of one inference; 1 for a graph that is no network.
    pub batch_size: usize,
    /// Timed evaluations.
    pub repetitions: u64,
    /// When their randomness was made.
    pub offline_mode: OfflineMode,
    /// What the paper calls runtime. Inline: offline and online, the producer makes each
    /// evaluation's randomness within this span. Ahead: online alone.
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
    /// How right the secure outputs are, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
}

/// A latency over repetitions, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
        let percentile = |p: f64| {
            let place = p * (n - 1.0);
            let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        Self {
            mean_ms: mean,
            stddev_ms: if samples.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 },
            p50_ms: percentile(0.5),
            p95_ms: percentile(0.95),
            p99_ms: percentile(0.99),
        }
    }
}

/// Secure outputs against labels, and against the same network in the clear where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Accuracy {
    /// Images scored.
    pub samples: usize,
    /// Part that the network gets right in the clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plaintext: Option<f64>,
    /// Part that the secure computation gets right.
    pub secure: f64,
    /// Part where both predict the same class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Mean over the images of `KL(P || Q)`, nats: `P` is the softmax of the
    /// logits in the clear, `Q` that of the secure ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_kl_divergence: Option<f64>,
}

/// Adds up [`Accuracy`] image by image.
#[derive(Clone, Debug, Default)]
pub struct AccuracyCounter {
    samples: usize,
    secure: usize,
    /// Images of which the logits in the clear are known.
    compared: usize,
    plaintext: usize,
    agreement: usize,
    divergence: f64,
}

/// Probabilities are not taken to be smaller than this.
const SMALLEST_PROBABILITY: f64 = 1e-12;

impl AccuracyCounter {
    /// Scores one image. `plaintext` is there for all images or for none. `secure` is
    /// `None` where the output was out of range: no prediction, counted as wrong and as
    /// divergent as can be.
    pub fn add(&mut self, label: u8, plaintext: Option<&[f32]>, secure: Option<&[f64]>) {
        let found = secure.and_then(argmax::<f64>);
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
        let q = secure.map_or_else(|| vec![0.0; p.len()], softmax);
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
            mean_kl_divergence: compared(self.divergence),
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
    fn divergence_is_that_of_the_textbook() {
        // KL((1/2, 1/2) || (1/4, 3/4)) = ln(2) - ln(3)/2.
        let found = kl_divergence(&[0.5, 0.5], &[0.25, 0.75]);
        assert!((found - (2f64.ln() - 3f64.ln() / 2.0)).abs() < 1e-12);
        assert_eq!(kl_divergence(&[0.3, 0.7], &[0.3, 0.7]), 0.0);
        assert!(kl_divergence(&[0.5, 0.5], &[0.0, 1.0]).is_finite());
    }

    #[test]
    fn accuracy_counts_each_image_once() {
        let mut counter = AccuracyCounter::default();
        let plaintext = Some(&[0.0, 1.0][..]);
        counter.add(1, plaintext, Some(&[0.0, 1.0]));
        counter.add(1, plaintext, Some(&[1.0, 0.0]));
        counter.add(0, plaintext, Some(&[0.5, 0.25]));
        counter.add(1, plaintext, None);
        let accuracy = counter.finish();
        assert_eq!((accuracy.samples, accuracy.secure), (4, 0.5));
        assert_eq!((accuracy.plaintext, accuracy.agreement), (Some(0.75), Some(0.25)));
        assert!(accuracy.mean_kl_divergence > Some(5.0), "a failed output is not forgotten");
    }

    #[test]
    fn without_logits_in_the_clear_labels_are_what_counts() {
        let mut counter = AccuracyCounter::default();
        counter.add(1, None, Some(&[0.0, 1.0]));
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
