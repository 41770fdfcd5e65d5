//! Doing what a plan says.

use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Preconditions};
use party::config::Session;
use spdz::channel::Role;
use spdz::prg::SessionId;

use super::context::{Context, Guarded, of_attempt, of_job};
use super::error::{Error, failed, gone};
use super::make::Maker;
use crate::api::v1alpha1::SecureInference;
use crate::job::{Addresses, Job};
use crate::plan::{Action, Pods};
use crate::resources::{network_policy, owned_by, pod, secret, service};

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
        let maker = Maker { client, resource, namespace };
        let job = job.ok_or(Error::NotValidated);
        match action {
            Action::ApplyPolicies => {
                let policies = network_policy::build(job?, &self.outside);
                maker.all("make the NetworkPolicies", &policies).await?;
            }
            Action::ApplyServices(attempt) => {
                let job = job?;
                let services =
                    [Role::Server0, Role::Server1].map(|role| service::build(job, *attempt, role));
                maker.all("make the Services", &services).await?;
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
        let issued = secret::identities(job, session)?;
        let session = Session(session);
        let maker = Maker { client: &self.client, resource, namespace };
        let build = |place: usize| -> Result<Secret, Error> {
            let (role, party) = &issued.parties[place];
            let config = job.config_in(attempt, *role, session, addresses);
            Ok(secret::build(job, attempt, &config, &issued.authority, party)?)
        };
        maker.secrets(attempt, issued.parties.len(), build).await?;
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
        Maker { client: &self.client, resource, namespace }.all("make the pods", &pods).await
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
