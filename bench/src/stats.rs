//! Whether one build is slower than another, from trials on a machine that is not steady.
//!
//! What is known of such machines, and what is made of it:
//!
//! - They slow down by half for seconds, since others share their cores. A trial's *level*
//!   is the lower quartile of the means of its blocks, which is that of the machine at its
//!   fast if it was fast for a quarter of the trial; and the level is divided by the
//!   [pace](crate::pace) around it, so that a trial in a slow minute counts for what it would
//!   have been in a fast one.
//! - Two launches of the same parties differ by some percent whatever the machine does.
//!   Only several trials tell how much, and few tell it badly: the variance of a cell's own
//!   trials is pooled with that of all cells, and intervals use the quantiles of Student's t.
//! - It drifts by a tenth within a minute in ways that no pace shows. Where the trials of two
//!   builds are alternating, the *paired differences* count: each trial minus that of the other
//!   build in the same round, without paces, so that what both saw of the machine cancels. Two
//!   sweeps after each other differ by more than their trials say, since those of one are close
//!   in time: intervals of their ratio have room for it.
//! - Its cores are now near each other and now far, for seconds to minutes, which costs those
//!   who talk a tenth ([`handover`](crate::pace::Pace::handover_nanos)). Of two sweeps, only the
//!   *matched subsets* of a cell's trials are compared, those with the cores equally far from
//!   each other; where there are none, the interval has room for the difference.
//! - Rounds differ: what happens in one happens to all its cells. The ratio of all cells
//!   together therefore varies as its rounds do.
//! - Of many cells some look slower by chance. Intervals of cells are simultaneous: wide enough
//!   for all of them to hold at once.
//!
//! Everything is on a scale of logarithms, where a slow-down by a factor is a difference.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// One trial: the means of its blocks, milliseconds, and the machine's pace around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The round that it belongs to.
    pub round: u32,
    /// Means of blocks of consecutive repetitions, milliseconds.
    pub blocks: Vec<f64>,
    /// How long the same piece of work took before and after; nothing if that is not known.
    pub pace: Option<[f64; 2]>,
    /// How long a core waited for what it handed to another, before and after, nanoseconds;
    /// nothing if that is not known.
    pub handover: Option<[f64; 2]>,
}

/// The trials of one cell in two sweeps, or of two builds whose trials alternate in one sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// In the first.
    pub before: Vec<Observation>,
    /// In the second.
    pub after: Vec<Observation>,
}

/// How many times as long something takes after as before.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Ratio {
    /// The best guess.
    pub ratio: f64,
    /// The least that is plausible, at a confidence of 95 %.
    pub low: f64,
    /// The most.
    pub high: f64,
}

impl Ratio {
    /// What can be said: only what is sure, and more than `threshold` (0.05 for 5 %).
    #[must_use]
    pub fn verdict(&self, threshold: f64) -> Verdict {
        if self.low > 1.0 && self.ratio > 1.0 + threshold {
            Verdict::Slower
        } else if self.high < 1.0 && self.ratio < 1.0 / (1.0 + threshold) {
            Verdict::Faster
        } else {
            Verdict::NoSignificantChange
        }
    }
}

/// What can be said of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It takes less time than before.
    Faster,
    /// It takes more time than before.
    Slower,
    /// Neither can be told from chance.
    NoSignificantChange,
    /// Nothing is said, since the machine was uneven.
    NotJudged,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::NoSignificantChange => "no significant change",
            Self::NotJudged => "not judged: suspicious",
        })
    }
}

/// What two sweeps say together.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratios {
    /// Of each pair; all intervals hold at once.
    pub cells: Vec<Ratio>,
    /// Of all pairs together: the geometric mean.
    pub all: Ratio,
    /// How many pairs have no matched subsets, trials that had the machine's cores equally far
    /// from each other in both: they had to be compared as they are.
    pub unmatched: usize,
}

/// Relative spread of launches that is assumed where nothing tells it.
const ASSUMED_SPREAD: f64 = 0.06;

