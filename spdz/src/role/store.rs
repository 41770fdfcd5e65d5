//! Where prepared randomness waits for its evaluation.

use std::collections::VecDeque;

use crate::correlated::Bundle;
use crate::ring::Ring;

/// Where prepared randomness waits for its evaluation: first in, first out.
pub trait Store<R: Ring> {
    /// Keeps the randomness of one more evaluation.
    ///
    /// # Errors
    /// If it is full.
    fn put(&mut self, bundle: Bundle<R>) -> Result<(), StoreError>;

    /// The randomness that was put first, to be used now; nothing if there is none.
    ///
    /// # Errors
    /// If it cannot be had back.
    fn take(&mut self) -> Result<Option<Bundle<R>>, StoreError>;
}

/// Why a store cannot do what it should.
#[derive(Debug, thiserror::Error)]
#[error("preprocessing store: {0}")]
pub struct StoreError(pub String);

/// A store in memory, without a bound.
#[derive(Debug)]
pub struct Memory<R: Ring>(VecDeque<Bundle<R>>);

impl<R: Ring> Default for Memory<R> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<R: Ring> Store<R> for Memory<R> {
    fn put(&mut self, bundle: Bundle<R>) -> Result<(), StoreError> {
        self.0.push_back(bundle);
        Ok(())
    }

    fn take(&mut self) -> Result<Option<Bundle<R>>, StoreError> {
        Ok(self.0.pop_front())
    }
}
