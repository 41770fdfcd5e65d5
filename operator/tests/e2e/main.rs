//! End-to-end tests: the operator from its image, under its own permissions, on a real cluster.
//!
//! `make e2e` runs them all. They use the cluster that `KUBECONFIG` names, and then the image
//! that `E2E_IMAGE` names; without it the throwaway cluster of `hack/test-cluster`, which they
//! bring up and take down, with an image that they build. On a machine that has neither they
//! say so and are skipped.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a test program")]

mod cases;
mod cluster;
#[path = "../../../party/tests/collector/mod.rs"]
mod collector;
mod film;
#[path = "../hostile_resources/mod.rs"]
mod hostile_resources;
mod operator;
mod process;
mod prometheus;
#[path = "../queries/mod.rs"]
mod queries;
mod report;
mod room;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use clap::Parser;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use tokio::signal::unix::{SignalKind, signal};

use cases::{CASES, Case};
use cluster::{Cluster, Site};
use film::Film;
use operator::{MARK, Operator};
use report::Report;
use room::World;

/// How long namespaces of cases may take to go.
const FAREWELL: Duration = Duration::from_secs(120);

/// End-to-end tests of the operator on a real cluster.
///
/// KUBECONFIG names a cluster and E2E_IMAGE an image that it has; without them the throwaway
/// cluster of hack/test-cluster is brought up, and the image built.
#[derive(Parser)]
#[command(bin_name = "cargo test -p operator --test e2e --")]
struct Arguments {
    /// Only cases whose names contain one of these
    filters: Vec<String>,
    /// Leave out those that take minutes, such as what drains and upgrades do
    #[arg(long)]
    brief: bool,
    /// Print the names of the cases, and run none
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let contains = |case: &&Case| {
        arguments.filters.is_empty()
            || arguments.filters.iter().any(|word| case.name.contains(word))
    };
    let brief = |case: &&Case| !(arguments.brief && case.long);
    let chosen: Vec<&Case> = CASES.iter().filter(contains).filter(brief).collect();
    if arguments.list {
        chosen.iter().for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    }
    if arguments.brief {
        let long = CASES.iter().filter(|case| case.long).count();
        println!(
            "without the {long} cases that take minutes; --list shows all, make e2e runs them"
        );
    }
    if chosen.is_empty() {
        eprintln!("no case has {} in its name; --list shows them", arguments.filters.join(" or "));
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(&chosen));
    // A program that is still being waited for must not hold this one up.
    runtime.shutdown_background();
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs cases, and puts everything back; whether all of them passed.
async fn run(chosen: &[&'static Case]) -> anyhow::Result<bool> {
    let site = match Site::find().await? {
        Ok(site) => site,
        Err(reasons) => {
            report::skipped_all(&reasons);
            return Ok(true);
        }
    };
    let mut changed = None;
    let outcome = tokio::select! {
        outcome = test(&site, chosen, &mut changed) => outcome,
        interrupted = interrupted() => Err(interrupted),
    };
    eprintln!("putting everything back");
    let cleaned = match (site.end().await, changed) {
        (Ok(false), Some(cluster)) => clean(cluster).await,
        (ended, _) => ended.map(drop),
    };
    if let Err(error) = cleaned {
        eprintln!("could not put everything back: {error:#}");
    }
    outcome
}

/// Runs cases. `changed` is the cluster once something may have been made in it.
async fn test(
    site: &Site,
    chosen: &[&'static Case],
    changed: &mut Option<Arc<Cluster>>,
) -> anyhow::Result<bool> {
    site.prepare().await?;
    let cluster = Arc::new(site.connect().await?);
    let operator = Operator::at(cluster.clone());
    operator.check_absent().await?;
    *changed = Some(cluster.clone());
    clear(&cluster).await?;
    operator.install().await?;
    let (major, minor) = cluster.version;
    println!("Kubernetes {major}.{minor}, image {}, {} cases", cluster.image, chosen.len());
    // The long ones ask for nothing that the others do not.
    let is_chosen = |case: &Case| chosen.iter().any(|chosen| chosen.name == case.name);
    let all_cases = CASES.iter().all(|case| case.long || is_chosen(case));
    let world = Arc::new(World { cluster, operator, all_cases });
    let mut report = Report::new();
    let mut rest = chosen;
    while let Some(first) = rest.first() {
        // Neighbours that do not mind each other run at the same time.
        let together = if first.alone { 1 } else { rest.iter().take_while(|c| !c.alone).count() };
        let (now, later) = rest.split_at(together);
        rest = later;
        if first.quiet {
            clear(&world.cluster).await?;
        }
        cases::run(&world, now, &mut report).await;
    }
    Ok(report.end())
}

/// Deletes the namespaces of cases and waits until they are gone.
async fn clear(cluster: &Cluster) -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let labels = format!("{MARK}=true,app.kubernetes.io/name!=secure-inference");
    let film = Film::start(namespaces.clone(), &labels).await?;
    for namespace in namespaces.list(&ListParams::default().labels(&labels)).await? {
        if let Some(name) = &namespace.metadata.name {
            namespaces.delete(name, &DeleteParams::background()).await?;
        }
    }
    let gone = "the namespaces of earlier cases to be gone";
    film.until(gone, FAREWELL, |present| present.is_empty().then_some(())).await
}

/// Removes what tests have left in a cluster that stays.
async fn clean(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    clear(&cluster).await?;
    Operator::at(cluster).remove().await
}

async fn interrupted() -> anyhow::Error {
    let asked = async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::io::Result::Ok(())
    };
    match asked.await {
        Ok(()) => anyhow!("interrupted"),
        Err(error) => anyhow!("cannot listen for signals: {error}"),
    }
}
