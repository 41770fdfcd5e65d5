//! What may talk to a job's parties, and what they may talk to: the protocol's own
//! connections, whoever reads metrics, and the collector of traces; nothing else.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use spdz::channel::Role;
use spdz::protocol::{Protocol, Spdz};

use super::{JOB_UID, ROLE, map, metadata};
use crate::job::{Job, METRICS_PORT, PARTY_PORT};

/// The ports at which pods of a cluster's DNS listen. Policies see those of the pods: OpenShift's
/// Service has 53 and its pods have 5353.
const DNS_PORTS: [u16; 2] = [53, 5353];

/// All policies of a job: one for all parties, which opens metrics and traces and closes the
/// rest, and one for each role that others dial, or that dials others.
#[must_use]
pub fn build(job: &Job) -> Vec<NetworkPolicy> {
    if !job.spec.network_policy {
        return Vec::new();
    }
    let parties = policy(
        job,
        "parties",
        None,
        Some(vec![ingress(Vec::new(), METRICS_PORT)]),
        Some(traces(job)),
    );
    let servers = [Role::Server0, Role::Server1].map(|server| {
        let callers: Vec<&str> = job
            .roles
            .iter()
            .filter(|role| Spdz::dials(**role).contains(&server))
            .map(Role::name)
            .collect();
        let from = ingress(vec![peer(job, &callers)], PARTY_PORT);
        policy(job, server.name(), Some(&[server.name()]), Some(vec![from]), None)
    });
    let callers: Vec<&str> =
        job.roles.iter().filter(|role| !Spdz::dials(**role).is_empty()).map(Role::name).collect();
    let to_servers = NetworkPolicyEgressRule {
        ports: Some(vec![port(PARTY_PORT)]),
        to: Some(vec![peer(job, &["server0", "server1"])]),
    };
    let dialling = policy(job, "dialling", Some(&callers), None, Some(vec![to_servers]));
    let [server0, server1] = servers;
    vec![parties, server0, server1, dialling]
}

fn policy(
    job: &Job,
    name: &str,
    roles: Option<&[&str]>,
    ingress: Option<Vec<NetworkPolicyIngressRule>>,
    egress: Option<Vec<NetworkPolicyEgressRule>>,
) -> NetworkPolicy {
    let types = [ingress.as_ref().map(|_| "Ingress"), egress.as_ref().map(|_| "Egress")];
    NetworkPolicy {
        metadata: metadata(job, format!("{}-{name}", job.stem())),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(job, roles)),
            policy_types: Some(types.into_iter().flatten().map(str::to_owned).collect()),
            ingress,
            egress,
        }),
    }
}

/// Pods of this job, of some roles or of all.
fn selector(job: &Job, roles: Option<&[&str]>) -> LabelSelector {
    LabelSelector {
        match_labels: Some(map([(JOB_UID, &job.uid)])),
        match_expressions: roles.map(|roles| {
            vec![LabelSelectorRequirement {
                key: ROLE.into(),
                operator: "In".into(),
                values: Some(roles.iter().map(|&role| role.into()).collect()),
            }]
        }),
    }
}

fn peer(job: &Job, roles: &[&str]) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(selector(job, Some(roles))),
        ..NetworkPolicyPeer::default()
    }
}

fn ingress(from: Vec<NetworkPolicyPeer>, to: u16) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from: (!from.is_empty()).then_some(from),
        ports: Some(vec![port(to)]),
    }
}

fn port(number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some("TCP".into()),
        end_port: None,
    }
}

/// The way to the collector of traces, and to the names that it may need.
fn traces(job: &Job) -> Vec<NetworkPolicyEgressRule> {
    let Some(telemetry) = &job.spec.telemetry else { return Vec::new() };
    let to =
        |ports: Vec<NetworkPolicyPort>| NetworkPolicyEgressRule { ports: Some(ports), to: None };
    let names = DNS_PORTS.iter().flat_map(|number| {
        ["UDP", "TCP"]
            .map(|protocol| NetworkPolicyPort { protocol: Some(protocol.into()), ..port(*number) })
    });
    vec![to(vec![port(collector_port(&telemetry.otlp_endpoint))]), to(names.collect())]
}

