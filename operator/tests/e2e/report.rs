//! What people read: a line for each case, and all about those that fail.

use std::time::{Duration, Instant};

/// Why a case cannot run here.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Skip(pub(crate) String);

/// What cases measure, a line each.
pub(crate) type Figures = Vec<String>;

/// How the cases went.
pub(crate) struct Report {
    began: Instant,
    passed: usize,
    skipped: usize,
    failed: Vec<&'static str>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), passed: 0, skipped: 0, failed: Vec::new() }
    }

    /// Tells how a case went; `diagnosis` is for one that failed.
    pub(crate) fn tell(
        &mut self,
        name: &'static str,
        took: Duration,
        outcome: &anyhow::Result<Figures>,
        diagnosis: &str,
    ) {
        let took = took.as_secs_f64();
        match outcome {
            Ok(figures) => {
                self.passed += 1;
                println!("ok       {name}  {took:.1} s");
                figures.iter().for_each(|figure| println!("           {figure}"));
            }
            Err(error) => match error.downcast_ref::<Skip>() {
                Some(reason) => {
                    self.skipped += 1;
                    println!("SKIPPED  {name}: {reason}");
                }
                None => {
                    self.failed.push(name);
                    println!("FAILED   {name}  {took:.1} s\n{error:#}\n{}", diagnosis.trim_end());
                    println!("end of {name}\n");
                }
            },
        }
    }

    /// Tells how all went; whether well.
    pub(crate) fn end(&self) -> bool {
        let took = self.began.elapsed().as_secs_f64();
        let (passed, skipped) = (self.passed, self.skipped);
        println!("{passed} passed, {} failed, {skipped} skipped in {took:.0} s", self.failed.len());
        self.failed.iter().for_each(|name| println!("  failed: {name}"));
        self.failed.is_empty()
    }
}

/// Tells that there is no cluster to test on.
pub(crate) fn skipped_all(reasons: &str) {
    let line = "=".repeat(80);
    println!(
        "{line}\nEND-TO-END TESTS SKIPPED: no cluster to run them on.\n{}",
        reasons.trim_end()
    );
    println!("Name a cluster with KUBECONFIG, and an image that it has with E2E_IMAGE.\n{line}");
}
