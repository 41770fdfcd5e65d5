//! Checks of the settings of pods: what an API server refuses when it is asked for such a pod is
//! refused before, by its place in the resource.

use k8s_openapi::api::core::v1::{
    Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint,
};

use super::error::{Invalid, invalid};
use crate::api::v1alpha1::{PodSettings, SecureInferenceSpec};

/// Domains of labels that the operator gives to pods.
const OWN_LABELS: [&str; 2] = ["secureinference.dev/", "app.kubernetes.io/"];

/// Domains of annotations that the operator gives to pods and that mean something to it.
const OWN_ANNOTATIONS: [&str; 1] = ["secureinference.dev/"];

/// Longest value of a label, and longest key without its domain, bytes.
const MAX_LABEL_BYTES: usize = 63;

/// Longest DNS subdomain, bytes.
const MAX_SUBDOMAIN_BYTES: usize = 253;

/// Checks all settings of pods.
///
/// # Errors
/// The first that no pod can have.
pub(super) fn check(spec: &SecureInferenceSpec) -> Result<(), Invalid> {
    for (place, pod) in spec.pods() {
        check_pod(&pod)
            .map_err(|(field, problem)| Invalid(format!("{place}.{field} {problem}")))?;
    }
    for secret in spec.parties.image_pull_secrets.iter().flatten() {
        if !is_subdomain(&secret.name) {
            let name = &secret.name;
            return invalid(format!(
                "spec.parties.imagePullSecrets names {name:?}, which is no name of a Secret"
            ));
        }
    }
    let key = &spec.placement.topology_key;
    if !is_key(key) {
        return invalid(format!(
            "spec.placement.topologyKey is {key:?}, which is no key of a label"
        ));
    }
    Ok(())
}

/// A field of a pod's settings, and what is wrong with it.
type Problem = (String, String);

fn wrong<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, Problem> {
    Err((field.into(), problem.into()))
}

fn check_pod(pod: &PodSettings) -> Result<(), Problem> {
    pod.resources.as_ref().map_or(Ok(()), check_resources)?;
    pod.tolerations.iter().flatten().try_for_each(check_toleration)?;
    if let Some(affinity) = &pod.affinity {
        affinity.typed::<Affinity>().map_err(|problem| {
            ("affinity".to_owned(), format!("is not the affinity of a pod: {problem}"))
        })?;
    }
    for (index, constraint) in pod.topology_spread_constraints.iter().flatten().enumerate() {
        constraint.typed::<TopologySpreadConstraint>().map_err(|problem| {
            let field = format!("topologySpreadConstraints[{index}]");
            (field, format!("is not a topology spread constraint of a pod: {problem}"))
        })?;
    }
    for (field, map, reserved, values) in [
        ("nodeSelector", &pod.node_selector, &[][..], true),
        ("labels", &pod.labels, &OWN_LABELS, true),
        ("annotations", &pod.annotations, &OWN_ANNOTATIONS, false),
    ] {
        for (key, value) in map.iter().flatten() {
            if reserved.iter().any(|domain| key.starts_with(domain)) {
                return wrong(field, format!("has {key}, which the operator sets itself"));
            }
            if !is_key(key) {
                return wrong(field, format!("has {key:?}, which is no key of a label"));
            }
            if values && !is_value(value) {
                return wrong(field, format!("has {key}: {value:?}, which is no value of a label"));
            }
        }
    }
    for (field, name) in [
        ("priorityClassName", &pod.priority_class_name),
        ("runtimeClassName", &pod.runtime_class_name),
    ] {
        if let Some(name) = name.as_ref().filter(|name| !is_subdomain(name)) {
            return wrong(field, format!("is {name:?}, which is no name of a class"));
        }
    }
    Ok(())
}

