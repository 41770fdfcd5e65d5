//! What a party does as spans, which `docs/observability.md` describes.
//!
//! The protocol's thread notes when each step of an evaluation that is traced was done; spans
//! are made of it by the thread that sends them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::{Array, KeyValue, Value};
use spdz::channel::{Phase, Role};
use spdz::plan::{Plan, Route};
use spdz::prg::SessionId;
use spdz::role::Outcome;

use super::observer::TimedObserver;
use crate::background::Background;
use crate::config::PartyConfig;
use crate::logs;
use crate::termination::Reason;
use crate::trace::span::{Clock, Fixed, Place, error, link, write};
use crate::trace::{
    Context, Counts, Encode, Exporter, Settings, SettingsError, Span, SpanId, SpanIds, SpanKind,
    Times, TraceId, inference, session,
};

/// At its end a party waits this long for the collector to take what is left, and this long
/// if a signal stopped it.
const FLUSH_TIMEOUT: [Duration; 2] = [Duration::from_secs(2), Duration::from_millis(200)];

/// Spans of a party's start, by their number.
const START: u64 = 0;
const CONNECT: u64 = 1;
const SET_UP: u64 = 2;

/// Spans of a party's part of an evaluation; those of layers and openings follow.
const PART: u64 = 0;
const OFFLINE: u64 = 1;
const ONLINE: u64 = 2;
const LAYERS: u64 = 3;

/// The ids of a role's spans in a trace. Attempts of the same job may share the trace of
/// their start, so the session is in them.
fn ids(trace: TraceId, session: SessionId, role: Role) -> SpanIds {
    SpanIds::of(trace, &format!("{session} {role}"))
}

/// Everything about the spans of one role that does not change.
struct Shape {
    role: Role,
    coordinator: Role,
    session: SessionId,
    clock: Clock,
    /// The span of the start, if it is traced.
    start: Option<(TraceId, SpanId)>,
    /// The phase whose steps have spans.
    timed: Phase,
    part: Fixed,
    offline: Fixed,
    online: Fixed,
    layers: Vec<Fixed>,
    /// For each step its layer, and its span if the servers exchange something.
    steps: Vec<(usize, Option<Fixed>)>,
}

/// A size or a number, as attributes have it.
fn number(count: usize) -> Value {
    Value::I64(count.try_into().unwrap_or(i64::MAX))
}

fn shape(sides: &[usize]) -> Value {
    let sides = sides.iter().map(|side| (*side).try_into().unwrap_or(i64::MAX));
    Value::Array(Array::I64(sides.collect()))
}

/// What all spans of a party say.
fn common(role: Role, plan: &Plan) -> Vec<KeyValue> {
    vec![
        KeyValue::new("role", role.name().to_owned()),
        KeyValue::new("number.format", plan.format().to_string()),
    ]
}

