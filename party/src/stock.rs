//! Prepared randomness that waits for its evaluation, within bounds.

use std::collections::VecDeque;

use spdz::correlated::{Bundle, bundle_bytes};
use spdz::plan::Plan;
use spdz::ring::Ring;
use spdz::role::{self, StockError};

use crate::config::Stock;

/// A stock in memory that refuses what does not fit.
pub(crate) struct Bounded<R: Ring> {
    bundles: VecDeque<Bundle<R>>,
    settings: Stock,
    /// Of one evaluation, bytes.
    each: usize,
}

impl<R: Ring> Bounded<R> {
    pub(crate) fn new(settings: Stock, plan: &Plan) -> Self {
        Self { bundles: VecDeque::new(), settings, each: bundle_bytes(plan) }
    }
}

impl<R: Ring> role::Stock<R> for Bounded<R> {
    fn put(&mut self, bundle: Bundle<R>) -> Result<(), StockError> {
        let megabytes = |bytes: u128| bytes as f64 / f64::from(1 << 20);
        let limit = u128::from(self.settings.memory_megabytes) << 20;
        let held = self.bundles.len();
        let taken = held as u128 * self.each as u128;
        // Without one, nothing could be evaluated.
        if held > 0 && taken + self.each as u128 > limit {
            return Err(StockError(format!(
                "{held} prepared evaluations take {:.2} MB and one more {:.2} MB, more than the {} MB \
                 of `stock.memoryMegabytes`; prepare fewer ahead, or let the servers keep more",
                megabytes(taken),
                megabytes(self.each as u128),
                self.settings.memory_megabytes
            )));
        }
        self.bundles.push_back(bundle);
        Ok(())
    }

    fn take(&mut self) -> Result<Option<Bundle<R>>, StockError> {
        Ok(self.bundles.pop_front())
    }
}
