//! The files in `manifests/` are what the types say.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use k8s_openapi::api::rbac::v1::ClusterRole;
use serde::Deserialize;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

#[test]
fn generated_files_are_as_the_types_generate_them() {
    for (path, content) in operator::manifests::files().unwrap() {
        let found = fs::read_to_string(folder().join(&path));
        assert!(
            found.is_ok_and(|found| found == content),
            "manifests/{path} is not what the types say; write it again: \
             cargo run -p operator -- manifests manifests"
        );
    }
}

#[test]
fn every_sample_is_generated() {
    let known: Vec<String> =
        operator::manifests::files().unwrap().into_iter().map(|(path, _)| path).collect();
    for entry in fs::read_dir(folder().join("samples")).unwrap() {
        let name = format!("samples/{}", entry.unwrap().file_name().to_str().unwrap());
        assert!(known.contains(&name), "manifests/{name} is written by nothing; delete it");
    }
}

#[test]
fn people_get_resources_with_the_clusters_own_roles_and_nothing_else() {
    let text = fs::read_to_string(folder().join("operator/roles.yaml")).unwrap();
    let roles = serde_yaml::Deserializer::from_str(&text)
        .map(|document| ClusterRole::deserialize(document).unwrap());
    let mut verbs_of = BTreeMap::<&str, Vec<String>>::new();
    for role in roles {
        let labels = role.metadata.labels.unwrap();
        for rule in role.rules.into_iter().flatten() {
            assert_eq!(rule.api_groups.as_deref(), Some(&["secureinference.dev".to_owned()][..]));
            assert_eq!(rule.resources.as_deref(), Some(&["secureinferences".to_owned()][..]));
            for to in ["view", "edit", "admin"] {
                let label = format!("rbac.authorization.k8s.io/aggregate-to-{to}");
                if labels.get(&label).is_some_and(|given| given == "true") {
                    verbs_of.entry(to).or_default().extend(rule.verbs.clone());
                }
            }
        }
    }
    let reads = ["get", "list", "watch"];
    let all = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    assert_eq!(verbs_of["view"], reads);
    assert_eq!(verbs_of["edit"], all);
    assert_eq!(verbs_of["admin"], all);
}

#[test]
fn the_operator_may_block_the_deletion_of_its_resources() {
    // Where an API server checks it, no pod is made without.
    for file in ["manifests/operator/rbac.yaml", "charts/secure-inference/templates/rbac.yaml"] {
        let text = fs::read_to_string(folder().join("..").join(file)).unwrap();
        let rule = "  resources: [secureinferences/finalizers]\n  verbs: [update]\n";
        assert!(text.contains(rule), "{file}");
    }
}

#[test]
fn the_operator_may_neither_read_nor_change_secrets() {
    let text = fs::read_to_string(folder().join("operator/rbac.yaml")).unwrap();
    let roles: Vec<ClusterRole> = serde_yaml::Deserializer::from_str(&text)
        .map(|document| serde_yaml::Value::deserialize(document).unwrap())
        .filter(|document| document["kind"] == "ClusterRole")
        .map(|document| serde_yaml::from_value(document).unwrap())
        .collect();
    assert_eq!(roles.len(), 1);
    let rules = roles[0].rules.iter().flatten();
    let of_secrets =
        rules.filter(|rule| rule.resources.iter().flatten().any(|resource| resource == "secrets"));
    let verbs: Vec<&str> =
        of_secrets.flat_map(|rule| rule.verbs.iter().map(String::as_str)).collect();
    assert_eq!(verbs, ["create", "deletecollection"]);
}
