//! The connections of a party to all its peers.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use spdz::channel::{Name, Role};
use spdz::plan::Plan;
use spdz::protocol::{Protocol, Spdz};

use super::accept::{self, Acceptor, Refusals};
use super::dial;
use super::error::ConnectError;
use super::handshake::{Introduction, introduce};
use super::link::Link;
use super::links::give_up;
use super::shape::Shaping;
use crate::config::{ConfigError, PartyConfig};
use crate::identity::Credentials;
use crate::stop::Stop;

/// Connects to all peers that the role has, and makes sure that all mean the same run.
///
/// # Errors
/// If a peer does not come in time, is not who it should be, or means another run; if `stop`
/// tells this party to, which then goes for the connections too. Those that are refused, now and
/// while there are links, are counted in `refusals`.
pub fn connect(
    config: &PartyConfig,
    plan: &Plan,
    stop: &Stop,
    refusals: &Refusals,
) -> Result<Vec<Link>, ConnectError> {
    connect_where(config, plan, stop, refusals, |_| true)
}

/// Connects to `peer` alone, as [`connect`] does: for what concerns a pair of parties,
/// such as how fast they can talk.
///
/// # Errors
/// As [`connect`]; if the role and `peer` do not talk to each other.
pub fn connect_to(config: &PartyConfig, plan: &Plan, peer: Role) -> Result<Link, ConnectError> {
    let found =
        connect_where(config, plan, &Stop::default(), &Refusals::default(), |role| role == peer)?
            .pop();
    found.ok_or_else(|| {
        let problem = format!("does not let it talk to {peer}");
        ConfigError::Section { role: config.role, problem }.into()
    })
}

fn connect_where(
    config: &PartyConfig,
    plan: &Plan,
    stop: &Stop,
    refusals: &Refusals,
    wanted: impl Fn(Role) -> bool,
) -> Result<Vec<Link>, ConnectError> {
    let credentials = Credentials::load(&config.identity, config.role, config.session.0)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ConnectError::Runtime)?;
    let until = Instant::now() + config.deadlines.connect();
    let introduction = Introduction::new(config, plan);
    let queue = queue_frames(plan, config.transport.chunk_bytes);
    let shaping = config.transport.network.map(|conditions| Arc::new(Shaping::new(conditions)));
    let mut expected = Spdz::accepts(config.role, plan.graph().players());
    expected.retain(|peer| wanted(*peer));
    let connecting = async {
        let mut acceptor = accept::listen(
            config,
            expected,
            &credentials,
            queue,
            shaping.clone(),
            refusals.clone(),
        )
        .await?;
        let mut arrivals = Vec::new();
        for &peer in Spdz::dials(config.role).iter().filter(|peer| wanted(**peer)) {
            arrivals.push(
                dial::dial(config, &credentials, peer, queue, shaping.as_ref(), until).await?,
            );
        }
        if let Some(acceptor) = &mut acceptor {
            acceptor.wait(until, config.deadlines.connect(), &mut arrivals).await?;
        }
        Ok::<_, ConnectError>((arrivals, acceptor.map(Acceptor::into_serving)))
    };
    let (arrivals, serving) = runtime.block_on(async {
        tokio::select! {
            arrivals = connecting => arrivals,
            () = stop.requested() => Err(ConnectError::Stopped),
        }
    })?;
    let runtime = Rc::new(runtime);
    let serving = serving.map(Rc::new);
    let mut links: Vec<Link> = arrivals
        .into_iter()
        .map(|arrival| {
            let link = Link::new(arrival, config, runtime.clone(), stop.clone(), shaping.clone());
            link.served_by(serving.clone())
        })
        .collect();
    if let Err(error) = introduce(&mut links, &introduction, until) {
        give_up(links, &error.to_string(), matches!(error, ConnectError::Mismatch { .. }));
        return Err(error);
    }
    Ok(links)
}

/// Frames that may wait to be sent to one peer: two of the plan's largest
/// messages, since servers send to each other before they listen, and all that
/// goes between a server and a player in one direction, since players send all
/// inputs before they listen.
fn queue_frames(plan: &Plan, chunk_bytes: usize) -> usize {
    let frames =
        |step: usize| plan.message(step).map_or(0, |message| message.bytes().div_ceil(chunk_bytes));
    let of_player = |player: &Name| -> usize {
        let inputs = plan.inputs().iter().filter(|input| input.player == *player);
        let outputs = plan.outputs().iter().filter(|output| output.player == *player);
        let inputs: usize = inputs.map(|input| frames(input.step)).sum();
        inputs.max(outputs.map(|output| frames(output.step)).sum())
    };
    let players = plan.graph().players().iter().map(of_player).max().unwrap_or(0);
    64 + players.max(2 * plan.largest_message().div_ceil(chunk_bytes))
}
