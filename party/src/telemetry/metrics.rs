//! Numbers for Prometheus, which `docs/observability.md` lists.
//!
//! The protocol's thread pays for none of it but a look at the clock after each step and
//! a few additions: what it counts anyway is read when somebody asks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus::core::Collector;
use prometheus::local::LocalHistogram;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use spdz::channel::{Name, Phase, Role};
use spdz::plan::{Plan, Route};
use spdz::protocol::{Protocol, Spdz};
use spdz::role::Outcome;

use super::observer::TimedObserver;
use crate::COMMIT;
use crate::net::{Counters, Link, Refusals};
use crate::result::{Inspection, LayerRange};
use crate::trace::Counts;

/// What all names begin with.
const PREFIX: &str = "secure_inference";

/// Of evaluations, seconds.
const DURATIONS: [f64; 18] = [
    1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0,
];

/// Of single operations, seconds.
const OP_DURATIONS: [f64; 19] = [
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2,
    5e-2, 0.1, 0.5, 1.0, 10.0,
];

/// What a role takes part in, and so which label sets can occur.
struct Part {
    role: Role,
    peers: Vec<Role>,
    /// Evaluations; otherwise only in what comes before.
    evaluates: bool,
    /// Learns what may turn out to be out of range.
    learns: bool,
    /// The phase whose steps are timed, and for each step of the plan the name of what the
    /// role does in it, if it has a part.
    timed: Phase,
    operations: Vec<Option<&'static str>>,
}

impl Part {
    fn of(role: Role, plan: &Plan) -> Self {
        let dialled = Spdz::dials(role).iter().copied();
        let peers = dialled.chain(Spdz::accepts(role, plan.graph().players())).collect();
        let outputs =
            |role| plan.outputs().iter().any(|output| Role::Player(output.player) == role);
        let operation = |(index, step): (usize, &spdz::plan::Step)| {
            let route = plan.message(index).map(|message| message.route);
            plan.has_part(role, index).then(|| name(route, step.operation.name()))
        };
        Self {
            role,
            peers,
            evaluates: match role {
                Role::Player(name) => plan.takes_part(name),
                Role::Producer => false,
                Role::Server0 | Role::Server1 => true,
            },
            learns: outputs(role),
            timed: if role == Role::Producer { Phase::Offline } else { Phase::Online },
            operations: plan.steps().iter().enumerate().map(operation).collect(),
        }
    }

    /// The names of what the role does in evaluations.
    fn names(&self) -> BTreeSet<&'static str> {
        self.operations.iter().flatten().copied().collect()
    }

    /// What evaluations come to.
    fn outcomes(&self) -> impl Iterator<Item = &'static str> {
        let always = [COMPLETED, FAILED].into_iter().filter(|_| self.evaluates);
        always.chain(self.learns.then_some(OUT_OF_RANGE))
    }

    fn phases(&self) -> &'static [&'static str] {
        match self.role {
            Role::Producer => &[OFFLINE],
            _ if self.evaluates => &[COMBINED, OFFLINE, ONLINE],
            _ => &[],
        }
    }
}

/// An operation as people call it who look at the whole instead of at the steps: players
/// share and are revealed tensors.
fn name(route: Option<Route>, operation: &'static str) -> &'static str {
    match route {
        Some(Route::Input(_)) => "share",
        Some(Route::Output(_)) => "reveal",
        Some(Route::Exchange) | None => operation,
    }
}

const COMPLETED: &str = "completed";
const FAILED: &str = "failed";
const OUT_OF_RANGE: &str = "out_of_range";

const COMBINED: &str = "combined";
const OFFLINE: &str = "offline";
const ONLINE: &str = "online";

/// All numbers of one party.
pub(crate) struct Metrics {
    part: Part,
    registry: Registry,
    inferences: IntCounterVec,
    durations: HistogramVec,
    op_durations: HistogramVec,
    sent: IntCounterVec,
    received: IntCounterVec,
    rounds: IntCounterVec,
    available: IntGaugeVec,
    /// At the client of a run that is not private.
    layers: Option<Layers>,
    /// Where traces are sent.
    spans: Option<(Arc<Counts>, IntCounterVec)>,
    /// Of a server, which listens.
    refused: Option<(Refusals, IntCounterVec)>,
    /// Where bytes, rounds and what is available come from.
    links: Mutex<Vec<(Role, Arc<Counters>)>>,
    store: Arc<AtomicU64>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Metrics({})", self.part.role)
    }
}

