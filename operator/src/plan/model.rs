//! What a decision is made from, and what it is.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::Timestamp;
use party::config::Session;
use spdz::channel::Role;

use crate::api::v1alpha1::SecureInferenceStatus;
use crate::job::Addresses;

/// What is known about a resource's objects.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The time.
    pub now: Timestamp,
    /// Its pods, of all attempts.
    pub pods: Vec<Pod>,
    /// Pods of an earlier resource of its name, which go because that was deleted.
    pub predecessors: Vec<Pod>,
    /// Its Services, of all attempts.
    pub services: Vec<Service>,
    /// The names of its NetworkPolicies.
    pub policies: BTreeSet<String>,
    /// Whether it is admitted: its pods may be scheduled now.
    pub admitted: bool,
    /// Whether other resources wait to be admitted.
    pub others_wait: bool,
    /// What the API server would not make when that was last tried.
    pub refusal: Option<Refusal>,
}

/// An object that the API server would not make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was tried, and the API server's words.
    pub message: String,
    /// Whether it would refuse it again, whenever it is asked.
    pub permanent: bool,
}

/// Something to do, in the order of the list.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the NetworkPolicies.
    ApplyPolicies,
    /// Make the Services of the servers of an attempt.
    ApplyServices(u32),
    /// Make a session and identities, a Secret for each role, and then all pods.
    StartParties {
        /// The attempt.
        attempt: u32,
        /// Where the servers will be.
        addresses: Addresses,
    },
    /// Make pods that are missing after an interrupted start.
    CompleteParties {
        /// The attempt.
        attempt: u32,
        /// The missing.
        roles: Vec<Role>,
        /// The session of those that are there.
        session: Session,
    },
    /// Delete the Secrets of an attempt, then pods, then its Services.
    TearDown {
        /// The attempt.
        attempt: u32,
        /// Which pods go.
        pods: Pods,
    },
    /// Delete pods without waiting for their node, which does not answer.
    ForgetPods(Vec<String>),
    /// Delete the NetworkPolicies.
    RemovePolicies,
    /// Delete the resource.
    DeleteResource,
}

/// Which pods of an attempt are deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pods {
    /// All of them.
    All,
    /// These; others have ended and are kept for their logs.
    Named(Vec<String>),
}

/// What a run needs of the [admission queue](crate::admission_queue): the pods of one run are
/// scheduled at a time, so that no two wait for each other with half of their pods on nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nothing; others may be admitted.
    Release,
    /// Nothing for now: it leaves its place to others, and goes behind those that wait.
    GiveWay,
    /// It would begin an attempt if it were admitted.
    Request,
    /// It stays admitted while it has pods without a node.
    Hold,
}

/// What to do about a resource.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The status to publish first.
    pub status: SecureInferenceStatus,
    /// What to do then.
    pub actions: Vec<Action>,
    /// What it needs of the admission queue.
    pub admission: Admission,
    /// When to look again, if nothing happens before.
    pub again_at: Option<Timestamp>,
}