impl Shape {
    fn new(
        role: Role,
        session: SessionId,
        plan: &Plan,
        clock: Clock,
        start: Option<(TraceId, SpanId)>,
    ) -> Self {
        let coordinator = Role::Player(plan.coordinator());
        let exchanges = |step: usize| {
            let message = plan.message(step)?;
            let exchanged = role.is_server() && message.route == Route::Exchange;
            exchanged.then(|| (plan.steps()[step].operation.name(), message.elements))
        };
        let fixed = |name: &str, phase: Option<&str>, bytes, rounds, more: Vec<KeyValue>| {
            let mut attributes = common(role, plan);
            attributes.extend(phase.map(|phase| KeyValue::new("mpc.phase", phase.to_owned())));
            attributes.push(KeyValue::new("mpc.bytes", number(bytes)));
            attributes.push(KeyValue::new("mpc.rounds", number(rounds)));
            attributes.extend(more);
            Fixed::new(name, SpanKind::Internal, attributes)
        };
        let sent = |steps: &[usize]| steps.iter().map(|step| plan.sent_bytes(role, *step)).sum();
        // A round belongs where its first exchange does.
        let rounds = |steps: &[usize]| {
            let begins = |round: &&Range<usize>| steps.contains(&round.start);
            if role.is_server() { plan.exchanges().iter().filter(begins).count() } else { 0 }
        };
        let all: Vec<usize> = (plan.setup_steps()..plan.steps().len()).collect();
        let timed = if role == Role::Producer { Phase::Offline } else { Phase::Online };
        let phase = timed.name();
        let mut steps: Vec<(usize, Option<Fixed>)> = Vec::new();
        steps.resize_with(plan.steps().len(), || (0, None));
        let mut layers = Vec::new();
        for (index, layer) in plan.evaluation_layers().iter().enumerate() {
            let about = || {
                vec![
                    KeyValue::new("layer.index", number(index)),
                    KeyValue::new("layer.name", layer.name.clone()),
                    KeyValue::new("layer.kind", layer.kind),
                ]
            };
            let with_shape = |sides: &[usize]| {
                let mut about = about();
                about.push(KeyValue::new("tensor.shape", shape(sides)));
                about
            };
            let (bytes, exchanged) = (sent(&layer.steps), rounds(&layer.steps));
            let name = format!("layer {}", layer.name);
            layers.push(fixed(&name, Some(phase), bytes, exchanged, with_shape(&layer.shape)));
            for step in &layer.steps {
                let span = exchanges(*step).map(|(name, len)| {
                    let rounds = rounds(&[*step]);
                    fixed(name, Some(phase), sent(&[*step]), rounds, with_shape(&[len]))
                });
                steps[*step] = (index, span);
            }
        }
        let name = match role {
            _ if role == coordinator => "inference",
            Role::Producer => "produce",
            _ => "evaluate",
        };
        let about = vec![
            KeyValue::new("computation", plan.graph().name().to_owned()),
            KeyValue::new("truncation", plan.truncation().to_string()),
        ];
        let whole = (role == Role::Producer).then_some(phase);
        Self {
            role,
            coordinator,
            session,
            clock,
            start,
            timed,
            part: fixed(name, whole, sent(&all), rounds(&all), about),
            offline: fixed("offline", Some(Phase::Offline.name()), 0, 0, Vec::new()),
            online: fixed("online", Some(phase), sent(&all), 0, Vec::new()),
            layers,
            steps,
        }
    }
}

/// When a role did what in one evaluation.
struct Record {
    shape: Arc<Shape>,
    trace: TraceId,
    number: u64,
    began: Instant,
    /// The phases, from when to when.
    offline: Option<[Instant; 2]>,
    online: Option<[Instant; 2]>,
    /// When a step of the timed phase was done.
    steps: Vec<(usize, Instant)>,
    /// Of the evaluation.
    outcome: &'static str,
}

/// How an evaluation ended.
const COMPLETED: &str = "completed";
const OUT_OF_RANGE: &str = "out_of_range";
const FAILED: &str = "failed";

impl Record {
    /// Calls `emit` for each span: number, parent's number, what is known before, when.
    fn walk<'record>(
        &'record self,
        mut emit: impl FnMut(u64, Option<u64>, &'record Fixed, [Instant; 2]),
    ) {
        let shape = &*self.shape;
        let timed = if shape.timed == Phase::Offline { self.offline } else { self.online };
        let last = self.steps.last().map(|(_, at)| *at);
        let ends = [self.offline, self.online].map(|phase| phase.map(|[_, end]| end));
        let end = ends.into_iter().chain([last]).flatten().max().unwrap_or(self.began);
        emit(PART, None, &shape.part, [self.began, end]);
        if shape.timed == Phase::Online
            && let Some(times) = self.offline
        {
            emit(OFFLINE, Some(PART), &shape.offline, times);
        }
        let Some([begin, _]) = timed else { return };
        if matches!(shape.role, Role::Player(_)) {
            return emit(ONLINE, Some(PART), &shape.online, [begin, end]);
        }
        let mut layers: Vec<Option<[Instant; 2]>> = vec![None; shape.layers.len()];
        let mut before = begin;
        for (step, at) in &self.steps {
            let (layer, exchange) = &shape.steps[*step];
            layers[*layer].get_or_insert([before, *at])[1] = *at;
            if let Some(fixed) = exchange {
                let number = LAYERS + (shape.layers.len() + step) as u64;
                emit(number, Some(LAYERS + *layer as u64), fixed, [before, *at]);
            }
            before = *at;
        }
        for (index, (times, fixed)) in layers.into_iter().zip(&shape.layers).enumerate() {
            if let Some(times) = times {
                emit(LAYERS + index as u64, Some(PART), fixed, times);
            }
        }
    }
}

