//! What a resource asks for, once it is validated.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Volume;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use party::config::Computation;
use spdz::channel::Role;
use spdz::network::Builtin;

use crate::api::v1alpha1::{Player, PodSettings, SecureInferenceSpec};

/// The port on which servers listen for their peers.
pub const PARTY_PORT: u16 = 7000;

/// The port of health and metrics.
pub const METRICS_PORT: u16 = 9400;

/// Where a party's own Secret is mounted.
pub const IDENTITY_FOLDER: &str = "/etc/secure-inference";

/// The configuration in that Secret.
pub const CONFIG_FILE: &str = "party.yaml";

/// Where a player's volume is mounted.
pub const VOLUME_FOLDER: &str = "/data";

/// The name of a player's volume in its pod.
pub const VOLUME: &str = "data";

/// Hexadecimal digits in names of objects that tell whose they are.
const UID_DIGITS: usize = 10;

/// Bytes of a resource's name in names of its objects: with the digits, an attempt of six digits
/// and a server's role the name of a Service fits into the 63 of a DNS label.
const STEM_BYTES: usize = 37;

/// Images in the test set.
pub(super) const TEST_IMAGES: u32 = 10_000;

/// A checked resource.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its unique id.
    pub uid: String,
    /// What every object of it refers to.
    pub owner: OwnerReference,
    /// What it asks for.
    pub spec: SecureInferenceSpec,
    /// What the parties compute.
    pub computation: Computation,
    /// The name of what they compute.
    pub network: String,
    /// Which of the paper's networks that is; none of them with a graph.
    pub builtin: Option<Builtin>,
    /// All parties, servers and producer first.
    pub roles: Vec<Role>,
    /// The player that starts evaluations and measures them.
    pub coordinator: Role,
    /// A digest of what may not change once the resource was accepted.
    pub digest: String,
    pub(super) volumes: BTreeMap<Role, PartyVolume>,
}

/// What a party mounts besides its Secret.
#[derive(Clone, Debug)]
pub struct PartyVolume {
    /// The volume, named [`VOLUME`].
    pub volume: Volume,
    /// Whether the party may write on it.
    pub writable: bool,
}

/// What the names of a resource's objects begin with: its name, as far as there is room for it,
/// and digits of a hash of its unique id, so that no other resource's objects have these names.
#[must_use]
pub fn stem(name: &str, uid: &str) -> String {
    let name = name.get(..STEM_BYTES).unwrap_or(name).trim_end_matches('-');
    let hash = blake3::hash(uid.as_bytes()).to_hex();
    format!("{name}-{}", &hash[..UID_DIGITS])
}

