//! In which order trials run, and which cells need more of them.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use party::result::RunResult;

/// Between the medians of a cell's trials, relative to the middle one, more than this is
/// suspicious: the machine was not the same to all of them.
pub const SUSPICIOUS_SPREAD: f64 = 0.15;

/// Most trials that a suspicious cell gets beyond those asked for.
pub const EXTRA_TRIALS: u32 = 2;

/// The order in which a round has a trial of each of the cells: as the seed says, and
/// another in each round, so that a slow minute does not land on one cell.
#[must_use]
pub fn order<T>(cells: &[T], round: u32, seed: u64) -> Vec<&T> {
    let mut order: Vec<&T> = cells.iter().collect();
    let mut source = StdRng::seed_from_u64(seed);
    for _ in 0..=round {
        order.shuffle(&mut source);
    }
    order
}

/// How much the trials of a cell differ: the range of their medians over the middle one.
#[must_use]
pub fn spread<'a>(trials: impl IntoIterator<Item = &'a RunResult>) -> f64 {
    let mut medians: Vec<f64> = trials.into_iter().map(|run| run.combined.p50_ms).collect();
    medians.sort_by(f64::total_cmp);
    match medians[..] {
        [lowest, .., highest] => (highest - lowest) / medians[medians.len() / 2],
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::tests::result;

    #[test]
    fn every_round_has_each_cell_once_in_an_order_of_its_own() {
        let all: Vec<usize> = (0..20).collect();
        let order = |round, seed| order(&all, round, seed).into_iter().copied().collect();
        let rounds: Vec<Vec<usize>> = (0..4).map(|round| order(round, 7)).collect();
        for (round, cells) in rounds.iter().enumerate() {
            let mut sorted = cells.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, all);
            // The same again for who resumes.
            assert_eq!(*cells, order(round as u32, 7));
            assert!(rounds[..round].iter().all(|other| other != cells));
        }
        assert_ne!(rounds[0], order(0, 8), "another seed is another order");
    }

    #[test]
    fn spread_is_that_of_the_medians() {
        let spread = |medians: &[f64]| {
            let results: Vec<_> = medians.iter().map(|median| result(&[*median; 3])).collect();
            super::spread(&results)
        };
        assert_eq!(spread(&[]), 0.0);
        assert_eq!(spread(&[3.0]), 0.0);
        assert_eq!(spread(&[2.0, 2.0]), 0.0);
        assert_eq!(spread(&[2.5, 1.5, 2.0]), 0.5);
        assert_eq!(spread(&[1.0, 2.0]), 0.5);
    }
}
