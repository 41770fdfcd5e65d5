//! The coordinator's commands.

use bytes::Bytes;

use super::error::{Error, at};
use crate::channel::{Channel, ChannelError, Phase, Role, Tag};
use crate::plan::Plan;

/// What the coordinator asks for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Make the randomness of one more evaluation.
    Prepare,
    /// Run the evaluation that was prepared first of those not yet run.
    Evaluate,
    /// The session is over.
    Finish,
}

/// The commands that went over one connection.
#[derive(Debug, Default)]
pub(super) struct Commands(u64);

impl Commands {
    pub(super) fn next(&mut self) -> Tag {
        let number = self.0;
        self.0 += 1;
        Tag::new(Phase::Control, number, 0)
    }

    pub(super) fn send<C: Channel>(
        &mut self,
        command: Command,
        channel: &mut C,
    ) -> Result<(), ChannelError> {
        channel.send(self.next(), Bytes::copy_from_slice(&[command as u8]))
    }

    pub(super) fn recv<C: Channel>(
        &mut self,
        peer: Role,
        channel: &mut C,
        plan: &Plan,
    ) -> Result<Command, Error> {
        let message = channel.recv(self.next(), 1).map_err(at(plan))?;
        match message[0] {
            0 => Ok(Command::Prepare),
            1 => Ok(Command::Evaluate),
            2 => Ok(Command::Finish),
            found => Err(Error::Command {
                peer,
                found,
                expected: "0 (prepare), 1 (evaluate) or 2 (finish)",
            }),
        }
    }
}

/// An evaluation was asked for that was not prepared.
pub(super) fn unprepared(peer: Role) -> Error {
    Error::Command {
        peer,
        found: Command::Evaluate as u8,
        expected: "0 (prepare) before every evaluation",
    }
}
