//! How fast two processes exchange messages, through the parties' own connections.
//!
//! Two processes of this program take the place of the servers of a run: certificates
//! issued for it, mutual TLS on loopback, the same links and the same allocator. Both do
//! the same exchanges; server 1's clock counts.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use party::config::{Computation, Deadlines, PartyConfig, Store, Transport};
use party::files::write_whole;
use party::net;
use serde::{Deserialize, Serialize};
use spdz::channel::{Channel, ChannelError, Phase, Role, Tag};
use spdz::plan::NumberFormat;

use crate::launch::local::{self, Job};
use crate::stats::median;

/// A message that costs nothing but its way, bytes.
pub const SMALL: usize = 64;

/// A message whose bytes are what counts, and that the caches still hold: larger ones are
/// slower by the byte, bytes.
pub const LARGE: usize = 256 << 10;

/// The hidden command that is one end of the connection.
pub(crate) const COMMAND: &str = "link";

/// How long the two wait for each other, seconds.
const DEADLINE: f64 = 10.0;

/// How fast two processes exchange messages.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Measured {
    /// What an exchange of [`SMALL`] bytes takes, microseconds.
    pub exchange_micros: f64,
    /// What goes in each direction in exchanges of [`LARGE`] bytes, 10^9 bytes a second.
    pub gigabytes_per_second: f64,
}

/// Starts two processes of `program` in `folder`, which is the caller's to remove, and
/// has them measure.
///
/// # Errors
/// If they cannot be started or connected, or on interruption; none is left behind.
pub fn measure(
    program: &Path,
    transport: Transport,
    folder: &Path,
    interrupted: &AtomicBool,
) -> anyhow::Result<Measured> {
    let job = Job {
        // Any would do: nothing is computed.
        computation: Computation::of_network("A", 1, NumberFormat::Int64),
        players: Default::default(),
        workload: None,
        threads: None,
        store: Store::default(),
        deadlines: Deadlines { connect_seconds: DEADLINE, message_seconds: DEADLINE },
        transport,
    };
    let mut configs = local::configure(&job, folder)?;
    configs.retain(|config| config.role.is_server());
    let result = folder.join("link.json");
    let link = || {
        let mut command = Command::new(program);
        command.arg(COMMAND).arg("--result").arg(&result);
        command
    };
    let mut running = local::start_with(&configs, folder, program, link)?;
    running.wait(interrupted, |_| {})?;
    let json = std::fs::read(&result).context("there is no result")?;
    serde_json::from_slice(&json).context("the result cannot be read")
}

/// One end of the connection: exchanges messages with the other, and writes the speeds if it
/// is server 1's.
///
/// # Errors
/// If the configuration is not a server's, or the other end does not come or leaves.
pub(crate) fn run(config: &Path, result: &Path) -> anyhow::Result<()> {
    let config = PartyConfig::load(config)?;
    let plan = config.computation.plan()?;
    let peer = match config.role {
        Role::Server0 => Role::Server1,
        _ => Role::Server0,
    };
    let mut link = net::connect_to(&config, &plan, peer)?;
    let measured = exchange(&mut link)?;
    // Whoever got here has all that it was sent; how the other leaves makes no difference.
    let _ = link.close(config.deadlines.message());
    if config.role == Role::Server1 {
        write_whole(result, &serde_json::to_vec(&measured)?)
            .with_context(|| format!("cannot write {}", result.display()))?;
    }
    Ok(())
}

/// Does all exchanges from one end.
fn exchange(channel: &mut impl Channel) -> Result<Measured, ChannelError> {
    let mut sequence = 0;
    // So much, so often, so many times: the median of the runs' means.
    let mut seconds = |length: usize, exchanges: u32, runs: u32| {
        let message = Bytes::from(vec![0; length]);
        let mut means = Vec::new();
        // The first does not count.
        for _ in 0..=runs {
            let start = Instant::now();
            for _ in 0..exchanges {
                let tag = Tag::new(Phase::Online, sequence, 0);
                sequence += 1;
                channel.send(tag, message.clone())?;
                channel.recv(tag, length)?;
            }
            means.push(start.elapsed().as_secs_f64() / f64::from(exchanges));
        }
        Ok(median(means.split_off(1)))
    };
    Ok(Measured {
        exchange_micros: seconds(SMALL, 200, 25)? * 1e6,
        gigabytes_per_second: LARGE as f64 / seconds(LARGE, 25, 25)? / 1e9,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use spdz::channel::memory_pair;
    use std::time::Duration;

    #[test]
    fn both_ends_do_the_same_exchanges() {
        let deadline = Duration::from_secs(10);
        let (mut near, mut far) = memory_pair(Role::Server0, Role::Server1, deadline);
        let other = std::thread::spawn(move || exchange(&mut far).unwrap());
        for measured in [exchange(&mut near).unwrap(), other.join().unwrap()] {
            assert!(measured.exchange_micros > 0.0 && measured.gigabytes_per_second > 0.0);
        }
    }
}
