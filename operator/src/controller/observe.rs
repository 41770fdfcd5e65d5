//! What is observed of a resource's objects: from the API server while it runs, from the watches
//! once it is finished.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::context::{Context, of_job};
use super::error::{Error, failed};
use crate::api::v1alpha1::SecureInference;
use crate::plan::Observed;
use crate::resources::{self, JOB_UID};

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
            let policies = policies.iter().filter(|policy| mine(policy.labels()));
            observed.policies = policies.map(|policy| policy.name_any()).collect();
        } else {
            let (pods, services, policies) = tokio::try_join!(
                self.list::<Pod>(resource, namespace, &uid),
                self.list::<Service>(resource, namespace, &uid),
                self.list::<PartialObjectMeta<NetworkPolicy>>(resource, namespace, &uid),
            )?;
            observed.pods = pods;
            observed.services = services;
            observed.policies = policies.iter().map(ResourceExt::name_any).collect();
        }
        observed.pods.retain(|pod| resources::owned_by(pod.owner_references(), &uid));
        Ok(observed)
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
