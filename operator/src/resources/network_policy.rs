//! What may talk to a job's parties, and what they may talk to: the protocol's own
//! connections, whoever reads metrics, and the collector of traces; nothing else.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
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

/// The label with a namespace's name that API servers give to each, since 1.21.
const NAMESPACE: &str = "kubernetes.io/metadata.name";

/// Who beyond a run's own parties may reach them, or is reached by them, as whoever runs the
/// operator says it.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// Who may read metrics; anybody if there are none.
    pub metrics_from: Vec<NetworkPolicyPeer>,
    /// Where traces may go; to where the endpoint's name says if there are none.
    pub traces_to: Vec<NetworkPolicyPeer>,
}

/// The names of a job's policies.
#[must_use]
pub fn names(job: &Job) -> Vec<String> {
    let all = ["parties", Role::Server0.name(), Role::Server1.name(), "dialling"];
    let made = all.iter().filter(|_| job.spec.network_policy);
    made.map(|name| name_of(job, name)).collect()
}

fn name_of(job: &Job, name: &str) -> String {
    format!("{}-{name}", job.stem())
}

/// All policies of a job: one for all parties, which opens metrics and traces and closes the
/// rest, and one for each role that others dial, or that dials others.
#[must_use]
pub fn build(job: &Job, outside: &Outside) -> Vec<NetworkPolicy> {
    if !job.spec.network_policy {
        return Vec::new();
    }
    let parties = policy(
        job,
        "parties",
        None,
        Some(vec![ingress(outside.metrics_from.clone(), METRICS_PORT)]),
        Some(traces(job, outside)),
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
        metadata: metadata(job, name_of(job, name)),
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

/// The way to the collector of traces, and to the DNS if the collector has a name.
fn traces(job: &Job, outside: &Outside) -> Vec<NetworkPolicyEgressRule> {
    let Some(telemetry) = &job.spec.telemetry else { return Vec::new() };
    let Collector { host, port: number } = Collector::of(&telemetry.otlp_endpoint);
    let peers = match &outside.traces_to[..] {
        [] => host.peers(),
        peers => peers.to_vec(),
    };
    let to = |ports: Vec<NetworkPolicyPort>, to: Vec<NetworkPolicyPeer>| NetworkPolicyEgressRule {
        ports: Some(ports),
        // An empty list means any, which is said by leaving it out.
        to: Some(to).filter(|peers| !peers.is_empty()),
    };
    let mut rules = vec![to(vec![port(number)], peers)];
    if !matches!(host, Host::Address(_)) {
        let names = DNS_PORTS.iter().flat_map(|number| {
            ["UDP", "TCP"].map(|protocol| NetworkPolicyPort {
                protocol: Some(protocol.into()),
                ..port(*number)
            })
        });
        rules.push(to(names.collect(), Vec::new()));
    }
    rules
}

/// Where traces go, as far as the endpoint says it.
#[derive(Debug, PartialEq, Eq)]
struct Collector {
    host: Host,
    port: u16,
}

/// What the host of an endpoint is.
#[derive(Debug, PartialEq, Eq)]
enum Host {
    /// This address.
    Address(IpAddr),
    /// A Service of the parties' own namespace.
    Here,
    /// A Service of a namespace.
    In(String),
    /// A name of elsewhere, whose address nobody knows before it is looked up.
    Elsewhere,
}

impl Collector {
    /// The host and the port of `scheme://host:port/path`.
    fn of(endpoint: &str) -> Self {
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("http", endpoint));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        // Brackets hold the colons of an IPv6 address.
        let (host, after) = match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
            Some((host, after)) => (host, after),
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = after.strip_prefix(':').and_then(|port| port.parse().ok());
        Self {
            host: Host::of(host),
            port: port.unwrap_or(if scheme == "https" { 443 } else { 80 }),
        }
    }
}

impl Host {
    /// By the forms that names have in a cluster: `service`, `service.namespace`, and with `svc`
    /// and the cluster's domain behind that.
    fn of(host: &str) -> Self {
        if let Ok(address) = host.parse() {
            return Self::Address(address);
        }
        let labels: Vec<&str> = host.trim_end_matches('.').split('.').collect();
        let service = labels.iter().skip(2).position(|label| *label == "svc");
        match (&labels[..], service) {
            ([_], _) => Self::Here,
            ([_, namespace], _) => Self::In((*namespace).into()),
            (_, Some(place)) => Self::In(labels[place + 1].into()),
            _ => Self::Elsewhere,
        }
    }

    /// Who that is to a policy; nobody means anybody.
    fn peers(&self) -> Vec<NetworkPolicyPeer> {
        let peer = match self {
            Self::Address(address) => {
                let whole = if address.is_ipv4() { 32 } else { 128 };
                let cidr = format!("{address}/{whole}");
                NetworkPolicyPeer {
                    ip_block: Some(IPBlock { cidr, except: None }),
                    ..NetworkPolicyPeer::default()
                }
            }
            Self::Here => NetworkPolicyPeer {
                pod_selector: Some(LabelSelector::default()),
                ..NetworkPolicyPeer::default()
            },
            Self::In(namespace) => NetworkPolicyPeer {
                namespace_selector: Some(LabelSelector {
                    match_labels: Some(map([(NAMESPACE, namespace)])),
                    ..LabelSelector::default()
                }),
                ..NetworkPolicyPeer::default()
            },
            Self::Elsewhere => return Vec::new(),
        };
        vec![peer]
    }
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
        // Addresses and other namespaces are nobody's of these pods, unless labels say so.
        let is_peer = |found: &NetworkPolicyPeer| match found {
            NetworkPolicyPeer { ip_block: Some(block), .. } => {
                peer.get("address").is_some_and(|address| *address == block.cidr)
            }
            NetworkPolicyPeer { namespace_selector: Some(namespace), .. } => {
                selects(namespace, peer)
            }
            NetworkPolicyPeer { pod_selector: Some(pod), .. } => {
                !peer.contains_key(NAMESPACE) && !peer.contains_key("address") && selects(pod, peer)
            }
            _ => panic!("{found:?} is nobody"),
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
            let policies = build(&job, &Outside::default());
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
        let policies = build(&first, &Outside::default());
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

    fn traced(endpoint: &str) -> Job {
        let telemetry = Some(Telemetry { otlp_endpoint: endpoint.into(), sampling_ratio: 1.0 });
        job(SecureInferenceSpec { telemetry, ..network() })
    }

    #[test]
    fn traces_leave_to_the_collector_and_the_names_that_they_need_are_found() {
        let at = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
        let here = at("app", "tempo");
        let [there, other] = ["monitoring", "another"].map(|namespace| at(NAMESPACE, namespace));
        let outside = at("address", "192.0.2.1/32");
        for (endpoint, expected) in [
            ("http://tempo.monitoring:4317", [false, true, false, false]),
            ("http://tempo:4317", [true, false, false, false]),
            ("http://192.0.2.1:4317", [false, false, false, true]),
            // Its address is not known before.
            ("http://collector.example.org:4317", [true, true, true, true]),
        ] {
            let job = traced(endpoint);
            let policies = build(&job, &Outside::default());
            for role in &job.roles {
                let party = labels(&job, *role);
                let leaves = |to, port| passes(&policies, &party, to, port);
                let found = [&here, &there, &other, &outside].map(|to| leaves(to, ("TCP", 4317)));
                assert_eq!(found, expected, "{role} to {endpoint}");
                for port in [("UDP", 53), ("TCP", 53), ("UDP", 5353), ("TCP", 5353)] {
                    let asks = !endpoint.contains("192");
                    assert_eq!(leaves(&other, port), asks, "{role} at {port:?} for {endpoint}");
                }
                for to in [&here, &there, &other, &outside] {
                    assert!(!leaves(to, ("TCP", 443)) && !leaves(to, PARTY), "{role}");
                }
            }
            // Which opens nothing between parties.
            let [client, server0] = [Role::CLIENT, Role::Server0].map(|role| labels(&job, role));
            assert!(!passes(&policies, &server0, &client, ("TCP", 4317)));
        }
    }

    #[test]
    fn the_operators_settings_say_who_reads_metrics_and_who_takes_traces() {
        let peers = |namespace: &str| Host::In(namespace.into()).peers();
        let outside = Outside { metrics_from: peers("prometheus"), traces_to: peers("traces") };
        let job = traced("http://tempo.monitoring:4317");
        let policies = build(&job, &outside);
        let party = labels(&job, Role::CLIENT);
        let of = |namespace: &str| Labels::from([(NAMESPACE.to_owned(), namespace.to_owned())]);
        for (namespace, reads, takes) in
            [("prometheus", true, false), ("traces", false, true), ("monitoring", false, false)]
        {
            assert_eq!(passes(&policies, &of(namespace), &party, METRICS), reads, "{namespace}");
            let found = passes(&policies, &party, &of(namespace), ("TCP", 4317));
            assert_eq!(found, takes, "{namespace}");
        }
    }

    #[test]
    fn they_can_be_left_out() {
        let closed = job(network());
        let made = build(&closed, &Outside::default());
        let made: Vec<String> =
            made.into_iter().map(|policy| policy.metadata.name.unwrap()).collect();
        let expected = ["parties", "server0", "server1", "dialling"];
        assert_eq!(made, expected.map(|name| format!("{}-{name}", closed.stem())));
        assert_eq!(names(&closed), made, "what is looked for is what is made");
        let open = job(SecureInferenceSpec { network_policy: false, ..network() });
        assert!(build(&open, &Outside::default()).is_empty() && names(&open).is_empty());
    }

    #[test]
    fn where_an_endpoint_leads_is_told_by_its_host() {
        let address = |text: &str| Host::Address(text.parse().unwrap());
        let of = |namespace: &str| Host::In(namespace.into());
        for (endpoint, host, port) in [
            ("http://tempo:4317", Host::Here, 4317),
            ("http://tempo.monitoring.svc:4317/v1", of("monitoring"), 4317),
            ("http://tempo.monitoring.svc.cluster.local.:4317", of("monitoring"), 4317),
            ("http://tempo-0.tempo.monitoring.svc:4317", of("monitoring"), 4317),
            ("http://user@tempo.monitoring", of("monitoring"), 80),
            ("https://tempo", Host::Here, 443),
            ("http://collector.example.org:4317", Host::Elsewhere, 4317),
            ("http://192.0.2.1", address("192.0.2.1"), 80),
            ("http://[fd00::1]:4317", address("fd00::1"), 4317),
            ("http://[fd00::1]", address("fd00::1"), 80),
        ] {
            assert_eq!(Collector::of(endpoint), Collector { host, port }, "{endpoint}");
        }
    }
}
