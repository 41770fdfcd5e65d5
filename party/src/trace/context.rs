//! Ids of traces and spans, and the header in which they travel.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanId, TraceContextExt, TraceId};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use serde::{Deserialize, Serialize};
use spdz::prg::SessionId;

/// The header in which the W3C's trace context travels.
const TRACEPARENT: &str = "traceparent";

/// Trace ids are derived from what the parties of a session have in common.
const INFERENCE: &str = "secureinference.dev 2026 trace of an inference";
const SESSION: &str = "secureinference.dev 2026 trace of a session";
const ATTEMPT: &str = "secureinference.dev 2026 trace of an attempt";

/// Span ids follow from the trace and from who makes them.
const SPANS: &str = "secureinference.dev 2026 span ids of a party";

/// The first bytes of a digest of `parts`, which cannot be confused with those of others.
fn derive<const N: usize>(purpose: &str, parts: &[&[u8]]) -> [u8; N] {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut bytes = [0; N];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// The trace of an inference of a session, counted from 0.
#[must_use]
pub fn inference(session: SessionId, number: u64) -> TraceId {
    TraceId::from_bytes(derive(INFERENCE, &[&session.0, &number.to_le_bytes()]))
}

/// The trace of a session's start, where it is in no other.
#[must_use]
pub fn session(session: SessionId) -> TraceId {
    TraceId::from_bytes(derive(SESSION, &[&session.0]))
}

/// The trace of an attempt to run a resource, by the resource's unique id.
#[must_use]
pub fn attempt(resource: &str, number: u32) -> TraceId {
    TraceId::from_bytes(derive(ATTEMPT, &[resource.as_bytes(), &number.to_le_bytes()]))
}

/// The span ids of one maker in one trace; other parties derive the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanIds {
    trace: TraceId,
    base: u64,
}

impl SpanIds {
    /// Those of `maker`: a role, or a program.
    #[must_use]
    pub fn of(trace: TraceId, maker: &str) -> Self {
        let base = derive(SPANS, &[&trace.to_bytes(), maker.as_bytes()]);
        Self { trace, base: u64::from_le_bytes(base) }
    }

    /// Their trace.
    #[must_use]
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    /// The id of the maker's span `number`.
    #[must_use]
    pub fn get(&self, number: u64) -> SpanId {
        // Neighbours differ, and so do, but for one case in 2^64 a pair, those of two makers.
        SpanId::from_bytes(self.base.wrapping_add(number).max(1).to_be_bytes())
    }
}

/// The context of a span, written as a `traceparent` of the W3C's trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Context {
    /// Its trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

/// A text that is no `traceparent`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no traceparent; expected 00-<32 hexadecimal digits>-<16 hexadecimal digits>-<01 or 00>, not all zeros"
)]
pub struct ContextError(String);

impl FromStr for Context {
    type Err = ContextError;

    fn from_str(text: &str) -> Result<Self, ContextError> {
        let header = HashMap::from([(TRACEPARENT.to_owned(), text.to_owned())]);
        let found = TraceContextPropagator::new()
            .extract_with_context(&opentelemetry::Context::new(), &header);
        let span = found.span();
        let context = span.span_context();
        // The library also takes an odd flag or version.
        let whole = text.len() == 55 && text.starts_with("00-");
        if !whole || !context.is_valid() {
            return Err(ContextError(text.chars().take(80).collect()));
        }
        let (trace, span, sampled) = (context.trace_id(), context.span_id(), context.is_sampled());
        Ok(Self { trace, span, sampled })
    }
}

impl TryFrom<String> for Context {
    type Error = ContextError;

    fn try_from(text: String) -> Result<Self, ContextError> {
        text.parse()
    }
}

impl From<Context> for String {
    fn from(context: Context) -> Self {
        context.to_string()
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_the_same_for_all_and_differ_from_each_other() {
        let (one, two) = (SessionId([1; 16]), SessionId([2; 16]));
        let traces = [
            inference(one, 0),
            inference(one, 1),
            inference(two, 0),
            session(one),
            session(two),
            attempt("1", 1),
            attempt("1", 2),
            attempt("11", 1),
        ];
        assert_eq!(BTreeSet::from(traces.map(TraceId::to_bytes)).len(), traces.len());
        // Parties of different versions must agree too.
        assert_eq!(traces[0].to_string(), "5eb35e4e0d8771e39c56b2c57d509a9b");
        let mut spans = BTreeSet::new();
        for maker in ["server0", "server1", "client"] {
            for number in (0..100).chain([1 << 40, 2 << 40]) {
                assert!(spans.insert(SpanIds::of(traces[0], maker).get(number).to_bytes()));
            }
        }
    }

    #[test]
    fn a_context_is_written_as_the_w3c_says() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context: Context = text.parse().unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_string(), text);
        let unsampled: Context = text.replace("-01", "-00").parse().unwrap();
        assert!(!unsampled.sampled);
        for wrong in ["", "00", &text[..54], &text.replace('f', "g"), &text.replace("00-", "ff-")] {
            assert!(wrong.parse::<Context>().is_err(), "{wrong}");
        }
        let none = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let message = none.parse::<Context>().unwrap_err().to_string();
        assert!(message.contains(&none) && message.contains("expected"), "{message}");
    }
}
