//! The Helm chart, with no other operator in the cluster.

use std::process::Command;
use std::time::Duration;

use anyhow::{bail, ensure};

use crate::process::{self, repository};
use crate::report::{Figures, Skip};
use crate::room::Room;

/// What the chart installs unless it is told of another.
const IMAGE: &str = concat!("secure-inference:", env!("CARGO_PKG_VERSION"));

/// How long the tests of the chart may take.
const PATIENCE: Duration = Duration::from_secs(800);

/// What `hack/chart-test.sh` tests: that the API server takes what the chart renders, and that
/// runs and the definition survive its releases.
pub(super) async fn releases(room: &Room) -> anyhow::Result<Figures> {
    let cluster = room.cluster();
    if cluster.image != IMAGE {
        bail!(Skip(format!("installs {IMAGE}, and the nodes have {}", cluster.image)));
    }
    let Some(machine) = &cluster.machine else {
        bail!(Skip("needs hack/test-cluster's node, which has the image".into()));
    };
    // Two operators would work on one resource.
    room.operator().account().await?;
    room.operator().remove().await?;
    let mut command = Command::new(repository().join("hack/chart-test.sh"));
    command.env("KUBECONFIG", machine.kubeconfig());
    let tested = tokio::time::timeout(PATIENCE, process::run(command)).await;
    // The cases that follow need it.
    room.operator().install().await?;
    let Ok(tested) = tested else { bail!("expected hack/chart-test.sh to end in {PATIENCE:?}") };
    let tested = tested?;
    let said = &tested.err;
    ensure!(tested.status.success(), "hack/chart-test.sh ended with {}:\n{said}", tested.status);
    // Each line begins with the time.
    let words = |line: &str| line.split_once(' ').map(|(_, words)| words.to_owned());
    Ok(said.lines().filter_map(words).collect())
}
