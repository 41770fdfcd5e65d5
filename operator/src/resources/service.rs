//! The Service of a server: a stable address before its pod has one.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use spdz::channel::Role;

use super::{JOB_UID, map, party_labels, party_metadata};
use crate::job::{Job, PARTY_PORT};

/// The Service of `role`, a server.
#[must_use]
pub fn build(job: &Job, attempt: u32, role: Role) -> Service {
    let mut selector = map([(JOB_UID, &job.uid)]);
    selector.extend(party_labels(attempt, role));
    Service {
        metadata: party_metadata(job, attempt, role),
        spec: Some(ServiceSpec {
            selector: Some(selector),
            // A server is ready when its peers have connected, so they must reach it before.
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![ServicePort {
                name: Some("party".into()),
                port: i32::from(PARTY_PORT),
                target_port: Some(IntOrString::Int(i32::from(PARTY_PORT))),
                // Servers of old refuse to merge a port without it.
                protocol: Some("TCP".into()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
