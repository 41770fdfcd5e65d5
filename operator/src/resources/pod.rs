//! The pod of a party.
//!
//! It satisfies the `restricted` Pod Security Standard: no root, no privileges, nothing
//! writable but what the party needs, and no access to the API.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, Pod, PodAffinityTerm,
    PodAntiAffinity, PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile,
    SecretVolumeSource, SecurityContext, TopologySpreadConstraint, Volume, VolumeMount,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use party::config::Session;
use party::trace::conventions;
use spdz::channel::Role;

use super::secret::session_text;
use super::{JOB_UID, SESSION, map, party_metadata};
use crate::api::v1alpha1::{Placement, PodSettings, Spread, UserIds};
use crate::job::{CONFIG_FILE, IDENTITY_FOLDER, Job, METRICS_PORT, VOLUME, VOLUME_FOLDER};

/// The user and group that parties run as.
const NOBODY: i64 = 65_532;

/// The name of a party's container.
pub const CONTAINER: &str = "party";

/// Where a container leaves its last words.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// What holds for pods of resources that say nothing else.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// The image.
    pub image: String,
    /// Which user and groups they run as.
    pub user_ids: UserIds,
    /// What each container asks of its node.
    pub requests: BTreeMap<String, Quantity>,
}

impl Defaults {
    fn resources(&self) -> Option<ResourceRequirements> {
        let requests = Some(self.requests.clone()).filter(|requests| !requests.is_empty())?;
        Some(ResourceRequirements { requests: Some(requests), ..ResourceRequirements::default() })
    }
}

impl From<&str> for Defaults {
    fn from(image: &str) -> Self {
        Self { image: image.into(), user_ids: UserIds::default(), requests: BTreeMap::new() }
    }
}

