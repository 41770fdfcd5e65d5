//! Doing what a plan says.

use std::sync::{Mutex, PoisonError};

use futures::{StreamExt, future, stream};
use http::HeaderValue;
use http::header::ACCEPT;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use kube::core::{PartialObjectMeta, Request};
use kube::{Resource, ResourceExt};
use party::config::Session;
use party::identity;
use serde::Serialize;
use serde::de::DeserializeOwned;
use spdz::channel::Role;
use spdz::prg::SessionId;

use super::context::{Context, Guarded, MANAGER, of_job};
use super::error::{Error, failed, gone};
use crate::api::v1alpha1::SecureInference;
use crate::job::{Addresses, Job};
use crate::plan::{Action, Pods};
use crate::resources::{ATTEMPT, JOB_UID, network_policy, owned_by, pod, secret, service};

/// Asks for an object's metadata alone.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Secrets of an attempt that are sent at once: with 67 parties and the largest graph, all of
/// them take more memory than the operator has.
const SECRETS_AT_ONCE: usize = 4;

impl Context {
    /// One after the other; the rest is left when one fails.
    pub(super) async fn act_all(
        &self,
        resource: &SecureInference,
        job: Option<&Job>,
        namespace: &str,
        actions: &[Action],
    ) -> Result<(), Error> {
        for action in actions {
            self.act(resource, job, namespace, action).await?;
        }
        Ok(())
    }

    async fn act(
        &self,
        resource: &SecureInference,
        job: Option<&Job>,
        namespace: &str,
        action: &Action,
    ) -> Result<(), Error> {
        let client = &self.client;
        let job = job.ok_or(Error::NotValidated);
        match action {
            Action::ApplyPolicies => {
                let policies = network_policy::build(job?);
                self.make_all(resource, namespace, "make the NetworkPolicies", &policies).await?;
            }
            Action::ApplyServices(attempt) => {
                let job = job?;
                let services =
                    [Role::Server0, Role::Server1].map(|role| service::build(job, *attempt, role));
                self.make_all(resource, namespace, "make the Services", &services).await?;
            }
            Action::StartParties { attempt, addresses } => {
                self.start(resource, job?, namespace, *attempt, addresses).await?;
            }
            Action::CompleteParties { attempt, roles, session } => {
                self.make_pods(resource, namespace, job?, *attempt, roles, *session).await?;
            }
            Action::TearDown { attempt, pods } => {
                self.tear_down(resource, namespace, *attempt, pods).await?;
            }
            Action::ForgetPods(names) => {
                let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
                for name in names {
                    let params = DeleteParams::default().grace_period(0);
                    gone(api.delete(name, &params).await)
                        .map_err(|error| failed("forget the lost pods", resource, error))?;
                }
            }
            Action::RemovePolicies => {
                let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
                let uid = resource.uid().unwrap_or_default();
                api.delete_collection(&DeleteParams::background(), &of_job(&uid))
                    .await
                    .map_err(|error| failed("delete the NetworkPolicies", resource, error))?;
            }
            Action::DeleteResource => {
                let api: Api<Guarded> = Api::namespaced(client.clone(), namespace);
                let this_one = Preconditions { uid: resource.uid(), resource_version: None };
                let params = DeleteParams::background().preconditions(this_one);
                gone(api.delete(&resource.name_any(), &params).await)
                    .map_err(|error| failed("delete after its time", resource, error))?;
            }
        }
        Ok(())
    }

    /// Makes a session: identities for all roles, their Secrets, and then the pods.
    async fn start(
        &self,
        resource: &SecureInference,
        job: &Job,
        namespace: &str,
        attempt: u32,
        addresses: &Addresses,
    ) -> Result<(), Error> {
        let session = SessionId::fresh()?;
        // The authority's key is gone when this returns.
        let issued = identity::issue(session, &job.roles)?;
        let session = Session(session);
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        // All are answered before anything else is done: one on its way would arrive later.
        let make = async || -> Vec<Error> {
            // Each holds the graph: made as they are sent, not all before the first.
            let secrets = issued.parties.iter().map(|(role, party)| -> Result<Secret, Error> {
                let config = job.config_in(attempt, *role, session, addresses);
                Ok(secret::build(job, attempt, &config, &issued.authority, party)?)
            });
            let errors = Mutex::new(Vec::new());
            let make = async |secret: Result<Secret, Error>| {
                let made = match secret {
                    Ok(secret) => self.create(&api, &secret).await,
                    Err(error) => return keep(&errors, error),
                };
                if let Err(error) = made {
                    keep(&errors, failed("make the Secrets", resource, error));
                }
            };
            stream::iter(secrets).for_each_concurrent(SECRETS_AT_ONCE, make).await;
            errors.into_inner().unwrap_or_else(PoisonError::into_inner)
        };
        let mut errors = make().await;
        if errors.iter().any(Error::already_exists) {
            // What an interrupted start has left is of another session. The operator cannot read
            // Secrets: it deletes those with the attempt's labels, and one that is there after
            // that is somebody else's.
            api.delete_collection(&DeleteParams::background(), &of_attempt(resource, attempt))
                .await
                .map_err(|error| failed("replace the Secrets", resource, error))?;
            errors = make().await.into_iter().map(Error::of_another).collect();
        }
        if let Some(error) = errors.into_iter().next() {
            return Err(error);
        }
        self.make_pods(resource, namespace, job, attempt, &job.roles, session).await
    }

