//! What a measurement ran on, as far as the machine tells.

use std::fs;

use serde::{Deserialize, Serialize};
use spdz::ring::kernels::InstructionSet;

/// The machine and the build that a measurement ran on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Environment {
    /// The processor's name.
    pub cpu: String,
    /// What it can do beyond its architecture, as far as it matters here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// How its frequency is governed; absent where the system does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// The instruction set that the kernels use.
    pub kernels: String,
    /// Memory, bytes; 0 where it is not known.
    pub memory_bytes: u64,
    /// The operating system and its kernel.
    pub os: String,
    /// Processes waiting for a core in the last minute, before the measurement.
    pub load_average: f64,
    /// Of this toolkit.
    pub version: String,
    /// The commit it was built from; `unknown` outside a repository.
    pub commit: String,
    /// When the measurement began, seconds since 1970.
    pub started_unix_seconds: u64,
    /// Where the parties ran, if not on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterEnvironment>,
}

/// A cluster that parties ran in, as far as it tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterEnvironment {
    /// The version of Kubernetes.
    pub kubernetes: String,
    /// The parties' image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What identifies its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// The nodes that parties were on; empty if this program may not read nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Node>,
}

/// A node of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its cores.
    pub cores: String,
    /// Its memory, as Kubernetes writes it.
    pub memory: String,
    /// Its operating system and kernel.
    pub os: String,
}

/// What kernels and the transport's encryption can use, as Linux calls it.
const FEATURES: [&str; 14] = [
    "aes",
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512ifma",
    "avx512vbmi",
    "avx512vl",
    "avx512_vnni",
    "avx_vnni",
    "bmi2",
    "sha_ni",
    "vaes",
    "vpclmulqdq",
];

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl Environment {
    /// Asks the machine.
    #[must_use]
    pub fn read() -> Self {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_owned())
        };
        let kilobytes = field(&file("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        let load = file("/proc/loadavg").split_whitespace().next().and_then(|x| x.parse().ok());
        let system = field(&file("/etc/os-release"), "PRETTY_NAME");
        let unknown = || String::from("unknown");
        let flags = field(&file("/proc/cpuinfo"), "flags").unwrap_or_default();
        let features = flags.split_whitespace().filter(|flag| FEATURES.contains(flag));
        let governor = file("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        let governor = Some(governor.trim()).filter(|governor| !governor.is_empty());
        Self {
            cpu: field(&file("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernels: InstructionSet::detect().to_string(),
            memory_bytes: kilobytes.unwrap_or(0) * 1024,
            os: format!(
                "{}, Linux {}",
                system.unwrap_or_else(|| std::env::consts::OS.into()),
                file("/proc/sys/kernel/osrelease").trim()
            ),
            load_average: load.unwrap_or(0.0),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: party::COMMIT.into(),
            started_unix_seconds: unix_seconds(),
            features: features.map(String::from).collect(),
            governor: governor.map(String::from),
            cluster: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let environment = Environment::read();
        assert!(environment.cores >= 1);
        assert!(!environment.cpu.is_empty() && environment.os.contains("Linux"));
    }
}
