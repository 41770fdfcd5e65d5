//! Where prepared randomness waits for its evaluation.

use std::collections::VecDeque;

use crate::correlated::Bundle;
use crate::ring::Ring;

/// Where prepared randomness waits for its evaluation: first in, first out.
pub trait Stock<R: Ring> {
    /// Keeps the randomness of one more evaluation.
    ///
    /// # Errors
    /// If it is full.
    fn put(&mut self, bundle: Bundle<R>) -> Result<(), StockError>;

    /// The randomness that was put first, to be used now; nothing if there is none.
    ///
    /// # Errors
    /// If it cannot be had back.
    fn take(&mut self) -> Result<Option<Bundle<R>>, StockError>;
}

/// Why a stock cannot do what it should.
#[derive(Debug, thiserror::Error)]
#[error("stock of randomness: {0}")]
pub struct StockError(pub String);

/// A stock in memory, without a bound.
#[derive(Debug)]
pub struct Memory<R: Ring>(VecDeque<Bundle<R>>);

impl<R: Ring> Default for Memory<R> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<R: Ring> Stock<R> for Memory<R> {
    fn put(&mut self, bundle: Bundle<R>) -> Result<(), StockError> {
        self.0.push_back(bundle);
        Ok(())
    }

    fn take(&mut self) -> Result<Option<Bundle<R>>, StockError> {
        Ok(self.0.pop_front())
    }
}
