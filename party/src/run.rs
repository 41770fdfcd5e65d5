//! A run, from the configuration to the result.

use std::path::Path;
use std::sync::Arc;

use spdz::channel::{ChannelFault, Name, Role};
use spdz::ops::ProtocolRing;
use spdz::plan::Plan;
use spdz::prg::Seed;
use spdz::ring::{Side, Threads};
use spdz::role::Producer;

use crate::background::Background;
use crate::config::PartyConfig;
use crate::error::parting;
use crate::inspection::NOT_PRIVATE;
use crate::logs;
use crate::memory;
use crate::net::{self, Link};
use crate::player::{self, Played, PlayerData};
use crate::result::RunResult;
use crate::server;
use crate::store::Disk;
use crate::telemetry::{Readiness, Telemetry};
use crate::transcript::Recorder;

pub use crate::error::{OutputError, ProcessError, RunError};
pub use crate::progress::{Progress, Stage};

/// Runs the party that `config` describes; once in a process, since the threads are started
/// once. The coordinator returns what it measured. With a folder for it the party writes a
/// transcript. Ends soon once a signal tells it to.
///
/// # Errors
/// Whatever keeps the run from completing; the peers are told.
pub(crate) fn run(
    config: &PartyConfig,
    transcript: Option<&Path>,
    background: &Background,
) -> Result<Option<RunResult>, RunError> {
    let plan = Arc::new(config.computation.plan()?);
    let telemetry = Telemetry::start(config, &plan, background)?;
    let _lines = logs::run().entered();
    let outcome = meet_and_play(config, &plan, transcript, background, &telemetry);
    telemetry.end(outcome.as_ref().err().map(|error| error.reason()), background);
    outcome
}

fn meet_and_play(
    config: &PartyConfig,
    plan: &Arc<Plan>,
    transcript: Option<&Path>,
    background: &Background,
    telemetry: &Telemetry,
) -> Result<Option<RunResult>, RunError> {
    // Files first: a party that cannot do its part should not keep others waiting.
    let data = match config.role {
        Role::Player(name) => Some((name, PlayerData::load(config, plan, name)?)),
        _ => None,
    };
    let disk = match &config.store {
        Some(settings) => Disk::open(settings, config.session.0)?,
        None => None,
    };
    let recorder = transcript.map(|folder| Recorder::start(folder, config, plan)).transpose()?;
    tracing::info!(role = %config.role, session = %config.session.0, plan = %plan.digest(), "starting");
    if config.computation.inspect {
        tracing::warn!("{NOT_PRIVATE}");
    }
    memory::page(Some(plan.bundle_bytes()));
    // Players multiply nothing that is large.
    let threads = match data {
        None => Threads::start(config.threads()).map_err(ProcessError::from)?,
        Some(_) => Threads::default(),
    };
    telemetry.readiness(Readiness::Connecting);
    let mut links = net::connect(config, plan, background.stop(), telemetry.refusals())?;
    telemetry.connected(&links);
    for link in &mut links {
        if let Some(recorder) = &recorder {
            let recording = Recorder::peer(recorder, link.peer(), link.proof());
            link.record(recording);
        }
    }
    tracing::info!(role = %config.role, "connected to all peers");
    let outcome = threads.scope(|| {
        spdz::with_ring!(
            plan.format(),
            R => play::<R>(config, plan, data, disk, telemetry, &mut links)
        )
    });
    // What was sent in a run that failed is signed too.
    let signed = recorder.as_ref().map_or(Ok(()), Recorder::finish);
    let outcome = match (outcome, signed) {
        (Ok(played), signed) => signed.map(|()| played).map_err(RunError::from),
        (Err(error), signed) => {
            if let Err(problem) = signed {
                tracing::warn!("no transcript: {problem}");
            }
            Err(error)
        }
    };
    match outcome {
        Ok(played) => {
            // Before any peer sees the end of this party: see `close`.
            telemetry.flush(background);
            let closed = close(config, plan, links);
            // Only a player that hands over its part and leaves does so while others
            // still depend on what it sent.
            if matches!(config.role, Role::Player(name) if !plan.takes_part(name)) {
                closed.map_err(parting)?;
            }
            tracing::info!(role = %config.role, "done");
            // Only now, as the others did all that they had to.
            played.out_of_range.map_or(Ok(played.result), |error| Err(error.into()))
        }
        Err(error) => {
            net::give_up(links, &error.public_reason(), error.is_disagreement());
            Err(error)
        }
    }
}

/// Closes all connections, a server that to the coordinator last: so that player
/// ends after all others have told what they did, and the traces are complete then.
fn close(config: &PartyConfig, plan: &Plan, links: Vec<Link>) -> Result<(), ChannelFault> {
    let coordinator =
        |link: &Link| config.role.is_server() && link.player() == Some(plan.coordinator());
    let (last, first): (Vec<Link>, Vec<Link>) = links.into_iter().partition(coordinator);
    let patience = config.deadlines.message();
    net::close(first, patience).and(net::close(last, patience))
}

fn play<R: ProtocolRing>(
    config: &PartyConfig,
    plan: &Arc<Plan>,
    data: Option<(Name, PlayerData<'_>)>,
    disk: Option<Disk>,
    telemetry: &Telemetry,
    links: &mut Vec<Link>,
) -> Result<Played, RunError> {
    match (config.role, data) {
        (Role::Server0, _) => server::serve::<R>(config, plan, Side::Zero, disk, telemetry, links)?,
        (Role::Server1, _) => server::serve::<R>(config, plan, Side::One, disk, telemetry, links)?,
        (_, Some((name, data))) => {
            return player::play::<R>(config, plan, name, data, telemetry, links);
        }
        (_, None) => {
            let (root, session) = (Seed::fresh().map_err(ProcessError::from)?, config.session.0);
            let producer =
                Producer::<R, _>::set_up(plan.clone(), session, root, net::servers(links))?;
            let mut producer = producer.observed_by(telemetry.observer());
            let evaluations = producer.serve()?;
            tracing::info!(evaluations, "generated all correlated randomness");
        }
    }
    Ok(Played::default())
}
