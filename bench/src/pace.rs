//! How fast the machine is at a moment, whatever this toolkit does.
//!
//! Virtual machines change their speed by half for seconds at a time, since others share
//! their cores. A trial is only as good as its moment, so the same piece of work is timed
//! before and after it. That work must never change with the toolkit, or what makes both
//! slower would not be seen: it is a loop of its own, and no kernel.
//!
//! They also move: two virtual cores are next to each other on one chip, and a while later on
//! two, where what one has written takes four times as long to reach the other. Parties that
//! exchange small messages are slower by a tenth then, and work on one core is not. So what a
//! core needs to hand something to another and get it back is timed too.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::stats::lower_quartile;

/// How long the same piece of work took around a trial, microseconds. The less, the faster
/// the machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pace {
    /// Just before the trial.
    pub before_micros: f64,
    /// Just after.
    pub after_micros: f64,
    /// How long a core waited for what it handed to another to come back, nanoseconds, before
    /// and after; nothing where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover_nanos: Option<[f64; 2]>,
}

impl Pace {
    /// That of a trial between these.
    #[must_use]
    pub fn between(before: Moment, after: Moment) -> Self {
        Self {
            before_micros: before.micros,
            after_micros: after.micros,
            handover_nanos: before.handover_nanos.zip(after.handover_nanos).map(Into::into),
        }
    }
}

/// What the machine was like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    micros: f64,
    handover_nanos: Option<f64>,
}

/// Numbers that the work multiplies: they stay in the fastest cache.
const NUMBERS: usize = 2048;
/// How often it goes through them.
const PASSES: u64 = 200;
/// How often the work is done.
const SAMPLES: usize = 200;

/// How often something goes from core to core and back in each sample.
const HANDOVERS: u32 = 50;
/// How often a core looks for it before it lets others run, which may be what keeps it waiting.
const LOOKS: u32 = 100_000;

/// What the machine is like now. Takes 40 milliseconds.
#[must_use]
pub fn measure() -> Moment {
    Moment { micros: work_micros(), handover_nanos: handover_nanos() }
}

/// How long the work takes: the mean of two threads, so that no core is forgotten, and of each
/// the lower quartile of many goes, each of a tenth of a millisecond and so seldom interrupted.
fn work_micros() -> f64 {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(2);
    let times = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(time)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<f64>>()
    });
    times.iter().sum::<f64>() / times.len() as f64
}

fn time() -> f64 {
    let numbers: Vec<u64> = (0..NUMBERS as u64).map(|number| number * 77).collect();
    let samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let start = Instant::now();
            black_box(work(black_box(&numbers)));
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    lower_quartile(&samples)
}

/// How long something takes from one core to another and back: always the same two, since on
/// large machines others are farther apart.
fn handover_nanos() -> Option<f64> {
    let allowed = sched_getaffinity(None).ok()?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let (first, second) = (cores.next()?, cores.next()?);
    let turn = AtomicU32::new(0);
    let turns = || (0..).step_by(2).take(SAMPLES * HANDOVERS as usize);
    let there = || {
        stay_on(second);
        for own in turns() {
            wait_for(&turn, own + 1);
            turn.store(own + 2, Ordering::Release);
        }
    };
    let here = || {
        stay_on(first);
        let mut turns = turns();
        let mut sample = |_| {
            let start = Instant::now();
            for own in turns.by_ref().take(HANDOVERS as usize) {
                turn.store(own + 1, Ordering::Release);
                wait_for(&turn, own + 2);
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(HANDOVERS)
        };
        let samples: Vec<f64> = (0..SAMPLES).map(&mut sample).collect();
        lower_quartile(&samples)
    };
    // Threads of their own: this one may stay where it likes.
    thread::scope(|scope| {
        scope.spawn(there);
        scope.spawn(here).join().ok()
    })
}

fn stay_on(core: usize) {
    let mut only = CpuSet::new();
    only.set(core);
    // Where it may not, the system chooses, which most often comes to the same.
    let _ = sched_setaffinity(None, &only);
}

fn wait_for(turn: &AtomicU32, wanted: u32) {
    let mut looks = 0;
    while turn.load(Ordering::Acquire) != wanted {
        spin_loop();
        looks += 1;
        if looks % LOOKS == 0 {
            thread::yield_now();
        }
    }
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
        let Moment { micros, handover_nanos } = measure();
        assert!(micros > 1.0 && micros < 1e6, "{micros}");
        let cores = sched_getaffinity(None).unwrap().count();
        assert_eq!(handover_nanos.is_some(), cores > 1);
        assert!(
            handover_nanos.is_none_or(|nanos| nanos > 1.0 && nanos < 1e6),
            "{handover_nanos:?}"
        );
        let numbers: Vec<u64> = (0..64).collect();
        assert_eq!(work(&numbers), work(&numbers));
    }
}
