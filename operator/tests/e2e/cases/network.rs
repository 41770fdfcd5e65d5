//! The main thing: a network is inferred, scored and timed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use operator::api::v1alpha1::SecureInference;
use operator::conditions::{self, COMPLETE};
use operator::resources::ROLE;
use party::termination::Termination;

use crate::film::Frame;
use crate::process::repository;
use crate::report::Figures;
use crate::room::{PATIENCE, ROLES, Room, brief, check_complete};

/// From the resource being there to all parties running.
const STARTED: Duration = Duration::from_secs(5);

/// From the client's exit to `Complete`.
const COMPLETED: Duration = Duration::from_secs(1);

/// How much longer than its target a wait may take before the case fails: the figures say what was
/// reached, and a machine that does something else meanwhile is no mistake of the operator's.
const SLACK: f64 = 3.0;

/// Runs after the first whose waits are measured too.
const MORE: usize = 4;

/// The sample that is run.
pub(super) const SAMPLE: &str = "network-c-int64.yaml";
const NAME: &str = "network-c-int64";

pub(super) async fn completes(room: &Room) -> anyhow::Result<Figures> {
    let file = repository().join("manifests/samples").join(SAMPLE);
    let file = file.to_str().context("the path is not UTF-8")?;
    room.cluster()
        .kubectl(&["apply", "--validate=strict", "-n", &room.namespace, "-f", file])
        .await?;
    let status = room.complete(NAME, 2 * PATIENCE).await?;
    check_complete(&status)?;

    let results = status.results.as_ref().context("expected results")?;
    ensure!(results.network == "C", "expected network C, found {}", results.network);
    ensure!(results.repetitions == 100, "expected 100 repetitions, found {}", results.repetitions);
    let accuracy = results.accuracy.context("expected an accuracy")?;
    ensure!(accuracy.samples == 10_000, "expected 10000 images, found {}", accuracy.samples);
    ensure!(accuracy.secure > 0.99, "expected an accuracy above 0.99, found {}", accuracy.secure);
    let agreement = accuracy.agreement.context("expected an agreement")?;
    ensure!(agreement > 0.999, "expected an agreement above 0.999, found {agreement}");
    let divergence = accuracy.mean_kl_divergence.context("expected a KL divergence")?;
    ensure!((0.0..1e-4).contains(&divergence), "expected less than 1e-4, found {divergence}");
    for (what, time) in [
        ("startTime", &status.start_time),
        ("readyTime", &status.ready_time),
        ("completionTime", &status.completion_time),
    ] {
        ensure!(time.is_some(), "expected {what} in the status");
    }
    columns(room).await?;

    let mut waits = vec![Waits::of(room, NAME)?];
    let shown = &waits[0];
    let first = format!(
        "combined {:.2} ms, online {:.2} ms, accuracy {:.4}, agreement {agreement:.4}, KL {divergence:.1e}; \
         started {:.2} s after apply, {:.0} s as the API counts",
        results.combined.mean_ms,
        results.online.mean_ms,
        accuracy.secure,
        shown.started.as_secs_f64(),
        shown.written,
    );
    // A node looks once a second which containers have ended, and a run may end just before a
    // look or just after one.
    for round in 1..=MORE {
        let name = format!("again-{round}");
        room.create(&name, brief(10)).await?;
        room.complete(&name, PATIENCE).await?;
        waits.push(Waits::of(room, &name)?);
    }
    let median = |part: fn(&Waits) -> Duration| {
        let mut parts: Vec<Duration> = waits.iter().map(part).collect();
        parts.sort_unstable();
        (parts[parts.len() / 2].as_secs_f64(), parts[parts.len() - 1].as_secs_f64())
    };
    let (started, slowest) = median(|waits| waits.started);
    let (completed, latest) = median(|waits| waits.completed);
    let (node, _) = median(|waits| waits.node);
    let figures = vec![
        first,
        format!(
            "all parties started {started:.2} s after the resource (target {STARTED:?}), at most {slowest:.2} s, \
             of {} runs",
            waits.len()
        ),
        format!(
            "Complete {completed:.2} s after the client's exit (target {COMPLETED:?}), at most {latest:.2} s; \
             {node:.2} s of it until the node told"
        ),
    ];
    let all = figures.join("\n");
    ensure!(started < SLACK * STARTED.as_secs_f64(), "expected parties within {STARTED:?}:\n{all}");
    ensure!(
        completed < SLACK * COMPLETED.as_secs_f64(),
        "expected Complete within {COMPLETED:?}:\n{all}"
    );
    Ok(figures)
}

