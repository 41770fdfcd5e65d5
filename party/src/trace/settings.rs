//! Where spans go and which are sent, from a configuration and OpenTelemetry's variables.

use std::time::Duration;

use opentelemetry::trace::{SpanKind, TraceId};
use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, ResourceDetector};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample};
use opentelemetry_semantic_conventions::attribute::{SERVICE_NAME, SERVICE_VERSION};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Endpoint, Uri};

/// Why traces cannot be sent as asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {found:?}, expected {expected}")]
pub struct SettingsError {
    /// The setting, or the environment variable.
    pub setting: String,
    /// What it says.
    pub found: String,
    /// What it should.
    pub expected: &'static str,
}

/// What an endpoint looks like.
const ENDPOINT: &str = "http://host:port of a collector that takes OTLP over gRPC";

/// Where spans go and which are sent.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) endpoint: Endpoint,
    pub(super) headers: MetadataMap,
    /// For one request.
    pub(super) timeout: Duration,
    /// Between two looks at the queue.
    pub(super) delay: Duration,
    /// Most spans in the queue.
    pub(super) queue: usize,
    /// Most spans of a request, but for those that are sent together in any case.
    pub(super) batch: usize,
    pub(super) resource: Resource,
    ratio: f64,
}

/// Checks that `text` names a collector.
///
/// # Errors
/// If it does not.
pub fn check_endpoint(setting: &str, text: &str) -> Result<(), SettingsError> {
    endpoint(setting, text).map(drop)
}

fn endpoint(setting: &str, text: &str) -> Result<Endpoint, SettingsError> {
    let refuse = || SettingsError {
        setting: setting.into(),
        found: text.chars().take(200).collect(),
        expected: ENDPOINT,
    };
    let uri: Uri = text.parse().map_err(|_| refuse())?;
    // Through a collector nearby: what parties trust is their session's authority alone.
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) {
        return Err(refuse());
    }
    Ok(Endpoint::from(uri))
}

impl Settings {
    /// Those of the service `name`. What `endpoint` and `ratio` do not say, `variable` says,
    /// the process's environment usually; nothing without an endpoint, or if all is switched
    /// off.
    ///
    /// # Errors
    /// If a setting cannot be used.
    pub fn read(
        name: &str,
        own: impl IntoIterator<Item = KeyValue>,
        endpoint_setting: Option<&str>,
        ratio: Option<f64>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, SettingsError> {
        // A variable that is empty is one that is not set.
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let first = |names: [&str; 2]| {
            names.iter().find_map(|name| variable(name).map(|value| ((*name).to_owned(), value)))
        };
        let endpoint = match endpoint_setting {
            Some(text) => endpoint("telemetry.otlpEndpoint", text)?,
            None if variable("OTEL_TRACES_EXPORTER").as_deref() == Some("none") => return Ok(None),
            None => {
                match first(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]) {
                    Some((setting, text)) => endpoint(&setting, &text)?,
                    None => return Ok(None),
                }
            }
        };
        let ratio = match ratio {
            Some(ratio) => ratio,
            None => sampled(&variable)?,
        };
        let headers =
            match first(["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"]) {
                Some((setting, text)) => headers(&setting, &text)?,
                None => MetadataMap::new(),
            };
        let milliseconds = |found: Option<(String, String)>, otherwise: u64| {
            let Some((setting, text)) = found else { return Ok(otherwise) };
            number(setting, text, 1..=3_600_000)
        };
        let of = |name: &str| variable(name).map(|value| (name.to_owned(), value));
        let count = |name: &str, otherwise| match of(name) {
            Some((setting, text)) => number(setting, text, 1..=1 << 24),
            None => Ok(otherwise),
        };
        let timeout = first(["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"]);
        let timeout = milliseconds(timeout, 10_000)?;
        let delay = milliseconds(of("OTEL_BSP_SCHEDULE_DELAY"), 1_000)?;
        let queue = count("OTEL_BSP_MAX_QUEUE_SIZE", 1 << 18)? as usize;
        // A collector takes 4 MiB a message, and a span has some 300 bytes.
        let batch = count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 2048)? as usize;
        let environment = EnvResourceDetector::new().detect();
        let named = variable("OTEL_SERVICE_NAME")
            .or_else(|| environment.get(&Key::from_static_str(SERVICE_NAME)).map(|v| v.to_string()))
            .unwrap_or_else(|| name.to_owned());
        let resource = Resource::builder_empty()
            .with_attributes(own)
            .with_attribute(KeyValue::new(SERVICE_VERSION, env!("CARGO_PKG_VERSION")))
            .with_detector(Box::new(EnvResourceDetector::new()))
            .with_service_name(named)
            .build();
        Ok(Some(Self {
            endpoint,
            headers,
            timeout: Duration::from_millis(timeout),
            delay: Duration::from_millis(delay),
            queue,
            batch: batch.min(queue),
            resource,
            ratio,
        }))
    }

    /// Whether a trace is sent. Who has the same ratio says the same.
    #[must_use]
    pub fn samples(&self, trace: TraceId) -> bool {
        let sampler = Sampler::TraceIdRatioBased(self.ratio);
        let result = sampler.should_sample(None, trace, "", &SpanKind::Internal, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    /// The part of traces that is sent, 0 to 1.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.ratio
    }
}

