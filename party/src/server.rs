//! A server's side of a run.

use std::sync::Arc;
use std::time::Instant;

use spdz::channel::{Channel, Name, Phase};
use spdz::ops::ProtocolRing;
use spdz::plan::Plan;
use spdz::prg::Seed;
use spdz::ring::Side;
use spdz::role::{Outcome, Server, ServerLinks, report_tag};

use crate::config::PartyConfig;
use crate::error::{ProcessError, RunError, at, parting};
use crate::net::{self, Link};
use crate::report::{LayerSpan, Report};
use crate::store::{Bounded, Disk};
use crate::telemetry::{Clocked, Telemetry, TimedObserver};

/// Serves all evaluations of the session, and reports what it measured to the coordinator.
pub(crate) fn serve<R: ProtocolRing>(
    config: &PartyConfig,
    plan: &Arc<Plan>,
    side: Side,
    disk: Option<Disk>,
    telemetry: &Telemetry,
    links: &mut Vec<Link>,
) -> Result<(), RunError> {
    let leaves = |link: &mut Link| link.player().is_some_and(|name| !plan.takes_part(name));
    let mut departing: Vec<(Name, Link)> = links
        .extract_if(.., leaves)
        .filter_map(|link| link.player().map(|name| (name, link)))
        .collect();
    links.sort_by_key(Link::peer);
    let [other, producer, players @ ..] = &mut links[..] else {
        unreachable!("a server has the other and the producer as peers");
    };
    let borrowed = ServerLinks {
        other: &mut *other,
        producer: &mut *producer,
        players: players
            .iter_mut()
            .filter_map(|link| link.player().map(|name| (name, link)))
            .collect(),
    };
    let mut clock = LayerClock::new(plan);
    let set_up = Server::<R, _>::set_up(
        plan.clone(),
        config.session.0,
        side,
        Seed::fresh().map_err(ProcessError::from)?,
        borrowed,
        &mut departing,
    );
    let departing = departing.into_iter().map(|(_, link)| link).collect();
    let mut server = match set_up {
        Ok(server) => server.observed_by(Clocked((&mut clock, telemetry.recorders()))),
        Err(error) => {
            // The caller tells the others.
            let error = RunError::from(error);
            net::give_up(departing, &error.public_reason(), error.is_disagreement());
            return Err(error);
        }
    };
    net::close(departing, config.deadlines.message()).map_err(parting)?;
    tracing::info!("holds the masked inputs of the session");
    let settings = config.store.clone().unwrap_or_default();
    let available = telemetry.available().clone();
    let mut store = Bounded::new(settings, disk, plan.clone(), available);
    let evaluations = server.serve(&mut store)?;
    tracing::info!(evaluations, "all evaluations complete");
    let report = Report::of(other, producer, players, clock.layers);
    let Some(coordinator) =
        players.iter_mut().find(|link| link.player() == Some(plan.coordinator()))
    else {
        unreachable!("the coordinator takes part");
    };
    coordinator.send(report_tag(), report.to_bytes()).map_err(at("report to the coordinator"))
}

/// Adds up how long a server spends on each layer.
struct LayerClock {
    /// For each step of the plan its layer, with those of the set-up at the first.
    layer_of: Vec<usize>,
    layers: Vec<LayerSpan>,
    phase: Phase,
    last: Instant,
}

impl LayerClock {
    fn new(plan: &Plan) -> Self {
        let mut layer_of = vec![0; plan.steps().len()];
        let layers = plan.evaluation_layers();
        for (layer, steps) in layers.iter().enumerate() {
            steps.steps.iter().for_each(|step| layer_of[*step] = layer);
        }
        let spans = vec![LayerSpan::default(); layers.len()];
        Self { layer_of, layers: spans, phase: Phase::Setup, last: Instant::now() }
    }
}

impl TimedObserver for LayerClock {
    fn begin(&mut self, phase: Phase, _: u64, at: Instant) {
        self.phase = phase;
        self.last = at;
    }

    fn step(&mut self, step: usize, at: Instant) {
        let took = u64::try_from((at - self.last).as_nanos()).unwrap_or(u64::MAX);
        self.last = at;
        let span = &mut self.layers[self.layer_of[step]];
        let sum = if self.phase == Phase::Offline { &mut span.offline } else { &mut span.online };
        *sum = sum.saturating_add(took);
    }

    fn end(&mut self, _: Outcome, _: Instant) {}
}
