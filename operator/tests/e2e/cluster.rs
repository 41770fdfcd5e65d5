//! The cluster that cases run on: the one that `KUBECONFIG` names, or else the throwaway one
//! of `hack/test-cluster` on this machine.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::process::{self, repository};

/// What `cluster.sh check` ends with on a machine that cannot run the cluster.
const CANNOT: i32 = 3;

/// The image that is built here.
const IMAGE: &str = concat!("secure-inference:", env!("CARGO_PKG_VERSION"));

/// Where tests run, before anything has been done about it.
pub(crate) struct Site {
    /// The test cluster of this machine, if it is to be that.
    machine: Option<Machine>,
    /// The image that `E2E_IMAGE` names.
    image: Option<String>,
    /// Keeps other runs of these tests off the test cluster.
    _lock: Option<File>,
}

/// The test cluster of this machine.
#[derive(Clone)]
pub(crate) struct Machine {
    script: PathBuf,
    root: PathBuf,
    /// Whether it is not up yet: then these tests bring it up, and take it down.
    passing: bool,
}

/// A cluster that answers, and what is known of it.
pub(crate) struct Cluster {
    /// Reaches its API server as an administrator.
    pub(crate) client: Client,
    /// The API server's version, major and minor.
    pub(crate) version: (u32, u32),
    /// The image of the operator and the parties; nodes have it or can pull it.
    pub(crate) image: String,
    /// This machine, if it is the cluster's only node.
    pub(crate) machine: Option<Machine>,
    /// Where `kubectl` and `helm` are.
    tools: PathBuf,
    kubeconfig: Option<PathBuf>,
}

impl Site {
    /// Finds out where; `Err` in `Ok` says why there is no cluster and can be none.
    pub(crate) async fn find() -> anyhow::Result<Result<Self, String>> {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
        let given = variable("KUBECONFIG").map(PathBuf::from);
        let image = variable("E2E_IMAGE").map(|image| image.to_string_lossy().into_owned());
        let machine = Machine::new().await?;
        if let Some(given) = given
            && given.canonicalize().ok() != machine.kubeconfig().canonicalize().ok()
        {
            ensure!(
                image.is_some(),
                "KUBECONFIG names a cluster that is not hack/test-cluster's, so the image has to be \
                 where its nodes find it: build it with `make image`, push it, and say E2E_IMAGE=name"
            );
            return Ok(Ok(Self { machine: None, image, _lock: None }));
        }
        if machine.passing {
            let check = process::run(with(&machine.script, &["check"])).await?;
            if check.status.code() == Some(CANNOT) {
                return Ok(Err(check.err));
            }
            ensure!(check.status.success(), "cluster.sh check failed:\n{}", check.err);
        }
        std::fs::create_dir_all(&machine.root)?;
        let lock = File::create(machine.root.join("e2e.lock"))?;
        lock.try_lock().context("another run of these tests uses the test cluster")?;
        Ok(Ok(Self { machine: Some(machine), image, _lock: Some(lock) }))
    }

    /// Builds the image, brings the cluster up and gives it the image, where that is needed.
    pub(crate) async fn prepare(&self) -> anyhow::Result<()> {
        if self.image.is_none() {
            let mut build = with(&repository().join("hack/image/build.sh"), &[]);
            build.env("IMAGE", IMAGE);
            process::visibly(build).await?;
        }
        let Some(machine) = &self.machine else { return Ok(()) };
        if machine.passing {
            process::visibly(with(&machine.script, &["up"])).await?;
        }
        if self.image.is_none() {
            let target = env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
            let archive = repository().join(target).join("image/secure-inference.tar");
            let mut load = with(&machine.script, &["load"]);
            load.arg(archive);
            process::output(load).await?;
        }
        Ok(())
    }

    /// Finds the API server of a cluster that is there.
    pub(crate) async fn connect(&self) -> anyhow::Result<Cluster> {
        let folder = process::output(with(&repository().join("hack/kubectl.sh"), &[])).await?;
        let own = self.machine.as_ref().map(Machine::kubeconfig);
        let kubeconfig = match &own {
            Some(path) => Kubeconfig::read_from(path)?,
            None => Kubeconfig::from_env()?.context("KUBECONFIG names no file")?,
        };
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let client = Client::try_from(config)?;
        let version = client.apiserver_version().await.context("cannot reach the API server")?;
        // Vendors add to the minor version: 27+.
        let number = |text: &str| text.trim_end_matches('+').parse::<u32>();
        Ok(Cluster {
            client,
            version: (number(&version.major)?, number(&version.minor)?),
            image: self.image.clone().unwrap_or_else(|| IMAGE.into()),
            machine: self.machine.clone(),
            tools: folder.trim().into(),
            kubeconfig: own,
        })
    }