impl Encode for Record {
    fn spans(&self) -> usize {
        let mut count = 0;
        self.walk(|_, _, _, _| count += 1);
        count
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let shape = &*self.shape;
        let own = ids(self.trace, shape.session, shape.role);
        let root = ids(self.trace, shape.session, shape.coordinator).get(PART);
        self.walk(|number, parent, fixed, [start, end]| {
            let place = Place {
                trace: self.trace,
                id: own.get(number),
                parent: match parent {
                    Some(parent) => Some(own.get(parent)),
                    None => (shape.role != shape.coordinator).then_some(root),
                },
            };
            let times = Times { start: shape.clock.at(start), end: shape.clock.at(end) };
            let whole = number == PART;
            let about = whole.then(|| {
                let number = i64::try_from(self.number).unwrap_or(i64::MAX);
                [KeyValue::new("inference.number", number), KeyValue::new("outcome", self.outcome)]
            });
            write(out, fixed, &place, times, about.into_iter().flatten(), |span| {
                if whole {
                    // The start has spans of parties that take part in no evaluation.
                    span.links = shape.start.iter().map(|(trace, id)| link(*trace, *id)).collect();
                    span.status = (self.outcome == FAILED).then(|| error(FAILED)).flatten();
                }
            });
        });
    }
}

/// Traces one role's evaluations.
pub(crate) struct Tracer {
    shape: Arc<Shape>,
    exporter: Exporter,
    phase: Option<Phase>,
    began: Instant,
    /// The evaluation at hand, if it is traced.
    current: Option<Box<Record>>,
    /// Those that are prepared, the first in front.
    prepared: VecDeque<Box<Record>>,
}

impl Tracer {
    fn send(&mut self, outcome: &'static str) {
        if let Some(mut record) = self.current.take() {
            record.outcome = outcome;
            self.exporter.send(record);
        }
    }
}

impl TimedObserver for Tracer {
    fn begin(&mut self, phase: Phase, inference_number: u64, at: Instant) {
        self.phase = Some(phase);
        self.began = at;
        let waits = self.prepared.front().is_some_and(|record| record.number == inference_number);
        self.current = match phase {
            Phase::Offline => {
                let trace = inference(self.shape.session, inference_number);
                self.exporter.settings().samples(trace).then(|| {
                    Box::new(Record {
                        shape: self.shape.clone(),
                        trace,
                        number: inference_number,
                        began: self.began,
                        offline: None,
                        online: None,
                        steps: Vec::new(),
                        outcome: FAILED,
                    })
                })
            }
            _ if waits => self.prepared.pop_front(),
            _ => None,
        };
        if let Some(record) = &mut self.current {
            let times = Some([self.began; 2]);
            *(if phase == Phase::Offline { &mut record.offline } else { &mut record.online }) =
                times;
            if phase == self.shape.timed {
                record.steps.reserve_exact(self.shape.steps.len());
            }
        }
    }

    fn step(&mut self, step: usize, at: Instant) {
        if let Some(record) = &mut self.current
            && self.phase == Some(self.shape.timed)
        {
            record.steps.push((step, at));
        }
    }

    fn end(&mut self, outcome: Outcome, at: Instant) {
        let times = Some([self.began, at]);
        let phase = self.phase.take();
        let Some(record) = &mut self.current else { return };
        if phase == Some(Phase::Offline) {
            record.offline = times;
            if self.shape.timed == Phase::Online {
                self.prepared.extend(self.current.take());
                return;
            }
        } else {
            record.online = times;
        }
        self.send(match outcome {
            Outcome::Done => COMPLETED,
            Outcome::OutOfRange => OUT_OF_RANGE,
        });
    }
}

/// What was begun and is not done has failed.
impl Drop for Tracer {
    fn drop(&mut self) {
        self.send(FAILED);
        while let Some(record) = self.prepared.pop_front() {
            self.current = Some(record);
            self.send(FAILED);
        }
    }
}

/// How far the start of a party is.
#[derive(Clone, Copy, Debug)]
struct Start {
    began: Instant,
    connecting: Option<Instant>,
    connected: Option<Instant>,
    reported: bool,
}

