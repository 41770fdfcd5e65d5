//! What resources may use of the cluster. Whoever may create a resource has the operator create
//! pods, with the operator's permissions; this bounds which.
//!
//! Pure: knows what a resource asks for and how the operator was started.

use clap::Args;
use serde_json::Value;

use crate::api::v1alpha1::{PodSettings, SecureInference, SecureInferenceSpec, VolumeSource};
use crate::job::{self, Invalid, Job};

/// Kinds of volumes that are mounted unless the operator is told otherwise: those that reach
/// nothing but what its namespace has anyway.
const VOLUME_KINDS: &str = "persistentVolumeClaim,configMap,emptyDir,csi,ephemeral";

/// Node labels of these domains are allowed by name only, not by `*`: they mark control planes,
/// and nodes that are reserved.
const GUARDED_NODES: [&str; 2] = ["node-role.kubernetes.io/", "node-restriction.kubernetes.io/"];

/// Labels with a domain that pods may be given unless the operator is told otherwise: the queue
/// of Kueue. Others have meshes and clouds add containers and tokens.
const LABELS: &str = "kueue.x-k8s.io/";

/// Annotations with a domain, likewise: what keeps autoscalers from moving a pod, and the size of
/// Kueue's group of pods.
const ANNOTATIONS: &str = "cluster-autoscaler.kubernetes.io/,karpenter.sh/,kueue.x-k8s.io/";

/// Priority classes that begin so are allowed by name only: they are for the cluster's own pods.
const SYSTEM: &str = "system-";

/// The largest start deadline unless the operator is told otherwise, seconds.
const MAX_START_DEADLINE: u32 = 3600;

/// The settings of the policy on the command line: lists with commas between their entries.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What resources may use")]
pub struct PolicyArguments {
    /// Kinds of volumes, as in a pod's `volumes`
    #[arg(
        long = "allow-volume-kinds",
        value_name = "LIST",
        default_value = VOLUME_KINDS,
        env = "OPERATOR_ALLOW_VOLUME_KINDS"
    )]
    volume_kinds: String,
    /// Images besides --party-image: names with or without a tag, prefixes that end in `/`, or *
    #[arg(
        long = "allow-images",
        value_name = "LIST",
        default_value = "",
        env = "OPERATOR_ALLOW_IMAGES"
    )]
    images: String,
    /// Keys of taints that may be tolerated; a key may end in `/` for all of a domain, or be *
    #[arg(
        long = "allow-tolerations",
        value_name = "LIST",
        default_value = "",
        env = "OPERATOR_ALLOW_TOLERATIONS"
    )]
    tolerations: String,
    /// Keys of labels that select nodes, likewise; * without those of node-role.kubernetes.io and
    /// node-restriction.kubernetes.io
    #[arg(
        long = "allow-node-selectors",
        value_name = "LIST",
        default_value = "*",
        env = "OPERATOR_ALLOW_NODE_SELECTORS"
    )]
    node_selectors: String,
    /// Keys of labels that pods may be given, likewise; those without a domain always
    #[arg(
        long = "allow-labels",
        value_name = "LIST",
        default_value = LABELS,
        env = "OPERATOR_ALLOW_LABELS"
    )]
    labels: String,
    /// Keys of annotations that pods may be given, likewise; those without a domain always
    #[arg(
        long = "allow-annotations",
        value_name = "LIST",
        default_value = ANNOTATIONS,
        env = "OPERATOR_ALLOW_ANNOTATIONS"
    )]
    annotations: String,
    /// PriorityClasses, or * for all that do not begin with `system-`
    #[arg(
        long = "allow-priority-classes",
        value_name = "LIST",
        default_value = "",
        env = "OPERATOR_ALLOW_PRIORITY_CLASSES"
    )]
    priority_classes: String,
    /// RuntimeClasses, or *
    #[arg(
        long = "allow-runtime-classes",
        value_name = "LIST",
        default_value = "",
        env = "OPERATOR_ALLOW_RUNTIME_CLASSES"
    )]
    runtime_classes: String,
    /// The largest spec.startDeadlineSeconds: so long a run without nodes tries again
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = MAX_START_DEADLINE,
        env = "OPERATOR_MAX_START_DEADLINE"
    )]
    max_start_deadline: u32,
}

