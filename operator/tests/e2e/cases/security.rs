//! What pods may do, and what the operator may.

use std::collections::BTreeSet;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use serde::Deserialize;

use crate::process::repository;
use crate::report::{Figures, Skip};
use crate::room::{ENDLESS, ROLES, Room, lasting};

/// Kinds of volumes that the restricted profile lets a pod have.
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// The Pod Security Standard `restricted`, as it reads for pods of Linux.
pub(super) async fn restricted(room: &Room) -> anyhow::Result<Figures> {
    room.create("run", lasting(ENDLESS)).await?;
    room.ready("run", 1).await?;
    for role in ROLES {
        let pod = room.pod(role)?;
        check_restricted(&pod).with_context(|| format!("in the pod of {role}"))?;
    }
    let note = match room.cluster().since(1, 23) {
        true => "and the API server enforces it in the namespace",
        false => "this API server cannot enforce it",
    };
    Ok(vec![note.into()])
}

fn check_restricted(pod: &Pod) -> anyhow::Result<()> {
    let spec = pod.spec.as_ref().context("expected a spec")?;
    let whole = serde_json::to_value(spec)?;
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        ensure!(whole[key].as_bool() != Some(true), "expected no {key}");
    }
    ensure!(
        spec.automount_service_account_token == Some(false),
        "expected no token of a service account"
    );
    for volume in whole["volumes"].as_array().into_iter().flatten() {
        let kinds = volume.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
        let kinds: Vec<&str> = kinds.filter(|key| *key != "name").collect();
        ensure!(kinds.iter().all(|kind| VOLUMES.contains(kind)), "a volume is of kind {kinds:?}");
        ensure!(kinds != ["projected"], "expected no projected volume, which may hold a token");
    }
    let security = spec.security_context.clone().unwrap_or_default();
    ensure!(security.run_as_non_root == Some(true), "expected runAsNonRoot");
    ensure!(security.run_as_user.is_none_or(|user| user > 0), "expected a user other than root");
    ensure!(security.sysctls.is_none(), "expected no sysctls");
    let profile = security.seccomp_profile.map(|profile| profile.type_);
    ensure!(
        profile.as_deref() == Some("RuntimeDefault"),
        "expected RuntimeDefault, found {profile:?}"
    );
    let others = spec.init_containers.iter().flatten().count()
        + spec.ephemeral_containers.iter().flatten().count();
    ensure!(others == 0 && spec.containers.len() == 1, "expected one container");
    for container in &spec.containers {
        let security = container.security_context.clone().unwrap_or_default();
        let capabilities = security.capabilities.unwrap_or_default();
        ensure!(security.privileged != Some(true), "expected no privileges");
        ensure!(security.allow_privilege_escalation == Some(false), "expected no escalation");
        ensure!(security.read_only_root_filesystem == Some(true), "expected a read-only root");
        ensure!(
            security.run_as_user.is_none() && security.run_as_non_root != Some(false),
            "runs as another"
        );
        ensure!(capabilities.drop == Some(vec!["ALL".into()]), "expected no capabilities");
        ensure!(
            capabilities.add.unwrap_or_default().is_empty(),
            "expected no capabilities to be added"
        );
        let ports = container.ports.iter().flatten();
        ensure!(
            ports.into_iter().all(|port| port.host_port.is_none()),
            "expected no ports of the node"
        );
    }
    Ok(())
}

/// Verbs on resources.
type Permissions = BTreeSet<(String, String)>;

/// The operator has asked for everything that it may ask for, and for nothing else.
pub(super) async fn permissions(room: &Room) -> anyhow::Result<Figures> {
    if !room.world.all_cases {
        bail!(Skip("only all cases together use every permission".into()));
    }
    let file = repository().join("manifests/operator/rbac.yaml");
    let text = std::fs::read_to_string(&file)?;
    let mut allowed = Permissions::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let object = serde_json::Value::deserialize(document)?;
        let rules = match object["kind"].as_str() {
            Some("ClusterRole") => serde_json::from_value::<ClusterRole>(object)?.rules,
            Some("Role") => serde_json::from_value::<Role>(object)?.rules,
            _ => None,
        };
        allowed.extend(rules.iter().flatten().flat_map(of_rule));
    }
    ensure!(!allowed.is_empty(), "expected rules in {}", file.display());
    let (requests, forbidden) = room.operator().accounts().await?;
    let asked: Permissions = requests.into_keys().collect();
    let show = |permissions: Vec<&(String, String)>| -> Vec<String> {
        permissions.into_iter().map(|(verb, resource)| format!("{verb} {resource}")).collect()
    };
    // Nobody asks for it by itself: an API server may check it when an object is created.
    let checked = ("update".to_owned(), "secureinferences/finalizers".to_owned());
    ensure!(allowed.remove(&checked), "expected {checked:?} to be allowed");
    let never = show(allowed.difference(&asked).collect());
    ensure!(
        never.is_empty(),
        "expected everything that is allowed to be used, never was: {never:?}"
    );
    let more = show(asked.difference(&allowed).collect());
    ensure!(
        more.is_empty(),
        "expected nothing to be asked for that is not allowed, found: {more:?}"
    );
    ensure!(forbidden.is_empty(), "expected nothing to be forbidden, the log says: {forbidden:#?}");
    Ok(vec![format!("{} permissions, all of them used", allowed.len())])
}

fn of_rule(rule: &PolicyRule) -> Vec<(String, String)> {
    let resources = rule.resources.clone().unwrap_or_default();
    let pairs = resources
        .iter()
        .flat_map(|resource| rule.verbs.iter().map(move |verb| (verb.clone(), resource.clone())));
    pairs.collect()
}
