//! What is observed of a resource's objects: from the API server while it runs, from the watches
//! once it is finished.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::context::{Context, of_job};
use super::error::{Error, failed};
use crate::api::v1alpha1::SecureInference;
use crate::plan::Observed;
use crate::resources::{self, JOB, JOB_UID};

impl Context {
    pub(super) async fn observe(
        &self,
        resource: &SecureInference,
        namespace: &str,
        settled: bool,
    ) -> Result<Observed, Error> {
        let uid = resource.uid().unwrap_or_default();
        let now = Timestamp::now();
        let refusal = self.remember(&uid, |memory| memory.refusal.clone());
        let mut observed = Observed {
            now: now.round(Unit::Microsecond).unwrap_or(now),
            pods: Vec::new(),
            predecessors: Vec::new(),
            services: Vec::new(),
            policies: Default::default(),
            admitted: self.queue.is_admitted(&uid),
            others_wait: self.queue.others_wait(&uid),
            refusal,
        };
        if settled {
            let mine = |labels: &BTreeMap<String, String>| labels.get(JOB_UID) == Some(&uid);
            let pods = self.pods.state();
            observed.pods =
                pods.iter().filter(|pod| mine(pod.labels())).map(|pod| (**pod).clone()).collect();
            let services = self.services.state();
            let services = services.iter().filter(|service| mine(service.labels()));
            observed.services = services
                .map(|service| Service { metadata: service.metadata.clone(), ..Service::default() })
                .collect();
            let policies = self.policies.state();
            let policies = policies.iter().filter(|policy| {
                mine(policy.labels()) && resources::owned_by(policy.owner_references(), &uid)
            });
            observed.policies = policies.map(|policy| policy.name_any()).collect();
        } else {
            let (pods, services, mut policies) = tokio::try_join!(
                self.list::<Pod>(resource, namespace, &uid),
                self.list::<Service>(resource, namespace, &uid),
                self.list::<PartialObjectMeta<NetworkPolicy>>(resource, namespace, &uid),
            )?;
            observed.pods = pods;
            observed.predecessors = self.predecessors(resource, namespace, &uid);
            observed.services = services;
            keep_owned(&mut policies, &uid);
            observed.policies = policies.iter().map(ResourceExt::name_any).collect();
        }
        keep_owned(&mut observed.pods, &uid);
        keep_owned(&mut observed.services, &uid);
        Ok(observed)
    }

    /// Pods of an earlier resource of this name, as they are watched.
    fn predecessors(&self, resource: &SecureInference, namespace: &str, uid: &str) -> Vec<Pod> {
        let name = resource.name_any();
        let pods = self.pods.state();
        let earlier = pods.iter().filter(|pod| {
            pod.metadata.namespace.as_deref() == Some(namespace)
                && pod.labels().get(JOB) == Some(&name)
                && is_of_an_earlier(pod.owner_references(), &name, uid)
        });
        earlier.map(|pod| (**pod).clone()).collect()
    }

    async fn list<K>(
        &self,
        resource: &SecureInference,
        namespace: &str,
        uid: &str,
    ) -> Result<Vec<K>, Error>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let found = api.list(&of_job(uid)).await;
        Ok(found.map_err(|error| failed("list the objects", resource, error))?.items)
    }
}

/// Whether an object is of an earlier resource of this name: without that, it goes. One that a deletion
/// has orphaned stays, and nobody waits for it.
fn is_of_an_earlier(owners: &[OwnerReference], name: &str, uid: &str) -> bool {
    owners.iter().any(|owner| {
        owner.controller == Some(true)
            && owner.kind == SecureInference::kind(&())
            && owner.name == name
            && owner.uid != uid
    })
}

/// Drops objects that only have a run's labels: those that a deletion has orphaned, and those
/// that somebody else has labelled so.
fn keep_owned<K: Resource>(objects: &mut Vec<K>, uid: &str) {
    objects.retain(|object| resources::owned_by(object.owner_references(), uid));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn nothing_of_another_run_is_taken_for_this_ones() {
        let pod = |name: &str, owners: Value| -> Pod {
            let labels = json!({"secureinference.dev/job-uid": "new"});
            let metadata = json!({"name": name, "labels": labels, "ownerReferences": owners});
            serde_json::from_value(json!({"metadata": metadata})).unwrap()
        };
        let owner = |uid: &str, controller: bool| {
            let version = "secureinference.dev/v1alpha1";
            json!([{"apiVersion": version, "kind": "SecureInference", "name": "run", "uid": uid, "controller": controller}])
        };
        let mut pods = vec![
            pod("own", owner("new", true)),
            pod("of-an-older-run-of-this-name", owner("old", true)),
            pod("orphaned", json!([])),
            pod("not-controlled", owner("new", false)),
        ];
        let earlier =
            pods.iter().filter(|pod| is_of_an_earlier(pod.owner_references(), "run", "new"));
        let earlier: Vec<String> = earlier.map(ResourceExt::name_any).collect();
        assert_eq!(earlier, ["of-an-older-run-of-this-name"], "what is orphaned is not waited for");
        keep_owned(&mut pods, "new");
        assert_eq!(pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["own"]);
    }
}
