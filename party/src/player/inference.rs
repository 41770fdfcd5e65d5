//! The client of a network: inference of images, and their score.

use std::sync::Arc;
use std::time::{Duration, Instant};

use spdz::channel::{Channel, Name};
use spdz::graph::Tensors;
use spdz::plan::Plan;
use spdz::ring::Ring;
use spdz::role::Player;

use super::data::InferenceData;
use super::graph::Played;
use super::series::{OutOfRangeOutputs, Series, measure, settle};
use super::summary::{reports, summarise, write_result};
use crate::config::{PartyConfig, Workload};
use crate::error::{RunError, SCALE};
use crate::inspection::Inspector;
use crate::net::{self, Link};
use crate::progress::{Progress, Stage};
use crate::result::{AccuracyCounter, Inspection, RunResult};
use crate::telemetry::{Clocked, Recorders, Telemetry};
use crate::workload::{ImageSet, prediction};

/// Infers and scores images, and measures it.
pub(super) fn infer<R: Ring>(
    config: &PartyConfig,
    plan: &Arc<Plan>,
    workload: &Workload,
    data: InferenceData,
    telemetry: &Telemetry,
    links: &mut [Link],
) -> Result<Played, RunError> {
    let InferenceData { images, expected, inspector } = data;
    let expected = expected.as_ref();
    let batch = config.computation.batch();
    let nothing = Tensors::new();
    let client = Player::<R, _>::set_up(plan.clone(), Name::CLIENT, &nothing, net::servers(links))?;
    let mut client = client.observed_by(telemetry.observer());
    let series =
        Series { warmup: workload.warmup, timed: workload.repetitions, offline: workload.offline };
    let mut last_report = None;
    let inputs = |number: u64| images.batch((number as usize).wrapping_mul(batch) % images.count());
    let mut out_of_range = OutOfRangeOutputs::default();
    let warmup = Duration::from_secs(workload.warmup_seconds);
    settle(&mut client, warmup, &mut last_report, &mut out_of_range, inputs)?;
    let measured =
        measure(&mut client, series, &mut last_report, &mut out_of_range, inputs, |_| Ok(()))?;

    let mut counter = AccuracyCounter::of(config.computation.reveal);
    let samples = expected.map_or(0, |expected| expected.samples);
    for first in (0..samples).step_by(batch) {
        let ready = client.prepare()?;
        let outputs = out_of_range.admit(client.evaluate(ready, &images.batch(first)))?;
        let Some(expected) = expected else { break };
        let classes = expected.classes;
        for image in first..samples.min(first + batch) {
            let secure = outputs.as_ref();
            let secure = secure.and_then(|outputs| prediction(outputs, image - first, classes));
            let row = image * classes..(image + 1) * classes;
            let plaintext = expected.logits.as_ref().map(|logits| &logits[row]);
            counter.add(expected.labels[image], plaintext, secure);
        }
        let done = samples.min(first + batch) as u64;
        Progress { stage: Stage::Accuracy, done, of: samples as u64 }.report(&mut last_report);
    }
    let inspection = match inspector {
        Some(inspector) => Some(inspect(
            &mut client,
            inspector,
            &images,
            batch,
            telemetry,
            &mut last_report,
            &mut out_of_range,
        )?),
        None => None,
    };
    let evaluations = client.finish()?;
    let accuracy = expected.map(|_| counter.finish());
    let result = RunResult {
        out_of_range: out_of_range.count(),
        accuracy,
        inspection,
        ..summarise(config, plan, series, &measured, &reports(plan, links)?, evaluations)
    };
    write_result(workload.result.as_deref(), &result)?;
    // A benchmark counts some as wrong and says how many. Scores alone may be of batches that one
    // image spoils, and an inspection is made to find them.
    let measured = workload.repetitions > 0 && workload.inspect.is_none();
    let all = out_of_range.count() == evaluations;
    if out_of_range.count() > 0 && !(measured && all) {
        tracing::warn!(
            "outputs of {} of {evaluations} evaluations are out of range and count as wrong; {SCALE}",
            out_of_range.count()
        );
    }
    let out_of_range = if measured && all { out_of_range.error(evaluations) } else { None };
    Ok(Played { result: Some(result), out_of_range })
}

/// Has images inferred and compares each layer's outputs with the plaintext ones.
fn inspect<R: Ring, C: Channel>(
    client: &mut Player<R, C, Clocked<Recorders>>,
    mut inspector: Inspector,
    images: &ImageSet,
    batch: usize,
    telemetry: &Telemetry,
    last_report: &mut Option<Instant>,
    out_of_range: &mut OutOfRangeOutputs,
) -> Result<Inspection, RunError> {
    let samples = inspector.samples().min(images.count());
    for first in (0..samples).step_by(batch) {
        let inputs = images.batch(first);
        let ready = client.prepare()?;
        let revealed = out_of_range.admit(client.evaluate(ready, &inputs))?;
        let counted = batch.min(samples - first);
        inspector.compare(inputs, counted, revealed.as_ref())?;
        telemetry.inspected(|| inspector.finish());
        let done = (first + counted) as u64;
        Progress { stage: Stage::Inspect, done, of: samples as u64 }.report(last_report);
    }
    Ok(inspector.finish())
}