/// The traces of one party.
pub(crate) struct Traces {
    exporter: Exporter,
    counts: Arc<Counts>,
    shape: Arc<Shape>,
    attributes: Vec<KeyValue>,
    /// The trace of the start, and the parent there.
    trace: TraceId,
    parent: Option<SpanId>,
    start: Cell<Start>,
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Traces({})", self.trace)
    }
}

impl Traces {
    /// Sends traces from now on, if the configuration or the environment says where.
    ///
    /// # Errors
    /// If a setting cannot be used.
    pub(crate) fn start(
        config: &PartyConfig,
        plan: &Plan,
        background: &Background,
    ) -> Result<Option<Self>, SettingsError> {
        let telemetry = config.telemetry.clone().unwrap_or_default();
        let (role, own) = (config.role, config.session.0);
        let settings = Settings::read(
            &format!("secure-inference-{role}"),
            [],
            telemetry.otlp_endpoint.as_deref(),
            telemetry.sampling_ratio,
            |name| std::env::var(name).ok(),
        )?;
        let Some(settings) = settings else { return Ok(None) };
        let coordinator = Role::Player(plan.coordinator());
        let (trace, parent, sampled) = match telemetry.traceparent {
            Some(Context { trace, span, sampled }) => {
                (trace, Some(span), sampled && settings.ratio() > 0.0)
            }
            None => {
                let trace = session(own);
                let root = (role != coordinator).then(|| ids(trace, own, coordinator).get(START));
                (trace, root, settings.samples(trace))
            }
        };
        let start = sampled.then(|| (trace, ids(trace, own, role).get(START)));
        let counts = Arc::new(Counts::default());
        logs::trace(trace);
        // The exporter's lines have the trace too.
        let _lines = logs::run().entered();
        Ok(Some(Self {
            exporter: Exporter::start(settings, counts.clone(), background.runtime()),
            counts,
            shape: Arc::new(Shape::new(role, own, plan, Clock::start(), start)),
            attributes: common(role, plan),
            trace,
            parent,
            start: Cell::new(Start {
                began: Instant::now(),
                connecting: None,
                connected: None,
                reported: false,
            }),
        }))
    }

    /// How many spans were exported and dropped.
    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// It has read its files.
    pub(crate) fn connecting(&self) {
        self.start.set(Start { connecting: Some(Instant::now()), ..self.start.get() });
    }

    /// All peers are connected.
    pub(crate) fn connected(&self) {
        self.start.set(Start { connected: Some(Instant::now()), ..self.start.get() });
    }

    /// The party has started, or could not: then `failure` says why. Only the first call has an effect.
    pub(crate) fn started(&self, failure: Option<Reason>) {
        let Start { began, connecting, connected, reported } = self.start.get();
        let Some((trace, own)) = self.shape.start.filter(|_| !reported) else { return };
        self.start.set(Start { reported: true, ..self.start.get() });
        let now = Instant::now();
        let ids = ids(trace, self.shape.session, self.shape.role);
        let span = |number, parent, name: &str, start, end, last: bool| Span {
            trace,
            id: ids.get(number),
            parent,
            name: name.into(),
            kind: SpanKind::Internal,
            times: Times { start: self.shape.clock.at(start), end: self.shape.clock.at(end) },
            attributes: self.attributes.clone(),
            error: failure.filter(|_| last).map(|reason| format!("{reason:?}")),
        };
        let mut spans = vec![span(START, self.parent, "start", began, now, true)];
        if let Some(from) = connecting {
            let to = connected.unwrap_or(now);
            let last = connected.is_none();
            spans.push(span(CONNECT, Some(own), "connect", from, to, last));
        }
        if let Some(from) = connected {
            spans.push(span(SET_UP, Some(own), "set-up", from, now, true));
        }
        spans.into_iter().for_each(|span| self.exporter.send(Box::new(span)));
    }

    /// What makes the spans of evaluations.
    pub(crate) fn tracer(&self) -> Tracer {
        Tracer {
            shape: self.shape.clone(),
            exporter: self.exporter.clone(),
            phase: None,
            began: Instant::now(),
            current: None,
            prepared: VecDeque::new(),
        }
    }

    /// Sends what is left, for a bounded time.
    pub(crate) fn flush(&self, background: &Background) {
        let stopped = background.stop().signal().is_some();
        let timeout = FLUSH_TIMEOUT[usize::from(stopped)];
        background.runtime().block_on(self.exporter.flush(timeout));
    }
}