impl Default for PolicyArguments {
    fn default() -> Self {
        Self {
            volume_kinds: VOLUME_KINDS.into(),
            images: String::new(),
            tolerations: String::new(),
            node_selectors: "*".into(),
            labels: LABELS.into(),
            annotations: ANNOTATIONS.into(),
            priority_classes: String::new(),
            runtime_classes: String::new(),
            max_start_deadline: MAX_START_DEADLINE,
        }
    }
}

/// What resources may use.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The image of parties whose resource names none.
    image: String,
    volume_kinds: Names,
    images: Names,
    tolerations: Names,
    node_selectors: Names,
    labels: Names,
    annotations: Names,
    priority_classes: Names,
    runtime_classes: Names,
    /// Seconds.
    max_start_deadline: u32,
}

/// Names that are allowed: each entry is a name, the start of names if it ends in `/`, or `*`.
#[derive(Clone, Debug)]
struct Names(Vec<String>);

impl Names {
    /// The entries of a list with commas between them.
    fn of(list: &str) -> Self {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        Self(entries.map(str::to_owned).collect())
    }

    /// Whether an entry is this name, or the start of it.
    fn name(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|entry| name == entry || (entry.ends_with('/') && name.starts_with(entry)))
    }

    /// Whether an entry is `*`.
    fn all(&self) -> bool {
        self.0.iter().any(|entry| entry == "*")
    }

    /// Whether a name is allowed; `*` is for those that are `ordinary`.
    fn name_or_all(&self, name: &str, ordinary: bool) -> bool {
        self.name(name) || (ordinary && self.all())
    }

    /// Whether an image is allowed: an entry without a tag allows all tags and digests.
    fn image(&self, image: &str) -> bool {
        let of_name = |entry: &String| {
            let rest = image.strip_prefix(entry.as_str());
            rest.is_some_and(|rest| rest.starts_with([':', '@']))
        };
        self.all() || self.name(image) || self.0.iter().any(of_name)
    }

    /// What an administrator reads of it.
    fn shown(&self) -> String {
        if self.0.is_empty() { "none".into() } else { self.0.join(", ") }
    }
}

impl Default for Policy {
    /// What the command line has by default, with no image of parties.
    fn default() -> Self {
        Self::new(&PolicyArguments::default(), "")
    }
}

impl Policy {
    /// The policy of a command line. `image` is that of parties whose resource names none, and
    /// is always allowed.
    #[must_use]
    pub fn new(arguments: &PolicyArguments, image: &str) -> Self {
        Self {
            image: image.into(),
            volume_kinds: Names::of(&arguments.volume_kinds),
            images: Names::of(&arguments.images),
            tolerations: Names::of(&arguments.tolerations),
            node_selectors: Names::of(&arguments.node_selectors),
            labels: Names::of(&arguments.labels),
            annotations: Names::of(&arguments.annotations),
            priority_classes: Names::of(&arguments.priority_classes),
            runtime_classes: Names::of(&arguments.runtime_classes),
            max_start_deadline: arguments.max_start_deadline,
        }
    }

    /// The job of a resource that is valid and uses nothing but what it may.
    ///
    /// # Errors
    /// What is wrong with it, for its user.
    pub fn job(&self, resource: &SecureInference) -> Result<Job, Invalid> {
        self.check(&resource.spec)?;
        Job::of(resource)
    }

    /// Checks what a resource asks for.
    ///
    /// # Errors
    /// The first thing that it may not use, and the setting that would allow it.
    pub fn check(&self, spec: &SecureInferenceSpec) -> Result<(), Invalid> {
        if let Some(image) = spec.parties.image.as_ref()
            && *image != self.image
            && !self.images.image(image)
        {
            let found = format!("spec.parties.image is {image}");
            return refuse(&found, "images besides its own", &self.images, "--allow-images");
        }
        let model = &spec.model;
        if let Some(volume) = &model.volume {
            self.check_volume("spec.model.volume", &volume.source)?;
        }
        for (name, player) in model.graph.iter().flat_map(|graph| &graph.players) {
            if let Some(source) = &player.source {
                self.check_volume(&format!("spec.model.graph.players.{name}"), source)?;
            }
        }
        let (found, most) = (spec.start_deadline_seconds, self.max_start_deadline);
        if found > most {
            return Err(Invalid(format!(
                "spec.startDeadlineSeconds is {found}, and this operator allows at most {most} \
                 (its --max-start-deadline)"
            )));
        }
        spec.pods().iter().try_for_each(|(place, pod)| self.check_pod(place, pod))
    }