/// The port of `scheme://host:port/path`.
fn collector_port(endpoint: &str) -> u16 {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("http", endpoint));
    let authority = rest.split('/').next().unwrap_or(rest);
    // Brackets hold the colons of an IPv6 address.
    let after_host = authority.rsplit_once(']').map_or(authority, |(_, port)| port);
    let port = after_host.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    port.unwrap_or(if scheme == "https" { 443 } else { 80 })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use party::config::Session;
    use spdz::prg::SessionId;

    use super::*;
    use crate::api::v1alpha1::{SecureInferenceSpec, Telemetry};
    use crate::job::tests::{job, network, sum};
    use crate::resources::pod;

    type Labels = BTreeMap<String, String>;

    fn labels(job: &Job, role: Role) -> Labels {
        let pod = pod::build(job, 1, role, Session(SessionId([7; 16])), &"image".into());
        pod.metadata.labels.unwrap()
    }

    fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
        let matching = selector.match_labels.iter().flatten();
        let mut expressions = selector.match_expressions.iter().flatten();
        matching.into_iter().all(|(key, value)| labels.get(key) == Some(value))
            && expressions.all(|expression| {
                assert_eq!(expression.operator, "In");
                let value = labels.get(&expression.key);
                value.is_some_and(|value| expression.values.iter().flatten().any(|v| v == value))
            })
    }

    /// Whether a rule is for a peer and a port; no peers, or no ports, means all.
    fn admits(
        peers: Option<&Vec<NetworkPolicyPeer>>,
        ports: Option<&Vec<NetworkPolicyPort>>,
        peer: &Labels,
        (protocol, number): (&str, i32),
    ) -> bool {
        let is_peer = |found: &NetworkPolicyPeer| {
            assert!(found.ip_block.is_none() && found.namespace_selector.is_none());
            selects(found.pod_selector.as_ref().unwrap(), peer)
        };
        let is_port = |found: &NetworkPolicyPort| {
            found.protocol.as_deref() == Some(protocol)
                && found.port == Some(IntOrString::Int(number))
        };
        peers.is_none_or(|peers| peers.iter().any(is_peer))
            && ports.is_none_or(|ports| ports.iter().any(is_port))
    }

    /// Whether Kubernetes lets a connection pass: both ends must be open to it, and an end that
    /// no policy of its direction selects is.
    fn passes(policies: &[NetworkPolicy], from: &Labels, to: &Labels, port: (&str, i32)) -> bool {
        let of = |direction: &str, pod: &Labels| -> Vec<&NetworkPolicySpec> {
            let specs = policies.iter().map(|policy| policy.spec.as_ref().unwrap());
            specs
                .filter(|spec| {
                    spec.policy_types.iter().flatten().any(|kind| kind == direction)
                        && selects(spec.pod_selector.as_ref().unwrap(), pod)
                })
                .collect()
        };
        let (leaving, entering) = (of("Egress", from), of("Ingress", to));
        let leaves = leaving.iter().flat_map(|spec| spec.egress.iter().flatten());
        let enters = entering.iter().flat_map(|spec| spec.ingress.iter().flatten());
        let mut leaves = leaves.map(|rule| admits(rule.to.as_ref(), rule.ports.as_ref(), to, port));
        let mut enters =
            enters.map(|rule| admits(rule.from.as_ref(), rule.ports.as_ref(), from, port));
        (leaving.is_empty() || leaves.any(|admits| admits))
            && (entering.is_empty() || enters.any(|admits| admits))
    }

    const PARTY: (&str, i32) = ("TCP", PARTY_PORT as i32);
    const METRICS: (&str, i32) = ("TCP", METRICS_PORT as i32);

    #[test]
    fn parties_connect_as_the_protocol_has_them_and_in_no_other_way() {
        for job in [job(network()), job(sum())] {
            let policies = build(&job);
            for from in &job.roles {
                for to in &job.roles {
                    let [source, target] = [from, to].map(|role| labels(&job, *role));
                    let dials = Spdz::dials(*from).contains(to);
                    let passes = |port| passes(&policies, &source, &target, port);
                    assert_eq!(passes(PARTY), dials, "{from} to {to}");
                    for port in [METRICS, ("UDP", PARTY.1), ("TCP", 443), ("TCP", 22)] {
                        assert!(!passes(port), "{from} to {to} at {port:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn strangers_read_metrics_and_nothing_else() {
        let first = job(network());
        let policies = build(&first);
        let mut second = first.clone();
        second.uid = "two".into();
        let strangers = [Labels::new(), labels(&second, Role::CLIENT)];
        for role in &first.roles {
            let party = labels(&first, *role);
            for stranger in &strangers {
                assert!(passes(&policies, stranger, &party, METRICS), "to {role}");
                assert!(!passes(&policies, stranger, &party, PARTY), "to {role}");
                for port in [PARTY, METRICS, ("TCP", 443), ("TCP", 53), ("UDP", 53)] {
                    assert!(!passes(&policies, &party, stranger, port), "from {role} at {port:?}");
                }
            }
        }
    }

    #[test]
    fn traces_leave_and_the_names_that_they_need_are_found() {
        let otlp_endpoint = "http://tempo.monitoring:4317".into();
        let telemetry = Some(Telemetry { otlp_endpoint, sampling_ratio: 1.0 });
        let job = job(SecureInferenceSpec { telemetry, ..network() });
        let policies = build(&job);
        for role in &job.roles {
            let party = labels(&job, *role);
            let leaves = |port| passes(&policies, &party, &Labels::new(), port);
            assert!(leaves(("TCP", 4317)), "{role}");
            for port in [("UDP", 53), ("TCP", 53), ("UDP", 5353), ("TCP", 5353)] {
                assert!(leaves(port), "{role} at {port:?}");
            }
            assert!(!leaves(("TCP", 443)) && !leaves(PARTY), "{role}");
        }
        // Which opens nothing between parties.
        let [client, server0] = [Role::CLIENT, Role::Server0].map(|role| labels(&job, role));
        assert!(!passes(&policies, &server0, &client, ("TCP", 4317)));
    }

    #[test]
    fn they_can_be_left_out() {
        let closed = job(network());
        let names: Vec<String> =
            build(&closed).into_iter().map(|policy| policy.metadata.name.unwrap()).collect();
        let expected = ["parties", "server0", "server1", "dialling"];
        assert_eq!(names, expected.map(|name| format!("{}-{name}", closed.stem())));
        let open = SecureInferenceSpec { network_policy: false, ..network() };
        assert!(build(&job(open)).is_empty());
    }

    #[test]
    fn the_collectors_port_is_found() {
        for (endpoint, port) in [
            ("http://tempo:4317", 4317),
            ("http://tempo.monitoring.svc:4317/v1", 4317),
            ("https://tempo", 443),
            ("http://[fd00::1]:4317", 4317),
            ("http://[fd00::1]", 80),
        ] {
            assert_eq!(collector_port(endpoint), port, "{endpoint}");
        }
    }
}
