//! Keys that go forward: one for the set-up, one for each evaluation, and no way back.
//!
//! From a key that two parties share, each derives the key of the set-up and a *chain key*. The
//! chain key of evaluation `k` gives the key of that evaluation and the chain key of evaluation
//! `k + 1`, and is wiped. Both derivations are one-way: who seizes a party after evaluation `k`
//! was prepared finds the chain key of evaluation `k + 1`, from which no earlier key follows.
//!
//! Evaluations are prepared in their order at all parties, so both ends of a shared key are
//! always at the same place. Evaluations that are passed over lose their keys.

use std::fmt;

use crate::prg::Seed;

/// What the key that two parties share becomes for the set-up.
const SET_UP: &str = "secure-inference 2026-11-30 key of the set-up";

/// What it becomes for the first evaluation.
const FIRST: &str = "secure-inference 2026-11-30 chain key of evaluation 0";

/// What the chain key of an evaluation becomes for the next.
const NEXT: &str = "secure-inference 2026-11-30 chain key of the next evaluation";

/// What it becomes for the evaluation itself.
const EVALUATION: &str = "secure-inference 2026-11-30 key of an evaluation";

/// The keys of evaluations that are still to come.
///
/// A key is given out once, to be consumed, and nothing in a ratchet leads back to it:
///
/// ```
/// # use spdz::{prg::Seed, ratchet::Ratchet};
/// let shared = || Seed::from_bytes([1; 32]);
/// let (mut ours, mut theirs) = (Ratchet::new(&shared()), Ratchet::new(&shared()));
/// assert_eq!(ours.key(0).unwrap().expose(), theirs.key(0).unwrap().expose());
/// assert!(ours.key(0).is_none());
/// ```
///
/// It has no copy, which could be kept behind:
///
/// ```compile_fail,E0599
/// # use spdz::{prg::Seed, ratchet::Ratchet};
/// fn keep(ratchet: &Ratchet) -> Ratchet {
///     Ratchet::clone(&ratchet.clone())
/// }
/// ```
pub struct Ratchet {
    /// The chain key of evaluation `next`.
    chain: Seed,
    next: u64,
}

impl fmt::Debug for Ratchet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ratchet(at {})", self.next)
    }
}

impl Ratchet {
    /// The keys of the evaluations that follow from a shared key.
    #[must_use]
    pub fn new(shared: &Seed) -> Self {
        Self { chain: shared.one_way(FIRST), next: 0 }
    }

    /// The key of the set-up, and the keys of all evaluations. Consumes the shared key, from
    /// which both follow.
    #[must_use]
    pub fn split(shared: Seed) -> (Seed, Self) {
        (shared.one_way(SET_UP), Self::new(&shared))
    }

    /// The key of an evaluation; nothing if it was given out, or a later one was.
    #[must_use]
    pub fn key(&mut self, inference: u64) -> Option<Seed> {
        while self.next < inference {
            self.advance();
        }
        if self.next > inference {
            return None;
        }
        let key = self.chain.one_way(EVALUATION);
        self.advance();
        Some(key)
    }

    /// Wipes the chain key for the next one.
    fn advance(&mut self) {
        self.chain = self.chain.one_way(NEXT);
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Seed {
        Seed::from_bytes([7; 32])
    }

    #[test]
    fn every_evaluation_has_a_key_of_its_own_whatever_was_passed_over() {
        let mut ratchet = Ratchet::new(&shared());
        let keys: Vec<Seed> = (0..20).map(|k| ratchet.key(k).unwrap()).collect();
        for (k, key) in keys.iter().enumerate() {
            assert!(keys[..k].iter().all(|earlier| earlier.expose() != key.expose()), "{k}");
        }
        let mut sparse = Ratchet::new(&shared());
        for k in [3, 4, 11, 19] {
            assert_eq!(sparse.key(k).unwrap().expose(), keys[k as usize].expose(), "{k}");
            assert!((0..=k).all(|passed| sparse.key(passed).is_none()), "{k}");
        }
        let (set_up, mut split) = Ratchet::split(shared());
        assert_eq!(split.key(0).unwrap().expose(), keys[0].expose());
        assert!(keys.iter().all(|key| key.expose() != set_up.expose()));
    }

    /// The state after evaluation `k`, as bytes, against all that was derived before. That no
    /// function leads back is BLAKE3's promise; that nothing else is kept is this test's.
    #[test]
    fn what_is_left_after_an_evaluation_holds_none_of_the_keys_before() {
        let shared = shared();
        let mut ratchet = Ratchet::new(&shared);
        let mut before = vec![*shared.expose(), *shared.one_way(SET_UP).expose()];
        for k in 0..5 {
            before.push(*ratchet.chain.expose());
            before.push(*ratchet.key(k).unwrap().expose());
            // The parts are all there is: a new field has to be thought about here.
            let Ratchet { chain, next } = &ratchet;
            assert_eq!(*next, k + 1);
            assert!(!before.contains(chain.expose()), "{k}");
        }
        let held = format!("{ratchet:?}");
        assert_eq!(held, "Ratchet(at 5)");
    }
}
