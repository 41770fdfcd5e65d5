//! The pod of a party.
//!
//! It satisfies the `restricted` Pod Security Standard: no root, no privileges, nothing
//! writable but what the party needs, and no access to the API.

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, HTTPGetAction, Pod, PodAffinityTerm,
    PodAntiAffinity, PodSecurityContext, PodSpec, Probe, SeccompProfile, SecretVolumeSource,
    SecurityContext, Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use party::config::Session;
use spdz::channel::Role;

use super::secret::session_text;
use super::{JOB_UID, SESSION, map, party_metadata};
use crate::api::v1alpha1::{Placement, Spread};
use crate::job::{CONFIG_FILE, IDENTITY_FOLDER, Job, METRICS_PORT, VOLUME, VOLUME_FOLDER};

/// The user and group that parties run as.
const NOBODY: i64 = 65_532;

/// The name of a party's container.
pub const CONTAINER: &str = "party";

/// Where a container leaves its last words.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// The pod of `role`. `image` is for resources that name none.
#[must_use]
pub fn build(job: &Job, attempt: u32, role: Role, session: Session, image: &str) -> Pod {
    let mut metadata = party_metadata(job, attempt, role);
    metadata.annotations = Some(map([
        (SESSION, &session_text(session)),
        ("prometheus.io/scrape", "true"),
        ("prometheus.io/port", &METRICS_PORT.to_string()),
        ("prometheus.io/path", "/metrics"),
    ]));
    let settings = job.pod_settings(role);
    let parties = &job.spec.parties;
    Pod {
        spec: Some(PodSpec {
            containers: vec![container(job, role, image)],
            volumes: Some(volumes(job, attempt, role)),
            // A party that ended has spent its masks; another attempt makes new ones.
            restart_policy: Some("Never".into()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(5),
            node_selector: settings.node_selector,
            tolerations: settings.tolerations,
            affinity: affinity(job, &job.spec.placement),
            image_pull_secrets: parties.image_pull_secrets.clone(),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(NOBODY),
                run_as_group: Some(NOBODY),
                fs_group: Some(NOBODY),
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

fn container(job: &Job, role: Role, image: &str) -> Container {
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
        image: Some(parties.image.clone().unwrap_or_else(|| image.into())),
        image_pull_policy: parties.image_pull_policy.map(|policy| policy.name().into()),
        command: Some(vec!["/usr/bin/party".into()]),
        args: Some(vec![
            format!("--config={config}"),
            format!("--termination-message={TERMINATION_LOG}"),
        ]),
        ports: Some(vec![ContainerPort {
            name: Some("metrics".into()),
            container_port: i32::from(METRICS_PORT),
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        resources: job.pod_settings(role).resources,
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
    volumes.extend(job.volume(role).map(|party| party.volume.clone()));
    volumes
}

/// Keeps the job's pods apart.
fn affinity(job: &Job, placement: &Placement) -> Option<Affinity> {
    let term = PodAffinityTerm {
        topology_key: placement.topology_key.clone(),
        label_selector: Some(LabelSelector {
            match_labels: Some(map([(JOB_UID, &job.uid)])),
            match_expressions: None,
        }),
        ..PodAffinityTerm::default()
    };
    let apart = match placement.spread {
        Spread::None => return None,
        Spread::Preferred => PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                WeightedPodAffinityTerm { weight: 100, pod_affinity_term: term },
            ]),
            ..PodAntiAffinity::default()
        },
        Spread::Required => PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAntiAffinity::default()
        },
    };
    Some(Affinity { pod_anti_affinity: Some(apart), ..Affinity::default() })
}