    async fn make_pods(
        &self,
        resource: &SecureInference,
        namespace: &str,
        job: &Job,
        attempt: u32,
        roles: &[Role],
        session: Session,
    ) -> Result<(), Error> {
        let pods: Vec<Pod> = roles
            .iter()
            .map(|role| pod::build(job, attempt, *role, session, &self.defaults))
            .collect();
        self.make_all(resource, namespace, "make the pods", &pods).await
    }

    /// Makes what is not there yet. What exists under such a name is this run's already, or is
    /// left alone: nothing is adopted.
    async fn make_all<K>(
        &self,
        resource: &SecureInference,
        namespace: &str,
        action: &'static str,
        objects: &[K],
    ) -> Result<(), Error>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Serialize
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let make = objects.iter().map(async |object| {
            let made = self.create(&api, object).await;
            let made = made.map_err(|error| failed(action, resource, error));
            match made {
                Err(error) if error.already_exists() => {
                    let named = format!("metadata.name={}", object.name_any());
                    let found = api.list_metadata(&ListParams::default().fields(&named)).await;
                    let found = found.map_err(|error| failed(action, resource, error))?;
                    let uid = resource.uid().unwrap_or_default();
                    match found.items.first() {
                        Some(found) if owned_by(found.owner_references(), &uid) => Ok(()),
                        Some(_) => Err(error.of_another()),
                        // It has gone meanwhile: to be tried again.
                        None => Err(error),
                    }
                }
                made => made,
            }
        });
        // One that is refused does not keep the others from being made.
        let mut errors: Vec<Error> =
            future::join_all(make).await.into_iter().filter_map(Result::err).collect();
        // What stays says more than what passes.
        let permanent = |error: &Error| error.refusal().is_some_and(|refusal| refusal.permanent);
        let place = errors.iter().position(permanent).unwrap_or(0);
        if errors.is_empty() { Ok(()) } else { Err(errors.swap_remove(place)) }
    }

    /// Creates an object. Nothing of what the server answers is needed, least of all Secrets: it
    /// is asked for the metadata alone.
    async fn create<K: Resource + Serialize>(&self, api: &Api<K>, object: &K) -> kube::Result<()> {
        let data = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        let mut request = Request::new(api.resource_url())
            .create(&params, data)
            .map_err(kube::Error::BuildRequest)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(METADATA));
        self.client.request::<PartialObjectMeta>(request).await.map(drop)
    }

    /// Secrets first: no pod can start any more. Services last: they tell that there was
    /// something to tear down.
    async fn tear_down(
        &self,
        resource: &SecureInference,
        namespace: &str,
        attempt: u32,
        pods: &Pods,
    ) -> Result<(), Error> {
        let uid = resource.uid().unwrap_or_default();
        let selected = of_attempt(resource, attempt);
        let refuse = |error| failed("tear an attempt down", resource, error);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        secrets.delete_collection(&DeleteParams::background(), &selected).await.map_err(refuse)?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        match pods {
            Pods::All => {
                api.delete_collection(&DeleteParams::background(), &selected)
                    .await
                    .map_err(refuse)?;
            }
            Pods::Named(names) => {
                for name in names {
                    gone(api.delete(name, &DeleteParams::background()).await).map_err(refuse)?;
                }
            }
        }
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let found = services.list_metadata(&selected).await.map_err(refuse)?;
        for service in found.iter().filter(|found| owned_by(found.owner_references(), &uid)) {
            let name = service.name_any();
            gone(services.delete(&name, &DeleteParams::background()).await).map_err(refuse)?;
        }
        Ok(())
    }
}

fn keep(errors: &Mutex<Vec<Error>>, error: Error) {
    errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
}

/// Everything of an attempt.
fn of_attempt(resource: &SecureInference, attempt: u32) -> ListParams {
    let uid = resource.uid().unwrap_or_default();
    ListParams::default().labels(&format!("{JOB_UID}={uid},{ATTEMPT}={attempt}"))
}