/// The ratio that OpenTelemetry's variables ask for.
fn sampled(variable: &impl Fn(&str) -> Option<String>) -> Result<f64, SettingsError> {
    let sampler = variable("OTEL_TRACES_SAMPLER").unwrap_or_else(|| "always_on".into());
    match sampler.trim_start_matches("parentbased_") {
        "always_on" => Ok(1.0),
        "always_off" => Ok(0.0),
        "traceidratio" => {
            let setting = "OTEL_TRACES_SAMPLER_ARG";
            let found = variable(setting).unwrap_or_else(|| "1".into());
            let ratio = found.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            let expected = "0 to 1";
            ratio.ok_or_else(|| SettingsError { setting: setting.into(), found, expected })
        }
        _ => Err(SettingsError {
            setting: "OTEL_TRACES_SAMPLER".into(),
            found: sampler,
            expected: "always_on, always_off or traceidratio, each also with parentbased_ before it",
        }),
    }
}

fn headers(setting: &str, text: &str) -> Result<MetadataMap, SettingsError> {
    let mut headers = MetadataMap::new();
    for header in text.split(',').filter(|header| !header.trim().is_empty()) {
        let parsed = header.split_once('=').and_then(|(key, value)| {
            let key: AsciiMetadataKey = key.trim().to_ascii_lowercase().parse().ok()?;
            let value: AsciiMetadataValue = value.trim().parse().ok()?;
            Some((key, value))
        });
        let Some((key, value)) = parsed else {
            // Headers may be secret.
            return Err(SettingsError {
                setting: setting.into(),
                found: "...".into(),
                expected: "key=value, separated by commas",
            });
        };
        headers.insert(key, value);
    }
    Ok(headers)
}

fn number(
    setting: String,
    found: String,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, SettingsError> {
    match found.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(SettingsError { setting, found, expected: "a whole number of its range" }),
    }
}

#[cfg(test)]
mod tests {
    use spdz::prg::SessionId;

    use super::super::context::inference;
    use super::*;

    fn read(
        endpoint: Option<&str>,
        ratio: Option<f64>,
        variables: &[(&str, &str)],
    ) -> Result<Option<Settings>, SettingsError> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Settings::read("secure-inference-client", [], endpoint, ratio, variable)
    }

    #[test]
    fn nothing_is_sent_unless_somebody_says_where() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317");
        let goes = |found: Result<Option<Settings>, SettingsError>| {
            found.unwrap().map(|settings| settings.endpoint.uri().to_string())
        };
        let expected = |host: &str| Some(format!("http://{host}:4317/"));
        assert_eq!(goes(read(None, None, &[])), None);
        assert_eq!(goes(read(None, None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")])), None);
        assert_eq!(goes(read(None, None, &[endpoint])), expected("collector"));
        assert_eq!(goes(read(None, None, &[endpoint, of_traces])), expected("traces"));
        assert_eq!(goes(read(Some("http://own:4317"), None, &[endpoint])), expected("own"));
        assert_eq!(goes(read(None, None, &[endpoint, ("OTEL_TRACES_EXPORTER", "none")])), None);
        let off = ("OTEL_SDK_DISABLED", "True");
        assert_eq!(goes(read(Some("http://own:4317"), None, &[off])), None);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let at = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
        for (endpoint, variables, expected) in [
            (Some("collector:4317"), vec![], "telemetry.otlpEndpoint is \"collector:4317\""),
            (Some("https://x:1"), vec![], "expected http://host:port"),
            (None, vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://x")], "OTEL_EXPORTER_OTLP_ENDP"),
            (None, vec![at, ("OTEL_TRACES_SAMPLER", "jaeger")], "OTEL_TRACES_SAMPLER is \"jaeger"),
            (
                None,
                vec![at, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")],
                "OTEL_TRACES_SAMPLER_ARG is \"2\", expected 0 to 1",
            ),
            (None, vec![at, ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")], "OTEL_EXPORTER_OTLP_TIMEOUT"),
            (None, vec![at, ("OTEL_EXPORTER_OTLP_HEADERS", "secret")], "HEADERS is \"...\""),
        ] {
            let message = read(endpoint, None, &variables).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn the_ratio_decides_by_the_trace_alone() {
        let at = Some("http://collector:4317");
        let sampled = |settings: &Settings| {
            let traces = (0..1000).map(|k| inference(SessionId([3; 16]), k));
            traces.filter(|trace| settings.samples(*trace)).count()
        };
        let half = read(at, Some(0.5), &[]).unwrap().unwrap();
        assert!((430..570).contains(&sampled(&half)), "{}", sampled(&half));
        let variables =
            [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.5")];
        let same = read(at, None, &variables).unwrap().unwrap();
        assert_eq!(sampled(&same), sampled(&half));
        for (ratio, count) in [(0.0, 0), (1.0, 1000)] {
            assert_eq!(sampled(&read(at, Some(ratio), &variables).unwrap().unwrap()), count);
        }
    }

    #[test]
    fn headers_and_numbers_are_taken_from_the_environment() {
        let settings = read(
            Some("http://own:4317"),
            None,
            &[
                ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic abc=, x-scope = 1,"),
                ("OTEL_BSP_SCHEDULE_DELAY", "20"),
                ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "500"),
                ("OTEL_SERVICE_NAME", "other"),
            ],
        );
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.headers.get("authorization").unwrap(), "Basic abc=");
        assert_eq!(settings.headers.get("x-scope").unwrap(), "1");
        assert_eq!(settings.delay, Duration::from_millis(20));
        assert_eq!(settings.timeout, Duration::from_millis(500));
        let name = settings.resource.get(&Key::from_static_str(SERVICE_NAME)).unwrap();
        assert_eq!(name.to_string(), "other");
    }
}