    fn check_volume(&self, place: &str, source: &VolumeSource) -> Result<(), Invalid> {
        for kind in source.0.keys() {
            // That it is no kind is said by the check of volumes.
            if kind != "name" && !self.volume_kinds.all() && !self.volume_kinds.name(kind) {
                let found = format!("{place}.source is a volume of kind {kind}");
                let allowed = &self.volume_kinds;
                return refuse(&found, "kinds of volumes", allowed, "--allow-volume-kinds");
            }
        }
        // A driver reads the Secret in the user's place.
        let driver = source.0.get("csi").and_then(|csi| csi.get("nodePublishSecretRef"));
        if driver.is_some_and(|secret| !secret.is_null())
            && !self.volume_kinds.all()
            && !self.volume_kinds.name("secret")
        {
            let found =
                format!("{place}.source has a nodePublishSecretRef, as a volume of kind secret");
            let allowed = &self.volume_kinds;
            return refuse(&found, "kinds of volumes", allowed, "--allow-volume-kinds");
        }
        // Whatever kinds are allowed.
        match forbidden(&Value::Object(source.0.clone())) {
            Some(why) => Err(Invalid(format!("{place}.source {why}"))),
            None => Ok(()),
        }
    }

    fn check_pod(&self, place: &str, pod: &PodSettings) -> Result<(), Invalid> {
        for toleration in pod.tolerations.iter().flatten() {
            let key = toleration.key.as_deref().unwrap_or_default();
            if !self.tolerations.all() && (key.is_empty() || !self.tolerations.name(key)) {
                let what = if key.is_empty() { "every taint" } else { key };
                let found = format!("{place}.tolerations tolerates {what}");
                return refuse(&found, "taints", &self.tolerations, "--allow-tolerations");
            }
        }
        let selected = pod.node_selector.iter().flatten().map(|(key, _)| ("nodeSelector", key));
        let affinity = pod.affinity.as_ref().and_then(|own| own.0.get("nodeAffinity"));
        let mut preferred = Vec::new();
        keys(affinity.unwrap_or(&Value::Null), &mut preferred);
        let preferred = preferred.iter().map(|key| ("affinity.nodeAffinity", key));
        for (field, key) in selected.chain(preferred) {
            let guarded = GUARDED_NODES.iter().any(|domain| key.starts_with(domain));
            if !self.node_selectors.name_or_all(key, !guarded) {
                let found = format!("{place}.{field} has {key}");
                let allowed = &self.node_selectors;
                return refuse(&found, "labels of nodes", allowed, "--allow-node-selectors");
            }
        }
        for (field, map, allowed, flag) in [
            ("labels", &pod.labels, &self.labels, "--allow-labels"),
            ("annotations", &pod.annotations, &self.annotations, "--allow-annotations"),
        ] {
            // A key without a domain means something in its namespace alone, where Services and
            // NetworkPolicies may select by it.
            let mut meaning =
                map.iter().flatten().map(|(key, _)| key).filter(|key| key.contains('/'));
            if let Some(key) = meaning.find(|key| !allowed.all() && !allowed.name(key)) {
                let found = format!("{place}.{field} has {key}");
                return refuse(&found, &format!("{field} with a domain"), allowed, flag);
            }
        }
        let between = pod.affinity.iter().flat_map(|own| &own.0);
        let between = between.filter(|(kind, _)| kind.as_str() != "nodeAffinity");
        if let Some(field) = between.map(|(_, terms)| terms).find_map(beyond) {
            return Err(Invalid(format!(
                "{place}.affinity has {field}: pods of other namespaces do not place the parties', \
                 nor the parties' theirs"
            )));
        }
        let classes = [
            (
                "priorityClassName",
                &pod.priority_class_name,
                "priority classes",
                &self.priority_classes,
                "--allow-priority-classes",
            ),
            (
                "runtimeClassName",
                &pod.runtime_class_name,
                "runtime classes",
                &self.runtime_classes,
                "--allow-runtime-classes",
            ),
        ];
        for (field, name, what, allowed, flag) in classes {
            if let Some(name) = name
                && !allowed.name_or_all(name, !name.starts_with(SYSTEM))
            {
                return refuse(&format!("{place}.{field} is {name}"), what, allowed, flag);
            }
        }
        Ok(())
    }
}

/// All values of `key` in a value.
fn keys(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("key").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| keys(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        _ => {}
    }
}

