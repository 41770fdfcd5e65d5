//! A player's input arrives: masked by its owner, who knows the whole mask.

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Randomness};
use crate::channel::{Channel, ChannelError, Tag};
use crate::graph::Lifetime;
use crate::masked::Masked;
use crate::prg::Purpose;
use crate::ring::Ring;
use crate::tensors::{InputSpec, MaskedId, Message, Route, Table, TensorId};

/// Receives an input of the plan, masked, at both servers.
#[derive(Clone, Debug)]
pub struct Input {
    /// Which of the plan's inputs.
    pub input: usize,
    /// The masked input.
    pub output: MaskedId,
}

impl Operation for Input {
    fn name(&self) -> &'static str {
        "input"
    }

    fn reads(&self) -> Vec<TensorId> {
        Vec::new()
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn message(&self, table: &Table) -> Option<Message> {
        Some(table.message(Route::Input(self.input), self.output))
    }

    fn randomness(&self, table: &Table) -> Randomness {
        let purpose = match table.inputs()[self.input].lifetime {
            Lifetime::Session => Purpose::SessionMask,
            Lifetime::Evaluation => Purpose::InputMask,
        };
        Randomness::mask(purpose, table.len(self.output))
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        let InputSpec { player, name, len, fraction, .. } = &table.inputs()[self.input];
        write!(f, " {player} {name} -> {} len {len} fraction {fraction}", self.output)
    }
}

impl<R: Ring> Execute<R> for Input {
    fn receive(
        &self,
        correlation: Correlation<R>,
        player: &mut dyn Channel,
        tag: Tag,
    ) -> Result<Masked<R>, ChannelError> {
        correlation.into_mask().receive(player, tag)
    }
}
