//! Making the objects of a run: they are created, and nothing that exists is taken over.

use std::sync::{Mutex, PoisonError};

use futures::{StreamExt, future, stream};
use http::HeaderValue;
use http::header::ACCEPT;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::core::{NamespaceResourceScope, PartialObjectMeta, Request};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::{MANAGER, of_attempt};
use super::error::{Error, failed};
use crate::api::v1alpha1::SecureInference;
use crate::resources::owned_by;

/// Asks for an object's metadata alone.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Secrets of an attempt that are sent at once: with 67 parties and the largest graph, all of
/// them take more memory than the operator has.
const SECRETS_AT_ONCE: usize = 4;

/// Makes objects of one resource.
pub(super) struct Maker<'a> {
    pub(super) client: &'a Client,
    pub(super) resource: &'a SecureInference,
    pub(super) namespace: &'a str,
}

impl Maker<'_> {
    /// Makes what is not there yet. What exists under such a name is this run's already, or is
    /// left alone.
    ///
    /// # Errors
    /// If one cannot be made; the others are made all the same.
    pub(super) async fn all<K>(&self, action: &'static str, objects: &[K]) -> Result<(), Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Serialize
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), self.namespace);
        let make = objects.iter().map(async |object| {
            let made = self.create(&api, object).await;
            match made.map_err(|error| failed(action, self.resource, error)) {
                Err(error) if error.already_exists() => {
                    let named = format!("metadata.name={}", object.name_any());
                    let found = api.list_metadata(&ListParams::default().fields(&named)).await;
                    let found = found.map_err(|error| failed(action, self.resource, error))?;
                    let uid = self.resource.uid().unwrap_or_default();
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
        let mut errors: Vec<Error> =
            future::join_all(make).await.into_iter().filter_map(Result::err).collect();
        // What stays says more than what passes.
        let permanent = |error: &Error| error.refusal().is_some_and(|refusal| refusal.permanent);
        let place = errors.iter().position(permanent).unwrap_or(0);
        if errors.is_empty() { Ok(()) } else { Err(errors.swap_remove(place)) }
    }

    /// Makes the Secrets of an attempt, `build` each of `count`, in place of those that an
    /// interrupted start has left, which are of another session.
    ///
    /// # Errors
    /// If one cannot be built or made.
    pub(super) async fn secrets(
        &self,
        attempt: u32,
        count: usize,
        build: impl Fn(usize) -> Result<Secret, Error>,
    ) -> Result<(), Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace);
        // All are answered before anything else is done: one on its way would arrive later.
        let make_all = async || -> Vec<Error> {
            let errors = Mutex::new(Vec::new());
            let keep = |error| errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
            // Each holds the graph: built as they are sent, not all before the first.
            let make = async |place: usize| {
                let made = match build(place) {
                    Ok(secret) => self.create(&api, &secret).await,
                    Err(error) => return keep(error),
                };
                if let Err(error) = made {
                    keep(failed("make the Secrets", self.resource, error));
                }
            };
            stream::iter(0..count).for_each_concurrent(SECRETS_AT_ONCE, make).await;
            errors.into_inner().unwrap_or_else(PoisonError::into_inner)
        };
        let mut errors = make_all().await;
        if errors.iter().any(Error::already_exists) {
            // The operator cannot read Secrets: it deletes those with the attempt's labels, and
            // one that is there after that is somebody else's.
            let selected = of_attempt(self.resource, attempt);
            api.delete_collection(&DeleteParams::background(), &selected)
                .await
                .map_err(|error| failed("replace the Secrets", self.resource, error))?;
            errors = make_all().await.into_iter().map(Error::of_another).collect();
        }
        errors.into_iter().next().map_or(Ok(()), Err)
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
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;
    use std::sync::Arc;

    use http::{Method, Response};
    use k8s_openapi::api::core::v1::Service;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;
    use crate::job::tests::network;

    /// Objects by path and name.
    type Objects = Arc<Mutex<BTreeMap<(String, String), Value>>>;

    /// An API server that creates, lists one by its name, and deletes by labels; it refuses what
    /// is called `refused`.
    fn server(objects: &Objects) -> Client {
        let objects = objects.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let objects = objects.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let (code, answer) = answer(&objects, &parts, &body);
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, Infallible>(Response::builder().status(code).body(answer).unwrap())
            }
        });
        Client::new(service, "lab")
    }

    fn answer(objects: &Objects, parts: &http::request::Parts, body: &[u8]) -> (u16, Value) {
        let mut objects = objects.lock().unwrap();
        let path = parts.uri.path().to_owned();
        let query = percent_encoding::percent_decode_str(parts.uri.query().unwrap_or_default());
        let query = query.decode_utf8().unwrap().into_owned();
        let selector = |name: &str| {
            let parts = query.split('&').find_map(|part| part.strip_prefix(name));
            parts.map(str::to_owned)
        };
        let failure = |code: u16, reason: &str, message: String| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                "status": "Failure", "reason": reason, "code": code, "message": message});
            (code, status)
        };
        match parts.method {
            Method::POST => {
                let object: Value = serde_json::from_slice(body).unwrap();
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                if name == "refused" {
                    return failure(422, "Invalid", "refused is invalid".into());
                }
                if objects.contains_key(&(path.clone(), name.clone())) {
                    return failure(409, "AlreadyExists", format!("{name:?} already exists"));
                }
                objects.insert((path, name), object.clone());
                (201, object)
            }
            Method::GET => {
                let name = selector("fieldSelector=metadata.name=").unwrap();
                let found: Vec<&Value> = objects.get(&(path, name)).into_iter().collect();
                (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": found}))
            }
            Method::DELETE => {
                let selected = selector("labelSelector=").unwrap();
                objects.retain(|(of, _), object| {
                    let mut labels =
                        selected.split(',').map(|label| label.split_once('=').unwrap());
                    let labels =
                        labels.all(|(key, value)| object["metadata"]["labels"][key] == value);
                    *of != path || !labels
                });
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
                (200, status)
            }
            _ => panic!("{} is not needed", parts.method),
        }
    }

    fn resource() -> SecureInference {
        let mut resource = SecureInference::new("run", network());
        resource.metadata.uid = Some("own".into());
        resource
    }

    /// The metadata of an object, controlled by a resource of this unique id, if any.
    fn metadata(name: &str, owner: Option<&str>) -> Value {
        let owners = owner.map(|uid| {
            json!([{"apiVersion": "secureinference.dev/v1alpha1", "kind": "SecureInference",
                "name": "run", "uid": uid, "controller": true}])
        });
        json!({"name": name, "namespace": "lab", "ownerReferences": owners.unwrap_or(json!([]))})
    }

    #[tokio::test]
    async fn what_exists_is_this_runs_or_is_left_alone() {
        let services = "/api/v1/namespaces/lab/services";
        let objects = Objects::default();
        let mut before = BTreeMap::new();
        for (name, owner) in
            [("own", Some("own")), ("older", Some("of an older run")), ("users", None)]
        {
            let object =
                json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(name, owner)});
            before.insert((services.to_owned(), name.to_owned()), object);
        }
        objects.lock().unwrap().clone_from(&before);
        let (client, resource) = (server(&objects), resource());
        let maker = Maker { client: &client, resource: &resource, namespace: "lab" };
        let service = |name: &str| -> Service {
            serde_json::from_value(json!({"metadata": metadata(name, Some("own"))})).unwrap()
        };
        let action = "make the Services";
        maker.all(action, &["own", "new"].map(service)).await.unwrap();
        for name in ["older", "users"] {
            let error = maker.all(action, &[service(name), service("other")]).await.unwrap_err();
            let refusal = error.refusal().unwrap();
            let expected = format!(
                "cannot make the Services: {name:?} already exists, and is not of this run; the \
                 operator takes over nothing: delete it"
            );
            assert_eq!((refusal.message, refusal.permanent), (expected, true));
        }
        let after = objects.lock().unwrap().clone();
        assert!(before.iter().all(|(key, object)| after.get(key) == Some(object)), "{after:#?}");
        let made: Vec<&str> =
            after.keys().filter(|key| !before.contains_key(*key)).map(|key| &*key.1).collect();
        assert_eq!(made, ["new", "other"], "what is refused keeps nothing else from being made");
        let error = maker.all(action, &["refused", "last"].map(service)).await.unwrap_err();
        assert_eq!(
            error.refusal().unwrap().message,
            "cannot make the Services: refused is invalid"
        );
        assert!(objects.lock().unwrap().contains_key(&(services.into(), "last".into())));
    }

    #[tokio::test]
    async fn secrets_of_an_interrupted_start_are_replaced_and_those_of_others_are_not() {
        let path = "/api/v1/namespaces/lab/secrets";
        let old = |labels: Value| {
            let mut metadata = metadata("s3", None);
            metadata["labels"] = labels;
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
        };
        let labels = |uid: &str, attempt: &str| json!({"secureinference.dev/job-uid": uid, "secureinference.dev/attempt": attempt});
        for (labels, replaced) in [
            (labels("own", "2"), true),
            (labels("own", "1"), false),
            (labels("another", "2"), false),
            (json!({}), false),
        ] {
            let objects = Objects::default();
            let key = (path.to_owned(), "s3".to_owned());
            objects.lock().unwrap().insert(key.clone(), old(labels.clone()));
            let (client, resource) = (server(&objects), resource());
            let maker = Maker { client: &client, resource: &resource, namespace: "lab" };
            let build = |place: usize| -> Result<Secret, Error> {
                let mut metadata = metadata(&format!("s{place}"), Some("own"));
                metadata["labels"] = json!({
                    "secureinference.dev/job-uid": "own", "secureinference.dev/attempt": "2",
                });
                Ok(serde_json::from_value(json!({"metadata": metadata})).unwrap())
            };
            let made = maker.secrets(2, 6, build).await;
            let objects = objects.lock().unwrap();
            assert_eq!(made.is_ok(), replaced, "{labels}: {made:?}");
            assert_eq!(objects[&key] != old(labels), replaced);
            assert_eq!(objects.len(), 6);
            if let Err(error) = made {
                let refusal = error.refusal().unwrap();
                assert!(refusal.permanent && refusal.message.contains("is not of this run"));
            }
        }
    }
}
