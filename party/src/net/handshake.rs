//! How two parties make sure that they mean the same run.

use std::time::Instant;

use bytes::Bytes;
use spdz::channel::Role;
use spdz::plan::{Digest, Plan};
use spdz::prg::SessionId;

use super::error::ConnectError;
use super::framing::excerpt;
use super::link::Link;
use super::wire::frame::Content;
use super::wire::{Frame, Hello};
use crate::config::PartyConfig;

/// The version of the wire format and the protocol.
pub const PROTOCOL_VERSION: u32 = 4;

/// What this party says of itself and expects of its peers.
pub(super) struct Introduction {
    session: SessionId,
    role: Role,
    plan: Digest,
    summary: String,
}

impl Introduction {
    pub(super) fn new(config: &PartyConfig, plan: &Plan) -> Self {
        let (name, format, truncation) = (plan.graph().name(), plan.format(), plan.truncation());
        let what = match &config.computation.network {
            Some(_) => format!("network {name}, batch {}", config.computation.batch()),
            None => format!("graph {name}"),
        };
        let summary = format!("{what}, {format}, {truncation} truncation");
        Self { session: config.session.0, role: config.role, plan: plan.digest(), summary }
    }

    fn hello(&self) -> Frame {
        let hello = Hello {
            protocol_version: PROTOCOL_VERSION,
            session: Bytes::copy_from_slice(&self.session.0),
            role: self.role.name().into(),
            plan_digest: Bytes::copy_from_slice(&self.plan.0),
            plan_summary: self.summary.clone(),
        };
        Frame { content: Some(Content::Hello(hello)) }
    }

    /// Whether a peer that says `hello` may go on.
    fn check(&self, peer: Role, hello: &Hello) -> Result<(), ConnectError> {
        let hex = |bytes: &[u8]| -> String {
            bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect()
        };
        let mismatch = |what, theirs: String, ours: String| {
            Err(ConnectError::Mismatch { peer, what, theirs, ours })
        };
        if hello.protocol_version != PROTOCOL_VERSION {
            let theirs = hello.protocol_version.to_string();
            return mismatch("protocol version", theirs, PROTOCOL_VERSION.to_string());
        }
        if hello.role != peer.name() {
            let theirs = excerpt(&hello.role);
            return mismatch("role than its certificate", theirs, peer.name().into());
        }
        if hello.session != self.session.0[..] {
            return mismatch("session", hex(&hello.session), self.session.to_string());
        }
        if hello.plan_digest != self.plan.0[..] {
            let theirs = format!("{} ({})", excerpt(&hello.plan_summary), hex(&hello.plan_digest));
            let ours = format!("{} ({})", self.summary, hex(&self.plan.0));
            return mismatch("plan", theirs, ours);
        }
        Ok(())
    }
}

/// Introduces this party to all peers, then hears them. A server speaks when all its
/// peers have connected, so it is waited for until `connected`; but no peer less long than
/// for any other message.
pub(super) fn introduce(
    links: &mut [Link],
    ours: &Introduction,
    connected: Instant,
) -> Result<(), ConnectError> {
    let failed = |peer| move |fault| ConnectError::Handshake { peer, fault };
    for link in links.iter_mut() {
        link.say(ours.hello()).map_err(failed(link.peer()))?;
    }
    for link in links.iter_mut() {
        let peer = link.peer();
        match link.hear(connected).map_err(failed(peer))? {
            Content::Hello(hello) => ours.check(peer, &hello)?,
            _ => {
                let fault = link.envelope("a message before its introduction");
                return Err(ConnectError::Handshake { peer, fault });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId([7; 16]);

    #[test]
    fn an_introduction_that_differs_is_refused_by_name() {
        let ours = Introduction {
            session: SESSION,
            role: Role::Server0,
            plan: Digest([1; 32]),
            summary: "network C".into(),
        };
        let hello = || {
            let theirs = Introduction { role: Role::CLIENT, summary: "network B".into(), ..ours };
            match theirs.hello().content {
                Some(Content::Hello(hello)) => hello,
                _ => panic!("an introduction is a hello"),
            }
        };
        assert!(ours.check(Role::CLIENT, &hello()).is_ok());
        let cases = [
            (Hello { protocol_version: 1, ..hello() }, "another protocol version: 1, here 4"),
            (Hello { role: "producer".into(), ..hello() }, "another role than its certificate"),
            (Hello { session: Bytes::from_static(&[8; 16]), ..hello() }, "another session: 0808"),
            (
                Hello { plan_digest: Bytes::from_static(&[2; 32]), ..hello() },
                "another plan: network B",
            ),
            (Hello { plan_digest: Bytes::new(), ..hello() }, "another plan"),
        ];
        for (hello, expected) in cases {
            let message = ours.check(Role::CLIENT, &hello).unwrap_err().to_string();
            assert!(message.starts_with("client has") && message.contains(expected), "{message}");
        }
    }
}
