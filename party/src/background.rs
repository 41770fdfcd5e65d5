//! The background thread, for what comes from outside the run: signals, and
//! those who ask how the party is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::logs;
use crate::signals::Signals;
use crate::stop::Stop;
use crate::termination::{Ending, Termination};

/// How long the run has to end by itself once it was told to stop: it tells its peers, but
/// may be in the middle of a long product or read.
const GRACE: Duration = Duration::from_millis(400);

/// The thread, as the run sees it.
#[derive(Clone, Debug)]
pub(crate) struct Background {
    runtime: Handle,
    stop: Stop,
}

impl Background {
    /// Starts the thread. On a signal it ends the process if the run does not end soon.
    ///
    /// # Errors
    /// If the operating system does not allow it.
    pub(crate) fn start(ending: Arc<Ending>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let signals = {
            let _context = runtime.enter();
            Signals::listen()?
        };
        let background = Self { runtime: runtime.handle().clone(), stop: Stop::default() };
        let stop = background.stop.clone();
        let watch = move || watch(&runtime, signals, &stop, &ending);
        std::thread::Builder::new().name("background".into()).spawn(watch)?;
        Ok(background)
    }

    /// Runs tasks on the thread.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Tells whether a signal came.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }
}

fn watch(runtime: &Runtime, mut signals: Signals, stop: &Stop, ending: &Ending) {
    // Everything else on this thread happens meanwhile.
    let signal = runtime.block_on(async {
        let signal = signals.next().await;
        logs::run().in_scope(|| tracing::info!(%signal, "told to stop"));
        stop.request(signal);
        tokio::time::sleep(GRACE).await;
        signal
    });
    logs::run().in_scope(|| tracing::warn!("the run did not end by itself"));
    let code = ending.end(&Termination::stopped(ending.role(), signal));
    std::process::exit(code.into());
}
