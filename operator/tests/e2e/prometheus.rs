//! A Prometheus of this machine, for as long as a case lasts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::process::{self, repository};
use crate::report::Skip;

/// What `prometheus.sh` ends with where there is no Prometheus.
const NONE: i32 = 3;

/// How long it may take to start.
const START: Duration = Duration::from_secs(30);

/// Between two looks at it.
const GLANCE: Duration = Duration::from_millis(100);

/// How often it reads targets and evaluates rules, seconds.
const INTERVAL: u64 = 1;

/// What it reads: an address, and labels for all that is read there.
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// The process, and where it keeps its files.
pub(crate) struct Prometheus {
    child: Child,
    folder: PathBuf,
    promtool: PathBuf,
    address: String,
    began: SystemTime,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // One that has ended already is as good, and what is left is in the build's folder.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Prometheus {
    /// Starts one with the repository's rules that reads nothing yet.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let tools = process::run(Command::new(repository().join("hack/prometheus.sh"))).await?;
        if tools.status.code() == Some(NONE) {
            bail!(Skip(tools.err.trim().to_owned()));
        }
        ensure!(tools.status.success(), "cannot get a Prometheus: {}", tools.err);
        let tools = Path::new(tools.out.trim());
        let number: u32 = rand::random();
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("prometheus-{number:08x}"));
        fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        let seconds = format!("{INTERVAL}s");
        let configuration = json!({
            "global": { "scrape_interval": seconds, "scrape_timeout": seconds, "evaluation_interval": seconds },
            "rule_files": [repository().join("dashboards/rules.yaml").canonicalize()?],
            "scrape_configs": [{ "job_name": "test", "file_sd_configs": [{ "files": ["targets.json"] }] }],
        });
        fs::write(folder.join("prometheus.yaml"), configuration.to_string())?;
        // Nobody else is told of the port before it is used.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let log = File::create(folder.join("log"))?;
        let child = Command::new(tools.join("prometheus"))
            .arg("--config.file=prometheus.yaml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start prometheus")?;
        let promtool = tools.join("promtool");
        let mut prometheus = Self { child, folder, promtool, address, began: SystemTime::now() };
        prometheus.wait().await?;
        Ok(prometheus)
    }

    /// Waits until it answers.
    async fn wait(&mut self) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + START;
        loop {
            let Err(error) = self.ask("vector(1)").await else { return Ok(()) };
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                bail!("prometheus ended with {status}:\n{}", log());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("expected prometheus to answer within {START:?}: {error:#}\n{}", log());
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Has it read these from now on, and no others.
    pub(crate) fn read(&self, targets: &[Target]) -> anyhow::Result<()> {
        let targets: Vec<Value> = targets
            .iter()
            .map(|target| json!({ "targets": [target.address], "labels": target.labels }))
            .collect();
        // It may look at any time, so the file is whole at any time.
        let next = self.folder.join("targets.next");
        fs::write(&next, Value::from(targets).to_string())?;
        fs::rename(next, self.folder.join("targets.json"))?;
        Ok(())
    }

    /// What an expression gave at any time from the start until now: its series, each with
    /// its labels and its values.
    pub(crate) async fn ask(&self, expression: &str) -> anyhow::Result<Vec<Series>> {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|d| d.as_secs());
        let mut command = Command::new(&self.promtool);
        command
            .args(["query", "range", "--format=json", &format!("--step={INTERVAL}s")])
            .arg(format!("--start={}", seconds(self.began)?))
            .arg(format!("--end={}", seconds(SystemTime::now())?))
            .args([&format!("http://{}", self.address), expression]);
        let said = process::output(command).await?;
        let said = serde_json::from_str(&said);
        let said: Vec<Value> = said.context("promtool does not answer in JSON")?;
        said.iter().map(Series::parse).collect()
    }
}

/// Labels, and the values that were numbers.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) values: Vec<f64>,
}

impl Series {
    fn parse(series: &Value) -> anyhow::Result<Self> {
        let labels = serde_json::from_value(series["metric"].clone())?;
        let points = series["values"].as_array().context("expected values")?;
        let number = |point: &Value| -> Option<f64> { point[1].as_str()?.parse().ok() };
        // Quantiles of nothing are not a number, but are there.
        let values = points.iter().filter_map(number).filter(|value| value.is_finite()).collect();
        Ok(Self { labels, values })
    }
}