/// Whether a name is of the form that objects of parties have: a stem, an attempt and a role.
#[must_use]
pub fn is_party_object(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    parts.windows(3).skip(1).any(|parts| {
        parts[0].len() == UID_DIGITS
            && parts[0].bytes().all(hexadecimal)
            && !parts[1].is_empty()
            && parts[1].bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn object_name(stem: &str, attempt: u32, role: Role) -> String {
    format!("{stem}-{attempt}-{role}")
}

impl Job {
    /// What the names of its objects begin with.
    #[must_use]
    pub fn stem(&self) -> String {
        stem(&self.name, &self.uid)
    }

    /// The name of an attempt's object for a role.
    #[must_use]
    pub fn object_name(&self, attempt: u32, role: Role) -> String {
        object_name(&self.stem(), attempt, role)
    }

    /// The settings of a role's pod.
    #[must_use]
    pub fn pod_settings(&self, role: Role) -> PodSettings {
        let parties = &self.spec.parties;
        let own = match role {
            Role::Server0 => parties.server0.as_ref(),
            Role::Server1 => parties.server1.as_ref(),
            Role::Producer => parties.producer.as_ref(),
            Role::MODEL_OWNER => parties.model_owner.as_ref(),
            Role::CLIENT => parties.client.as_ref(),
            Role::Player(_) => None,
        };
        let player = self.player(role).and_then(|player| player.pod.as_ref());
        parties.settings(player.or(own))
    }

    /// What a role mounts besides its Secret.
    #[must_use]
    pub fn volume(&self, role: Role) -> Option<&PartyVolume> {
        self.volumes.get(&role)
    }

    pub(super) fn player(&self, role: Role) -> Option<&Player> {
        self.spec.model.graph.as_ref()?.players.get(role.name())
    }

    /// Images of the test set that are scored.
    #[must_use]
    pub fn accuracy_samples(&self) -> u32 {
        match (self.spec.workload.accuracy_samples, &self.spec.model.graph) {
            (Some(samples), _) => samples,
            (None, None) => TEST_IMAGES,
            (None, Some(_)) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Toleration;
    use proptest::prelude::*;

    use super::*;
    use crate::api::v1alpha1::Parties;
    use crate::job::tests::{job, network, sum};

    fn name_of_a_resource() -> impl Strategy<Value = String> {
        // Hyphens and digits often: these could be taken for the ends of parts.
        "[a-c]([-a1]{0,46}[a1])?"
    }

    fn role() -> impl Strategy<Value = Role> {
        let player = "[a-c]([-a1]{0,29}[a1])?".prop_map(|name| name.parse().unwrap());
        prop_oneof![Just(Role::Server0), Just(Role::Server1), Just(Role::Producer), player]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_two_objects_have_one_name(
            one in (name_of_a_resource(), 0u8..4, 1u32..120, role()),
            other in (name_of_a_resource(), 0u8..4, 1u32..120, role()),
        ) {
            let name = |(name, uid, attempt, role): &(String, u8, u32, Role)| {
                object_name(&stem(name, &format!("uid-{uid}")), *attempt, *role)
            };
            let names = [name(&one), name(&other)];
            // A unique id has one name.
            let same = one.1 == other.1 && one.2 == other.2 && one.3 == other.3;
            prop_assert!(names[0] != names[1] || same, "{names:?}");
            for name in names {
                prop_assert!(name.starts_with(|first: char| first.is_ascii_lowercase()), "{name}");
                prop_assert!(is_party_object(&name), "{name}");
            }
        }
    }

    #[test]
    fn names_of_objects_are_told_from_others() {
        let long = "a".repeat(48);
        for (name, is) in [
            (format!("{}-1-server0", stem("run", "uid")), true),
            (format!("{}-12-model-owner", stem("a-b-c", "uid")), true),
            (format!("{}-1-server0", stem(&long, "uid")), true),
            (format!("{}-parties", stem("run", "uid")), false),
            ("run-1-server0".into(), false),
            ("credentials".into(), false),
            ("a-0123456789-1".into(), false),
            ("0123456789-1-a".into(), false),
            ("a-0123456789--b".into(), false),
        ] {
            assert_eq!(is_party_object(&name), is, "{name}");
        }
    }

    #[test]
    fn what_is_set_for_a_role_replaces_what_is_set_for_all() {
        let on = |node: &str| Some([("node".to_owned(), node.to_owned())].into());
        let settings =
            |node: &str| PodSettings { node_selector: on(node), ..PodSettings::default() };
        let parties = Parties {
            pods: PodSettings {
                tolerations: Some(vec![Toleration {
                    operator: Some("Exists".into()),
                    ..Default::default()
                }]),
                ..settings("any")
            },
            server1: Some(settings("one")),
            client: Some(settings("two")),
            ..Parties::default()
        };
        let networks = job(SecureInferenceSpec { parties: parties.clone(), ..network() });
        let found = networks.pod_settings(Role::Server1);
        assert_eq!(
            (found.node_selector, found.tolerations.map(|all| all.len())),
            (on("one"), Some(1))
        );
        assert_eq!(networks.pod_settings(Role::Server0).node_selector, on("any"));
        assert_eq!(networks.pod_settings(Role::CLIENT).node_selector, on("two"));

        // A graph has neither.
        let parties = Parties { client: None, ..parties };
        let mut spec = SecureInferenceSpec { parties, ..sum() };
        let players = &mut spec.model.graph.as_mut().unwrap().players;
        players.get_mut("bob").unwrap().pod = Some(settings("three"));
        let graphs = job(spec);
        assert_eq!(graphs.pod_settings("bob".parse().unwrap()).node_selector, on("three"));
        assert_eq!(graphs.pod_settings("alice".parse().unwrap()).node_selector, on("any"));
    }
}
