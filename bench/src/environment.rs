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
        Self {
            cpu: field(&file("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernels: format!("{:?}", InstructionSet::detect()),
            memory_bytes: kilobytes.unwrap_or(0) * 1024,
            os: format!(
                "{}, Linux {}",
                system.unwrap_or_else(|| std::env::consts::OS.into()),
                file("/proc/sys/kernel/osrelease").trim()
            ),
            load_average: load.unwrap_or(0.0),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: party::COMMIT.into(),
            started_unix_seconds: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
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
