//! All connections of a party together.

use std::time::{Duration, Instant};

use spdz::channel::ChannelFault;

use super::link::Link;

/// Tells all peers why this party gives up, and closes the connections. The
/// reason must be nothing private.
pub fn give_up(mut links: Vec<Link>, reason: &str, disagreement: bool) {
    for link in &mut links {
        link.abort(reason, disagreement);
    }
    end(&mut links);
    let until = Instant::now() + Duration::from_millis(500);
    links.into_iter().for_each(|link| link.drain(until));
}

/// Closes all connections in good order; waits at most `patience` for the peers.
///
/// # Errors
/// The first peer's that did not close in good order.
pub fn close(mut links: Vec<Link>, patience: Duration) -> Result<(), ChannelFault> {
    end(&mut links);
    let until = Instant::now() + patience;
    links
        .into_iter()
        .map(|link| link.close(until.saturating_duration_since(Instant::now())))
        .fold(Ok(()), Result::and)
}

/// Ends this side of all connections, before the end of any peer's is waited for: a peer
/// may be waiting for another of us.
fn end(links: &mut [Link]) {
    links.iter_mut().for_each(Link::end);
}

/// The links to the two servers, in their order.
pub(crate) fn servers(links: &mut [Link]) -> [&mut Link; 2] {
    links.sort_by_key(Link::peer);
    let [server0, server1] = links else {
        unreachable!("the producer and the players have the two servers as peers");
    };
    [server0, server1]
}
