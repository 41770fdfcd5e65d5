//! What a plan costs: messages, rounds and randomness, folded over what its operations
//! declare.

use super::compiled::Plan;
use super::step::Step;
use crate::channel::Role;
use crate::ops::Randomness;
use crate::ring::Side;
use crate::tensors::{Domain, Message, Route};

impl Plan {
    /// The message of a step, if it has one.
    #[must_use]
    pub fn message(&self, step: usize) -> Option<Message> {
        self.steps().get(step)?.operation.message(self.table())
    }

    /// Whether a role has a part in a step of an evaluation, online or, for the producer,
    /// offline.
    #[must_use]
    pub fn has_part(&self, role: Role, step: usize) -> bool {
        if step < self.setup_steps() || step >= self.steps().len() {
            return false;
        }
        match role {
            Role::Server0 | Role::Server1 => true,
            Role::Producer => self.generates(step),
            Role::Player(name) => match self.message(step).map(|message| message.route) {
                Some(Route::Input(input)) => self.inputs()[input].player == name,
                Some(Route::Output(output)) => self.outputs()[output].player == name,
                Some(Route::Exchange) | None => false,
            },
        }
    }

    /// What `role` sends at a step of an evaluation, and the producer for it; bytes without
    /// those of the transport.
    #[must_use]
    pub fn sent_bytes(&self, role: Role, step: usize) -> usize {
        if !self.has_part(role, step) {
            return 0;
        }
        let message = self.message(step);
        match (role, message.map(|message| message.route)) {
            (Role::Producer, _) => self.generated_len(step),
            (Role::Server0 | Role::Server1, Some(Route::Exchange | Route::Output(_))) => {
                message.map_or(0, |message| message.bytes())
            }
            // To both servers.
            (Role::Player(_), Some(Route::Input(_))) => {
                2 * message.map_or(0, |message| message.bytes())
            }
            _ => 0,
        }
    }

    /// What all parties together send in the online phase of one evaluation, bytes without
    /// those of the transport: inputs to both servers, openings, shares of outputs.
    #[must_use]
    pub fn online_bytes(&self) -> usize {
        // Each message goes two ways: to or from both servers, or between them.
        self.evaluation().filter_map(|(step, _)| self.message(step)).map(|m| 2 * m.bytes()).sum()
    }

    /// What the producer sends for one evaluation, bytes without those of the transport.
    #[must_use]
    pub fn offline_bytes(&self) -> usize {
        self.generated_bytes().iter().sum()
    }

    /// The bytes that the producer sends to each server for one evaluation.
    #[must_use]
    pub fn generated_bytes(&self) -> [usize; 2] {
        let mut bytes = [0; 2];
        for (_, len, receiver) in self.generated() {
            let server = if receiver == Side::Zero { 0 } else { 1 };
            bytes[server] += len;
        }
        bytes
    }

    /// What a server's randomness for one evaluation takes in memory, bytes: its elements, and
    /// what holds them, which for many small steps is more.
    #[must_use]
    pub fn bundle_memory(&self) -> usize {
        let overhead =
            |(_, step): (usize, &Step)| step.operation.randomness(self.table()).overhead();
        self.bundle_bytes() + self.evaluation().map(overhead).sum::<usize>()
    }

    /// The elements of a server's randomness for one evaluation, bytes: what a peer or a file has
    /// of it.
    #[must_use]
    pub fn bundle_bytes(&self) -> usize {
        let bytes = |(_, step): (usize, &Step)| {
            let randomness = step.operation.randomness(self.table());
            let elements: usize = randomness.parts().sum();
            let packed = randomness.packed_parts().map(|bits| randomness.packed.bytes(bits));
            // In memory, and in a file, an element has all its bits.
            Domain::Ring.encoding(self.format()).bytes(elements) + packed.sum::<usize>()
        };
        self.evaluation().map(bytes).sum()
    }

    /// How far what one server sees in an evaluation is at most from what it would see for any
    /// other inputs, while all values are within their ranges: the statistical distance, summed
    /// over all openings (`docs/security.md`). Zero if everything that is opened is uniformly
    /// random. A session's is at most this for each of its evaluations.
    #[must_use]
    pub fn statistical_distance(&self) -> f64 {
        let distances = self.evaluation().map(|(_, step)| step.operation.distance(self.table()));
        distances.sum::<f64>().min(1.0)
    }

    /// Whether the producer generates something for a step, by its number.
    #[must_use]
    pub fn generates(&self, step: usize) -> bool {
        self.generated_len(step) > 0
    }

    /// Bytes that the producer shares for a step of an evaluation.
    fn generated_len(&self, step: usize) -> usize {
        if step < self.setup_steps() {
            return 0;
        }
        self.steps().get(step).map_or(0, |step| {
            let Randomness { generated, packed, .. } = step.operation.randomness(self.table());
            self.table().elements().bytes(generated) + packed.bytes(packed.shared)
        })
    }

    /// The steps for which the producer shares something, with how many bytes, and the
    /// server that receives its share instead of expanding it. They alternate, so that
    /// neither link carries everything.
    pub(crate) fn generated(&self) -> impl Iterator<Item = (usize, usize, Side)> + '_ {
        self.evaluation()
            .map(|(step, _)| (step, self.generated_len(step)))
            .filter(|(_, len)| *len > 0)
            .zip([Side::Zero, Side::One].into_iter().cycle())
            .map(|((step, len), receiver)| (step, len, receiver))
    }

    /// Exchanges between the two servers in one evaluation.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.exchanges().len()
    }

    /// Bytes of the message that each server sends in a round, by its number.
    #[must_use]
    pub fn round_bytes(&self, round: usize) -> usize {
        let steps = self.exchanges().get(round).cloned().unwrap_or_default();
        steps.filter_map(|step| self.message(step)).map(|message| message.bytes()).sum()
    }

    /// The longest message of tensors of a session, bytes.
    #[must_use]
    pub fn largest_message(&self) -> usize {
        let messages = (0..self.steps().len()).filter_map(|step| self.message(step));
        let rounds = (0..self.rounds()).map(|round| self.round_bytes(round));
        let generated = self.generated().map(|(_, len, _)| len);
        messages.map(|message| message.bytes()).chain(rounds).chain(generated).max().unwrap_or(0)
    }
}
