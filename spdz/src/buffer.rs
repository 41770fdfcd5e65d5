//! Memory for tensors, wiped when it is given back and kept for the next tensor.
//!
//! An evaluation allocates the same large tensors as the one before. Memory that goes
//! back to the operating system in between costs a page fault for every 4 KiB and is
//! zeroed once more; this is why the process keeps what it used.
//!
//! What is kept belongs to the process, as an allocator's free memory does, and not to a
//! session. A buffer is often dropped on another thread than the one that made it, that of
//! the connection which sent it as a message, and then has to find its way back without a
//! session at hand. One limit holds for the process, however many sessions it has. Nothing
//! passes from session to session but zeros: memory is wiped before it is kept.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;
use bytes::Bytes;
use zeroize::Zeroize;

/// Smaller buffers are left to the allocator, 64-bit words.
const SMALLEST_KEPT: usize = 2 << 10;

/// What the process keeps at most, 64-bit words: 256 MiB.
const MOST_KEPT: usize = 32 << 20;

/// A tensor's words. Zero when it is made, wiped when it is dropped, never printed.
pub struct Buffer<W: Pod> {
    /// As many as the words need; whatever follows the last word stays zero.
    storage: Vec<u64>,
    len: usize,
    words: PhantomData<W>,
}

/// Wiped memory, by its length.
#[derive(Default)]
struct Kept {
    words: usize,
    free: BTreeMap<usize, Vec<Vec<u64>>>,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { words: 0, free: BTreeMap::new() });

fn kept() -> MutexGuard<'static, Kept> {
    // Nothing in here panics half-way.
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives all memory that is kept back to the allocator: after a set-up, whose tensors
/// have other sizes than those of evaluations.
pub(crate) fn release() {
    let released = std::mem::take(&mut *kept());
    // Freed without holding the lock.
    drop(released);
}

impl Kept {
    fn take(&mut self, len: usize) -> Option<Vec<u64>> {
        // What is much larger had better wait for a tensor of its own size.
        let (&length, same) = self.free.range_mut(len..=len + len / 4).next()?;
        let mut storage = same.pop()?;
        if same.is_empty() {
            self.free.remove(&length);
        }
        self.words -= length;
        storage.truncate(len);
        Some(storage)
    }

    fn give(&mut self, storage: Vec<u64>) {
        if self.words + storage.len() <= MOST_KEPT {
            self.words += storage.len();
            self.free.entry(storage.len()).or_default().push(storage);
        }
    }
}

impl<W: Pod> Buffer<W> {
    /// `len` zeros.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        let needed = (len * size_of::<W>()).div_ceil(size_of::<u64>());
        let kept = if needed < SMALLEST_KEPT { None } else { kept().take(needed) };
        let storage = kept.unwrap_or_else(|| vec![0; needed]);
        Self { storage, len, words: PhantomData }
    }

    /// The bytes of the words as they lie in memory, without copying them. Wiped when the
    /// last reference to them is dropped.
    #[must_use]
    pub fn into_bytes(self) -> Bytes
    where
        W: Send,
    {
        struct Owner<W: Pod>(Buffer<W>);
        impl<W: Pod> AsRef<[u8]> for Owner<W> {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }
        Bytes::from_owner(Owner(self))
    }
}

impl<W: Pod> Drop for Buffer<W> {
    fn drop(&mut self) {
        let mut storage = std::mem::take(&mut self.storage);
        if storage.len() < SMALLEST_KEPT {
            storage.as_mut_slice().zeroize();
            return;
        }
        // Not optimised away, since whoever takes the memory next relies on zeros.
        storage.fill(0);
        // Zeros up to its capacity, whoever used it before.
        storage.resize(storage.capacity(), 0);
        kept().give(storage);
    }
}

impl<W: Pod> Deref for Buffer<W> {
    type Target = [W];

    fn deref(&self) -> &[W] {
        &bytemuck::cast_slice(&self.storage)[..self.len]
    }
}

impl<W: Pod> DerefMut for Buffer<W> {
    fn deref_mut(&mut self) -> &mut [W] {
        &mut bytemuck::cast_slice_mut(&mut self.storage)[..self.len]
    }
}

impl<W: Pod> Clone for Buffer<W> {
    fn clone(&self) -> Self {
        self[..].into()
    }
}

impl<W: Pod> From<&[W]> for Buffer<W> {
    fn from(words: &[W]) -> Self {
        let mut buffer = Self::zeros(words.len());
        buffer.copy_from_slice(words);
        buffer
    }
}

impl<W: Pod + PartialEq> PartialEq for Buffer<W> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<W: Pod> fmt::Debug for Buffer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} words)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_always_zero() {
        for len in [0, 1, 3, 5000, 100_000, 90_001, 5000] {
            for _ in 0..3 {
                let mut words = Buffer::<i16>::zeros(len);
                assert!(words.len() == len && words.iter().all(|word| *word == 0));
                words.fill(-1);
                let mut longer = Buffer::<u64>::zeros(len + len / 8);
                assert!(longer.iter().all(|word| *word == 0));
                longer.fill(7);
            }
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_of_about_the_size() {
        let mut kept = Kept { words: 0, free: BTreeMap::new() };
        kept.give(vec![0; 10_000]);
        assert!(kept.take(10_001).is_none() && kept.take(5_000).is_none());
        assert_eq!(kept.take(9_000).map(|storage| storage.len()), Some(9_000));
        assert_eq!(kept.words, 0);
        kept.give(vec![0; MOST_KEPT]);
        kept.give(vec![0; 10_000]);
        assert_eq!(kept.words, MOST_KEPT, "what is too much goes back");
    }

    #[test]
    fn bytes_are_the_words_in_memory() {
        let words: Buffer<u64> = [1, u64::MAX][..].into();
        let bytes = words.clone().into_bytes();
        assert_eq!(bytes[..], *bytemuck::cast_slice::<u64, u8>(&words));
        assert_eq!(format!("{words:?}"), "Buffer(2 words)");
    }
}