fn check_resources(resources: &ResourceRequirements) -> Result<(), Problem> {
    if resources.claims.iter().flatten().next().is_some() {
        return wrong(
            "resources.claims",
            "are not for parties: their pods have no resource claims",
        );
    }
    for (field, quantities) in
        [("resources.requests", &resources.requests), ("resources.limits", &resources.limits)]
    {
        for (name, found) in quantities.iter().flatten() {
            let text = &found.0;
            if !is_resource(name) {
                return wrong(
                    field,
                    format!(
                        "has {name:?}, which is no resource of a container; expected cpu, memory, \
                         ephemeral-storage, hugepages-SIZE, or a name with a domain"
                    ),
                );
            }
            let Some(asked) = quantity(text) else {
                return wrong(
                    field,
                    format!("has {name}: {text:?}; expected a quantity such as 500m or 1Gi"),
                );
            };
            let limit = resources.limits.as_ref().and_then(|limits| limits.get(name));
            if let Some(limit) = limit
                && quantity(&limit.0).is_some_and(|most| asked > most)
            {
                let limit = &limit.0;
                return wrong(field, format!("has {name}: {text}, more than its limit of {limit}"));
            }
        }
    }
    Ok(())
}

fn check_toleration(toleration: &Toleration) -> Result<(), Problem> {
    let Toleration { effect, key, operator, toleration_seconds, value } = toleration;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key, operator, value) = (text(effect), text(key), text(operator), text(value));
    let problem = if !matches!(&*operator, "" | "Equal" | "Exists" | "Lt" | "Gt") {
        format!("have the operator {operator}; expected Equal, Exists, Lt or Gt")
    } else if !matches!(&*effect, "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        format!("have the effect {effect}; expected NoSchedule, PreferNoSchedule or NoExecute")
    } else if !key.is_empty() && !is_key(&key) {
        format!("have the key {key:?}, which is no key of a taint")
    } else if key.is_empty() && operator != "Exists" {
        "have one without a key; that needs the operator Exists".into()
    } else if !is_value(&value) {
        format!("have the value {value:?}, which is no value of a taint")
    } else if operator == "Exists" && !value.is_empty() {
        format!("have the value {value} with the operator Exists, which takes none")
    } else if toleration_seconds.is_some() && effect != "NoExecute" {
        "have tolerationSeconds, which is for the effect NoExecute".into()
    } else {
        return Ok(());
    };
    wrong("tolerations", problem)
}

