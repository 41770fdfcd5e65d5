//! The command line of `operator`.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stderr};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use futures::future;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ListParams;
use kube::client::{Body, ClientBuilder};
use kube::{Api, Client};
use party::signals::Signals;
use party::trace::{self, Exporter};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use crate::api::v1alpha1::{PodObject, SecureInference, UserIds};
use crate::controller::{self, MANAGER, Settings};
use crate::health::Status;
use crate::leader::Election;
use crate::metrics::Metrics;
use crate::policy::{Policy, PolicyArguments};
use crate::resources::network_policy::Outside;
use crate::resources::pod::Defaults;
use crate::{cluster, job, manifests, requests};

/// The name of the operator's container in the manifests and the chart.
const CONTAINER: &str = "operator";

/// The port of probes and metrics.
const PORT: u16 = 8080;

/// The longest that a request to the API server may take to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// Between two tries to reach the API server at the start.
const AGAIN: Duration = Duration::from_secs(2);

/// How long spans get to reach their collector at the end.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// How long reconciles that are under way get after a signal to stop.
const FAREWELL: Duration = Duration::from_secs(10);

/// The Kubernetes operator of the secure-inference toolkit.
///
/// Turns each SecureInference resource into the pods of a private inference, follows
/// them, and writes what they measured into the resource's status.
#[derive(Debug, Parser)]
#[command(
    name = "operator",
    version = party::VERSION,
    disable_help_subcommand = true,
    after_help = "Log level: RUST_LOG (default info). Logs are JSON when standard error is no terminal."
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch SecureInference resources and run them
    ///
    /// Uses the service account of its pod, or the KUBECONFIG of whoever starts it.
    Run(Box<RunArguments>),
    /// Print the CustomResourceDefinition
    Crd(CrdArguments),
    /// Write the definition and the sample resources into a folder
    Manifests {
        /// The folder; files of the same names are replaced
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
struct CrdArguments {
    /// Leave out the CEL rules, which API servers before 1.25 do not know
    ///
    /// The operator checks what they say in any case.
    #[arg(long)]
    without_rules: bool,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Watch this namespace only; all without it
    #[arg(long, value_name = "NAME", env = "OPERATOR_NAMESPACE")]
    namespace: Option<String>,
    /// The image of parties whose resource names none
    ///
    /// Without it the image of the operator's own pod, which POD_NAME and POD_NAMESPACE name.
    #[arg(long, value_name = "IMAGE", env = "OPERATOR_PARTY_IMAGE")]
    party_image: Option<String>,
    /// Work only while holding the Lease `secure-inference-operator` in POD_NAMESPACE
    ///
    /// So that of several replicas one works.
    #[arg(long, env = "OPERATOR_LEADER_ELECTION")]
    leader_election: bool,
    /// Where /healthz, /readyz and /metrics are answered; at port 8080 of all addresses without it
    #[arg(long, value_name = "ADDRESS", env = "OPERATOR_LISTEN")]
    listen: Option<SocketAddr>,
    /// The collector that takes this operator's spans, OTLP over gRPC: http://host:port
    ///
    /// Of each attempt and of what was done for it. Parties send theirs to where
    /// spec.telemetry says. The other OTEL_ variables count as well.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
    /// Which user and groups parties run as whose resource does not say
    #[arg(long, value_name = "IDS", value_enum, default_value_t, env = "OPERATOR_USER_IDS")]
    user_ids: UserIds,
    /// What each party asks of its node whose resource does not say; nothing if empty
    #[arg(
        long,
        value_name = "NAME=QUANTITY,...",
        value_parser = Requests::read,
        default_value = PARTY_REQUESTS,
        env = "OPERATOR_PARTY_REQUESTS"
    )]
    party_requests: Requests,
    /// Who may read the parties' metrics, as peers of a NetworkPolicy in YAML or JSON:
    /// '[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]';
    /// anybody without it
    #[arg(long, value_name = "PEERS", value_parser = Peers::read, env = "OPERATOR_METRICS_FROM")]
    metrics_from: Option<Peers>,
    /// Where the parties' traces may go, likewise; to where the host of their endpoint says
    /// without it
    #[arg(long, value_name = "PEERS", value_parser = Peers::read, env = "OPERATOR_TRACES_TO")]
    traces_to: Option<Peers>,
    #[command(flatten)]
    policy: PolicyArguments,
    /// The name of this replica's pod
    #[arg(long, value_name = "NAME", env = "POD_NAME", hide = true)]
    pod_name: Option<String>,
    /// Its namespace
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", hide = true)]
    pod_namespace: Option<String>,
}