/// Relative spread of sweeps of one build besides that of their trials, which are closer in
/// time: found for the cells of 20 pairs of sweeps of some seconds each, on a quiet machine.
const SWEEP_SPREAD: f64 = 0.016;

/// The same where their cores were not equally far from each other.
const MOVED_SPREAD: f64 = 0.05;

/// Cores are far from each other where a handover takes so many times as long as the shortest.
const FAR: f64 = 2.5;

/// As how many degrees of freedom the pooled variance of all cells counts with a cell's own.
const PRIOR_FREEDOM: f64 = 4.0;

/// Between the paces before and after a trial, relative: it saw two machines.
const UNSTEADY: f64 = 0.1;

/// Bootstrap replicates: enough for the tails of some dozens of cells.
const REPLICATES: usize = 4000;

/// Resamples of a trial's blocks, which replicates draw from.
const RESAMPLES: usize = 200;

/// Of the intervals.
const CONFIDENCE: f64 = 0.95;

/// What is 0.975 of the normal distribution.
const NORMAL: f64 = 1.959_964;

/// A cell's trials in one sweep.
struct Side {
    /// For each trial its round and the logarithm of its level.
    levels: Vec<(u32, f64)>,
    /// For each trial how its blocks differ from its level.
    blocks: Vec<Vec<f64>>,
    mean: f64,
}

/// Of the trials of two sweeps the subsets that had the machine's cores equally far from each
/// other, and whether there are any; all trials where there are none, or where that is not known.
fn matched_subsets(pairs: &[Pair]) -> Vec<(Pair, bool)> {
    let trials = || pairs.iter().flat_map(|pair| pair.before.iter().chain(&pair.after));
    let known: Option<Vec<[f64; 2]>> = trials().map(|trial| trial.handover).collect();
    let Some(known) = known else {
        return pairs.iter().map(|pair| (pair.clone(), true)).collect();
    };
    let shortest = known.iter().flatten().fold(f64::INFINITY, |least, nanos| least.min(*nanos));
    // Before and after: cores that moved meanwhile were at neither distance.
    let at = |far: bool, trials: &[Observation]| -> Vec<Observation> {
        let is = |nanos: f64| (nanos > FAR * shortest) == far;
        let found =
            |trial: &&Observation| trial.handover.is_some_and(|both| both.into_iter().all(is));
        trials.iter().filter(found).cloned().collect()
    };
    let of = |pair: &Pair| {
        let subsets = [true, false]
            .map(|far| Pair { before: at(far, &pair.before), after: at(far, &pair.after) });
        let fewest = |pair: &Pair| pair.before.len().min(pair.after.len());
        // One matched trial on each side says more than many that do not match.
        match subsets.into_iter().max_by_key(fewest) {
            Some(matched) if fewest(&matched) > 0 => (matched, true),
            _ => (pair.clone(), false),
        }
    };
    pairs.iter().map(of).collect()
}

impl Side {
    fn of(trials: &[Observation], paced: bool) -> Self {
        let steady = |trial: &&Observation| {
            !paced
                || trial.pace.is_some_and(|[before, after]| (before / after).ln().abs() < UNSTEADY)
        };
        // Two trials of a machine that changed are better than one that saw it steady.
        let enough = trials.iter().filter(steady).count() >= 2;
        let trials: Vec<&Observation> =
            trials.iter().filter(|trial| !enough || steady(trial)).collect();
        let level = |trial: &Observation| {
            let pace = trial.pace.filter(|_| paced);
            lower_quartile(&trial.blocks).ln() - pace.map_or(0.0, |[a, b]| ((a + b) / 2.0).ln())
        };
        let levels: Vec<(u32, f64)> =
            trials.iter().map(|trial| (trial.round, level(trial))).collect();
        let mean = levels.iter().map(|(_, level)| level).sum::<f64>() / levels.len() as f64;
        let blocks = trials.iter().map(|trial| trial.blocks.clone()).collect();
        Self { levels, blocks, mean }
    }

