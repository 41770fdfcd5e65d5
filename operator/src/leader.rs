//! Leader election: of several replicas one at a time works.
//!
//! The leader holds a Lease and renews it. Every change is an update of the version that was
//! read, so of two that try at once one fails. A replica that could not renew in time stops
//! being the leader before another may become it.
//!
//! This is client-go's way. The crates that are there patch the Lease whatever its version, or
//! compare the times in it with their own clock, and are made for older versions of kube.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

/// The name of the Lease.
pub const LEASE: &str = "secure-inference-operator";

/// How long a Lease is valid without renewal.
const VALID: Duration = Duration::from_secs(15);

/// How long a leader goes on after it began its last renewal that succeeded; less than
/// [`VALID`], which others count from when they see that renewal, so that it has stopped before
/// another begins.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// Between two looks at the Lease.
const PERIOD: Duration = Duration::from_secs(2);

/// The longest that a request may take.
const REQUEST: Duration = Duration::from_secs(4);

/// What to do about the Lease as it was read.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make it, or take or renew it as it is given.
    Write(Box<Lease>),
    /// Another leads.
    Wait,
}

/// What `identity` is to do about `found` at `now`. `unchanged_for` is how long ago this replica
/// first saw the Lease as it is: the clocks of others are not trusted.
#[must_use]
pub fn step(
    found: Option<&Lease>,
    identity: &str,
    now: Timestamp,
    unchanged_for: Duration,
) -> Step {
    let spec = found.and_then(|lease| lease.spec.clone()).unwrap_or_default();
    let holder = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty());
    let valid = Duration::from_secs(
        spec.lease_duration_seconds.and_then(|s| s.try_into().ok()).unwrap_or(VALID.as_secs()),
    );
    let mine = holder == Some(identity);
    if holder.is_some() && !mine && unchanged_for < valid {
        return Step::Wait;
    }
    let now = MicroTime(now);
    let since = spec.acquire_time.filter(|_| mine).unwrap_or_else(|| now.clone());
    let changes = spec.lease_transitions.unwrap_or(0).saturating_add(i32::from(!mine));
    Step::Write(Box::new(Lease {
        metadata: match found {
            Some(lease) => lease.metadata.clone(),
            None => ObjectMeta { name: Some(LEASE.into()), ..ObjectMeta::default() },
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(identity.into()),
            lease_duration_seconds: i32::try_from(VALID.as_secs()).ok(),
            acquire_time: Some(since),
            renew_time: Some(now),
            lease_transitions: Some(changes),
            ..LeaseSpec::default()
        }),
    }))
}

/// A replica's part in the election.
pub struct Election {
    leases: Api<Lease>,
    identity: String,
    /// The Lease as it was last seen, and since when.
    seen: Option<(Lease, Instant)>,
    /// When this replica began the last renewal that succeeded.
    renewed: Instant,
}

impl Election {
    /// Takes part under `identity`, which no other replica has, in the Lease of `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        let leases = Api::namespaced(client, namespace);
        Self { leases, identity, seen: None, renewed: Instant::now() }
    }

    /// Waits until this replica leads.
    pub async fn win(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!("cannot become the leader: {error}"),
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Renews until that fails for too long; then another may lead.
    pub async fn keep(&mut self) {
        loop {
            let deadline = self.renewed + RENEW_DEADLINE;
            let renewal = async {
                tokio::time::sleep(PERIOD).await;
                self.attempt().await
            };
            // Also a request that hangs must not make this replica lead for longer.
            match tokio::time::timeout_at(deadline, renewal).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    tracing::error!("another replica has taken the Lease {LEASE}");
                    return;
                }
                Ok(Err(error)) => tracing::warn!("cannot renew the Lease {LEASE}: {error}"),
                Err(_) => {
                    tracing::error!("could not renew the Lease {LEASE} for {RENEW_DEADLINE:?}");
                    return;
                }
            }
        }
    }

    /// Gives the Lease back, so that another need not wait until it is invalid.
    pub async fn resign(&mut self) {
        let Some((lease, _)) = self.seen.take() else { return };
        let mine = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        if mine != Some(&self.identity) {
            return;
        }
        let freed = Lease {
            spec: lease.spec.map(|spec| LeaseSpec { holder_identity: None, ..spec }),
            ..lease
        };
        if let Err(error) = self.write(&freed).await {
            tracing::warn!("cannot give the Lease {LEASE} back: {error}");
        }
    }

    /// Looks at the Lease, and takes or renews it; whether this replica leads.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let read = tokio::time::timeout(REQUEST, self.leases.get_opt(LEASE));
        let found = read.await.map_err(|_| timed_out())??;
        let now = Instant::now();
        let since = match (&self.seen, &found) {
            (Some((seen, since)), Some(found)) if seen.spec == found.spec => *since,
            _ => now,
        };
        self.seen = found.clone().map(|lease| (lease, since));
        let step = step(found.as_ref(), &self.identity, timestamp(), now.duration_since(since));
        match step {
            Step::Wait => Ok(false),
            Step::Write(lease) => {
                let written = match self.write(&lease).await {
                    // Another was faster.
                    Err(kube::Error::Api(status)) if status.code == 409 => return Ok(false),
                    written => written?,
                };
                self.seen = Some((written, now));
                self.renewed = now;
                Ok(true)
            }
        }
    }

    async fn write(&self, lease: &Lease) -> Result<Lease, kube::Error> {
        let params = PostParams::default();
        let write = async {
            match lease.metadata.resource_version {
                Some(_) => self.leases.replace(LEASE, &params, lease).await,
                None => self.leases.create(&params, lease).await,
            }
        };
        tokio::time::timeout(REQUEST, write).await.map_err(|_| timed_out())?
    }
}

