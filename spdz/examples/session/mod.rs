//! A whole session in one process: every role on its own thread, in-memory channels between
//! them. The roles are those that the `party` program runs over the network, each in a
//! process of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use spdz::channel::{Channel, MemoryChannel, Name, Role, memory_pair};
use spdz::graph::Tensors;
use spdz::ops::ProtocolRing;
use spdz::plan::Plan;
use spdz::prg::{Seed, SessionId};
use spdz::ring::{Ring, Side};
use spdz::role::{Error, Memory, Player, Producer, Server, ServerLinks};

/// The inputs of each player, or the outputs.
pub(crate) type Players = BTreeMap<Name, Tensors>;

/// Whatever can go wrong.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Evaluates the plan once. Returns the outputs of each player.
pub(crate) fn run(plan: &Arc<Plan>, inputs: &Players) -> Result<Players, Failure> {
    spdz::with_ring!(plan.format(), R => run_in::<R>(plan, inputs))
}

fn run_in<R: ProtocolRing>(plan: &Arc<Plan>, inputs: &Players) -> Result<Players, Failure> {
    let (session, nothing) = (SessionId::fresh()?, Tensors::new());
    let connect = |x, y| memory_pair(x, y, Duration::from_secs(60));
    let (other1, other0) = connect(Role::Server0, Role::Server1);
    let (producer0, from0) = connect(Role::Server0, Role::Producer);
    let (producer1, from1) = connect(Role::Server1, Role::Producer);
    let mut servers = [
        (Side::Zero, ServerLinks { other: other1, producer: producer0, players: vec![] }, vec![]),
        (Side::One, ServerLinks { other: other0, producer: producer1, players: vec![] }, vec![]),
    ];
    let mut players = Vec::new();
    for &name in plan.graph().players() {
        let mut links = Vec::new();
        for ((_, staying, departing), role) in
            servers.iter_mut().zip([Role::Server0, Role::Server1])
        {
            let (at_server, at_player) = connect(role, Role::Player(name));
            // Who brings inputs to the session only is done when they are there.
            let list = if plan.takes_part(name) { &mut staying.players } else { departing };
            list.push((name, at_server));
            links.push(at_player);
        }
        players.push((name, <[MemoryChannel; 2]>::try_from(links).map_err(|_| "two servers")?));
    }
    let (root, seeds) = (Seed::fresh()?, [Seed::fresh()?, Seed::fresh()?]);

    std::thread::scope(|scope| {
        let mut others = Vec::new();
        for ((side, links, mut departing), fresh) in servers.into_iter().zip(seeds) {
            others.push(scope.spawn(move || {
                let plan = plan.clone();
                let mut server =
                    Server::<R, _>::set_up(plan, session, side, fresh, links, &mut departing)?;
                server.serve(&mut Memory::default())
            }));
        }
        others.push(scope.spawn(move || {
            Producer::<R, _>::set_up(plan.clone(), session, root, [from0, from1])?.serve()
        }));
        let mut threads = Vec::new();
        for (name, links) in players {
            let inputs = inputs.get(&name).unwrap_or(&nothing);
            threads.push((name, scope.spawn(move || play::<R, _>(plan, name, inputs, links))));
        }

        let (mut outputs, mut errors) = (Players::new(), Vec::new());
        for (name, thread) in threads {
            match outcome(thread) {
                Ok(tensors) => drop(outputs.insert(name, tensors)),
                Err(error) => errors.push(error),
            }
        }
        errors.extend(others.into_iter().filter_map(|thread| outcome(thread).err()));
        // When one role fails, the others lose a connection: what they say is no cause.
        let cause = errors.into_iter().min_by_key(|error| matches!(error, Error::Channel { .. }));
        cause.map_or(Ok(outputs), |error| Err(error.into()))
    })
}

/// A player's side: it commands the evaluation, takes part in it, or hands over what it
/// brings to the session and leaves.
fn play<R: Ring, C: Channel>(
    plan: &Arc<Plan>,
    name: Name,
    inputs: &Tensors,
    servers: [C; 2],
) -> Result<Tensors, Error> {
    let mut player = Player::<R, _>::set_up(plan.clone(), name, inputs, servers)?;
    let mut outputs = Tensors::new();
    if plan.coordinator() == name {
        let ready = player.prepare()?;
        outputs = player.evaluate(ready, inputs)?;
        player.finish()?;
    } else if plan.takes_part(name) {
        let bring = |_| Ok(inputs.clone());
        player.follow(bring, |_, result| result.map(|tensors| outputs = tensors))?;
    }
    Ok(outputs)
}

fn outcome<T>(thread: ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Whether all outputs are within `tolerance` of what was expected.
pub(crate) fn check(found: &Players, expected: &Players, tolerance: f64) -> Result<(), Failure> {
    for (player, outputs) in expected {
        for (name, expected) in outputs {
            let Some(found) = found.get(player).and_then(|outputs| outputs.get(name)) else {
                return Err(format!("{player} did not learn {name}").into());
            };
            for (x, y) in found.as_slice().iter().zip(expected.as_slice()) {
                if x.is_nan() || (x - y).abs() > tolerance {
                    return Err(format!("{player}: {name} is {x}, expected {y}").into());
                }
            }
        }
    }
    Ok(())
}

/// Numbers from -1 to 1 that look random, for an example's data.
pub(crate) fn noise(place: usize) -> f64 {
    ((place as f64 + 1.0).sin() * 43_758.545_3).fract()
}