impl Metrics {
    /// All that `role` can have in a run of `plan`, at 0. `store` is how many prepared
    /// evaluations there are at a server.
    ///
    /// # Errors
    /// If two of them have the same name.
    pub(crate) fn new(
        role: Role,
        plan: &Plan,
        store: Arc<AtomicU64>,
    ) -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some(PREFIX.into()), None)?;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let histograms = |name: &str, help: &str, label: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.into());
            register(&registry, HistogramVec::new(options, &["role", label])?)
        };
        gauges("build_info", "Which build this is; always 1.", &["version", "commit"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION"), COMMIT])
            .set(1);
        let metrics = Self {
            part: Part::of(role, plan),
            inferences: counters(
                "inferences_total",
                "Evaluations that this party took part in.",
                &["role", "outcome"],
            )?,
            durations: histograms(
                "inference_duration_seconds",
                "How long the phases of one evaluation took.",
                "phase",
                &DURATIONS,
            )?,
            op_durations: histograms(
                "op_duration_seconds",
                "How long single operations took, with the waits for others in them.",
                "op",
                &OP_DURATIONS,
            )?,
            sent: counters(
                "sent_bytes_total",
                "Bytes of gRPC messages sent, before HTTP/2 and TLS.",
                &["role", "peer", "phase"],
            )?,
            received: counters(
                "received_bytes_total",
                "Bytes of gRPC messages received, before HTTP/2 and TLS.",
                &["role", "peer", "phase"],
            )?,
            rounds: counters(
                "rounds_total",
                "Exchanges with the other server.",
                &["role", "phase"],
            )?,
            available: gauges(
                "randomness_available",
                "Evaluations whose correlated randomness waits at this server.",
                &["role"],
            )?,
            layers: None,
            spans: None,
            refused: None,
            links: Mutex::default(),
            store,
            registry,
        };
        metrics.initialise();
        Ok(metrics)
    }

    /// Makes every label set that can occur.
    fn initialise(&self) {
        let part = &self.part;
        let role = part.role.name();
        part.outcomes().for_each(|outcome| drop(self.inference(outcome)));
        for phase in part.phases() {
            self.durations.with_label_values(&[role, phase]);
        }
        for name in part.names() {
            self.op_durations.with_label_values(&[role, name]);
        }
        for peer in &part.peers {
            for phase in Phase::ALL {
                for family in [&self.sent, &self.received] {
                    family.with_label_values(&[role, peer.name(), phase.name()]);
                }
            }
        }
        if part.role.is_server() {
            for phase in [OFFLINE, ONLINE] {
                self.rounds.with_label_values(&[role, phase]);
            }
            self.available.with_label_values(&[role]);
        }
    }

    /// Adds those of the layers that `plan` reveals to the client of a run that is not private.
    ///
    /// # Errors
    /// If two of all metrics have the same name.
    pub(crate) fn with_layers(mut self, plan: &Plan) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(&self.registry, GaugeVec::new(Opts::new(name, help), labels)?)
        };
        let layers = Layers {
            values: gauges(
                "layer_value",
                "The smallest and the largest value of a layer's output; the run is not private.",
                &["layer", "bound"],
            )?,
            error: gauges(
                "layer_largest_error",
                "The largest difference between a layer's output and the same of plaintext inference.",
                &["layer"],
            )?,
            near_limit: gauges(
                "layer_near_limit",
                "Values of a layer's output of at least half the number format's limit.",
                &["layer"],
            )?,
        };
        plan.graph()
            .outputs_of(Name::CLIENT)
            .iter()
            .for_each(|(name, _)| layers.set(name, [0.0; 4]));
        self.layers = Some(layers);
        Ok(self)
    }

    /// What was found in the layers so far.
    pub(crate) fn inspected(&self, inspection: &Inspection) {
        let Some(layers) = &self.layers else { return };
        for LayerRange { name, min, max, largest_error, near_limit, .. } in &inspection.layers {
            layers.set(name, [*min, *max, *largest_error, *near_limit as f64]);
        }
    }

    /// Adds the spans by their outcome.
    ///
    /// # Errors
    /// If two of all metrics have the same name.
    pub(crate) fn with_traces(mut self, counts: Arc<Counts>) -> Result<Self, prometheus::Error> {
        let options = Opts::new(
            "trace_spans_total",
            "Spans by outcome: exported to the collector, or dropped.",
        );
        let family = IntCounterVec::new(options, &["role", "outcome"])?;
        self.spans = Some((counts, register(&self.registry, family)?));
        Ok(self)
    }

    /// Adds the connections that a server refused.
    ///
    /// # Errors
    /// If two of all metrics have the same name.
    pub(crate) fn with_refusals(mut self, refusals: Refusals) -> Result<Self, prometheus::Error> {
        let options = Opts::new(
            "refused_connections_total",
            "Connections of strangers, and second ones of a peer, that were closed.",
        );
        let family = register(&self.registry, IntCounterVec::new(options, &["role"])?)?;
        self.refused = Some((refusals, family));
        Ok(self)
    }

    fn inference(&self, outcome: &str) -> IntCounter {
        self.inferences.with_label_values(&[self.part.role.name(), outcome])
    }

    /// Counts what goes over `links` from now on.
    pub(crate) fn connected(&self, links: &[Link]) {
        let counters = links.iter().map(|link| (link.peer(), link.counters())).collect();
        *self.links.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }

    /// Reads what is counted elsewhere.
    fn read(&self) {
        let role = self.part.role.name();
        for (peer, counters) in &*self.links.lock().unwrap_or_else(PoisonError::into_inner) {
            let traffic = counters.read();
            for phase in Phase::ALL {
                let labels = [role, peer.name(), phase.name()];
                let index = phase as usize;
                raise(&self.sent.with_label_values(&labels), traffic.sent_bytes[index]);
                raise(&self.received.with_label_values(&labels), traffic.received_bytes[index]);
            }
            if self.part.role.is_server() && peer.is_server() {
                for phase in [Phase::Offline, Phase::Online] {
                    let rounds = self.rounds.with_label_values(&[role, phase.name()]);
                    raise(&rounds, traffic.received_messages[phase as usize]);
                }
            }
        }
        if let Some((counts, family)) = &self.spans {
            let outcomes = [("exported", counts.exported()), ("dropped", counts.dropped())];
            for (outcome, count) in outcomes {
                raise(&family.with_label_values(&[role, outcome]), count);
            }
        }
        if let Some((refusals, family)) = &self.refused {
            raise(&family.with_label_values(&[role]), refusals.count() as u64);
        }
        if self.part.role.is_server() {
            let available = self.store.load(Ordering::Relaxed);
            self.available.with_label_values(&[role]).set(available.try_into().unwrap_or(i64::MAX));
        }
    }

    /// All numbers in Prometheus' text format.
    ///
    /// # Errors
    /// If a family is empty.
    pub(crate) fn text(&self) -> Result<String, prometheus::Error> {
        self.read();
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// The outputs of layers.
struct Layers {
    values: GaugeVec,
    error: GaugeVec,
    near_limit: GaugeVec,
}

impl Layers {
    fn set(&self, layer: &str, [min, max, error, near_limit]: [f64; 4]) {
        self.values.with_label_values(&[layer, "min"]).set(min);
        self.values.with_label_values(&[layer, "max"]).set(max);
        self.error.with_label_values(&[layer]).set(error);
        self.near_limit.with_label_values(&[layer]).set(near_limit);
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

/// Raises a counter to what was counted elsewhere.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

/// The clock of one role.
pub(crate) struct Recorder {
    metrics: Arc<Metrics>,
    completed: Option<IntCounter>,
    /// By phase.
    durations: BTreeMap<&'static str, LocalHistogram>,
    op_durations: Vec<LocalHistogram>,
    /// For each step of the plan which of these is its.
    histograms: Vec<Option<usize>>,
    /// The phase that the role is in.
    phase: Option<Phase>,
    began: Instant,
    last: Instant,
    /// Of evaluations that are prepared, seconds, the first in front.
    offline: VecDeque<f64>,
}

impl Recorder {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let part = &metrics.part;
        let role = part.role.name();
        let names: Vec<&str> = part.names().into_iter().collect();
        let place = |name: &Option<&'static str>| {
            name.and_then(|name| names.iter().position(|other| *other == name))
        };
        let histogram =
            |family: &HistogramVec, label: &str| family.with_label_values(&[role, label]).local();
        let now = Instant::now();
        Self {
            completed: part.evaluates.then(|| metrics.inference(COMPLETED)),
            durations: part
                .phases()
                .iter()
                .map(|phase| (*phase, histogram(&metrics.durations, phase)))
                .collect(),
            histograms: part.operations.iter().map(place).collect(),
            op_durations: names.iter().map(|n| histogram(&metrics.op_durations, n)).collect(),
            phase: None,
            began: now,
            last: now,
            offline: VecDeque::new(),
            metrics,
        }
    }

    fn took(&mut self, phase: &'static str, seconds: f64) {
        if let Some(histogram) = self.durations.get(phase) {
            histogram.observe(seconds);
            histogram.flush();
        }
    }
}

impl TimedObserver for Recorder {
    fn begin(&mut self, phase: Phase, _: u64, at: Instant) {
        self.phase = Some(phase);
        self.began = at;
        self.last = at;
    }

    fn step(&mut self, step: usize, at: Instant) {
        if self.phase == Some(self.metrics.part.timed)
            && let Some(histogram) = self.histograms[step]
        {
            self.op_durations[histogram].observe((at - self.last).as_secs_f64());
            self.last = at;
        }
    }

    fn end(&mut self, outcome: Outcome, at: Instant) {
        let seconds = (at - self.began).as_secs_f64();
        match self.phase.take() {
            Some(Phase::Offline) => {
                self.took(OFFLINE, seconds);
                if self.metrics.part.evaluates {
                    self.offline.push_back(seconds);
                }
            }
            Some(Phase::Online) => {
                self.took(ONLINE, seconds);
                let offline = self.offline.pop_front().unwrap_or_default();
                self.took(COMBINED, offline + seconds);
                match outcome {
                    Outcome::Done => self.completed.iter().for_each(IntCounter::inc),
                    Outcome::OutOfRange => self.metrics.inference(OUT_OF_RANGE).inc(),
                }
            }
            _ => {}
        }
        self.op_durations.iter().for_each(LocalHistogram::flush);
    }
}

/// A role that fails in the middle of an evaluation does not come to its end.
impl Drop for Recorder {
    fn drop(&mut self) {
        if self.phase == Some(Phase::Online) {
            self.metrics.inference(FAILED).inc();
        }
    }
}
