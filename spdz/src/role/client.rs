//! The client: masks its inputs, and learns the outputs.

use std::sync::Arc;

use super::{Command, Error, at, recv_seed};
use crate::channel::{Channel, Phase, Tag};
use crate::masked;
use crate::plan::{Operation, Plan};
use crate::prg::Seed;
use crate::ring::Ring;
use crate::share::Share;

/// The client's side of a session.
pub struct Client<R, C> {
    plan: Arc<Plan>,
    servers: [C; 2],
    next: u64,
    ring: std::marker::PhantomData<R>,
}

/// Both servers are ready for one inference. Consumed by it, so that no mask
/// hides two inputs.
#[derive(Debug)]
pub struct Ready {
    inference: u64,
    seeds: [Seed; 2],
}

impl<R: Ring, C: Channel> Client<R, C> {
    /// A client of the two servers. Says nothing until the first inference.
    pub fn new(plan: Arc<Plan>, servers: [C; 2]) -> Self {
        Self { plan, servers, next: 0, ring: std::marker::PhantomData }
    }

    /// Has the randomness of the next inference made, and waits until both
    /// servers hold it: the offline phase.
    ///
    /// # Errors
    /// If a server is gone, silent or sends something else.
    pub fn prepare(&mut self) -> Result<Ready, Error> {
        let plan = &self.plan;
        let inference = self.next;
        self.next += 1;
        for server in &mut self.servers {
            Command::Prepare.send(inference, server).map_err(at(plan))?;
        }
        let tag = Tag::new(Phase::Offline, inference, 0);
        let [server0, server1] = &mut self.servers;
        let seeds = [
            recv_seed(server0, tag).map_err(at(plan))?,
            recv_seed(server1, tag).map_err(at(plan))?,
        ];
        Ok(Ready { inference, seeds })
    }

    /// Runs one inference on a batch of `inputs`, one after the other in
    /// row-major order: the online phase. Returns the outputs, `[batch, outputs]`.
    ///
    /// # Errors
    /// If an input or an output is outside the format's range, or a server is
    /// gone, silent or sends something else. After [`Error::OutputRange`] the
    /// session is in order and may go on.
    pub fn infer(&mut self, ready: Ready, inputs: &[f32]) -> Result<Vec<f64>, Error> {
        let plan = &self.plan;
        let precision = plan.format().precision();
        if inputs.len() != plan.input_len() {
            return Err(Error::InputLength {
                expected: plan.input_len(),
                found: inputs.len(),
                batch: plan.batch(),
            });
        }
        let mut encoded = Share::<R>::zeros(inputs.len());
        for (index, (&value, element)) in inputs.iter().zip(&mut encoded.0).enumerate() {
            *element = precision
                .encode::<R>(f64::from(value), precision.fraction)
                .map_err(|source| Error::Range { tensor: "input".into(), index, source })?;
        }
        let message = masked::mask_input(encoded, ready.seeds);
        let tag = |step: usize| Tag::new(Phase::Online, ready.inference, step as u32);
        for server in &mut self.servers {
            server.send(tag(0), message.clone()).map_err(at(plan))?;
        }
        let last = plan.steps().len() - 1;
        let [server0, server1] = &mut self.servers;
        let length = plan.output_len() * R::WIRE_BYTES;
        let share0 = server0.recv(tag(last), length).map_err(at(plan))?;
        let share1 = server1.recv(tag(last), length).map_err(at(plan))?;
        debug_assert!(matches!(plan.steps()[last].operation, Operation::Output { .. }));
        R::elements(&share0)
            .zip(R::elements(&share1))
            .enumerate()
            .map(|(index, (y0, y1))| {
                precision.decode::<R>(R::add(y0, y1), plan.output_fraction()).map_err(|source| {
                    let layer = plan.steps()[last].layer.clone();
                    Error::OutputRange { layer, index, source }
                })
            })
            .collect()
    }

    /// Ends the session for all parties. Returns the number of inferences.
    ///
    /// # Errors
    /// If a server is gone.
    pub fn finish(mut self) -> Result<u64, Error> {
        for server in &mut self.servers {
            Command::Finish.send(self.next, server).map_err(at(&self.plan))?;
        }
        Ok(self.next)
    }
}
