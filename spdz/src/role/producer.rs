//! The producer: makes correlated randomness from seeds and shapes, and sees nothing else.

use std::sync::Arc;

use super::commands::{Command, Commands};
use super::error::{Error, at};
use super::messages::{PRODUCER_KEY, send_seed};
use crate::buffer;
use crate::channel::{Channel, Phase, Role};
use crate::correlated::Generator;
use crate::observer::{Observer, Outcome};
use crate::ops::ProtocolRing;
use crate::plan::Plan;
use crate::prg::{Purpose, Seed, SessionId};
use crate::ratchet::Ratchet;
use crate::ring::Ring;

/// The producer's side of a session, reported to an [`Observer`].
#[derive(Debug)]
pub struct Producer<R: Ring, C, O = ()> {
    plan: Arc<Plan>,
    servers: [C; 2],
    /// What it has in common with each server, for the evaluations to come.
    ratchets: [Ratchet; 2],
    generator: Generator<R>,
    observer: O,
}

impl<R: ProtocolRing, C: Channel> Producer<R, C> {
    /// Agrees on a key with each server. `root` must be fresh from the operating
    /// system; everything that the producer sends follows from it and the plan, so it is consumed.
    ///
    /// # Errors
    /// If a server is gone.
    pub fn set_up(
        plan: Arc<Plan>,
        session: SessionId,
        root: Seed,
        mut servers: [C; 2],
    ) -> Result<Self, Error> {
        let purposes = [Purpose::ProducerServer0, Purpose::ProducerServer1];
        let keys = purposes.map(|purpose| root.derive(purpose, 0, 0));
        drop(root);
        for (key, server) in keys.iter().zip(&mut servers) {
            send_seed(server, PRODUCER_KEY, key).map_err(at(&plan))?;
        }
        let split = keys.map(|key| Ratchet::split(key.bind(session, &plan.digest().0)));
        let [(key0, ratchet0), (key1, ratchet1)] = split;
        let generator = Generator::new(&plan, &[key0, key1]);
        buffer::release();
        Ok(Self { plan, servers, ratchets: [ratchet0, ratchet1], generator, observer: () })
    }

    /// The same, with an observer of the steps for which something is generated.
    #[must_use]
    pub fn observed_by<O: Observer>(self, observer: O) -> Producer<R, C, O> {
        let Self { plan, servers, ratchets, generator, observer: () } = self;
        Producer { plan, servers, ratchets, generator, observer }
    }
}

impl<R: ProtocolRing, C: Channel, O: Observer> Producer<R, C, O> {
    /// Makes randomness at server 0's command until the session is over.
    /// Returns the number of evaluations it was made for.
    ///
    /// # Errors
    /// If a server is gone, silent or sends something else.
    pub fn serve(&mut self) -> Result<u64, Error> {
        let plan = &self.plan;
        let mut commands = Commands::default();
        for inference in 0.. {
            let [server0, _] = &mut self.servers;
            match commands.recv(Role::Server0, server0, plan)? {
                Command::Finish => return Ok(inference),
                Command::Prepare => {
                    let Self { generator, servers, ratchets, observer, .. } = self;
                    observer.begin(Phase::Offline, inference);
                    let [Some(key0), Some(key1)] =
                        ratchets.each_mut().map(|ratchet| ratchet.key(inference))
                    else {
                        unreachable!("evaluations are counted up");
                    };
                    let made = generator.produce(plan, &[key0, key1], inference, servers, observer);
                    made.map_err(at(plan))?;
                    observer.end(Outcome::Done);
                }
                Command::Evaluate => {
                    return Err(Error::Command {
                        peer: Role::Server0,
                        found: Command::Evaluate as u8,
                        expected: "0 (prepare) or 2 (finish)",
                    });
                }
            }
        }
        Ok(u64::MAX)
    }
}