/// The number of a quantity, if it is one and not negative.
#[must_use]
pub fn quantity(text: &str) -> Option<f64> {
    let end = text.find(|byte: char| !byte.is_ascii_digit() && byte != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let binary = |power: i32| number * 1024f64.powi(power);
    let decimal = |power: i32| match power {
        // A division, for the number nearest to what is meant.
        ..0 => number / 10f64.powi(-power),
        _ => number * 10f64.powi(power),
    };
    Some(match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => number,
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => decimal(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

/// Whether a name is of a resource that a container can ask for.
fn is_resource(name: &str) -> bool {
    let native = matches!(name, "cpu" | "memory" | "ephemeral-storage");
    native || (is_key(name) && (name.contains('/') || name.starts_with("hugepages-")))
}

/// Letters, digits, and within them what `inner` says.
fn is_word(text: &str, most: usize, letter: fn(&u8) -> bool, inner: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let at_the_ends = bytes.first().is_some_and(letter) && bytes.last().is_some_and(letter);
    at_the_ends
        && bytes.len() <= most
        && bytes.iter().all(|byte| letter(byte) || inner.contains(byte))
}

fn is_subdomain(text: &str) -> bool {
    let letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= MAX_SUBDOMAIN_BYTES
        && text.split('.').all(|label| is_word(label, MAX_SUBDOMAIN_BYTES, letter, b"-"))
}

fn is_key(text: &str) -> bool {
    let (domain, name) = match text.split_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, text),
    };
    domain.is_none_or(is_subdomain)
        && is_word(name, MAX_LABEL_BYTES, u8::is_ascii_alphanumeric, b"-_.")
}

fn is_value(text: &str) -> bool {
    text.is_empty() || is_word(text, MAX_LABEL_BYTES, u8::is_ascii_alphanumeric, b"-_.")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::v1alpha1::Parties;
    use crate::job::tests::{named, network};

    fn refused(parties: Value) -> Option<String> {
        let parties: Parties = serde_json::from_value(parties).unwrap();
        let spec = SecureInferenceSpec { parties, ..network() };
        named("run", spec).err().map(|invalid| invalid.0)
    }

    #[test]
    fn quantities_are_the_api_servers() {
        for (text, expected) in [
            ("1", Some(1.0)),
            ("1.5", Some(1.5)),
            (".5", Some(0.5)),
            ("1500m", Some(1.5)),
            ("1100m", Some(1.1)),
            ("2k", Some(2e3)),
            ("1E", Some(1e18)),
            ("1e3", Some(1e3)),
            ("1E-3", Some(1e-3)),
            ("1Gi", Some(1024.0 * 1024.0 * 1024.0)),
            ("", None),
            ("much", None),
            ("-1", None),
            ("1 Gi", None),
            ("1GiB", None),
            ("1K", None),
            ("1e", None),
            ("1.2.3", None),
            ("inf", None),
        ] {
            assert_eq!(quantity(text), expected, "{text}");
        }
    }

    #[test]
    fn what_no_pod_can_have_is_refused_by_its_place() {
        for (parties, expected) in [
            (
                json!({"resources": {"requests": {"cpu": "much"}}}),
                "spec.parties.resources.requests has cpu: \"much\"; expected a quantity such as 500m or 1Gi",
            ),
            (
                json!({"client": {"resources": {"limits": {"cpus": "1"}}}}),
                "spec.parties.client.resources.limits has \"cpus\", which is no resource of a \
                 container; expected cpu, memory, ephemeral-storage, hugepages-SIZE, or a name with a domain",
            ),
            (
                json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1900m"}}}),
                "spec.parties.resources.requests has cpu: 2, more than its limit of 1900m",
            ),
            (
                json!({"nodeSelector": {"a b": "c"}}),
                "spec.parties.nodeSelector has \"a b\", which is no key of a label",
            ),
            (
                json!({"labels": {"a": "c d"}}),
                "spec.parties.labels has a: \"c d\", which is no value of a label",
            ),
            (
                json!({"annotations": {"A/b": ""}}),
                "spec.parties.annotations has \"A/b\", which is no key of a label",
            ),
            (
                json!({"tolerations": [{"key": "a", "operator": "Is"}]}),
                "spec.parties.tolerations have the operator Is; expected Equal, Exists, Lt or Gt",
            ),
            (
                json!({"tolerations": [{"operator": "Equal", "value": "x"}]}),
                "spec.parties.tolerations have one without a key; that needs the operator Exists",
            ),
            (
                json!({"priorityClassName": "High"}),
                "spec.parties.priorityClassName is \"High\", which is no name of a class",
            ),
            (
                json!({"imagePullSecrets": [{}]}),
                "spec.parties.imagePullSecrets names \"\", which is no name of a Secret",
            ),
        ] {
            assert_eq!(refused(parties.clone()).as_deref(), Some(expected), "{parties}");
        }
        let all = json!({
            "resources": {
                "requests": {"cpu": 2, "memory": "1Gi", "example.org/fpga": "1"},
                "limits": {"cpu": "2000m", "memory": "1024Mi", "hugepages-2Mi": "4Mi", "example.org/fpga": 1},
            },
            "nodeSelector": {"kubernetes.io/arch": "amd64", "empty": ""},
            "annotations": {"a.b/c": "anything at all"},
            "tolerations": [{"operator": "Exists"}, {"key": "a.b/c", "value": "d", "effect": "NoExecute", "tolerationSeconds": 3}],
            "imagePullSecrets": [{"name": "registry.example.org"}],
        });
        assert_eq!(refused(all), None);
    }
}
