//! The cases, in the order in which they run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};

use crate::report::{Figures, Report, Skip};
use crate::room::{Room, World};

mod chart;
mod crowd;
mod deletion;
mod disruptions;
mod failures;
mod frugality;
mod invalid;
mod kills;
mod limits;
mod network;
mod observability;
mod restarts;
mod samples;
mod security;
mod sweep;
mod tenants;
mod traces;

/// How long a case may take; each wait in it has a deadline of its own.
const DEADLINE: Duration = Duration::from_secs(900);

/// How many cases run at the same time.
const AT_ONCE: usize = 3;

type Run = for<'a> fn(&'a Room) -> BoxFuture<'a, anyhow::Result<Figures>>;

/// Something that is asserted of the operator.
pub(crate) struct Case {
    /// What is asserted.
    pub(crate) name: &'static str,
    /// Whether it minds other cases at the same time.
    pub(crate) alone: bool,
    /// Whether it also minds that namespaces of earlier cases are still going.
    pub(crate) quiet: bool,
    /// Whether it reaches behind the API, to this machine's processes and files.
    local: bool,
    /// Whether it takes minutes and asserts nothing that a change breaks every day.
    pub(crate) long: bool,
    run: Run,
}

/// A case that others may run beside.
const fn case(name: &'static str, run: Run) -> Case {
    Case { name, alone: false, quiet: false, local: false, long: false, run }
}

impl Case {
    const fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    const fn quiet(self) -> Self {
        Self { alone: true, quiet: true, ..self }
    }

    const fn local(self) -> Self {
        Self { local: true, ..self }
    }

    const fn long(self) -> Self {
        Self { long: true, ..self }
    }
}

/// All of them. The last sums up what the operator has asked for in the others.
pub(crate) const CASES: &[Case] = &[
    case("network C Int64 completes", |room| network::completes(room).boxed()).quiet(),
    case("deletion in mid-run leaves nothing", |room| deletion::leaves_nothing(room).boxed())
        .quiet(),
    case("deleted and made again", |room| deletion::and_again(room).boxed()),
    case("few writes for a run", |room| frugality::writes(room).boxed()).quiet(),
    case("500 finished resources cost nothing", |room| frugality::finished(room).boxed()).quiet(),
    case("all samples complete", |room| samples::complete(room).boxed()),
    case("dashboards and rules find data", |room| observability::dashboards(room).boxed()).local(),
    case("an image that cannot be pulled", |room| limits::image(room).boxed()),
    case("pods are restricted", |room| security::restricted(room).boxed()),
    case("killed server0", |room| kills::deleted(room, "server0").boxed()),
    case("killed server1", |room| kills::deleted(room, "server1").boxed()),
    case("killed producer", |room| kills::deleted(room, "producer").boxed()),
    case("killed model-owner", |room| kills::deleted(room, "model-owner").boxed()),
    case("killed client", |room| kills::deleted(room, "client").boxed()),
    case("killed process of server1", |room| kills::process(room, "server1").boxed()).local(),
    case("evicted server0", |room| kills::evicted(room, "server0").boxed()),
    case("evicted client", |room| kills::evicted(room, "client").boxed()),
    case("no further attempt fails for good", |room| failures::for_good(room).boxed()),
    case("a non-retryable failure is not tried again", |room| {
        failures::non_retryable(room).boxed()
    }),
    case("invalid specs are refused", |room| invalid::specs(room).boxed()),
    case("suspended in mid-run and resumed", |room| limits::suspended(room).boxed()),
    case("made suspended", |room| limits::made_suspended(room).boxed()),
    case("gone after its time", |room| limits::ttl(room).boxed()),
    case("a malformed resource stops no other", |room| invalid::malformed(room).boxed()).alone(),
    case("hostile resources delay no other tenant", |room| tenants::hostile(room).boxed()).alone(),
    case("one of two replicas leads", |room| restarts::replicas(room).boxed()).alone(),
    case("operator killed again and again", |room| restarts::operator_killed(room).boxed()).alone(),
    case("operator upgraded in mid-run", |room| disruptions::upgraded(room).boxed()).alone().long(),
    case("API server restarted in mid-run", |room| restarts::apiserver_restarted(room).boxed())
        .alone()
        .local(),
    case("API server away for 30 s in mid-run", |room| restarts::apiserver_away(room).boxed())
        .alone()
        .local()
        .long(),
    case("node drained of its parties", |room| disruptions::drained(room).boxed())
        .quiet()
        .local()
        .long(),
    case("node drained, the operator too", |room| disruptions::all_drained(room).boxed())
        .quiet()
        .local()
        .long(),
    case("traces are complete and tell no secret", |room| traces::complete(room).boxed())
        .alone()
        .local(),
    case("the chart's benchmark leaves a report", |room| sweep::scheduled(room).boxed())
        .quiet()
        .local(),
    case("30 runs at once, room for two", |room| crowd::all_finish(room).boxed()).quiet(),
    case("the chart's releases leave runs alone", |room| chart::releases(room).boxed())
        .alone()
        .local(),
    case("all permissions are used", |room| security::permissions(room).boxed()).alone(),
];

/// Runs cases at the same time and tells how they went.
pub(crate) async fn run(world: &Arc<World>, cases: &[&'static Case], report: &mut Report) {
    let outcomes = cases.iter().map(|case| async {
        let began = Instant::now();
        let (outcome, diagnosis) = one(world, case).await;
        (case.name, began.elapsed(), outcome, diagnosis)
    });
    let mut outcomes = futures::stream::iter(outcomes).buffer_unordered(AT_ONCE);
    while let Some((name, took, outcome, diagnosis)) = outcomes.next().await {
        report.tell(name, took, &outcome, &diagnosis);
    }
}

async fn one(world: &Arc<World>, case: &Case) -> (anyhow::Result<Figures>, String) {
    if case.local && world.cluster.machine.is_none() {
        let reason = "needs processes and files of the node: hack/test-cluster's on this machine";
        return (Err(Skip(reason.into()).into()), String::new());
    }
    let room = match Room::open(world.clone(), case.name).await {
        Ok(room) => room,
        Err(error) => return (Err(error.context("cannot make a namespace")), String::new()),
    };
    let run = tokio::time::timeout(DEADLINE, (case.run)(&room));
    let late = || Err(anyhow!("expected the case to end within {DEADLINE:?}"));
    let mut outcome = run.await.unwrap_or_else(|_| late());
    let diagnosis = match &outcome {
        Err(error) if !error.is::<Skip>() => room.diagnose().await,
        _ => String::new(),
    };
    if let Err(error) = room.close().await {
        outcome = outcome.and(Err(error.context("cannot delete the namespace")));
    }
    if let Err(error) = world.operator.account().await {
        outcome = outcome.and(Err(error.context("cannot read the operator's metrics")));
    }
    (outcome, diagnosis)
}
