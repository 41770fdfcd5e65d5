//! How fast one core multiplies, through the library's own kernels.
//!
//! Everything lies in the caches as far as it fits: an upper limit of the speed that
//! parties reach.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use spdz::geometry::{Linear, MatMul};
use spdz::plan::NumberFormat;
use spdz::prg::Seed;
use spdz::ring::Ring;

use crate::launch::local::LaunchError;
use crate::stats::median;

/// Large enough for the kernels to be at their best.
pub const LARGE: Linear = Linear::MatMul(MatMul { m: 512, k: 512, n: 512 });

/// One run of a measurement is at least so long.
const RUN: Duration = Duration::from_millis(2);

/// Runs of a product, of which the median counts.
const RUNS: usize = 7;

/// Multiplications, and as many additions, of a product.
#[must_use]
pub fn macs(linear: &Linear) -> usize {
    let MatMul { m, k, n } = linear.as_matmul();
    m * k * n
}

/// Times products, each once.
pub struct Timer<'a> {
    interrupted: &'a AtomicBool,
    known: Vec<(NumberFormat, Linear, f64)>,
}

impl<'a> Timer<'a> {
    /// One that has timed nothing yet.
    #[must_use]
    pub fn new(interrupted: &'a AtomicBool) -> Self {
        Self { interrupted, known: Vec::new() }
    }

    /// What one core needs for a product, seconds.
    ///
    /// # Errors
    /// On interruption.
    pub fn seconds(&mut self, format: NumberFormat, linear: &Linear) -> Result<f64, LaunchError> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(LaunchError::Interrupted);
        }
        let same = |entry: &&(NumberFormat, Linear, f64)| (entry.0, &entry.1) == (format, linear);
        if let Some((.., seconds)) = self.known.iter().find(same) {
            return Ok(*seconds);
        }
        let seconds = spdz::with_ring!(format, R => time::<R>(linear));
        self.known.push((format, *linear, seconds));
        Ok(seconds)
    }
}

fn time<R: Ring>(linear: &Linear) -> f64 {
    let mut stream = Seed::from_bytes([1; 32]).into_stream();
    let mut random = |len: usize| {
        let mut words = vec![R::Word::default(); R::PLANES * len];
        R::sample(&mut stream, &mut words);
        words
    };
    let MatMul { k, n, .. } = linear.as_matmul();
    let left = random(match linear {
        Linear::MatMul(_) => linear.input_len(),
        Linear::Conv2d(convolution) => convolution.padded_len(),
    });
    let right = R::pack(&random(k * n), linear);
    let mut out = vec![R::Word::default(); R::PLANES * linear.output_len()];
    let mut run = |products: u32| {
        let start = Instant::now();
        for _ in 0..products {
            R::multiply_add(linear, black_box(&left), &right, black_box(&mut out));
        }
        start.elapsed().as_secs_f64() / f64::from(products)
    };
    // The first finds cold caches.
    run(1);
    let products = (RUN.as_secs_f64() / run(1).max(1e-9)).ceil().clamp(1.0, 1e6) as u32;
    median((0..RUNS).map(|_| run(products)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interruption_ends_the_timing() {
        let interrupted = AtomicBool::new(true);
        let timed = Timer::new(&interrupted).seconds(NumberFormat::Int64, &LARGE);
        assert!(matches!(timed, Err(LaunchError::Interrupted)));
    }
}
