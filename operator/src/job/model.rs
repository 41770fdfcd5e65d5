//! What a resource asks for, once it is validated.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Volume;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use party::config::Computation;
use spdz::channel::Role;

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

impl Job {
    /// The name of an attempt's object for a role.
    #[must_use]
    pub fn object_name(&self, attempt: u32, role: Role) -> String {
        format!("{}-{attempt}-{role}", self.name)
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
    use super::*;
    use crate::api::v1alpha1::Parties;
    use crate::job::tests::{job, network, sum};

    #[test]
    fn what_is_set_for_a_role_replaces_what_is_set_for_all() {
        let on = |node: &str| Some([("node".to_owned(), node.to_owned())].into());
        let settings =
            |node: &str| PodSettings { node_selector: on(node), ..PodSettings::default() };
        let parties = Parties {
            node_selector: on("any"),
            tolerations: Some(vec![Default::default()]),
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

        let mut spec = SecureInferenceSpec { parties, ..sum() };
        let players = &mut spec.model.graph.as_mut().unwrap().players;
        players.get_mut("bob").unwrap().pod = Some(settings("three"));
        let graphs = job(spec);
        assert_eq!(graphs.pod_settings("bob".parse().unwrap()).node_selector, on("three"));
        assert_eq!(graphs.pod_settings("alice".parse().unwrap()).node_selector, on("any"));
    }
}