    /// Takes the cluster down if it was brought up for these tests; whether it was.
    pub(crate) async fn end(&self) -> anyhow::Result<bool> {
        let Some(machine) = self.machine.as_ref().filter(|machine| machine.passing) else {
            return Ok(false);
        };
        // One that is still coming up is waited for.
        process::visibly(with(&machine.script, &["down"])).await?;
        Ok(true)
    }
}

fn with(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

impl Cluster {
    /// Whether the API server has what came with this version.
    pub(crate) fn since(&self, major: u32, minor: u32) -> bool {
        self.version >= (major, minor)
    }

    /// Runs `kubectl` as the administrator; what it wrote to standard output.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.tool("kubectl", arguments).await
    }

    /// Runs `helm` as the administrator; what it wrote to standard output.
    pub(crate) async fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.tool("helm", arguments).await
    }

    async fn tool(&self, name: &str, arguments: &[&str]) -> anyhow::Result<String> {
        process::output(self.command(name, arguments)).await
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = with(&self.tools.join(name), arguments);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        command
    }

    /// Has a node take no more pods.
    pub(crate) async fn cordon(&self, node: &str) -> anyhow::Result<Cordon> {
        // Before anything is done: a `kubectl` that is not waited for may do it all the same.
        let cordon = Cordon(Some(self.command("kubectl", &["uncordon", node])));
        self.kubectl(&["cordon", node]).await?;
        Ok(cordon)
    }
}

/// A node that takes no more pods, until this is lifted or dropped.
pub(crate) struct Cordon(Option<Command>);

impl Cordon {
    /// Has the node take pods again.
    pub(crate) async fn lift(mut self) -> anyhow::Result<()> {
        match self.0.take() {
            Some(uncordon) => process::output(uncordon).await.map(drop),
            None => Ok(()),
        }
    }
}

impl Drop for Cordon {
    /// A case that failed, or was too late, leaves the node to the cases that follow.
    fn drop(&mut self) {
        if let Some(mut uncordon) = self.0.take() {
            match uncordon.output() {
                Ok(output) if output.status.success() => {}
                Ok(output) => eprintln!("{}", String::from_utf8_lossy(&output.stderr)),
                Err(error) => eprintln!("cannot uncordon the node: {error}"),
            }
        }
    }
}

impl Machine {
    async fn new() -> anyhow::Result<Self> {
        let script = repository().join("hack/test-cluster/cluster.sh");
        let kubeconfig = process::output(with(&script, &["kubeconfig"])).await?;
        let root = Path::new(kubeconfig.trim()).parent().map(Path::to_owned);
        let root = root.context("cluster.sh names no folder")?;
        let status = process::output(with(&script, &["status"])).await?;
        let etcd = status.lines().find(|line| line.starts_with("etcd"));
        let passing = etcd.is_none_or(|line| line.contains("not running"));
        Ok(Self { script, root, passing })
    }

    /// How to reach it as an administrator.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Ends the API server, and starts it again after so many seconds. It is started again even
    /// if nobody waits for that any more.
    pub(crate) async fn restart_apiserver(&self, seconds: u32) -> anyhow::Result<()> {
        let restart = with(&self.script, &["restart-apiserver", &seconds.to_string()]);
        process::output(restart).await.map(drop)
    }

    /// The process of a container, by the id that the pod's status gives.
    pub(crate) async fn process_of(&self, container_id: &str) -> anyhow::Result<u32> {
        let id = container_id.rsplit('/').next().unwrap_or(container_id);
        let mut command = with(&self.root.join("debs/usr/bin/ctr"), &[]);
        command.arg("-a").arg(self.root.join("run/containerd.sock"));
        let tasks = process::output({
            command.args(["-n", "k8s.io", "task", "ls"]);
            command
        });
        let tasks = tasks.await?;
        let task = tasks.lines().find(|line| line.starts_with(id));
        task.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .with_context(|| format!("expected container {id} among the node's, found:\n{tasks}"))
    }

    /// Sends a signal to a container's process: `KILL` as the kernel would for lack of memory.
    pub(crate) async fn signal(&self, container_id: &str, signal: &str) -> anyhow::Result<()> {
        let pid = self.process_of(container_id).await?.to_string();
        process::output(with(Path::new("kill"), &["-s", signal, &pid])).await.map(drop)
    }
}
