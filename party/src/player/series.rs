//! A series of evaluations, made and timed by the coordinator.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use spdz::channel::Channel;
use spdz::graph::Tensors;
use spdz::ring::Ring;
use spdz::role::{self, Player};

use crate::config::OfflineMode;
use crate::error::{OutputError, RunError};
use crate::progress::{Progress, Stage};
use crate::telemetry::{Clocked, Recorders};

/// How many evaluations, and when their randomness is made.
#[derive(Clone, Copy)]
pub(super) struct Series {
    pub(super) warmup: u64,
    pub(super) timed: u64,
    pub(super) offline: OfflineMode,
}

/// What was measured of each timed evaluation, milliseconds.
pub(super) struct Measured {
    pub(super) offline: Vec<f64>,
    pub(super) online: Vec<f64>,
}

/// Evaluations whose outputs were out of range: the run goes on, and they are counted.
#[derive(Default)]
pub(super) struct OutOfRangeOutputs {
    count: u64,
    first: Option<role::Error>,
}

impl OutOfRangeOutputs {
    /// The outputs, or nothing if they are out of range: a local truncation may fail,
    /// and the next evaluation is none the worse for it.
    pub(super) fn admit(
        &mut self,
        outputs: Result<Tensors, role::Error>,
    ) -> Result<Option<Tensors>, RunError> {
        match outputs {
            Ok(outputs) => Ok(Some(outputs)),
            Err(error @ role::Error::OutputRange { .. }) => {
                tracing::warn!("{error}");
                self.count += 1;
                self.first.get_or_insert(error);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The error, if there were any, after so many evaluations.
    pub(super) fn error(self, evaluations: u64) -> Option<OutputError> {
        let Self { count, first } = self;
        first.map(|first| OutputError::OutOfRange { count, evaluations, first })
    }
}

impl Measured {
    /// Room for so many, which is touched now: what a run takes does not grow while it lasts.
    fn with_room_for(evaluations: u64) -> Self {
        let room = || {
            let mut room = vec![f64::NAN; usize::try_from(evaluations).unwrap_or_default()];
            room.clear();
            room
        };
        Self { offline: room(), online: room() }
    }
}

/// Has a series of evaluations made on the `inputs` of each, counted from 0; hands the outputs
/// to `keep`, `None` where they were out of range.
pub(super) fn measure<R: Ring, C: Channel>(
    player: &mut Player<R, C, Clocked<Recorders>>,
    series: Series,
    last_report: &mut Option<Instant>,
    out_of_range: &mut OutOfRangeOutputs,
    inputs: impl Fn(u64) -> Tensors,
    mut keep: impl FnMut(Option<Tensors>) -> Result<(), RunError>,
) -> Result<Measured, RunError> {
    let milliseconds = |from: Instant| from.elapsed().as_secs_f64() * 1e3;
    let Series { warmup, timed, offline } = series;
    let prepare = |player: &mut Player<R, C, Clocked<Recorders>>| {
        let start = Instant::now();
        let ready = player.prepare()?;
        Ok::<_, RunError>((ready, milliseconds(start)))
    };
    let all = warmup + timed;
    let mut prepared = VecDeque::new();
    if offline == OfflineMode::Ahead {
        for done in 0..all {
            prepared.push_back(prepare(player)?);
            Progress { stage: Stage::Prepare, done: done + 1, of: all }.report(last_report);
        }
    }
    let mut measured = Measured::with_room_for(timed);
    for number in 0..all {
        let inputs = inputs(number);
        let (ready, offline) = match prepared.pop_front() {
            Some(prepared) => prepared,
            None => prepare(player)?,
        };
        let start = Instant::now();
        let outputs = player.evaluate(ready, &inputs);
        let online = milliseconds(start);
        keep(out_of_range.admit(outputs)?)?;
        let progress = if number < warmup {
            Progress { stage: Stage::Warmup, done: number + 1, of: warmup }
        } else {
            measured.offline.push(offline);
            measured.online.push(online);
            Progress { stage: Stage::Timed, done: number + 1 - warmup, of: timed }
        };
        progress.report(last_report);
    }
    Ok(measured)
}

/// Has evaluations made for so long, before any that count: a machine that has just started
/// the parties has more to do for a while.
pub(super) fn settle<R: Ring, C: Channel>(
    player: &mut Player<R, C, Clocked<Recorders>>,
    time: Duration,
    last_report: &mut Option<Instant>,
    out_of_range: &mut OutOfRangeOutputs,
    inputs: impl Fn(u64) -> Tensors,
) -> Result<(), RunError> {
    let start = Instant::now();
    for number in 0.. {
        let passed = start.elapsed();
        if passed >= time {
            break;
        }
        let ready = player.prepare()?;
        out_of_range.admit(player.evaluate(ready, &inputs(number)))?;
        Progress { stage: Stage::Settle, done: passed.as_secs(), of: time.as_secs() }
            .report(last_report);
    }
    Ok(())
}
