//! The objects that a job consists of, built from the job alone.
//!
//! Pure: what they look like is decided here, when they are made in `plan`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
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

/// Whether an object belongs to a resource: its controller is it, and not another of its name.
#[must_use]
pub fn owned_by(owners: &[OwnerReference], uid: &str) -> bool {
    owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

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

#[cfg(test)]
mod tests {
    use party::config::Session;
    use party::identity;
    use spdz::prg::SessionId;

    use super::network_policy::Outside;
    use super::*;
    use crate::job::Addresses;
    use crate::job::tests::{job, network, sum};

    /// Everything that is made for the second attempt of a job.
    fn all_metadata(job: &Job) -> Vec<(Option<Role>, ObjectMeta)> {
        let session = Session(SessionId([7; 16]));
        let addresses = Addresses { server0: "10.0.0.1".into(), server1: "10.0.0.2".into() };
        let issued = identity::issue(session.0, &job.roles).unwrap();
        let mut all = Vec::new();
        for (role, identity) in &issued.parties {
            let config = job.config(*role, session, &addresses);
            let secret = secret::build(job, 2, &config, &issued.authority, identity).unwrap();
            all.push((Some(*role), secret.metadata));
            all.push((Some(*role), pod::build(job, 2, *role, session, &"image".into()).metadata));
        }
        for role in [Role::Server0, Role::Server1] {
            all.push((Some(role), service::build(job, 2, role).metadata));
        }
        all.extend(
            network_policy::build(job, &Outside::default())
                .into_iter()
                .map(|policy| (None, policy.metadata)),
        );
        all
    }

    #[test]
    fn every_object_is_owned_and_labelled() {
        for job in [job(network()), job(sum())] {
            for (role, metadata) in all_metadata(&job) {
                let name = metadata.name.as_deref().unwrap();
                assert!(name.starts_with("run-") && name.len() <= 63, "{name}");
                assert_eq!(metadata.namespace.as_deref(), Some("lab"));
                let [owner] = &metadata.owner_references.as_ref().unwrap()[..] else {
                    panic!("{name} has not one owner");
                };
                assert_eq!((&*owner.kind, &*owner.name), ("SecureInference", "run"));
                assert_eq!(
                    (&*owner.api_version, &*owner.uid),
                    ("secureinference.dev/v1alpha1", "one")
                );
                assert_eq!(owner.controller, Some(true));
                // A deletion in the foreground waits for it.
                assert_eq!(owner.block_owner_deletion, Some(true));
                let labels = metadata.labels.as_ref().unwrap();
                let mut expected = BTreeMap::from([
                    ("app.kubernetes.io/name", "secure-inference"),
                    ("app.kubernetes.io/component", "party"),
                    ("app.kubernetes.io/managed-by", "secure-inference-operator"),
                    ("secureinference.dev/job", "run"),
                    ("secureinference.dev/job-uid", "one"),
                ]);
                if let Some(role) = &role {
                    assert_eq!(name, job.object_name(2, *role));
                    expected.extend([(ATTEMPT, "2"), (ROLE, role.name())]);
                }
                let found: BTreeMap<&str, &str> =
                    labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
                assert_eq!(found, expected, "{name}");
            }
        }
    }

    #[test]
    fn the_longest_names_fit() {
        let mut longest = job(network());
        longest.name = "a".repeat(crate::api::v1alpha1::MAX_NAME_BYTES);
        for policy in network_policy::build(&longest, &Outside::default()) {
            assert!(policy.metadata.name.unwrap().len() <= 63);
        }
        let service = service::build(&longest, 999_999, Role::Server1);
        assert!(service.metadata.name.unwrap().len() <= 63);
        // Labels have as much room.
        assert!(longest.name.len() <= 63 && spdz::channel::MAX_NAME_BYTES <= 63);
    }
}