/// The first thing that `test` finds in a value, or within it.
fn find<T>(value: &Value, test: &impl Fn(&Value) -> Option<T>) -> Option<T> {
    let within = || match value {
        Value::Object(fields) => fields.values().find_map(|value| find(value, test)),
        Value::Array(items) => items.iter().find_map(|value| find(value, test)),
        _ => None,
    };
    test(value).or_else(within)
}

/// What in a rule between pods reaches beyond the namespace.
fn beyond(terms: &Value) -> Option<&'static str> {
    find(terms, &|value| {
        let named = ["namespaces", "namespaceSelector"];
        named.into_iter().find(|field| value.get(*field).is_some_and(|v| !v.is_null()))
    })
}

/// What no party may mount, wherever in a volume it is: a token for the API, and a Secret of a
/// party. The operator cannot read Secrets, and tells its own by their names.
fn forbidden(volume: &Value) -> Option<String> {
    find(volume, &|value| match value {
        Value::Object(fields) if fields.contains_key("serviceAccountToken") => {
            Some("has a serviceAccountToken: no party gets a token of a service account".into())
        }
        Value::String(name) if job::is_party_object(name) => Some(format!(
            "names {name}, which is a name of the operator's own objects: no party mounts another's Secret"
        )),
        _ => None,
    })
}

