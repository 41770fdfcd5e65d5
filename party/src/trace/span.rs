//! A span, and its form on the wire.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanId, SpanKind, TraceId};
use opentelemetry_proto::tonic::trace::v1 as proto;
use opentelemetry_proto::tonic::trace::v1::span::Link;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::transform::common::tonic::Attributes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

/// The field of a list of spans in the message around it.
const SPANS_FIELD: u32 = 2;

/// The flags of a sampled span in a trace of version 00.
const SAMPLED: u32 = 1;

/// Spans that can be sent.
pub trait Encode: Send {
    /// How many there are.
    fn spans(&self) -> usize;

    /// Writes them as the field `spans` of OTLP's `ScopeSpans`.
    fn encode(&self, out: &mut Vec<u8>);
}

/// When something began and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The beginning, nanoseconds since 1970 in UTC.
    pub start: u64,
    /// The end.
    pub end: u64,
}

/// A clock that does not jump, in time since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    instant: Instant,
    nanos: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), nanos: nanos(since) }
    }

    /// Nanoseconds since 1970 in UTC.
    pub(crate) fn at(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.instant);
        let before = self.instant.saturating_duration_since(instant);
        (self.nanos + nanos(since)).saturating_sub(nanos(before))
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// What is known of a span before it happens, as it is on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Fixed(Vec<u8>);

impl Fixed {
    pub(crate) fn new(name: &str, kind: SpanKind, attributes: Vec<KeyValue>) -> Self {
        let kind: proto::span::SpanKind = kind.into();
        let span = proto::Span {
            name: name.into(),
            kind: kind.into(),
            attributes: Attributes::from(attributes).0,
            ..proto::Span::default()
        };
        Self(span.encode_to_vec())
    }
}

/// What a span is known by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) trace: TraceId,
    pub(crate) id: SpanId,
    pub(crate) parent: Option<SpanId>,
}

impl Place {
    fn span(&self, times: Times) -> proto::Span {
        proto::Span {
            trace_id: self.trace.to_bytes().to_vec(),
            span_id: self.id.to_bytes().to_vec(),
            parent_span_id: self.parent.map_or_else(Vec::new, |id| id.to_bytes().to_vec()),
            flags: SAMPLED,
            start_time_unix_nano: times.start,
            end_time_unix_nano: times.end,
            ..proto::Span::default()
        }
    }
}

/// Writes a span whose fixed part was encoded before: fields of a message may come in any
/// order and in several parts.
pub(crate) fn write(
    out: &mut Vec<u8>,
    fixed: &Fixed,
    place: &Place,
    times: Times,
    attributes: impl IntoIterator<Item = KeyValue>,
    more: impl FnOnce(&mut proto::Span),
) {
    let mut span = place.span(times);
    span.attributes = Attributes::from(attributes).0;
    more(&mut span);
    encode_key(SPANS_FIELD, WireType::LengthDelimited, out);
    encode_varint((span.encoded_len() + fixed.0.len()) as u64, out);
    span.encode_raw(out);
    out.extend_from_slice(&fixed.0);
}

pub(crate) fn link(trace: TraceId, span: SpanId) -> Link {
    Link {
        trace_id: trace.to_bytes().to_vec(),
        span_id: span.to_bytes().to_vec(),
        flags: SAMPLED,
        ..Link::default()
    }
}

pub(crate) fn error(message: &str) -> Option<proto::Status> {
    Some(proto::Status { message: message.into(), code: StatusCode::Error.into() })
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Its id.
    pub id: SpanId,
    /// The span that it is part of; none for a root.
    pub parent: Option<SpanId>,
    /// What it is called.
    pub name: String,
    /// Who it talks to.
    pub kind: SpanKind,
    /// When.
    pub times: Times,
    /// What is said of it.
    pub attributes: Vec<KeyValue>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl Encode for Span {
    fn spans(&self) -> usize {
        1
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let fixed = Fixed::new(&self.name, self.kind.clone(), self.attributes.clone());
        let place = Place { trace: self.trace, id: self.id, parent: self.parent };
        write(out, &fixed, &place, self.times, [], |span| {
            span.status = self.error.as_deref().and_then(error);
        });
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::ScopeSpans;

    use super::*;

    #[test]
    fn a_span_in_two_parts_is_one_on_the_wire() {
        let span = Span {
            trace: TraceId::from_bytes([7; 16]),
            id: SpanId::from_bytes([8; 8]),
            parent: None,
            name: "start".into(),
            kind: SpanKind::Client,
            times: Times { start: 5, end: 1 << 60 },
            attributes: vec![KeyValue::new("role", "client"), KeyValue::new("n", 3)],
            error: Some("why".into()),
        };
        let mut bytes = Vec::new();
        span.encode(&mut bytes);
        Span { parent: Some(span.id), error: None, ..span }.encode(&mut bytes);
        let found = ScopeSpans::decode(&bytes[..]).unwrap().spans;
        let [root, child] = &found[..] else { panic!("{found:?}") };
        assert_eq!((&root.name[..], root.end_time_unix_nano, root.flags), ("start", 1 << 60, 1));
        assert_eq!((&root.trace_id[..], &root.parent_span_id[..]), (&[7; 16][..], &[][..]));
        assert_eq!(root.status.as_ref().unwrap().message, "why");
        assert_eq!((child.attributes.len(), child.status.is_none()), (2, true));
        assert_eq!(child.parent_span_id, [8; 8]);
    }

    #[test]
    fn a_clock_knows_what_was_before_it_too() {
        let before = Instant::now();
        let clock = Clock::start();
        assert!(clock.at(before) <= clock.nanos);
        assert_eq!(clock.at(clock.instant + Duration::from_nanos(3)), clock.nanos + 3);
    }
}
