//! How a program gets to the API server: where a kubeconfig or the pod's service account say,
//! through a proxy if the environment names one.

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::Config;
use kube::config::{InferConfigError, Kubeconfig};

/// The client's configuration.
///
/// The proxy is that of the kubeconfig; or that of `HTTPS_PROXY` (of `HTTP_PROXY` for an API
/// server without TLS), unless `NO_PROXY` has the API server. Lower case counts too, as with curl.
///
/// # Errors
/// If there is neither a kubeconfig nor a service account, or one cannot be used.
pub async fn config() -> Result<Config, InferConfigError> {
    let mut config = Config::infer().await?;
    let own = Kubeconfig::read().ok().and_then(|kubeconfig| proxy_of(&kubeconfig));
    let variable = |name: &str| {
        let value = std::env::var(name).or_else(|_| std::env::var(name.to_lowercase()));
        value.ok().filter(|value| !value.is_empty())
    };
    config.proxy_url =
        own.and_then(|proxy| proxy.parse().ok()).or_else(|| proxy(&config.cluster_url, variable));
    Ok(config)
}

/// The proxy that a kubeconfig names for its current context.
fn proxy_of(kubeconfig: &Kubeconfig) -> Option<String> {
    let current = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|context| context.name == *current)?;
    let name = &context.context.as_ref()?.cluster;
    let cluster = kubeconfig.clusters.iter().find(|cluster| cluster.name == *name)?;
    cluster.cluster.as_ref()?.proxy_url.clone().filter(|url| !url.is_empty())
}

/// The proxy between here and `server`, by these environment variables.
fn proxy(server: &Uri, variable: impl Fn(&str) -> Option<String>) -> Option<Uri> {
    let name = if server.scheme_str() == Some("http") { "HTTP_PROXY" } else { "HTTPS_PROXY" };
    let proxy = variable(name)?;
    let exceptions = variable("NO_PROXY").unwrap_or_default();
    // Which the matcher knows for names alone.
    if exceptions.split(',').any(|exception| exception.trim() == "*") {
        return None;
    }
    let matcher = Matcher::builder().all(proxy.clone()).no(exceptions).build();
    // Without the password that the URL may have, which its user needs.
    matcher.intercept(server)?;
    let url = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
    url.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environments_proxy_is_used_but_for_the_exceptions() {
        let of = |server: &str, no_proxy: &str| {
            let variable = |name: &str| match name {
                "HTTPS_PROXY" => Some("http://user:secret@proxy:3128".to_owned()),
                "HTTP_PROXY" => Some("plain:8080".to_owned()),
                _ => Some(no_proxy.to_owned()),
            };
            proxy(&server.parse().unwrap(), variable).map(|url| url.to_string())
        };
        let secure = Some("http://user:secret@proxy:3128/".to_owned());
        assert_eq!(of("https://10.1.2.3:6443", ""), secure);
        assert_eq!(of("https://10.1.2.3:6443", "proxy"), secure, "it is not for the proxy itself");
        assert_eq!(of("http://10.1.2.3", "10.9.0.0/16"), Some("http://plain:8080/".into()));
        for exception in ["10.1.2.3", "10.0.0.0/8", "*", "example.org, 10.1.2.3"] {
            assert_eq!(of("https://10.1.2.3:6443", exception), None, "{exception}");
        }
        assert_eq!(of("https://api.example.org", ".example.org"), None);
        assert_eq!(proxy(&"https://10.1.2.3".parse().unwrap(), |_| None), None);
    }

    #[test]
    fn a_kubeconfig_may_name_a_proxy_for_its_cluster() {
        let text = "
current-context: there
contexts: [{ name: there, context: { cluster: far, user: me } }]
clusters:
  - { name: near, cluster: { server: 'https://near' } }
  - { name: far, cluster: { server: 'https://far', proxy-url: 'socks5://proxy:1080' } }
users: [{ name: me, user: { token: x } }]
";
        let read = |text: &str| proxy_of(&Kubeconfig::from_yaml(text).unwrap());
        assert_eq!(read(text).as_deref(), Some("socks5://proxy:1080"));
        assert_eq!(read(&text.replace("cluster: far,", "cluster: near,")), None);
    }
}
