//! What a server measured, as it reports it to the coordinator after the last evaluation.

use bytes::Bytes;
use spdz::channel::Phase;
use spdz::plan::Plan;

use crate::net::Link;

/// What a server measured over a session; sums over all evaluations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// In gRPC messages sent by this server, or to it by a player or the producer, bytes.
    pub(crate) online_bytes: u64,
    /// The same of the offline phase, bytes.
    pub(crate) offline_bytes: u64,
    /// Online messages from the other server.
    pub(crate) online_rounds: u64,
    /// Time spent on each of the plan's layers.
    pub(crate) layers: Vec<LayerSpan>,
}

/// Time that a server spent on a layer, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LayerSpan {
    pub(crate) offline: u64,
    pub(crate) online: u64,
}

impl Report {
    /// The length of a server's message, bytes.
    pub(crate) fn bytes(plan: &Plan) -> usize {
        8 * (3 + 2 * plan.evaluation_layers().len())
    }

    pub(crate) fn of(
        other: &Link,
        producer: &Link,
        players: &[Link],
        layers: Vec<LayerSpan>,
    ) -> Self {
        let (other, producer) = (other.traffic(), producer.traffic());
        let bytes = |phase: Phase| {
            let phase = phase as usize;
            let players = players.iter().map(Link::traffic);
            let with_players: u64 =
                players.map(|link| link.sent_bytes[phase] + link.received_bytes[phase]).sum();
            // What the other server sends is in its own report.
            other.sent_bytes[phase] + producer.received_bytes[phase] + with_players
        };
        Self {
            online_bytes: bytes(Phase::Online),
            offline_bytes: bytes(Phase::Offline),
            online_rounds: other.received_messages[Phase::Online as usize],
            layers,
        }
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        let fields = [self.online_bytes, self.offline_bytes, self.online_rounds];
        let layers = self.layers.iter().flat_map(|layer| [layer.offline, layer.online]);
        fields.into_iter().chain(layers).flat_map(u64::to_le_bytes).collect()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut fields = bytes.as_chunks::<8>().0.iter().map(|field| u64::from_le_bytes(*field));
        let mut next = || fields.next().unwrap_or_default();
        let [online_bytes, offline_bytes, online_rounds] = [next(), next(), next()];
        let mut layers = Vec::new();
        while let Some(offline) = fields.next() {
            layers.push(LayerSpan { offline, online: fields.next().unwrap_or_default() });
        }
        Self { online_bytes, offline_bytes, online_rounds, layers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_arrives_as_it_was_sent() {
        let span = |offline| LayerSpan { offline, online: u64::MAX };
        let report = Report {
            online_bytes: 1,
            offline_bytes: 2,
            online_rounds: 3,
            layers: vec![span(4), span(5)],
        };
        let bytes = report.to_bytes();
        assert_eq!(bytes.len(), 8 * 7);
        assert_eq!(Report::from_bytes(&bytes), report);
    }
}