/// What a run waited for.
struct Waits {
    /// From the resource being there to all parties running.
    started: Duration,
    /// The same as the API counts it, seconds.
    written: f64,
    /// From the client's exit until its node told of it.
    node: Duration,
    /// From the client's exit to `Complete`.
    completed: Duration,
}

impl Waits {
    fn of(room: &Room, name: &str) -> anyhow::Result<Self> {
        let runs = room.runs.frames();
        let mut runs = runs.iter().filter(|frame| frame.object.name_any() == name);
        let run = runs.next().context("nothing was seen of the resource")?;
        let complete = runs.find(|frame| is_complete(&frame.object));
        let complete = complete.context("it was not seen complete")?;
        let status = complete.object.status.clone().unwrap_or_default();
        let prefix = format!("{name}-");
        let mut pods = room.pods.frames();
        pods.retain(|frame| frame.object.name_any().starts_with(&prefix));
        let started =
            ROLES.iter().map(|role| when(&pods, role, has_started)).collect::<Option<Vec<_>>>();
        let started = started.context("not all parties were seen running")?;
        let started = started.iter().map(|frame| frame.at).max().unwrap_or(run.at);
        let written = status.parties.iter().filter_map(|party| party.started_at.clone());
        let written = written.map(|time| time.0).max().context("expected startedAt of parties")?;
        let created = run.object.creation_timestamp().context("expected a creationTimestamp")?.0;
        let ended = when(&pods, "client", |pod| last_words(pod).is_some());
        let ended = ended.context("the client's end was not seen")?;
        let words = last_words(&ended.object).context("expected the client's last words")?;
        let exit = UNIX_EPOCH + Duration::from_millis(words.finished_at_ms);
        Ok(Self {
            started: started - run.at,
            written: written.duration_since(created).as_secs_f64(),
            node: since(exit, ended.wall),
            completed: since(exit, complete.wall),
        })
    }
}

/// What people see of it.
async fn columns(room: &Room) -> anyhow::Result<()> {
    let table = room.cluster().kubectl(&["get", "si", "-n", &room.namespace]).await?;
    let wide = room.cluster().kubectl(&["get", "si", "-n", &room.namespace, "-o", "wide"]).await?;
    for (table, columns) in [
        (
            &table,
            &["NETWORK", "FORMAT", "BATCH", "PHASE", "COMBINED", "ONLINE", "ACCURACY", "AGE"][..],
        ),
        (&wide, &["ATTEMPT", "REASON"][..]),
    ] {
        for column in columns {
            ensure!(table.contains(column), "expected column {column}, found:\n{table}");
        }
    }
    for cell in [NAME, "Int64", "Succeeded", " ms", " %"] {
        ensure!(table.contains(cell), "expected {cell:?} in a row, found:\n{table}");
    }
    let explained = room.cluster().kubectl(&["explain", "si.spec"]).await?;
    for words in ["numberFormat", "backoffLimit", "because a mask may be used only"] {
        // Lines are broken at any blank.
        let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(explained.contains(words), "expected {words:?}, found:\n{explained}");
    }
    Ok(())
}

/// The first frame of a role's pod that shows something.
fn when<'a>(
    frames: &'a [Frame<Pod>],
    role: &str,
    shows: impl Fn(&Pod) -> bool,
) -> Option<&'a Frame<Pod>> {
    frames.iter().find(|frame| {
        frame.object.labels().get(ROLE).map(String::as_str) == Some(role) && shows(&frame.object)
    })
}

fn has_started(pod: &Pod) -> bool {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    containers
        .into_iter()
        .flatten()
        .filter_map(|container| container.state.as_ref())
        .any(|state| state.running.is_some() || state.terminated.is_some())
}

fn last_words(pod: &Pod) -> Option<Termination> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    let terminated = container.state.as_ref()?.terminated.as_ref()?;
    Termination::parse(terminated.message.as_ref()?).ok()
}

fn is_complete(run: &SecureInference) -> bool {
    run.status.as_ref().is_some_and(|status| conditions::holds(status, COMPLETE))
}

fn since(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}
