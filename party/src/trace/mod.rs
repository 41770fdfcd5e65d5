//! Traces: OTLP over gRPC, for parties and for whoever starts them.
//!
//! An inference is one trace over all parties. Ids follow from the session, which all parties
//! have in common, so no party sends another its ids and the protocol carries nothing for it. Spans wait in a bounded queue for a task that sends them; what does not fit is counted
//! and dropped, and nobody waits for a collector but, for a bounded time, a process at its end.

mod context;
mod export;
mod settings;
pub(crate) mod span;

pub use context::{Context, ContextError, SpanIds, attempt, inference, session};
pub use export::{Counts, Exporter};
pub use opentelemetry::trace::{SpanId, SpanKind, TraceId};
pub use opentelemetry::{Key, KeyValue, Value};
pub use opentelemetry_semantic_conventions::attribute as conventions;
pub use settings::{Settings, SettingsError, check_endpoint};
pub use span::{Encode, Span, Times};