/// What a party asks of its node unless somebody says otherwise: enough for the smaller networks,
/// and not so little that its node takes it for the first pod to end when it runs short.
const PARTY_REQUESTS: &str = "cpu=50m,memory=128Mi";

/// What a container asks of its node, on the command line.
#[derive(Clone, Debug)]
struct Requests(BTreeMap<String, Quantity>);

impl Requests {
    /// Reads `NAME=QUANTITY,...`.
    fn read(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let read = |entry: &str| match entry.split_once('=') {
            Some((name, quantity)) if job::quantity(quantity).is_some() => {
                Ok((name.to_owned(), Quantity(quantity.into())))
            }
            _ => Err(format!("expected a resource and a quantity, as in cpu=100m, found {entry}")),
        };
        entries.map(read).collect::<Result<_, _>>().map(Self)
    }
}

/// Peers of a NetworkPolicy on the command line.
#[derive(Clone, Debug)]
struct Peers(Vec<NetworkPolicyPeer>);

impl Peers {
    /// Reads YAML. A peer with an unknown field would be another than was meant, or anybody.
    fn read(text: &str) -> Result<Self, String> {
        let given: Vec<PodObject> =
            serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        given.iter().map(PodObject::typed).collect::<Result<_, _>>().map(Self)
    }
}

impl Arguments {
    /// Does what the command says. The exit code says how it ended.
    #[must_use]
    pub fn run(self) -> ExitCode {
        start_logging();
        let outcome = match self.command {
            Command::Crd(arguments) => print_definition(!arguments.without_rules),
            Command::Manifests { folder } => manifests::write(&folder),
            Command::Run(arguments) => arguments.run(),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{error:#}");
                ExitCode::FAILURE
            }
        }
    }
}

fn print_definition(with_rules: bool) -> anyhow::Result<()> {
    let yaml = manifests::definition(with_rules)?;
    std::io::stdout().lock().write_all(yaml.as_bytes()).context("cannot write the definition")
}

fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    // A second start, in a test, keeps the first.
    let _ = if stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder
            .json()
            .flatten_event(true)
            // Every event names its resource already.
            .with_current_span(false)
            .with_span_list(false)
            .with_ansi(false)
            .try_init()
    };
}