    /// Of two builds whose trials alternate: how each of the second's differs from the
    /// first's in the same round. Nothing if no round has both.
    fn paired_differences(pair: &Pair) -> Option<Self> {
        let (mut levels, mut blocks) = (Vec::new(), Vec::new());
        for after in &pair.after {
            let Some(before) = pair.before.iter().find(|before| before.round == after.round) else {
                continue;
            };
            let level = lower_quartile(&before.blocks);
            levels.push((after.round, (lower_quartile(&after.blocks) / level).ln()));
            blocks.push(after.blocks.clone());
        }
        let mean = levels.iter().map(|(_, level)| level).sum::<f64>() / levels.len() as f64;
        (!levels.is_empty()).then_some(Self { levels, blocks, mean })
    }

    fn len(&self) -> usize {
        self.levels.len()
    }

    /// The deviations of its trials from their mean, as large as they are in truth: a mean
    /// of few is too close to them.
    fn deviations(&self) -> impl Iterator<Item = (u32, f64)> {
        let n = self.len() as f64;
        let scale = if n > 1.0 { (n / (n - 1.0)).sqrt() } else { 0.0 };
        self.levels.iter().map(move |(round, level)| (*round, (level - self.mean) * scale))
    }

    /// Sum of squared deviations, and its degrees of freedom.
    fn squares(&self) -> (f64, f64) {
        let sum = self.levels.iter().map(|(_, level)| (level - self.mean).powi(2)).sum();
        (sum, self.len() as f64 - 1.0)
    }

    /// For each trial how its level differs by chance, if other blocks had been measured.
    fn by_blocks(&self, random: &mut StdRng) -> Vec<Vec<f64>> {
        let mut resampled = Vec::new();
        let mut of = |blocks: &Vec<f64>| {
            let level = lower_quartile(blocks);
            let mut deviation = || {
                resampled.clear();
                let pick = |_| blocks[random.random_range(0..blocks.len())];
                resampled.extend((0..blocks.len()).map(pick));
                (lower_quartile(&resampled) / level).ln()
            };
            (0..RESAMPLES).map(|_| deviation()).collect()
        };
        self.blocks.iter().map(&mut of).collect()
    }

    /// How the mean of as many trials differs by chance, where trials differ by `spread`
    /// times one of `shapes`, and each by its blocks besides.
    fn replicates(&self, spread: f64, shapes: &[f64], random: &mut StdRng) -> Vec<f64> {
        let by_blocks = self.by_blocks(random);
        let mut mean = || {
            let trial = |_| {
                let of_trial = &by_blocks[random.random_range(0..self.len())];
                of_trial[random.random_range(0..RESAMPLES)] + spread * shape(shapes, random)
            };
            (0..self.len()).map(trial).sum::<f64>() / self.len() as f64
        };
        (0..REPLICATES).map(|_| mean()).collect()
    }
}

/// Least number of shapes that say what a distribution looks like.
const FEWEST_SHAPES: usize = 6;