/// The pod of `role`. The job was validated: parts of it that are no parts of a pod are left out.
#[must_use]
pub fn build(job: &Job, attempt: u32, role: Role, session: Session, defaults: &Defaults) -> Pod {
    let settings = job.pod_settings(role);
    let mut metadata = party_metadata(job, attempt, role);
    let labels = metadata.labels.take().unwrap_or_default();
    // The operator's own last: it finds its pods by them.
    metadata.labels = Some(settings.labels.iter().flatten().map(owned).chain(labels).collect());
    let mut annotations = map([
        (SESSION, &session_text(session)),
        ("prometheus.io/scrape", "true"),
        ("prometheus.io/port", &METRICS_PORT.to_string()),
        ("prometheus.io/path", "/metrics"),
        // A mesh's proxy would outlive its party, and the parties have TLS of their own.
        ("sidecar.istio.io/inject", "false"),
        ("linkerd.io/inject", "disabled"),
    ]);
    annotations.extend(settings.annotations.iter().flatten().map(owned));
    metadata.annotations = Some(annotations);
    let parties = &job.spec.parties;
    let ids = match settings.user_ids.unwrap_or(defaults.user_ids) {
        UserIds::Fixed => Some(NOBODY),
        UserIds::Platform => None,
    };
    Pod {
        spec: Some(PodSpec {
            containers: vec![container(job, attempt, role, defaults)],
            volumes: Some(volumes(job, attempt, role)),
            // A party that ended has spent its masks; another attempt makes new ones.
            restart_policy: Some("Never".into()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(5),
            node_selector: settings.node_selector.clone(),
            tolerations: settings.tolerations.clone(),
            affinity: affinity(job, &settings, &job.spec.placement),
            topology_spread_constraints: spread(job, &settings),
            priority_class_name: settings.priority_class_name,
            runtime_class_name: settings.runtime_class_name,
            scheduler_name: settings.scheduler_name,
            image_pull_secrets: parties.image_pull_secrets.clone(),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: ids,
                run_as_group: ids,
                fs_group: ids,
                // A large claim is not walked through again for each attempt.
                fs_group_change_policy: ids.map(|_| "OnRootMismatch".into()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            ..PodSpec::default()
        }),
        metadata,
        status: None,
    }
}

fn container(job: &Job, attempt: u32, role: Role, defaults: &Defaults) -> Container {
    let parties = &job.spec.parties;
    let mut mounts = vec![VolumeMount {
        name: "identity".into(),
        mount_path: IDENTITY_FOLDER.into(),
        read_only: Some(true),
        ..VolumeMount::default()
    }];
    if let Some(volume) = job.volume(role) {
        mounts.push(VolumeMount {
            name: VOLUME.into(),
            mount_path: VOLUME_FOLDER.into(),
            read_only: Some(!volume.writable),
            ..VolumeMount::default()
        });
    }
    let config = format!("{IDENTITY_FOLDER}/{CONFIG_FILE}");
    Container {
        name: CONTAINER.into(),
        image: Some(parties.image.clone().unwrap_or_else(|| defaults.image.clone())),
        image_pull_policy: parties.image_pull_policy.map(|policy| policy.name().into()),
        command: Some(vec!["/usr/bin/party".into()]),
        args: Some(vec![
            format!("--config={config}"),
            format!("--termination-message={TERMINATION_LOG}"),
        ]),
        env: job.spec.telemetry.as_ref().map(|_| vec![trace_resource(job, attempt, role)]),
        ports: Some(vec![ContainerPort {
            name: Some("metrics".into()),
            container_port: i32::from(METRICS_PORT),
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        resources: job.pod_settings(role).resources.or_else(|| defaults.resources()),
        readiness_probe: Some(probe("/readyz", 1, 1)),
        // A party that computes answers from another thread: six silent looks mean that it hangs.
        liveness_probe: Some(probe("/healthz", 10, 6)),
        termination_message_path: Some(TERMINATION_LOG.into()),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(mounts),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// Where spans come from: what a party cannot know of itself.
fn trace_resource(job: &Job, attempt: u32, role: Role) -> EnvVar {
    let attributes = [
        (conventions::K8S_NAMESPACE_NAME, job.namespace.clone()),
        (conventions::K8S_POD_NAME, job.object_name(attempt, role)),
        ("secure_inference.name", job.name.clone()),
        ("secure_inference.attempt", attempt.to_string()),
    ];
    let attributes = attributes.map(|(name, value)| format!("{name}={value}"));
    EnvVar {
        name: "OTEL_RESOURCE_ATTRIBUTES".into(),
        value: Some(attributes.join(",")),
        value_from: None,
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::Int(i32::from(METRICS_PORT)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn volumes(job: &Job, attempt: u32, role: Role) -> Vec<Volume> {
    let mut volumes = vec![Volume {
        name: "identity".into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(job.object_name(attempt, role)),
            // For the party's group, which is its own.
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }];
    volumes.extend(job.volume(role).map(|party| {
        let mut volume = party.volume.clone();
        // What is only read is attached so: some claims cannot be attached otherwise, and nothing
        // on others gets another group. A resource may say that it should.
        if let Some(claim) = volume.persistent_volume_claim.as_mut().filter(|_| !party.writable) {
            claim.read_only.get_or_insert(true);
        }
        volume
    }));
    volumes
}

fn owned((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

/// The pods of a job.
fn all_pods(job: &Job) -> LabelSelector {
    LabelSelector { match_labels: Some(map([(JOB_UID, &job.uid)])), match_expressions: None }
}

/// What the resource says, and else keeps the job's pods apart.
fn affinity(job: &Job, settings: &PodSettings, placement: &Placement) -> Option<Affinity> {
    let own = settings.affinity.as_ref().and_then(|own| own.typed::<Affinity>().ok());
    match (own, apart(job, placement)) {
        (Some(mut own), Some(apart)) => {
            own.pod_anti_affinity.get_or_insert(apart);
            Some(own)
        }
        (own, apart) => own
            .or(apart
                .map(|apart| Affinity { pod_anti_affinity: Some(apart), ..Affinity::default() })),
    }
}

/// What the resource says of spreading; what names no pods means those of the job.
fn spread(job: &Job, settings: &PodSettings) -> Option<Vec<TopologySpreadConstraint>> {
    let constraints = settings.topology_spread_constraints.as_ref()?.iter();
    let typed = constraints.filter_map(|own| own.typed::<TopologySpreadConstraint>().ok());
    let of_job = typed.map(|own| TopologySpreadConstraint {
        label_selector: own.label_selector.or_else(|| Some(all_pods(job))),
        ..own
    });
    Some(of_job.collect())
}

/// Keeps the job's pods apart.
fn apart(job: &Job, placement: &Placement) -> Option<PodAntiAffinity> {
    let term = PodAffinityTerm {
        topology_key: placement.topology_key.clone(),
        label_selector: Some(all_pods(job)),
        ..PodAffinityTerm::default()
    };
    match placement.spread {
        Spread::None => None,
        Spread::Preferred => Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                WeightedPodAffinityTerm { weight: 100, pod_affinity_term: term },
            ]),
            ..PodAntiAffinity::default()
        }),
        Spread::Required => Some(PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAntiAffinity::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{LocalObjectReference, Toleration};
    use serde_json::{Value, json};
    use spdz::prg::SessionId;

    use super::*;
    use crate::api::v1alpha1::{ImagePullPolicy, Parties, SecureInferenceSpec};
    use crate::job::tests::{job, network, sum, weights};

    fn pod(job: &Job, role: Role) -> Pod {
        build(job, 2, role, Session(SessionId([7; 16])), &"operators-own".into())
    }

    fn json(job: &Job, role: Role) -> Value {
        serde_json::to_value(pod(job, role)).unwrap()
    }

    /// The Pod Security Standard `restricted`, which contains `baseline`, field by field.
    fn check_restricted(pod: &Value) {
        let spec = &pod["spec"];
        let null = |value: &Value, field: &str| assert!(value.is_null(), "{field}: {value}");
        // Baseline.
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            null(&spec[field], field);
        }
        let context = &spec["securityContext"];
        for field in ["sysctls", "seLinuxOptions", "appArmorProfile", "windowsOptions"] {
            null(&context[field], field);
        }
        for annotation in pod["metadata"]["annotations"].as_object().unwrap().keys() {
            assert!(!annotation.contains("apparmor") && !annotation.contains("seccomp"));
        }
        for field in ["initContainers", "ephemeralContainers"] {
            null(&spec[field], field);
        }
        for container in spec["containers"].as_array().unwrap() {
            let own = &container["securityContext"];
            for field in
                ["privileged", "seLinuxOptions", "procMount", "appArmorProfile", "windowsOptions"]
            {
                null(&own[field], field);
            }
            null(&own["capabilities"]["add"], "capabilities.add");
            for port in container["ports"].as_array().unwrap() {
                null(&port["hostPort"], "hostPort");
            }
            for probe in ["readinessProbe", "livenessProbe"] {
                null(&container[probe]["httpGet"]["host"], "host");
            }
            null(&container["lifecycle"], "lifecycle");
            // Restricted.
            assert_eq!(own["allowPrivilegeEscalation"], false);
            assert_eq!(own["capabilities"]["drop"], json!(["ALL"]));
            assert_eq!(own["readOnlyRootFilesystem"], true, "more than the standard asks for");
            for field in ["runAsNonRoot", "runAsUser", "seccompProfile"] {
                null(&own[field], field);
            }
        }
        assert_eq!(context["runAsNonRoot"], true);
        assert!(context["runAsUser"].as_i64().unwrap() > 0);
        assert!(context["runAsGroup"].as_i64().unwrap() > 0);
        assert_eq!(context["seccompProfile"], json!({"type": "RuntimeDefault"}));
        let kinds = [
            "configMap",
            "csi",
            "downwardAPI",
            "emptyDir",
            "ephemeral",
            "persistentVolumeClaim",
            "projected",
            "secret",
        ];
        for volume in spec["volumes"].as_array().unwrap() {
            let kind = volume.as_object().unwrap().keys().find(|key| *key != "name").unwrap();
            assert!(kinds.contains(&kind.as_str()), "{kind}");
        }
    }

    #[test]
    fn every_pod_satisfies_the_restricted_standard() {
        let claim = json!({"persistentVolumeClaim": {"claimName": "weights"}});
        for job in [job(network()), job(weights("w", claim)), job(sum())] {
            for role in &job.roles {
                check_restricted(&json(&job, *role));
            }
        }
    }

    #[test]
    fn no_pod_reaches_the_api_or_learns_of_other_services() {
        let spec = pod(&job(network()), Role::CLIENT).spec.unwrap();
        assert_eq!(spec.automount_service_account_token, Some(false));
        assert_eq!((spec.service_account_name, spec.enable_service_links), (None, Some(false)));
    }

    #[test]
    fn a_party_is_never_restarted_and_says_how_it_ended() {
        let spec = pod(&job(network()), Role::Server0).spec.unwrap();
        assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
        assert_eq!(spec.termination_grace_period_seconds, Some(5));
        let container = &spec.containers[0];
        let log = container.termination_message_path.as_deref().unwrap();
        let args = container.args.as_ref().unwrap();
        let config = "--config=/etc/secure-inference/party.yaml";
        assert_eq!(args[..], [config.to_owned(), format!("--termination-message={log}")]);
        let policy = container.termination_message_policy.as_deref();
        assert_eq!(policy, Some("FallbackToLogsOnError"));
    }

    #[test]
    fn probes_ask_on_the_port_that_is_announced() {
        let pod = pod(&job(network()), Role::Producer);
        let annotations = pod.metadata.annotations.unwrap();
        let container = &pod.spec.unwrap().containers[0];
        let [port] = &container.ports.as_ref().unwrap()[..] else { panic!("one port") };
        assert_eq!((port.name.as_deref(), port.container_port), (Some("metrics"), 9400));
        assert_eq!(annotations["prometheus.io/port"], "9400");
        assert_eq!(annotations["prometheus.io/scrape"], "true");
        assert_eq!(annotations["prometheus.io/path"], "/metrics");
        assert_eq!(annotations["sidecar.istio.io/inject"], "false");
        assert_eq!(annotations["linkerd.io/inject"], "disabled");
        for (probe, path) in
            [(&container.readiness_probe, "/readyz"), (&container.liveness_probe, "/healthz")]
        {
            let probe = probe.as_ref().unwrap();
            let get = probe.http_get.as_ref().unwrap();
            assert_eq!((get.path.as_deref(), &get.port), (Some(path), &IntOrString::Int(9400)));
            assert_eq!(probe.initial_delay_seconds, None, "it may be ready at once");
        }
        let silent = container.liveness_probe.as_ref().unwrap();
        let patience = silent.period_seconds.unwrap() * silent.failure_threshold.unwrap();
        assert!(patience >= 60, "a party that computes is not killed for it");
    }

    #[test]
    fn a_party_mounts_its_own_secret_and_its_own_volume_alone() {
        let job = job(sum());
        for (role, path, writable) in [
            ("server0", None, false),
            ("alice", Some("/data"), false),
            ("carol", Some("/data"), true),
        ] {
            let spec = pod(&job, role.parse().unwrap()).spec.unwrap();
            let volumes = spec.volumes.unwrap();
            let secret = volumes[0].secret.as_ref().unwrap();
            assert_eq!(secret.secret_name, Some(job.object_name(2, role.parse().unwrap())));
            assert_eq!(secret.default_mode, Some(0o440), "for nobody but its group");
            let mounts = spec.containers[0].volume_mounts.as_ref().unwrap();
            assert_eq!(mounts[0].mount_path, "/etc/secure-inference");
            assert_eq!(mounts[0].read_only, Some(true));
            let data = mounts.get(1);
            assert_eq!(data.map(|mount| mount.mount_path.as_str()), path);
            assert_eq!(data.and_then(|mount| mount.read_only), path.map(|_| !writable));
            assert_eq!(volumes.len(), mounts.len());
            let claim = volumes.get(1).and_then(|data| data.persistent_volume_claim.as_ref());
            assert_eq!(claim.map(|claim| claim.claim_name.as_str()), path.map(|_| role));
            let read_only = claim.map(|claim| claim.read_only);
            assert_eq!(read_only, path.map(|_| (!writable).then_some(true)));
        }
    }

    #[test]
    fn a_resource_may_have_files_of_a_claim_given_to_the_partys_group() {
        let said = json!({"persistentVolumeClaim": {"claimName": "w", "readOnly": false}});
        let spec = pod(&job(weights("w", said)), Role::MODEL_OWNER).spec.unwrap();
        let volumes = spec.volumes.unwrap();
        let claim = volumes[1].persistent_volume_claim.as_ref().unwrap();
        assert_eq!(claim.read_only, Some(false));
        let mounts = spec.containers[0].volume_mounts.as_ref().unwrap();
        assert_eq!(mounts[1].read_only, Some(true), "the party writes nothing all the same");
        let security = spec.security_context.unwrap();
        assert_eq!(security.fs_group_change_policy.as_deref(), Some("OnRootMismatch"));
    }

    #[test]
    fn images_and_settings_are_those_of_the_resource() {
        let own = job(network());
        let image = |job: &Job| pod(job, Role::CLIENT).spec.unwrap().containers[0].image.clone();
        assert_eq!(image(&own).as_deref(), Some("operators-own"));
        let limits = Some([("cpu".to_owned(), Quantity("2".into()))].into());
        let resources = ResourceRequirements { limits, ..ResourceRequirements::default() };
        let node = Some([("node".to_owned(), "seven".to_owned())].into());
        let parties = Parties {
            image: Some("another".into()),
            image_pull_policy: Some(ImagePullPolicy::Never),
            image_pull_secrets: Some(vec![LocalObjectReference { name: "key".into() }]),
            pods: PodSettings {
                resources: Some(resources.clone()),
                tolerations: Some(vec![Toleration {
                    operator: Some("Exists".into()),
                    ..Default::default()
                }]),
                ..PodSettings::default()
            },
            client: Some(PodSettings { node_selector: node.clone(), ..PodSettings::default() }),
            ..Parties::default()
        };
        let job = job(SecureInferenceSpec { parties, ..network() });
        let spec = pod(&job, Role::CLIENT).spec.unwrap();
        let container = &spec.containers[0];
        assert_eq!(container.image.as_deref(), Some("another"));
        assert_eq!(container.image_pull_policy.as_deref(), Some("Never"));
        assert_eq!(container.resources, Some(resources));
        assert_eq!((spec.node_selector, spec.tolerations.map(|all| all.len())), (node, Some(1)));
        assert_eq!(spec.image_pull_secrets.map(|all| all.len()), Some(1));
        assert_eq!(pod(&job, Role::Server0).spec.unwrap().node_selector, None);
    }

    #[test]
    fn a_container_asks_for_something_unless_its_resource_says_otherwise() {
        let quantity = |text: &str| Quantity(text.into());
        let requests: BTreeMap<String, Quantity> = [("cpu".into(), quantity("100m"))].into();
        let defaults = Defaults { requests: requests.clone(), ..Defaults::from("image") };
        let found = |resources: Option<ResourceRequirements>| {
            let pods = PodSettings { resources, ..PodSettings::default() };
            let parties = Parties { pods, ..Parties::default() };
            let job = job(SecureInferenceSpec { parties, ..network() });
            let session = Session(SessionId([7; 16]));
            let pod = build(&job, 2, Role::CLIENT, session, &defaults);
            pod.spec.unwrap().containers[0].resources.clone().unwrap()
        };
        assert_eq!(found(None).requests, Some(requests));
        let limits = Some([("memory".to_owned(), quantity("1Gi"))].into());
        let own = ResourceRequirements { limits, ..ResourceRequirements::default() };
        assert_eq!(found(Some(own.clone())), own);
        let nothing = ResourceRequirements::default();
        assert_eq!(found(Some(nothing.clone())), nothing, "as whoever wants it says");
    }

    #[test]
    fn settings_of_pods_are_passed_on() {
        let zone =
            json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
        let node = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}},
        ]}});
        let parties: Parties = serde_json::from_value(json!({
            "labels": {"kueue.x-k8s.io/queue-name": "lab"},
            "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
            "affinity": node,
            "topologySpreadConstraints": [zone],
            "priorityClassName": "low",
            "runtimeClassName": "gvisor",
            "schedulerName": "another",
            "client": {"priorityClassName": "high", "affinity": {"podAntiAffinity": {}}},
        }))
        .unwrap();
        let job = job(SecureInferenceSpec { parties, ..network() });
        let (server, client) = (json(&job, Role::Server0), json(&job, Role::CLIENT));
        assert_eq!(server["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "lab");
        assert_eq!(server["metadata"]["labels"]["secureinference.dev/role"], "server0");
        let annotations = &server["metadata"]["annotations"];
        assert_eq!(annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"], "false");
        assert_eq!(annotations["prometheus.io/scrape"], "true");
        let spec = &server["spec"];
        assert_eq!(spec["affinity"]["nodeAffinity"], node["nodeAffinity"]);
        assert!(spec["affinity"]["podAntiAffinity"].is_object(), "spec.placement holds besides");
        let among = &spec["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"];
        assert_eq!(among["secureinference.dev/job-uid"], "one");
        let names = ["priorityClassName", "runtimeClassName", "schedulerName"];
        assert_eq!(names.map(|name| &spec[name]), ["low", "gvisor", "another"]);
        assert_eq!(client["spec"]["priorityClassName"], "high");
        assert_eq!(client["spec"]["affinity"], json!({"podAntiAffinity": {}}), "instead of it");
        check_restricted(&server);
    }

    #[test]
    fn user_and_groups_are_left_to_the_platform_where_that_is_said() {
        let ids = |job: &Job, defaults| {
            let session = Session(SessionId([7; 16]));
            let defaults = Defaults { user_ids: defaults, ..Defaults::from("image") };
            let pod = build(job, 2, Role::CLIENT, session, &defaults);
            let security = pod.spec.unwrap().security_context.unwrap();
            assert_eq!(security.run_as_non_root, Some(true));
            [security.run_as_user, security.run_as_group, security.fs_group]
        };
        let says = |user_ids| {
            let pods = PodSettings { user_ids, ..PodSettings::default() };
            let parties = Parties { pods, ..Parties::default() };
            job(SecureInferenceSpec { parties, ..network() })
        };
        use UserIds::{Fixed, Platform};
        for (said, default, expected) in [
            (None, Fixed, Some(NOBODY)),
            (None, Platform, None),
            (Some(Platform), Fixed, None),
            (Some(Fixed), Platform, Some(NOBODY)),
        ] {
            assert_eq!(ids(&says(said), default), [expected; 3], "{said:?}");
        }
    }

    #[test]
    fn parties_are_kept_apart_as_far_as_asked_for() {
        let affinity = |spread| {
            let placement = Placement { spread, topology_key: "zone".into() };
            json(&job(SecureInferenceSpec { placement, ..network() }), Role::CLIENT)["spec"]["affinity"]
                .clone()
        };
        let term = json!({
            "topologyKey": "zone",
            "labelSelector": {"matchLabels": {"secureinference.dev/job-uid": "one"}},
        });
        assert_eq!(affinity(Spread::None), Value::Null);
        assert_eq!(
            affinity(Spread::Preferred),
            json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
                [{"weight": 100, "podAffinityTerm": term}]}})
        );
        assert_eq!(
            affinity(Spread::Required),
            json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
        );
    }

    #[test]
    fn a_pod_tells_its_session() {
        let pod = pod(&job(network()), Role::CLIENT);
        let session: Session =
            pod.metadata.annotations.unwrap()[SESSION].clone().try_into().unwrap();
        assert_eq!(session, Session(SessionId([7; 16])));
    }
}