/// Now, as exactly as a Lease keeps it.
fn timestamp() -> Timestamp {
    let now = Timestamp::now();
    now.round(k8s_openapi::jiff::Unit::Microsecond).unwrap_or(now)
}

fn timed_out() -> kube::Error {
    kube::Error::Service(format!("no answer within {REQUEST:?}").into())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;

    use super::*;

    const LONG: Duration = Duration::from_secs(16);
    const SHORT: Duration = Duration::from_secs(14);

    fn written(step: Step) -> Lease {
        match step {
            Step::Write(lease) => *lease,
            Step::Wait => panic!("waits"),
        }
    }

    fn holder(lease: &Lease) -> Option<&str> {
        lease.spec.as_ref()?.holder_identity.as_deref()
    }

    #[test]
    fn the_lease_is_taken_kept_and_passed_on() {
        let start = timestamp();
        let at = |seconds| start.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        let first = written(step(None, "a", at(0), Duration::ZERO));
        assert_eq!(holder(&first), Some("a"));
        let renewed = written(step(Some(&first), "a", at(2), Duration::ZERO));
        let spec = |lease: &Lease| lease.spec.clone().unwrap();
        assert_eq!(spec(&renewed).acquire_time, spec(&first).acquire_time);
        assert_eq!(spec(&renewed).lease_transitions, spec(&first).lease_transitions);
        assert_eq!(step(Some(&renewed), "b", at(10), SHORT), Step::Wait);
        let taken = written(step(Some(&renewed), "b", at(30), LONG));
        assert_eq!(holder(&taken), Some("b"));
        assert_eq!(spec(&taken).lease_transitions, Some(2));
        assert_eq!(step(Some(&taken), "a", at(31), Duration::ZERO), Step::Wait);
        let freed =
            Lease { spec: Some(LeaseSpec { holder_identity: None, ..spec(&taken) }), ..taken };
        assert_eq!(holder(&written(step(Some(&freed), "a", at(32), Duration::ZERO))), Some("a"));
    }

    #[tokio::test]
    async fn a_leader_whose_requests_hang_stops_in_time() {
        // It takes connections and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        let mut election = Election::new(client, "system", "a".into());
        // The last renewal was so long ago that a whole request more would be too much.
        let began = Instant::now();
        let left = Duration::from_secs(3);
        election.renewed = began - (RENEW_DEADLINE - left);
        election.keep().await;
        let took = began.elapsed();
        assert!(took >= left && took < PERIOD + REQUEST, "{took:?}");
    }

    #[test]
    fn a_clock_that_is_ahead_takes_nothing() {
        let start = timestamp();
        let lease = written(step(None, "a", start, Duration::ZERO));
        let ahead = start.checked_add(SignedDuration::from_hours(1)).unwrap();
        assert_eq!(step(Some(&lease), "b", ahead, SHORT), Step::Wait);
    }
}
