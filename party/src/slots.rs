//! Work for whoever connects, bounded, without waiting for those who are slow.

use std::collections::VecDeque;
use std::future::Future;

use tokio::task::AbortHandle;

/// Tasks of which at most `limit` run at once: the oldest gives way to a new one.
///
/// Whoever keeps a task waiting only holds a place until so many others came. A genuine client
/// needs its place for milliseconds.
pub(crate) struct Slots {
    limit: usize,
    tasks: VecDeque<AbortHandle>,
}

impl Slots {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, tasks: VecDeque::with_capacity(limit) }
    }

    /// Runs a task. Returns whether another was ended for it. Needs the context of a tokio
    /// runtime.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        self.tasks.retain(|task| !task.is_finished());
        let oldest = if self.tasks.len() >= self.limit { self.tasks.pop_front() } else { None };
        if let Some(oldest) = &oldest {
            oldest.abort();
        }
        self.tasks.push_back(tokio::spawn(task).abort_handle());
        oldest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn the_oldest_task_gives_way_and_one_that_has_ended_holds_no_place() {
        let mut slots = Slots::new(2);
        let running = Arc::new(AtomicUsize::new(0));
        struct Running(Arc<AtomicUsize>);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let task = || {
            running.fetch_add(1, Ordering::Relaxed);
            let guard = Running(running.clone());
            async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            }
        };
        assert!(!slots.spawn(async {}));
        tokio::task::yield_now().await;
        assert!(!slots.spawn(task()) && !slots.spawn(task()));
        assert!(slots.spawn(task()));
        tokio::task::yield_now().await;
        assert_eq!(running.load(Ordering::Relaxed), 2);
    }
}
