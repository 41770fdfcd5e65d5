//! The operator's metrics; docs/observability.md explains each.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::api::v1alpha1::Phase;

/// The controller's name in metrics, logs and events.
pub const CONTROLLER: &str = "secureinference";

/// How an attempt ended, as a label.
const ATTEMPT_RESULTS: [&str; 4] = ["succeeded", "failed", "suspended", "gave_way"];

/// A resource as metrics count it: its phase, what it computes, and its number format.
pub type Job = (Phase, &'static str, &'static str);

/// Counts the resources that there are.
type Count = Box<dyn Fn() -> Vec<Job> + Send + Sync>;

/// What knows the resources that there are, once it is known itself.
#[derive(Clone, Default)]
struct Census(Arc<OnceLock<Count>>);

impl fmt::Debug for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Census").field(&self.0.get().is_some()).finish()
    }
}

/// All metrics of the operator.
#[derive(Clone, Debug)]
pub struct Metrics {
    census: Census,
    registry: Registry,
    reconciles: IntCounterVec,
    reconcile_errors: IntCounterVec,
    reconcile_seconds: HistogramVec,
    leader: IntGaugeVec,
    requests: IntCounterVec,
    jobs: IntGaugeVec,
    job_info: IntGaugeVec,
    startup_seconds: Histogram,
    execution_seconds: Histogram,
    attempts: IntCounterVec,
}

