//! How fast the machine is at a moment, whatever this toolkit does.
//!
//! Virtual machines change their speed by half for seconds at a time, since others share
//! their cores. A trial is only as good as its moment, so the same piece of work is timed
//! before and after it. That work must never change with the toolkit, or what makes both
//! slower would not be seen: it is a loop of its own, and no kernel.

use std::hint::black_box;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// How long the same piece of work took around a trial, microseconds. The less, the faster
/// the machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pace {
    /// Just before the trial.
    pub before_micros: f64,
    /// Just after.
    pub after_micros: f64,
}

/// Numbers that the work multiplies: they stay in the fastest cache.
const NUMBERS: usize = 2048;
/// How often it goes through them.
const PASSES: u64 = 200;
/// How often the work is done.
const SAMPLES: usize = 200;

/// How long the work takes now, microseconds: the mean of two threads, so that no core is
/// forgotten, and of each the lower quartile of many goes, each of a tenth of a millisecond
/// and so seldom interrupted.
#[must_use]
pub fn measure() -> f64 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(2);
    let times = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(time)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<f64>>()
    });
    times.iter().sum::<f64>() / times.len() as f64
}

fn time() -> f64 {
    let numbers: Vec<u64> = (0..NUMBERS as u64).map(|number| number * 77).collect();
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let start = Instant::now();
            black_box(work(black_box(&numbers)));
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    samples[SAMPLES / 4]
}

fn work(numbers: &[u64]) -> u64 {
    let mut sums = [1u64; 8];
    for pass in 0..PASSES {
        for chunk in numbers.as_chunks::<8>().0 {
            for (sum, number) in sums.iter_mut().zip(chunk) {
                *sum = sum.wrapping_mul(number | 1).wrapping_add(pass);
            }
        }
    }
    sums.iter().fold(0, |all, sum| all ^ sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_takes_time_and_is_the_same_for_all() {
        let micros = measure();
        assert!(micros > 1.0 && micros < 1e6, "{micros}");
        let numbers: Vec<u64> = (0..64).collect();
        assert_eq!(work(&numbers), work(&numbers));
    }
}