impl RunArguments {
    fn run(self) -> anyhow::Result<()> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start the runtime")?
            .block_on(self.operate())
    }

    fn outside(&self) -> Outside {
        let peers = |given: &Option<Peers>| given.clone().map_or(Vec::new(), |peers| peers.0);
        Outside { metrics_from: peers(&self.metrics_from), traces_to: peers(&self.traces_to) }
    }

    async fn operate(self) -> anyhow::Result<()> {
        let metrics = Metrics::new()?;
        let ready = Arc::new(AtomicBool::new(false));
        let listeners = self.listeners()?;
        let health = Arc::new(Status { metrics: metrics.clone(), ready: ready.clone() });
        let serving =
            listeners.into_iter().map(|listener| party::http::serve(listener, health.clone()));
        let serving = tokio::spawn(future::join_all(serving));
        let stop = stop_signal()?;
        let work = self.work(metrics, ready, stop);
        tokio::select! {
            served = serving => match served {
                Ok(_) => bail!("the health server ended"),
                Err(error) => Err(error).context("the health server failed"),
            },
            outcome = work => outcome,
        }
    }

    async fn work(
        &self,
        metrics: Metrics,
        ready: Arc<AtomicBool>,
        stop: tokio::sync::watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let exporter = self.exporter()?;
        let outcome = self.work_traced(metrics, ready, stop, exporter.as_ref()).await;
        if let Some(exporter) = exporter {
            exporter.flush(LAST_SPANS).await;
        }
        outcome
    }

    /// Where probes and scrapes are answered.
    fn listeners(&self) -> anyhow::Result<Vec<TcpListener>> {
        match self.listen {
            Some(address) => party::http::listen(address)
                .map(|listener| vec![listener])
                .with_context(|| format!("cannot listen on {address} (--listen)")),
            None => party::http::listen_everywhere(PORT)
                .with_context(|| format!("cannot listen on port {PORT} (--listen)")),
        }
    }

    /// What sends spans, if there is somebody to take them.
    fn exporter(&self) -> anyhow::Result<Option<Exporter>> {
        let variable = |name: &str| std::env::var(name).ok();
        let endpoint = self.otlp_endpoint.as_deref();
        let settings = trace::Settings::read(MANAGER, [], endpoint, None, variable)?;
        let runtime = tokio::runtime::Handle::current();
        Ok(settings.map(|settings| Exporter::start(settings, Arc::default(), &runtime)))
    }

    async fn work_traced(
        &self,
        metrics: Metrics,
        ready: Arc<AtomicBool>,
        stop: tokio::sync::watch::Receiver<bool>,
        exporter: Option<&Exporter>,
    ) -> anyhow::Result<()> {
        let client = client(&metrics).await?;
        let image = tokio::select! {
            image = self.prepare(&client) => image?,
            () = stopped(stop.clone()) => return Ok(()),
        };
        ready.store(true, Ordering::Relaxed);
        let settings = Settings {
            namespace: self.namespace.clone(),
            policy: Policy::new(&self.policy, &image),
            defaults: Defaults {
                image,
                user_ids: self.user_ids,
                requests: self.party_requests.0.clone(),
            },
            outside: self.outside(),
            instance: self.identity(),
            exporter: exporter.cloned(),
        };
        tracing::info!(
            namespace = self.namespace.as_deref().unwrap_or("all"),
            image = settings.defaults.image,
            "watching SecureInference resources"
        );
        if !self.leader_election {
            metrics.set_leader(true);
            controller::run(client, settings, metrics, stopped(stop)).await;
            return Ok(());
        }
        let Some(namespace) = &self.pod_namespace else {
            bail!("--leader-election needs POD_NAMESPACE, where the Lease is kept");
        };
        let mut election = Election::new(client.clone(), namespace, self.identity());
        tokio::select! {
            () = election.win() => {}
            () = stopped(stop.clone()) => return Ok(()),
        }
        tracing::info!("is the leader");
        metrics.set_leader(true);
        let working = controller::run(client, settings, metrics.clone(), stopped(stop.clone()));
        tokio::pin!(working);
        tokio::select! {
            () = &mut working => {}
            () = election.keep() => bail!("is no longer the leader; starting anew"),
        }
        metrics.set_leader(false);
        election.resign().await;
        Ok(())
    }

    fn identity(&self) -> String {
        self.pod_name.clone().unwrap_or_else(|| format!("process-{}", std::process::id()))
    }

    /// Waits until the API server answers and knows the resource; the image of parties whose
    /// resource names none.
    ///
    /// A process that ended instead would be started again by its node, but later each time: it
    /// would stay away for minutes after an API server that was away has come back.
    async fn prepare(&self, client: &Client) -> anyhow::Result<String> {
        loop {
            let image = async {
                self.check_definition(client).await?;
                self.image(client).await
            };
            match image.await {
                Err(error) if error.is::<kube::Error>() => {
                    tracing::warn!("{error:#}; trying again in {AGAIN:?}");
                }
                image => return image,
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Checks that the resource is known, and otherwise says what to do.
    async fn check_definition(&self, client: &Client) -> anyhow::Result<()> {
        let api: Api<kube::core::PartialObjectMeta<SecureInference>> = match &self.namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let listed = api.list(&ListParams::default().limit(1)).await.map(drop);
        let problem = match &listed {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                "the API server does not know SecureInference resources; \
                 install the definition: operator crd | kubectl apply -f -"
            }
            _ => "cannot list SecureInference resources",
        };
        listed.context(problem)
    }

    /// The image of parties whose resource names none.
    async fn image(&self, client: &Client) -> anyhow::Result<String> {
        if let Some(image) = &self.party_image {
            return Ok(image.clone());
        }
        let (Some(name), Some(namespace)) = (&self.pod_name, &self.pod_namespace) else {
            bail!("needs --party-image, or POD_NAME and POD_NAMESPACE to find its own image");
        };
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let own = pods.get(name).await.with_context(|| {
            format!(
                "cannot read its own pod {namespace}/{name} to find its image; give --party-image"
            )
        })?;
        let containers = own.spec.map(|spec| spec.containers).unwrap_or_default();
        own_image(containers).with_context(|| {
            format!(
                "its own pod {namespace}/{name} has no container {CONTAINER} with an image; give \
                 --party-image"
            )
        })
    }
}

/// The image of the operator's container: of the one of its name, or of the only one. A mesh may
/// have added others to its pod.
fn own_image(mut containers: Vec<Container>) -> Option<String> {
    let named = containers.iter().position(|container| container.name == CONTAINER);
    let place = named.or_else(|| (containers.len() == 1).then_some(0))?;
    containers.swap_remove(place).image
}

/// A client that counts its requests.
async fn client(metrics: &Metrics) -> anyhow::Result<Client> {
    let mut config = cluster::config()
        .await
        .context("cannot find a cluster: neither a service account nor a KUBECONFIG can be used")?;
    config.connect_timeout = Some(CONNECT);
    let metrics = metrics.clone();
    let count = tower::util::MapRequestLayer::new(move |request: http::Request<Body>| {
        if let Some((verb, resource)) = requests::classify(&request) {
            metrics.requested(verb, &resource);
        }
        request
    });
    let builder = ClientBuilder::try_from(config).context("cannot make a client")?;
    Ok(builder.with_layer(&count).build())
}

/// Turns true at SIGTERM and SIGINT. A process that then does not end does so all the same.
fn stop_signal() -> anyhow::Result<tokio::sync::watch::Receiver<bool>> {
    let (sender, receiver) = tokio::sync::watch::channel(false);
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    tokio::spawn(async move {
        let signal = signals.next().await;
        tracing::info!(%signal, "stopping");
        sender.send_replace(true);
        tokio::time::sleep(FAREWELL).await;
        tracing::error!("reconciles did not end within {FAREWELL:?}");
        std::process::exit(1);
    });
    Ok(receiver)
}

async fn stopped(mut stop: tokio::sync::watch::Receiver<bool>) {
    // Its sender lives as long as the process.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_image_is_that_of_the_operators_own_container() {
        let pod = |names: &[&str]| -> Vec<Container> {
            let container = |name: &&str| Container {
                name: (*name).into(),
                image: Some(format!("{name}:1")),
                ..Container::default()
            };
            names.iter().map(container).collect()
        };
        for (names, image) in [
            (&["operator"][..], Some("operator:1")),
            (&["istio-proxy", "operator"], Some("operator:1")),
            (&["operator", "vault-agent"], Some("operator:1")),
            (&["manager"], Some("manager:1")),
            (&["istio-proxy", "manager"], None),
            (&[], None),
        ] {
            assert_eq!(own_image(pod(names)).as_deref(), image, "{names:?}");
        }
    }

    #[test]
    fn requests_and_peers_are_read_strictly() {
        let requests = |text: &str| Requests::read(text).map(|read| read.0.len());
        assert_eq!(requests(PARTY_REQUESTS), Ok(2));
        assert_eq!(requests(""), Ok(0), "nothing is asked for");
        for text in ["cpu", "cpu=", "cpu=much", "cpu=-1"] {
            assert!(requests(text).is_err(), "{text}");
        }
        let peers = |text: &str| Peers::read(text).map(|read| read.0.len());
        assert_eq!(peers("[{podSelector: {}}, {ipBlock: {cidr: 192.0.2.0/24}}]"), Ok(2));
        assert_eq!(peers("[]"), Ok(0));
        for text in ["{}", "[{podselector: {}}]", "[{namespaceSelector: 1}]", "monitoring"] {
            assert!(peers(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