impl Metrics {
    /// Registers all metrics, every label set that can be foreseen at zero.
    ///
    /// # Errors
    /// If a name is used twice.
    pub fn new() -> Result<Self, prometheus::Error> {
        let buckets = |from: f64, count| prometheus::exponential_buckets(from, 2.0, count);
        let metrics = Self {
            census: Census::default(),
            registry: Registry::new(),
            reconciles: IntCounterVec::new(
                Opts::new("controller_runtime_reconcile_total", "Reconciles by result."),
                &["controller", "result"],
            )?,
            reconcile_errors: IntCounterVec::new(
                Opts::new("controller_runtime_reconcile_errors_total", "Reconciles that failed."),
                &["controller"],
            )?,
            reconcile_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "controller_runtime_reconcile_time_seconds",
                    "How long a reconcile took.",
                )
                .buckets(buckets(0.001, 14)?),
                &["controller"],
            )?,
            leader: IntGaugeVec::new(
                Opts::new(
                    "leader_election_master_status",
                    "1 if this replica is the leader, 0 if not.",
                ),
                &["name"],
            )?,
            requests: IntCounterVec::new(
                Opts::new(
                    "secure_inference_api_requests_total",
                    "Requests to the API server by verb and resource.",
                ),
                &["verb", "resource"],
            )?,
            jobs: IntGaugeVec::new(
                Opts::new("secure_inference_jobs", "SecureInference resources by phase."),
                &["phase"],
            )?,
            job_info: IntGaugeVec::new(
                Opts::new(
                    "secure_inference_job_info",
                    "SecureInference resources by what they compute.",
                ),
                &["network", "format"],
            )?,
            startup_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "secure_inference_job_startup_seconds",
                    "From the start of an attempt until all its parties were ready.",
                )
                .buckets(buckets(0.25, 12)?),
            )?,
            execution_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "secure_inference_job_execution_seconds",
                    "From all parties being ready until the results were there.",
                )
                .buckets(buckets(0.25, 14)?),
            )?,
            attempts: IntCounterVec::new(
                Opts::new("secure_inference_job_attempts_total", "Attempts that ended, by result."),
                &["result"],
            )?,
        };
        for collector in metrics.collectors() {
            metrics.registry.register(collector)?;
        }
        for result in ["success", "requeue_after", "error"] {
            metrics.reconciles.with_label_values(&[CONTROLLER, result]);
        }
        metrics.reconcile_errors.with_label_values(&[CONTROLLER]);
        metrics.reconcile_seconds.with_label_values(&[CONTROLLER]);
        metrics.set_leader(false);
        for phase in Phase::ALL {
            metrics.jobs.with_label_values(&[phase.to_string().as_str()]);
        }
        for result in ATTEMPT_RESULTS {
            metrics.attempts.with_label_values(&[result]);
        }
        Ok(metrics)
    }

    fn collectors(&self) -> Vec<Box<dyn prometheus::core::Collector>> {
        vec![
            Box::new(self.reconciles.clone()),
            Box::new(self.reconcile_errors.clone()),
            Box::new(self.reconcile_seconds.clone()),
            Box::new(self.leader.clone()),
            Box::new(self.requests.clone()),
            Box::new(self.jobs.clone()),
            Box::new(self.job_info.clone()),
            Box::new(self.startup_seconds.clone()),
            Box::new(self.execution_seconds.clone()),
            Box::new(self.attempts.clone()),
        ]
    }

    /// Counts a reconcile: `success`, `requeue_after` or `error`.
    pub fn reconciled(&self, result: &str, took: Duration) {
        self.reconciles.with_label_values(&[CONTROLLER, result]).inc();
        if result == "error" {
            self.reconcile_errors.with_label_values(&[CONTROLLER]).inc();
        }
        self.reconcile_seconds.with_label_values(&[CONTROLLER]).observe(took.as_secs_f64());
    }

    /// Says whether this replica leads.
    pub fn set_leader(&self, leads: bool) {
        self.leader.with_label_values(&[crate::leader::LEASE]).set(i64::from(leads));
    }

    /// Counts a request to the API server.
    pub fn requested(&self, verb: &str, resource: &str) {
        self.requests.with_label_values(&[verb, resource]).inc();
    }

    /// An attempt's parties are all ready, so long after it began.
    pub fn started(&self, took: Duration) {
        self.startup_seconds.observe(took.as_secs_f64());
    }

    /// A run is complete, so long after its parties were ready.
    pub fn executed(&self, took: Duration) {
        self.execution_seconds.observe(took.as_secs_f64());
    }

    /// An attempt ended.
    pub fn attempt_ended(&self, result: &str) {
        self.attempts.with_label_values(&[result]).inc();
    }

    /// Says who knows what resources there are. They are counted whenever metrics are read, so
    /// that those that nothing happens to, or that are deleted, are counted right. The first to
    /// be named stays.
    pub fn count_with(&self, count: impl Fn() -> Vec<Job> + Send + Sync + 'static) {
        // There is one controller in a process.
        let _ = self.census.0.set(Box::new(count));
    }

    fn set_jobs(&self, jobs: Vec<Job>) {
        let mut phases = [0; Phase::ALL.len()];
        self.job_info.reset();
        for (phase, network, format) in jobs {
            if let Some(place) = Phase::ALL.iter().position(|known| *known == phase) {
                phases[place] += 1;
            }
            self.job_info.with_label_values(&[network, format]).inc();
        }
        for (phase, count) in Phase::ALL.iter().zip(phases) {
            self.jobs.with_label_values(&[phase.to_string().as_str()]).set(count);
        }
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        if let Some(count) = self.census.0.get() {
            self.set_jobs(count());
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn resources_are_counted_when_metrics_are_read() {
        let jobs: Arc<Mutex<Vec<Job>>> = Arc::default();
        let metrics = Metrics::new().unwrap();
        let counted = jobs.clone();
        metrics.count_with(move || counted.lock().unwrap().clone());
        let shows = |lines: &[&str]| {
            let text = metrics.render().unwrap();
            for line in lines {
                assert!(text.lines().any(|found| found == *line), "{line} in\n{text}");
            }
        };
        shows(&["secure_inference_jobs{phase=\"Succeeded\"} 0"]);
        *jobs.lock().unwrap() =
            vec![(Phase::Succeeded, "A", "Int64"), (Phase::Succeeded, "A", "Int64")];
        shows(&[
            "secure_inference_jobs{phase=\"Succeeded\"} 2",
            "secure_inference_job_info{format=\"Int64\",network=\"A\"} 2",
        ]);
        jobs.lock().unwrap().pop();
        shows(&["secure_inference_jobs{phase=\"Succeeded\"} 1"]);
    }

    #[test]
    fn label_sets_are_there_from_the_start() {
        let text = Metrics::new().unwrap().render().unwrap();
        for line in [
            "secure_inference_jobs{phase=\"Running\"} 0",
            "secure_inference_job_attempts_total{result=\"failed\"} 0",
            "controller_runtime_reconcile_errors_total{controller=\"secureinference\"} 0",
            "leader_election_master_status{name=\"secure-inference-operator\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
