//! How a sweep's pods are made, by flags.

use clap::Args;
use serde_json::{Value, json};

use crate::settings::PartySettings;

/// How the parties' pods are made: what replaces `parties` of a sweep file.
#[derive(Debug, Default, Args)]
pub(super) struct Pods {
    /// Settings of the parties' pods, YAML or JSON: what spec.parties of a SecureInference may
    /// have, such as '{priorityClassName: low}'
    #[arg(long, value_name = "YAML", value_parser = party_settings)]
    parties: Option<PartySettings>,
    /// Image of the parties; without it the operator's own
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Secrets of the namespace with the credentials for pulling it
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    image_pull_secrets: Vec<String>,
    /// What each party asks of its node, such as cpu=2,memory=1Gi
    #[arg(long, value_name = "NAME=QUANTITY", value_delimiter = ',', value_parser = pair)]
    requests: Vec<(String, String)>,
    /// What each party may not exceed, likewise
    #[arg(long, value_name = "NAME=QUANTITY", value_delimiter = ',', value_parser = pair)]
    limits: Vec<(String, String)>,
    /// Labels that the parties' nodes must have
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = pair)]
    node_selector: Vec<(String, String)>,
    /// Taints of nodes that the parties tolerate, as kubectl taint writes them:
    /// KEY[=VALUE][:EFFECT]
    #[arg(long, value_name = "TAINTS", value_delimiter = ',', value_parser = toleration)]
    tolerations: Vec<Value>,
}

impl Pods {
    /// Puts what was given into its place.
    pub(super) fn apply(&self, parties: &mut PartySettings) {
        parties.extend(self.parties.clone().into_iter().flatten());
        if let Some(image) = &self.image {
            parties.insert("image".into(), image.clone().into());
        }
        let secrets = self.image_pull_secrets.iter().map(|name| json!({ "name": name }));
        let list = |parties: &mut PartySettings, key: &str, list: Vec<Value>| {
            if !list.is_empty() {
                parties.insert(key.into(), list.into());
            }
        };
        list(parties, "imagePullSecrets", secrets.collect());
        list(parties, "tolerations", self.tolerations.clone());
        let map = |fields: &mut PartySettings, key: &str, pairs: &[(String, String)]| {
            if !pairs.is_empty() {
                let pairs = pairs.iter().map(|(key, value)| (key.clone(), value.as_str().into()));
                fields.insert(key.into(), Value::Object(pairs.collect()));
            }
        };
        map(parties, "nodeSelector", &self.node_selector);
        let mut resources = parties.get("resources").cloned().unwrap_or_else(|| json!({}));
        // Whatever else is there is refused with the other settings.
        if let Some(resources) = resources.as_object_mut() {
            map(resources, "requests", &self.requests);
            map(resources, "limits", &self.limits);
            if !resources.is_empty() {
                parties.insert("resources".into(), Value::Object(resources.clone()));
            }
        }
    }
}

/// Settings of pods, as YAML, which JSON is too.
fn party_settings(text: &str) -> Result<PartySettings, String> {
    serde_yaml::from_str(text).map_err(|error| error.to_string())
}

/// `KEY=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected a key, an equals sign and a value".into()),
    }
}

/// `KEY[=VALUE][:EFFECT]`; without a value any, and without an effect each.
fn toleration(text: &str) -> Result<Value, String> {
    let (taint, effect) = match text.split_once(':') {
        Some((taint, effect)) => (taint, Some(effect)),
        None => (text, None),
    };
    let (key, value) = match taint.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (taint, None),
    };
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    if key.is_empty() || effect.is_some_and(|effect| !effects.contains(&effect)) {
        return Err(format!("expected KEY[=VALUE][:EFFECT] with an effect of {effects:?}"));
    }
    let operator = if value.is_some() { "Equal" } else { "Exists" };
    let mut toleration = json!({ "key": key, "operator": operator });
    for (field, given) in [("value", value), ("effect", effect)] {
        if let Some(given) = given {
            toleration[field] = given.into();
        }
    }
    Ok(toleration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_read_as_kubectl_writes_them() {
        for (text, expected) in [
            ("gpu", json!({"key": "gpu", "operator": "Exists"})),
            (
                "gpu=a:NoSchedule",
                json!({"key": "gpu", "operator": "Equal", "value": "a", "effect": "NoSchedule"}),
            ),
            (
                "a.b/c:NoExecute",
                json!({"key": "a.b/c", "operator": "Exists", "effect": "NoExecute"}),
            ),
        ] {
            assert_eq!(toleration(text), Ok(expected));
        }
        for text in ["", "=a", ":NoSchedule", "gpu:Sometimes"] {
            assert!(toleration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn flags_replace_what_the_file_says_of_pods() {
        let mut parties = party_settings(
            "{image: a, priorityClassName: low, resources: {requests: {cpu: '1'}}, nodeSelector: {a: b}}",
        )
        .unwrap();
        Pods::default().apply(&mut parties);
        assert_eq!(parties.len(), 4, "nothing was given");
        let pairs = |text: &str| vec![pair(text).unwrap()];
        let pods = Pods {
            parties: Some(party_settings("{priorityClassName: high, schedulerName: s}").unwrap()),
            image: Some("b".into()),
            image_pull_secrets: vec!["key".into()],
            limits: pairs("memory=1Gi"),
            node_selector: pairs("c=d"),
            tolerations: vec![toleration("gpu").unwrap()],
            ..Pods::default()
        };
        pods.apply(&mut parties);
        let expected = json!({
            "image": "b",
            "imagePullSecrets": [{"name": "key"}],
            "priorityClassName": "high",
            "schedulerName": "s",
            "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
            "nodeSelector": {"c": "d"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
        });
        assert_eq!(Value::Object(parties), expected);
    }
}
