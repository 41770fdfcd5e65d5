//! Results to report: those of the documentation, at more batch sizes.

use std::path::Path;

use bench::cell::Trial;
use bench::results::{Cell, Results};
use party::result::{Accuracy, Latency, LayerTime, RunResult};

/// Batch sizes, and how many times as long as batch 1 each takes.
const BATCHES: [(usize, f64); 3] = [(1, 1.0), (10, 3.2), (100, 21.0)];

const LAYERS: [(&str, &str, f64); 5] = [
    ("conv1", "conv2d", 0.3),
    ("act1", "polynomial", 0.15),
    ("pool1", "sum_pool", 0.05),
    ("dense1", "matmul", 0.4),
    ("act2", "reshape", 0.1),
];

/// A sweep that took `factor` times as long as what the documentation quotes.
pub(crate) fn sweep(name: &str, factor: f64) -> Results {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/results.json");
    let mut results = Results::read(&path).unwrap();
    results.sweep.name = name.into();
    results.sweep.id = name.into();
    let measured = std::mem::take(&mut results.runs);
    for (batch, times) in BATCHES {
        for cell in &measured {
            let (mut key, mut result) = (cell.key.clone(), cell.merged.clone().unwrap());
            key.batch_size = batch;
            result.accuracy = Some(accuracy());
            let trials = (0..3).map(|round| Trial {
                round,
                result: trial(&result, batch, times * factor, round),
                ..cell.trials[0].clone()
            });
            let floor_ms = cell.floor_ms.map(|floor| floor * times);
            results.runs.push(Cell { floor_ms, ..Cell::of(key, trials.collect()) });
        }
    }
    results
}

/// The same in every cell, whatever the documentation quotes.
fn accuracy() -> Accuracy {
    Accuracy {
        samples: 10_000,
        plaintext: Some(0.9968),
        secure: 0.9967,
        agreement: Some(0.9999),
        mean_kl_divergence: Some(2.9e-7),
    }
}

/// One cell fails, another one's trials differ.
pub(crate) fn spoil(results: &mut Results) {
    let last = results.runs.last_mut().unwrap();
    last.merged = None;
    last.trials.clear();
    last.failure = Some(
        "server-1 ended with exit code 3: no room for 914 MB of randomness; give it more with \
         --store-megabytes"
            .into(),
    );
    results.runs[15].suspicious = true;
}

fn trial(result: &RunResult, batch: usize, times: f64, round: u32) -> RunResult {
    let latency = |latency: &Latency, seed: u32| distribution(latency.mean_ms * times, seed);
    let mut trial = RunResult {
        batch_size: batch,
        combined: latency(&result.combined, round),
        online: latency(&result.online, round + 7),
        offline: latency(&result.offline, round + 13),
        online_bytes: result.online_bytes * batch as u64,
        offline_bytes: result.offline_bytes * batch as u64,
        ..result.clone()
    };
    trial.layers = LAYERS
        .iter()
        .enumerate()
        .map(|(index, (name, kind, part))| {
            let [offline, online] = [&trial.offline, &trial.online].map(|l| l.mean_ms * part);
            LayerTime::new(index, name, kind, offline, online)
        })
        .collect();
    trial
}

/// 100 samples with such a mean, a few of them slow, always the same.
fn distribution(mean: f64, seed: u32) -> Latency {
    let mut state = 0x9e37_79b9_u32 ^ seed.wrapping_mul(0x85eb_ca6b);
    let mut samples: Vec<f64> = (0..100)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let uniform = f64::from(state >> 8) / f64::from(1 << 24);
            0.9 + 0.2 * uniform + if uniform > 0.97 { 0.6 } else { 0.0 }
        })
        .collect();
    let found = samples.iter().sum::<f64>() / samples.len() as f64;
    for sample in &mut samples {
        *sample *= mean / found;
    }
    Latency::with_distribution(&samples)
}