/// One of the shapes, or a normal one if there are too few.
fn shape(shapes: &[f64], random: &mut StdRng) -> f64 {
    if shapes.len() >= FEWEST_SHAPES {
        return shapes[random.random_range(0..shapes.len())];
    }
    let (u, v): (f64, f64) = (random.random(), random.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// A quarter of the values is at most this. There must be some.
pub(crate) fn lower_quartile(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = 0.25 * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// The 0.975 quantile of Student's t distribution with so many degrees of freedom (Abramowitz
/// and Stegun 26.7.5).
fn t_quantile(freedom: f64) -> f64 {
    let z = NORMAL;
    let terms = [
        (z.powi(3) + z) / 4.0,
        (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0,
        (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0,
    ];
    let mut t = z;
    for (power, term) in (1..).zip(terms) {
        t += term / freedom.powi(power);
    }
    t
}

/// The middle of some numbers, the larger of the two if there are two; 0 of none.
#[must_use]
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

/// The value that a part `p` of these does not exceed.
fn quantile(mut values: Vec<f64>, p: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (p * values.len() as f64).ceil() as usize;
    values[place.clamp(1, values.len()) - 1]
}

/// The sides of each cell, the one whose mean counts last, and how the difference varies
/// besides: one side of paired differences where trials alternate, else two.
fn sides(pairs: &[Pair], alternating: bool) -> Vec<(Vec<Side>, f64)> {
    let paired = |pair| Some((vec![Side::paired_differences(pair)?], 0.0));
    let paired: Option<Vec<_>> = pairs.iter().map(paired).collect();
    if let Some(paired) = paired.filter(|_| alternating) {
        return paired;
    }
    let trials = || pairs.iter().flat_map(|pair| pair.before.iter().chain(&pair.after));
    let paced = trials().all(|trial| trial.pace.is_some());
    matched_subsets(pairs)
        .into_iter()
        .map(|(pair, matched)| {
            let apart = if matched { SWEEP_SPREAD } else { MOVED_SPREAD };
            let sides = vec![Side::of(&pair.before, paced), Side::of(&pair.after, paced)];
            (sides, apart * f64::sqrt(2.0))
        })
        .collect()
}

/// Compares cells, of two sweeps or of two builds whose trials are `alternating`. Every side must have a
/// trial, and every trial a block. The same input and seed give the same answer.
#[must_use]
pub fn compare(pairs: &[Pair], alternating: bool, seed: u64) -> Ratios {
    let (sides, apart): (Vec<Vec<Side>>, Vec<f64>) = sides(pairs, alternating).into_iter().unzip();

    // What all cells together say of how much launches differ.
    let add = |(a, b): (f64, f64), (c, d): (f64, f64)| (a + c, b + d);
    let squares = |sides: &Vec<Side>| sides.iter().map(Side::squares).fold((0.0, 0.0), add);
    let (sum, freedom) = sides.iter().map(squares).fold((0.0, 0.0), add);
    let assumed = ASSUMED_SPREAD.powi(2);
    let common = if freedom > 0.0 { sum / freedom } else { assumed };
    let spreads: Vec<(f64, f64)> = sides
        .iter()
        .map(|sides| {
            let (sum, own) = squares(sides);
            let freedom = PRIOR_FREEDOM + own;
            (((PRIOR_FREEDOM * common + sum) / freedom).sqrt(), freedom)
        })
        .collect();
    let shapes: Vec<f64> = sides
        .iter()
        .zip(&spreads)
        .filter(|(_, (spread, _))| *spread > 0.0)
        .flat_map(|(sides, (spread, _))| {
            let of = |side: &Side| {
                let alone = side.len() < 2;
                side.deviations().filter(|_| !alone).map(|(_, d)| d / spread).collect::<Vec<_>>()
            };
            sides.iter().flat_map(of).collect::<Vec<_>>()
        })
        .collect();

    let mut random = StdRng::seed_from_u64(seed);
    // The last side less the one before it.
    let differ = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, |sum, value| value - sum);
    let estimates: Vec<f64> =
        sides.iter().map(|sides| differ(&mut sides.iter().map(|side| side.mean))).collect();
    // For each cell its replicates' deviations from the estimate.
    let deviations: Vec<Vec<f64>> = sides
        .iter()
        .zip(spreads.iter().zip(&apart))
        .map(|(sides, ((spread, freedom), apart))| {
            let wider = t_quantile(*freedom) / NORMAL;
            let mut replicates = |side: &Side| side.replicates(*spread, &shapes, &mut random);
            let all: Vec<Vec<f64>> = sides.iter().map(&mut replicates).collect();
            let one = |replicate: usize| {
                wider * differ(&mut all.iter().map(|replicates| replicates[replicate]))
            };
            let own = (0..REPLICATES).map(one).collect::<Vec<_>>();
            own.into_iter().map(|own| own + apart * shape(&[], &mut random)).collect()
        })
        .collect();
    let errors: Vec<f64> = deviations
        .iter()
        .map(|d| (d.iter().map(|d| d * d).sum::<f64>() / d.len() as f64).sqrt().max(1e-9))
        .collect();
    // So many standard errors hold all cells at once.
    let largest = (0..REPLICATES).map(|replicate| {
        let of = |(deviations, error): (&Vec<f64>, &f64)| deviations[replicate].abs() / error;
        deviations.iter().zip(&errors).map(of).fold(0.0, f64::max)
    });
    let reach = quantile(largest.collect(), CONFIDENCE);
    let ratio = |estimate: f64, reach: f64| Ratio {
        ratio: estimate.exp(),
        low: (estimate - reach).exp(),
        high: (estimate + reach).exp(),
    };
    let cells =
        estimates.iter().zip(&errors).map(|(estimate, error)| ratio(*estimate, reach * error));
    let all = estimates.iter().sum::<f64>() / estimates.len() as f64;
    let most = sides.iter().map(Vec::len).max().unwrap_or(0);
    let unmatched = apart.iter().filter(|apart| **apart > SWEEP_SPREAD * f64::sqrt(2.0)).count();
    // What sweeps differ by besides is common to all cells.
    let apart = apart.iter().sum::<f64>() / apart.len() as f64;
    let rounds: Vec<Vec<f64>> = (0..most)
        .map(|which| rounds(&sides.iter().filter_map(|s| s.get(which)).collect::<Vec<_>>()))
        .collect();
    let mut reach = reach_of_all(&rounds, apart, &mut random);
    if rounds.iter().any(|rounds| rounds.len() < 2) {
        // One round tells nothing of how rounds differ: all are no surer than their cells.
        let square = errors.iter().map(|error| error * error).sum::<f64>();
        reach = reach.max(NORMAL * square.sqrt() / errors.len() as f64);
    }
    let all = ratio(all, reach);
    Ratios { cells: cells.collect(), all, unmatched }
}

/// How each round of a sweep differs from the others, on average of the cells.
fn rounds(sides: &[&Side]) -> Vec<f64> {
    let mut sums = std::collections::BTreeMap::new();
    for side in sides {
        for (round, deviation) in side.deviations() {
            let (sum, count) = sums.entry(round).or_insert((0.0, 0u32));
            *sum += deviation;
            *count += 1;
        }
    }
    // Extra rounds have few cells, which are not like the others.
    let most = sums.values().map(|(_, count)| *count).max().unwrap_or(0);
    let full = sums.values().filter(|(_, count)| 2 * count > most);
    full.map(|(sum, count)| sum / f64::from(*count)).collect()
}

/// How far the ratio of all cells may be off, where sweeps that are `apart` vary by so much.
fn reach_of_all(rounds: &[Vec<f64>], apart: f64, random: &mut StdRng) -> f64 {
    let freedom: usize = rounds.iter().map(|rounds| rounds.len().saturating_sub(1)).sum();
    let t = if freedom > 0 { t_quantile(freedom as f64) } else { NORMAL };
    let mut mean = |rounds: &Vec<f64>| {
        let n = rounds.len().max(1);
        let draw = |random: &mut StdRng| match rounds.len() {
            0 | 1 => ASSUMED_SPREAD * shape(&[], random),
            n => rounds[random.random_range(0..n)],
        };
        (0..n).map(|_| draw(random)).sum::<f64>() / n as f64
    };
    let deviations =
        (0..REPLICATES).map(|_| rounds.iter().fold(0.0, |sum, rounds| mean(rounds) - sum));
    let square = deviations.map(|d| d * d).sum::<f64>() / REPLICATES as f64;
    (t.powi(2) * square + (NORMAL * apart).powi(2)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that is slow by half for stretches, and whose launches differ.
    struct Machine {
        random: StdRng,
        slow: bool,
        /// Relative spread of launches.
        launches: f64,
        /// Relative spread of a cell's sweeps.
        sweeps: f64,
        /// How likely it becomes slow, and fast again, from one trial to the next.
        turns: [f64; 2],
    }

    impl Machine {
        fn new(seed: u64, launches: f64, turns: [f64; 2]) -> Self {
            let random = StdRng::seed_from_u64(seed);
            Self { random, slow: false, launches, sweeps: SWEEP_SPREAD, turns }
        }

        fn normal(&mut self) -> f64 {
            shape(&[], &mut self.random)
        }

        /// A sweep of cells that take these milliseconds.
        fn sweep(&mut self, cells: &[f64], rounds: u32) -> Vec<Vec<Observation>> {
            let mut sweep = vec![Vec::new(); cells.len()];
            let apart: Vec<f64> =
                cells.iter().map(|_| (self.sweeps * self.normal()).exp()).collect();
            for round in 0..rounds {
                for (cell, mean) in cells.iter().enumerate() {
                    let turn = self.turns[usize::from(self.slow)];
                    self.slow ^= self.random.random::<f64>() < turn;
                    let speed = if self.slow { 1.5 } else { 1.0 };
                    let launch = (self.launches * self.normal()).exp();
                    let block = |machine: &mut Self| {
                        // Now and then something else runs for a moment.
                        let hiccup = if machine.random.random::<f64>() < 0.1 { 1.4 } else { 1.0 };
                        mean * apart[cell]
                            * speed
                            * launch
                            * hiccup
                            * (0.03 * machine.normal()).exp()
                    };
                    let blocks = (0..32).map(|_| block(self)).collect();
                    let pace = 112.0 * speed * (0.01 * self.normal()).exp();
                    sweep[cell].push(Observation {
                        round,
                        blocks,
                        pace: Some([pace, pace]),
                        handover: Some([80.0, 90.0]),
                    });
                }
            }
            sweep
        }
    }

    fn pairs(before: Vec<Vec<Observation>>, after: Vec<Vec<Observation>>) -> Vec<Pair> {
        before.into_iter().zip(after).map(|(before, after)| Pair { before, after }).collect()
    }

    const CELLS: [f64; 6] = [0.45, 0.72, 1.2, 3.5, 2.1, 6.5];

    /// In how many of 100 pairs of sweeps `wanted` says so, where the second takes `slower`
    /// times as long.
    fn count(
        slower: [f64; 6],
        launches: f64,
        turns: [f64; 2],
        wanted: impl Fn(&Ratios) -> bool,
    ) -> usize {
        let tries = 0..100;
        let of = |seed: &u64| {
            let mut machine = Machine::new(*seed, launches, turns);
            let before = machine.sweep(&CELLS, 3);
            let cells: Vec<f64> = CELLS.iter().zip(slower).map(|(ms, by)| ms * by).collect();
            let after = machine.sweep(&cells, 3);
            wanted(&compare(&pairs(before, after), false, 1))
        };
        tries.filter(of).count()
    }

    fn any(ratios: &Ratios, verdict: Verdict) -> bool {
        let mut all = ratios.cells.iter().chain([&ratios.all]);
        all.any(|ratio| ratio.verdict(0.05) == verdict)
    }

    fn alarm(ratios: &Ratios) -> bool {
        any(ratios, Verdict::Slower) || any(ratios, Verdict::Faster)
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![9.0, 1.0]), 9.0);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn the_same_build_is_hardly_ever_found_changed() {
        for (launches, turns) in [(0.02, [0.0, 1.0]), (0.06, [0.1, 0.3]), (0.04, [0.5, 0.5])] {
            let alarms = count([1.0; 6], launches, turns, alarm);
            assert!(alarms <= 8, "{alarms} of 100, launches differ by {launches}");
        }
    }

    #[test]
    fn ten_percent_more_are_found() {
        for (launches, turns) in [(0.02, [0.0, 1.0]), (0.05, [0.1, 0.3]), (0.04, [0.5, 0.5])] {
            let found = count([1.1; 6], launches, turns, |ratios| any(ratios, Verdict::Slower));
            assert!(found >= 92, "{found} of 100, launches differ by {launches}");
        }
    }

    #[test]
    fn one_cell_that_is_much_slower_is_found_alone() {
        let slower = [1.0, 1.0, 1.4, 1.0, 1.0, 1.0];
        let found = count(slower, 0.03, [0.1, 0.3], |ratios| {
            ratios.cells[2].verdict(0.05) == Verdict::Slower
        });
        assert!(found >= 95, "{found}");
        let others = count(slower, 0.03, [0.1, 0.3], |ratios| {
            let mut others = ratios.cells.iter().enumerate().filter(|(cell, _)| *cell != 2);
            others.any(|(_, ratio)| ratio.verdict(0.05) != Verdict::NoSignificantChange)
        });
        assert!(others <= 8, "{others}");
    }

    #[test]
    fn a_slow_machine_is_no_slow_build() {
        // The whole second sweep was in a slow hour.
        let mut machine = Machine::new(5, 0.02, [0.0, 0.0]);
        let before = machine.sweep(&CELLS, 3);
        machine.slow = true;
        let after = machine.sweep(&CELLS, 3);
        let ratios = compare(&pairs(before, after), false, 1);
        assert!(!alarm(&ratios), "{ratios:?}");
        assert!((ratios.all.ratio - 1.0).abs() < 0.04, "{ratios:?}");
    }

    #[test]
    fn cores_that_moved_apart_are_no_slow_build() {
        // In so many of six rounds the cores were far from each other, which cost a tenth.
        let verdict = |far: [usize; 2], by: f64| {
            let mut machine = Machine::new(11, 0.01, [0.0, 0.0]);
            let mut sweep = |far, by: f64| {
                let mut sweep = machine.sweep(&CELLS.map(|ms| ms * by), 6);
                for trial in sweep.iter_mut().flat_map(|trials| &mut trials[..far]) {
                    trial.blocks.iter_mut().for_each(|ms| *ms *= 1.1);
                    trial.handover = Some([350.0, 360.0]);
                }
                sweep
            };
            let (before, after) = (sweep(far[0], 1.0), sweep(far[1], by));
            compare(&pairs(before, after), false, 1).all.verdict(0.05)
        };
        for far in [[0, 4], [4, 0], [6, 3], [2, 2], [6, 6], [0, 6], [6, 0], [5, 1]] {
            assert_eq!(verdict(far, 1.0), Verdict::NoSignificantChange, "{far:?}");
        }
        for far in [[0, 4], [4, 0], [6, 3], [2, 2], [6, 6]] {
            assert_eq!(verdict(far, 1.1), Verdict::Slower, "{far:?}");
        }
    }

    #[test]
    fn a_trial_of_an_unsteady_machine_does_not_count_where_others_do() {
        let trial = |ms: f64, pace| Observation {
            round: 0,
            blocks: vec![ms; 4],
            pace: Some(pace),
            handover: None,
        };
        let steady = [trial(1.0, [100.0; 2]), trial(1.5, [150.0; 2])];
        let uneven = trial(1.0, [100.0, 150.0]);
        let mixed = Side::of(&[steady[0].clone(), uneven.clone(), steady[1].clone()], true);
        assert_eq!(mixed.len(), 2);
        assert!((mixed.mean - (0.01f64).ln()).abs() < 1e-12);
        assert_eq!(Side::of(&[steady[0].clone(), uneven], true).len(), 2);
    }

    #[test]
    fn single_trials_tell_large_changes_alone() {
        let single = |factor: f64| {
            let cells = |by: f64| {
                let of = |ms: &f64| {
                    let blocks = (0..32).map(|block| ms * by * (1.0 + f64::from(block) / 1e4));
                    vec![Observation {
                        round: 0,
                        blocks: blocks.collect(),
                        pace: None,
                        handover: None,
                    }]
                };
                CELLS.iter().map(of).collect::<Vec<_>>()
            };
            compare(&pairs(cells(1.0), cells(factor)), false, 1)
        };
        assert!(!alarm(&single(1.1)));
        assert!(any(&single(1.6), Verdict::Slower) && any(&single(0.6), Verdict::Faster));
    }

    #[test]
    fn one_trial_of_one_cell_is_no_surer_than_the_cell() {
        for alternating in [false, true] {
            for seed in 0..20 {
                let mut random = StdRng::seed_from_u64(seed);
                let mut trial = || {
                    let block = |_| 1.0 + random.random::<f64>();
                    let blocks = (0..2).map(block).collect();
                    vec![vec![Observation { round: 0, blocks, pace: None, handover: None }]]
                };
                let ratios = compare(&pairs(trial(), trial()), alternating, seed);
                let [cell] = &ratios.cells[..] else { panic!("one cell") };
                assert!(ratios.all.high >= cell.ratio && ratios.all.low <= cell.ratio);
                let surer = (ratios.all.high / ratios.all.low).ln() / (cell.high / cell.low).ln();
                assert!(surer > 0.9, "seed {seed}: {:?} and {cell:?}", ratios.all);
            }
        }
    }

    #[test]
    fn the_same_input_has_the_same_answer() {
        let mut machine = Machine::new(3, 0.05, [0.2, 0.2]);
        let pairs = pairs(machine.sweep(&CELLS, 3), machine.sweep(&CELLS, 3));
        assert_eq!(compare(&pairs, false, 7), compare(&pairs, false, 7));
        assert_ne!(compare(&pairs, false, 7), compare(&pairs, false, 8));
    }

    #[test]
    fn alternating_builds_are_told_apart_on_a_machine_that_drifts() {
        // A fifth up and down from round to round, and no pace that shows it.
        let rounds = |seed, factor: f64| {
            let mut machine = Machine::new(seed, 0.05, [0.0, 1.0]);
            // One sweep that both are of.
            machine.sweeps = 0.0;
            let cells = [0.6, 1.4, 2.5];
            let mut pairs = cells.map(|_| Pair { before: Vec::new(), after: Vec::new() });
            for round in 0..8 {
                for (pair, cell) in pairs.iter_mut().zip(cells) {
                    let drift = (0.2 * machine.normal()).exp();
                    for (side, by) in [(&mut pair.before, 1.0), (&mut pair.after, factor)] {
                        let mut trial = machine.sweep(&[cell * drift * by], 1).remove(0).remove(0);
                        trial.round = round;
                        side.push(trial);
                    }
                }
            }
            pairs
        };
        let slower = |factor, alternating| {
            let found = |seed: &u64| alarm(&compare(&rounds(*seed, factor), alternating, 1));
            (0..40).filter(found).count()
        };
        let (same, slow, apart) = (slower(1.0, true), slower(1.1, true), slower(1.1, false));
        assert!(same <= 4, "{same} false alarms of 40");
        assert!(slow >= 38, "{slow} of 40 found");
        assert!(apart < slow, "{apart} of 40 without pairing");
    }

    #[test]
    fn few_degrees_of_freedom_widen_as_students_do() {
        for (freedom, t) in [(4.0, 2.776), (8.0, 2.306), (30.0, 2.042), (1e6, 1.960)] {
            let found = t_quantile(freedom);
            assert!((found / t - 1.0).abs() < 0.005, "{freedom}: {found}, in tables {t}");
        }
    }

    #[test]
    fn quartiles_are_those_of_the_textbook() {
        assert_eq!(lower_quartile(&[3.0]), 3.0);
        assert_eq!(lower_quartile(&[4.0, 1.0, 3.0, 2.0, 5.0]), 2.0);
        assert_eq!(lower_quartile(&[2.0, 1.0]), 1.25);
    }
}
