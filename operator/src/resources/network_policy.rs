//! What may talk to a job's parties, and what they may talk to: the protocol's own
//! connections, whoever reads metrics, and the collector of traces; nothing else.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use party::config::PartyConfig;
use spdz::channel::Role;

use super::{JOB_UID, ROLE, map, metadata};
use crate::job::{Job, METRICS_PORT, PARTY_PORT};

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
            .filter(|role| PartyConfig::dials(**role).contains(&server))
            .map(Role::name)
            .collect();
        let from = ingress(vec![peer(job, &callers)], PARTY_PORT);
        policy(job, server.name(), Some(&[server.name()]), Some(vec![from]), None)
    });
    let callers: Vec<&str> = job
        .roles
        .iter()
        .filter(|role| !PartyConfig::dials(**role).is_empty())
        .map(Role::name)
        .collect();
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
        metadata: metadata(job, format!("{}-{name}", job.name)),
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
    let names = ["UDP", "TCP"]
        .map(|protocol| NetworkPolicyPort { protocol: Some(protocol.into()), ..port(53) });
    vec![to(vec![port(collector_port(&telemetry.otlp_endpoint))]), to(names.to_vec())]
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
    use super::*;

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
