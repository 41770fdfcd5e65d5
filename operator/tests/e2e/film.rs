//! What was seen of objects, and when.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow};
use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// How long the first listing may take.
const LISTING: Duration = Duration::from_secs(30);

/// One thing that was seen.
#[derive(Clone)]
pub(crate) struct Frame<K> {
    /// When, for durations.
    pub(crate) at: Instant,
    /// When, for comparisons with what others wrote down.
    pub(crate) wall: SystemTime,
    /// The object, as it was last seen if it is gone.
    pub(crate) object: K,
    /// Whether it is gone.
    pub(crate) gone: bool,
}

/// Objects by name.
pub(crate) type Present<K> = BTreeMap<String, K>;

struct Reel<K> {
    frames: Vec<Frame<K>>,
    present: Present<K>,
}

impl<K: Resource + Clone> Reel<K> {
    fn add(&mut self, object: K, gone: bool) {
        let name = object.name_any();
        match gone {
            true => drop(self.present.remove(&name)),
            false => drop(self.present.insert(name, object.clone())),
        }
        self.frames.push(Frame { at: Instant::now(), wall: SystemTime::now(), object, gone });
    }

    fn take(&mut self, event: Event<K>, listed: &mut Vec<String>) {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                listed.push(object.name_any());
                let known = self.present.get(&object.name_any());
                if known.and_then(ResourceExt::resource_version) != object.resource_version() {
                    self.add(object, false);
                }
            }
            Event::InitDone => {
                let there = |name: &String| listed.contains(name);
                let gone = self.present.iter().filter(|(name, _)| !there(name));
                let gone: Vec<K> = gone.map(|(_, object)| object.clone()).collect();
                gone.into_iter().for_each(|object| self.add(object, true));
            }
            Event::Apply(object) => self.add(object, false),
            Event::Delete(object) => self.add(object, true),
        }
    }
}

/// A kind whose objects can be recorded.
pub(crate) trait Filmed:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static
{
}

impl<K> Filmed for K where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static
{
}

/// A recording of all objects of an API, from its start until it is dropped. It survives
/// that the API server is away.
pub(crate) struct Film<K> {
    reel: Arc<Mutex<Reel<K>>>,
    changes: watch::Receiver<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl<K> Drop for Film<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K> Film<K>
where
    K: Filmed,
{
    /// Begins, and returns when what is there already has been seen.
    pub(crate) async fn start(api: Api<K>, labels: &str) -> anyhow::Result<Self> {
        let reel = Arc::new(Mutex::new(Reel { frames: Vec::new(), present: Present::new() }));
        let (changed, changes) = watch::channel(0);
        let (listed, mut first) = watch::channel(false);
        let events = watcher(api, Config::default().labels(labels)).default_backoff();
        let recorded = reel.clone();
        let task = tokio::spawn(async move {
            let mut names = Vec::new();
            let mut events = pin!(events);
            while let Some(event) = events.next().await {
                // It tries again by itself; who waits for something gives up in time.
                let Ok(event) = event else { continue };
                let done = matches!(event, Event::InitDone);
                lock(&recorded).take(event, &mut names);
                changed.send_modify(|count| *count += 1);
                if done {
                    listed.send_replace(true);
                }
            }
        });
        let film = Self { reel, changes, task };
        tokio::time::timeout(LISTING, first.wait_for(|listed| *listed))
            .await
            .with_context(|| format!("cannot list {} within {LISTING:?}", K::plural(&())))??;
        Ok(film)
    }

    /// Everything that was seen so far, in order.
    pub(crate) fn frames(&self) -> Vec<Frame<K>> {
        lock(&self.reel).frames.clone()
    }

    /// What is there now.
    pub(crate) fn present(&self) -> Present<K> {
        lock(&self.reel).present.clone()
    }

    /// Waits until `find` finds something in what is there.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        within: Duration,
        mut find: impl FnMut(&Present<K>) -> Option<T>,
    ) -> anyhow::Result<T> {
        self.until_some(what, within, |present| Ok(find(present))).await
    }

    /// Waits until `find` finds something, or says that it never will.
    pub(crate) async fn until_some<T>(
        &self,
        what: &str,
        within: Duration,
        mut find: impl FnMut(&Present<K>) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let mut changes = self.changes.clone();
        let look = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = find(&lock(&self.reel).present)? {
                    return Ok::<T, anyhow::Error>(found);
                }
                changes.changed().await.map_err(|_| anyhow!("the watch ended"))?;
            }
        };
        match tokio::time::timeout(within, look).await {
            Ok(found) => found.with_context(|| format!("expected {what}")),
            Err(_) => Err(anyhow!("expected {what} within {within:?}")),
        }
    }
}

fn lock<K>(reel: &Mutex<Reel<K>>) -> MutexGuard<'_, Reel<K>> {
    reel.lock().unwrap_or_else(PoisonError::into_inner)
}
