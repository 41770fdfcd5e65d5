//! A player learns a result: both servers send it their shares.

use std::fmt;

use super::operation::{Execute, Operation};
use super::values::Values;
use crate::ring::Ring;
use crate::share::Share;
use crate::tensors::{Message, OutputSpec, PrivateId, Route, Table, TensorId};

/// Sends both servers' shares of a result to a player.
#[derive(Clone, Debug)]
pub struct Output {
    /// Which of the plan's outputs.
    pub output: usize,
    /// The result.
    pub input: PrivateId,
}

impl Operation for Output {
    fn name(&self) -> &'static str {
        "output"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        None
    }

    fn message(&self, table: &Table) -> Option<Message> {
        Some(table.message(Route::Output(self.output), self.input))
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        let OutputSpec { player, fraction, .. } = &table.outputs()[self.output];
        write!(f, " {} -> {player} fraction {fraction}", self.input)
    }
}

impl<R: Ring> Execute<R> for Output {
    fn reveal(&self, values: &mut Values<'_, R>) -> Share<R> {
        values.take(self.input)
    }
}