fn refuse<T>(found: &str, what: &str, allowed: &Names, flag: &str) -> Result<T, Invalid> {
    let allowed = allowed.shown();
    Err(Invalid(format!(
        "{found}, which this operator does not allow; allowed {what}: {allowed} (the operator's {flag})"
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifests;

    fn spec(value: Value) -> SecureInferenceSpec {
        serde_json::from_value(value).unwrap()
    }

    fn builtin(parties: Value) -> SecureInferenceSpec {
        spec(json!({"model": {"builtin": "A"}, "parties": parties}))
    }

    fn volume(source: Value) -> SecureInferenceSpec {
        spec(json!({"model": {"volume": {"network": "A", "path": "w", "source": source}}}))
    }

    fn player(player: Value) -> SecureInferenceSpec {
        spec(json!({"model": {"graph": {"definition": "", "players": {"alice": player}}}}))
    }

    fn check(arguments: PolicyArguments, spec: &SecureInferenceSpec) -> Result<(), String> {
        Policy::new(&arguments, "registry/own:1").check(spec).map_err(|invalid| invalid.0)
    }

    #[test]
    fn by_default_a_resource_reaches_nothing_but_its_namespace_and_ordinary_nodes() {
        let key = |key: &str| json!({"nodeSelector": {key: ""}});
        let claim = json!({"persistentVolumeClaim": {"claimName": "a"}});
        let accepted = [
            builtin(json!({})),
            builtin(json!({"image": "registry/own:1"})),
            builtin(key("example.org/gpu")),
            volume(claim.clone()),
            volume(json!({"configMap": {"name": "a"}})),
            volume(json!({"emptyDir": {}})),
            volume(json!({"csi": {"driver": "a.b"}})),
            volume(json!({"ephemeral": {}})),
            player(json!({"source": claim, "pod": key("zone")})),
            builtin(json!({"labels": {"team": "a", "kueue.x-k8s.io/queue-name": "lab"}})),
            builtin(json!({"annotations": {"note": "a", "karpenter.sh/do-not-disrupt": "true"}})),
            builtin(json!({"affinity": {"nodeAffinity": {"x": [{"key": "zone"}]}}})),
            builtin(json!({"schedulerName": "another", "userIds": "Platform"})),
            builtin(json!({"affinity": {"podAntiAffinity": {"x": [{"topologyKey": "zone"}]}}})),
            volume(json!({"csi": {"driver": "a.b", "nodePublishSecretRef": null}})),
        ];
        for spec in accepted {
            assert_eq!(check(PolicyArguments::default(), &spec), Ok(()), "{spec:?}");
        }
        let token = json!({"sources": [{"serviceAccountToken": {"path": "token"}}]});
        let refused = [
            (
                builtin(
                    json!({"affinity": {"podAntiAffinity": {"x": [{"namespaceSelector": {}}]}}}),
                ),
                "spec.parties.affinity has namespaceSelector: pods of other namespaces do not place \
                 the parties', nor the parties' theirs",
            ),
            (
                volume(json!({"csi": {"driver": "a.b", "nodePublishSecretRef": {"name": "db"}}})),
                "spec.model.volume.source has a nodePublishSecretRef, as a volume of kind secret, \
                 which this operator does not allow; allowed kinds of volumes: \
                 persistentVolumeClaim, configMap, emptyDir, csi, ephemeral (the operator's \
                 --allow-volume-kinds)",
            ),
            (
                builtin(json!({"image": "registry/own:2"})),
                "spec.parties.image is registry/own:2, which this operator does not allow; allowed \
                 images besides its own: none (the operator's --allow-images)",
            ),
            (
                volume(json!({"hostPath": {"path": "/"}})),
                "spec.model.volume.source is a volume of kind hostPath, which this operator does not \
                 allow; allowed kinds of volumes: persistentVolumeClaim, configMap, emptyDir, csi, \
                 ephemeral (the operator's --allow-volume-kinds)",
            ),
            (
                player(json!({"source": {"secret": {"secretName": "a-1-server0"}}})),
                "spec.model.graph.players.alice.source is a volume of kind secret, ",
            ),
            (player(json!({"source": {"projected": token}})), " of kind projected, "),
            (player(json!({"source": {"nfs": {"server": "a", "path": "/"}}})), " of kind nfs, "),
            (
                builtin(json!({"tolerations": [{"operator": "Exists"}]})),
                "spec.parties.tolerations tolerates every taint, which this operator does not allow; \
                 allowed taints: none (the operator's --allow-tolerations)",
            ),
            (
                builtin(json!({"client": {"tolerations": [{"key": "gpu"}]}})),
                "spec.parties.client.tolerations tolerates gpu, ",
            ),
            (
                builtin(json!({"modelOwner": key("node-role.kubernetes.io/control-plane")})),
                "spec.parties.modelOwner.nodeSelector has node-role.kubernetes.io/control-plane, which \
                 this operator does not allow; allowed labels of nodes: * (the operator's \
                 --allow-node-selectors)",
            ),
            (
                player(json!({"pod": key("node-restriction.kubernetes.io/a")})),
                "spec.model.graph.players.alice.pod.nodeSelector has node-restriction.",
            ),
            (
                builtin(
                    json!({"affinity": {"nodeAffinity": {"x": [[{"key": "node-role.kubernetes.io/a"}]]}}}),
                ),
                "spec.parties.affinity.nodeAffinity has node-role.kubernetes.io/a, ",
            ),
            (
                builtin(json!({"labels": {"sidecar.istio.io/inject": "true"}})),
                "spec.parties.labels has sidecar.istio.io/inject, which this operator does not allow; \
                 allowed labels with a domain: kueue.x-k8s.io/ (the operator's --allow-labels)",
            ),
            (
                builtin(json!({"server0": {"annotations": {"k8s.v1.cni.cncf.io/networks": "a"}}})),
                "spec.parties.server0.annotations has k8s.v1.cni.cncf.io/networks, ",
            ),
            (
                builtin(json!({"priorityClassName": "system-node-critical"})),
                "spec.parties.priorityClassName is system-node-critical, which this operator does not \
                 allow; allowed priority classes: none (the operator's --allow-priority-classes)",
            ),
            (
                player(json!({"pod": {"runtimeClassName": "unconfined"}})),
                "spec.model.graph.players.alice.pod.runtimeClassName is unconfined, ",
            ),
        ];
        for (spec, problem) in refused {
            let found = check(PolicyArguments::default(), &spec).unwrap_err();
            assert!(found.contains(problem), "{found}\nexpected: {problem}");
        }
    }

    #[test]
    fn lists_allow_names_starts_of_names_and_everything() {
        type Set = fn(&mut PolicyArguments, String);
        let images: Set = |arguments, list| arguments.images = list;
        let kinds: Set = |arguments, list| arguments.volume_kinds = list;
        let taints: Set = |arguments, list| arguments.tolerations = list;
        let nodes: Set = |arguments, list| arguments.node_selectors = list;
        let image = |image: &str| builtin(json!({"image": image}));
        let kind = |kind: &str| volume(json!({kind: {}}));
        let taint = |key: &str| builtin(json!({"tolerations": [{"key": key}]}));
        let all_taints = || builtin(json!({"tolerations": [{"operator": "Exists"}]}));
        let node = |key: &str| builtin(json!({"nodeSelector": {key: ""}}));
        let role = "node-role.kubernetes.io/edge";
        let priorities: Set = |arguments, list| arguments.priority_classes = list;
        let priority = |name: &str| builtin(json!({"priorityClassName": name}));
        for (set, list, spec, allowed) in [
            (images, "registry/team/", image("registry/team/party:1"), true),
            (images, "registry/team/", image("registry/teams/party:1"), false),
            (images, "registry/team", image("registry/team/party:1"), false),
            (images, "registry/party", image("registry/party:1"), true),
            (images, "registry/party", image("registry/party@sha256:00"), true),
            (images, "registry/party", image("registry/party"), true),
            (images, "registry/party", image("registry/party-of-mine:1"), false),
            (images, "registry/party:1", image("registry/party:1"), true),
            (images, "registry/party:1", image("registry/party:10"), false),
            (images, "registry", image("registry.evil.example/party"), false),
            (images, " a/ , b/ ", image("b/c"), true),
            (images, "*", image("evil.example/party"), true),
            (kinds, "nfs", kind("nfs"), true),
            (kinds, "nfs", kind("emptyDir"), false),
            (kinds, "", kind("emptyDir"), false),
            (kinds, "*", kind("hostPath"), true),
            (taints, "gpu", taint("gpu"), true),
            (taints, "gpu", taint("gpus"), false),
            (taints, "gpu", all_taints(), false),
            (taints, "example.org/", taint("example.org/gpu"), true),
            (taints, "*", taint("gpu"), true),
            (taints, "*", all_taints(), true),
            (nodes, "", node("gpu"), false),
            (nodes, "gpu", node("gpu"), true),
            (nodes, "*", node(role), false),
            (nodes, role, node(role), true),
            (nodes, "*,node-role.kubernetes.io/", node(role), true),
            (priorities, "high", priority("high"), true),
            (priorities, "high", priority("higher"), false),
            (priorities, "*", priority("high"), true),
            (priorities, "*", priority("system-node-critical"), false),
            (priorities, "system-node-critical", priority("system-node-critical"), true),
        ] {
            let mut arguments = PolicyArguments::default();
            set(&mut arguments, list.into());
            let found = check(arguments, &spec);
            assert_eq!(found.is_ok(), allowed, "{list}: {spec:?}: {found:?}");
        }
    }

    #[test]
    fn no_party_gets_a_token_or_anothers_secret_whatever_kinds_are_allowed() {
        let own = format!("{}-1-server0", job::stem("victim", "uid"));
        let projected = |source: Value| json!({"projected": {"sources": [{"configMap": {"name": "a"}}, source]}});
        let (token, secret) = ("no party gets a token", "no party mounts another's Secret");
        for (source, problem) in [
            (json!({"secret": {"secretName": "credentials"}}), None),
            (projected(json!({"secret": {"name": "credentials"}})), None),
            (projected(json!({"serviceAccountToken": {"path": "token"}})), Some(token)),
            (json!({"secret": {"secretName": own}}), Some(secret)),
            (projected(json!({"secret": {"name": own}})), Some(secret)),
            (json!({"csi": {"driver": "a", "nodePublishSecretRef": {"name": own}}}), Some(secret)),
        ] {
            let arguments = PolicyArguments { volume_kinds: "*".into(), ..Default::default() };
            let found = check(arguments, &volume(source)).err();
            let said = found.as_deref().zip(problem);
            assert_eq!(found.is_some(), problem.is_some(), "{found:?}");
            assert!(said.is_none_or(|(found, problem)| found.contains(problem)), "{found:?}");
        }
    }

    #[test]
    fn nobody_tries_to_start_for_longer_than_allowed() {
        let spec = |seconds: u32| SecureInferenceSpec {
            start_deadline_seconds: seconds,
            ..builtin(json!({}))
        };
        assert_eq!(check(PolicyArguments::default(), &spec(3600)), Ok(()));
        let found = check(PolicyArguments::default(), &spec(3601)).unwrap_err();
        assert_eq!(
            found,
            "spec.startDeadlineSeconds is 3601, and this operator allows at most 3600 (its \
             --max-start-deadline)"
        );
        let longer = PolicyArguments { max_start_deadline: 86_400, ..PolicyArguments::default() };
        assert_eq!(check(longer, &spec(86_400)), Ok(()));
    }

    #[test]
    fn every_sample_is_allowed_by_default() {
        for sample in manifests::samples().unwrap() {
            for resource in &sample.resources {
                Policy::default().check(&resource.spec).unwrap();
            }
        }
    }

    #[test]
    fn what_is_allowed_is_validated_besides() {
        let resource = SecureInference::new("a", builtin(json!({})));
        let found = Policy::default().job(&resource).unwrap_err();
        assert!(found.0.contains("it is not from an API server"), "{found}");
    }
}
