//! The objects that a job consists of, built from the job alone.
//!
//! Pure: what they look like is decided here, when they are made in `plan`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use spdz::channel::Role;

use crate::job::Job;

pub mod network_policy;
pub mod pod;
pub mod secret;
pub mod service;

/// Marks every object of the operator; what it watches.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "secure-inference-operator");

/// The label with the unique id of an object's job.
pub const JOB_UID: &str = "secureinference.dev/job-uid";

/// The label with the name of an object's job.
pub const JOB: &str = "secureinference.dev/job";

/// The label with the role of a party's object.
pub const ROLE: &str = "secureinference.dev/role";

/// The label with the attempt of a party's object.
pub const ATTEMPT: &str = "secureinference.dev/attempt";

/// The annotation with the session of a party's Secret and pod.
pub const SESSION: &str = "secureinference.dev/session";

/// What every object of a job has.
fn metadata(job: &Job, name: String) -> ObjectMeta {
    let labels = [
        ("app.kubernetes.io/name", "secure-inference"),
        ("app.kubernetes.io/component", "party"),
        MANAGED_BY,
        (JOB, &job.name),
        (JOB_UID, &job.uid),
    ];
    ObjectMeta {
        name: Some(name),
        namespace: Some(job.namespace.clone()),
        labels: Some(map(labels)),
        owner_references: Some(vec![job.owner.clone()]),
        ..ObjectMeta::default()
    }
}

/// What every object of a party has.
fn party_metadata(job: &Job, attempt: u32, role: Role) -> ObjectMeta {
    let mut metadata = metadata(job, job.object_name(attempt, role));
    metadata.labels.get_or_insert_default().extend(party_labels(attempt, role));
    metadata
}

fn party_labels(attempt: u32, role: Role) -> BTreeMap<String, String> {
    map([(ATTEMPT, attempt.to_string().as_str()), (ROLE, role.name())])
}

fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
