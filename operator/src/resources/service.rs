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

#[cfg(test)]
mod tests {
    use party::config::Session;
    use spdz::prg::SessionId;

    use super::*;
    use crate::job::tests::{job, network};
    use crate::resources::pod;

    #[test]
    fn it_leads_to_the_pod_of_its_role_and_attempt_alone() {
        let job = job(network());
        let service = build(&job, 3, Role::Server1);
        let selector = service.spec.as_ref().unwrap().selector.as_ref().unwrap();
        let leads_to = |attempt, role| {
            let pod = pod::build(&job, attempt, role, Session(SessionId([7; 16])), &"image".into());
            let labels = pod.metadata.labels.unwrap();
            selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        assert!(leads_to(3, Role::Server1));
        assert!(!leads_to(3, Role::Server0) && !leads_to(2, Role::Server1));
        assert_eq!(selector[JOB_UID], "one", "and not to a resource made again");
    }

    #[test]
    fn it_leads_there_before_the_server_is_ready() {
        let spec = build(&job(network()), 1, Role::Server0).spec.unwrap();
        assert_eq!(spec.publish_not_ready_addresses, Some(true));
        let [port] = &spec.ports.as_ref().unwrap()[..] else { panic!("one port") };
        assert_eq!((port.port, port.protocol.as_deref()), (7000, Some("TCP")));
        assert_eq!(port.target_port, Some(IntOrString::Int(7000)));
        assert_eq!((spec.type_, spec.ip_families), (None, None), "what the cluster has");
    }
}
