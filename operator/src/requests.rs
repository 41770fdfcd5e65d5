//! What a request to the API server asks for, in the words of RBAC.

use kube::client::Body;

/// The verb and the resource of a request, such as `("patch", "pods")`, or
/// `("patch", "secureinferences/status")`; `None` if it is for no resource.
#[must_use]
pub fn classify(request: &http::Request<Body>) -> Option<(&'static str, String)> {
    verb_and_resource(
        request.method().as_str(),
        request.uri().path(),
        request.uri().query().unwrap_or_default(),
    )
}

fn verb_and_resource(method: &str, path: &str, query: &str) -> Option<(&'static str, String)> {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let skipped = match *parts.first()? {
        "api" => 2,
        "apis" => 3,
        _ => return None,
    };
    if parts.len() <= skipped {
        return None;
    }
    parts.drain(..skipped);
    // /namespaces/{namespace}/{resource}, unless namespaces themselves are meant.
    if parts[0] == "namespaces" && parts.len() > 2 {
        parts.drain(..2);
    }
    let named = parts.len() > 1;
    let watches = query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1");
    let verb = match (method, named) {
        ("GET", _) if watches => "watch",
        ("GET", true) => "get",
        ("GET", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => return None,
    };
    let resource = match parts.get(2) {
        Some(subresource) => format!("{}/{subresource}", parts[0]),
        None => parts[0].to_owned(),
    };
    Some((verb, resource))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_named_as_in_rbac() {
        let group = "/apis/secureinference.dev/v1alpha1/namespaces/lab/secureinferences";
        for (method, path, query, verb, resource) in [
            ("GET", "/api/v1/pods", "watch=true&labelSelector=a", "watch", "pods"),
            ("GET", "/api/v1/namespaces/lab/pods", "limit=500", "list", "pods"),
            ("GET", "/api/v1/namespaces/lab/pods/one", "", "get", "pods"),
            ("PATCH", "/api/v1/namespaces/lab/secrets/one", "force=true", "patch", "secrets"),
            ("DELETE", "/api/v1/namespaces/lab/secrets", "", "deletecollection", "secrets"),
            ("DELETE", "/api/v1/namespaces/lab/services/one", "", "delete", "services"),
            ("PATCH", &format!("{group}/c/status"), "", "patch", "secureinferences/status"),
            (
                "GET",
                "/apis/secureinference.dev/v1alpha1/secureinferences",
                "",
                "list",
                "secureinferences",
            ),
            ("POST", "/apis/events.k8s.io/v1/namespaces/lab/events", "", "create", "events"),
            ("GET", "/api/v1/namespaces/lab", "", "get", "namespaces"),
        ] {
            let found = verb_and_resource(method, path, query);
            assert_eq!(found, Some((verb, resource.to_owned())), "{method} {path}");
        }
        for path in ["/version", "/apis", "/api/v1", "/apis/apps/v1"] {
            assert_eq!(verb_and_resource("GET", path, ""), None, "{path}");
        }
    }
}
