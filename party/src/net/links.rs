//! All connections of a party together.

use std::rc::Rc;
use std::time::{Duration, Instant};

use spdz::channel::ChannelFault;
use tokio::runtime::Runtime;

use super::accept::Serving;
use super::link::Link;

/// How long a server waits for its peers to take the end of their streams, after all that they
/// needed has arrived.
const FLUSH: Duration = Duration::from_secs(1);

/// Tells all peers why this party gives up, and closes the connections. The
/// reason must be nothing private.
pub fn give_up(mut links: Vec<Link>, reason: &str, disagreement: bool) {
    for link in &mut links {
        link.abort(reason, disagreement);
    }
    end(&mut links);
    let until = Instant::now() + Duration::from_millis(500);
    let serving = links.iter().find_map(Link::serving);
    links.into_iter().for_each(|link| link.drain(until));
    finish(serving, until.saturating_duration_since(Instant::now()));
}

/// Closes all connections in good order; waits at most `patience` for the peers.
///
/// # Errors
/// The first peer's that did not close in good order.
pub fn close(mut links: Vec<Link>, patience: Duration) -> Result<(), ChannelFault> {
    end(&mut links);
    let until = Instant::now() + patience;
    let serving = links.iter().find_map(Link::serving);
    let closed = links
        .into_iter()
        .map(|link| link.close(until.saturating_duration_since(Instant::now())))
        .fold(Ok(()), Result::and);
    finish(serving, FLUSH);
    closed
}

/// Waits until all that a server has said is written, the end of each stream with its status
/// among it, if no link is left that may say more; at most `patience`.
fn finish(serving: Option<(Rc<Runtime>, Rc<Serving>)>, patience: Duration) {
    let Some((runtime, serving)) = serving else { return };
    // The last link has gone, or somebody else waits.
    let Some(serving) = Rc::into_inner(serving) else { return };
    // A peer that does not take it is none of this party's business any more.
    let _ = runtime.block_on(async { tokio::time::timeout(patience, serving.finish()).await });
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
