//! The sides of a run: what each role does, in lock-step with the others.
//!
//! Every role follows the same [`Plan`](crate::plan::Plan) against a [`Channel`](crate::channel::Channel) for each peer. A
//! session goes: keys (producer to servers, server 0 to server 1), the inputs that last
//! for the session (players to servers), then any number of evaluations, each first
//! prepared and then run at the command of one player, the plan's coordinator. Any number
//! may be prepared before the first is run.
//!
//! | message | from | to | phase, step |
//! |---|---|---|---|
//! | key shared with the producer | producer | servers | setup 0 |
//! | key shared by the servers | server 0 | server 1 | setup 1 |
//! | seeds of the masks of a player's inputs to the session | servers | player | setup 2 |
//! | masked input to the session | player | servers | setup 3 + its step |
//! | command | coordinator; server 0 | servers; producer and the other players | control 0 |
//! | share of what is generated | producer | one of the servers | offline, its step |
//! | seeds of the masks of a player's inputs (the server is ready) | servers | player | offline 0 |
//! | masked input | player | servers | online, its step |
//! | opening | each server | the other | online, its step |
//! | share of an output | servers | player | online, its step |
//! | report of the transport | servers | coordinator | control 1 ([`report_tag`]) |

mod commands;
mod error;
mod messages;
mod player;
mod producer;
mod round;
mod server;
mod store;

pub use crate::observer::{Observer, Outcome};
pub use error::Error;
pub use messages::report_tag;
pub use player::{Player, Ready, check_inputs};
pub use producer::Producer;
pub use server::{Server, ServerLinks};
pub use store::{Memory, Store, StoreError};
