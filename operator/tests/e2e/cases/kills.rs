//! A party that goes in mid-run ends the attempt; the next is a new one in every respect.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Event, Pod, Secret};
use kube::ResourceExt;
use kube::api::{DeleteParams, EvictParams};
use operator::api::v1alpha1::{Failure, SecureInferenceStatus};
use operator::resources::{ATTEMPT, ROLE, SESSION};

use crate::film::Film;
use crate::report::Figures;
use crate::room::{LASTING, PATIENCE, ROLES, Room, check_complete, lasting};

/// Its pod is deleted at once.
pub(super) async fn deleted(room: &Room, role: &str) -> anyhow::Result<Figures> {
    let failure = killed(room, role, async |pod: &Pod| {
        let now = DeleteParams::default().grace_period(0);
        room.api::<Pod>().delete(&pod.name_any(), &now).await?;
        Ok(())
    })
    .await?;
    ensure!(failure.reason == "PodDeleted", "expected reason PodDeleted, found {failure:?}");
    Ok(Figures::new())
}

/// Its pod is evicted, as by whoever drains its node.
pub(super) async fn evicted(room: &Room, role: &str) -> anyhow::Result<Figures> {
    let failure = killed(room, role, async |pod: &Pod| {
        room.api::<Pod>().evict(&pod.name_any(), &EvictParams::default()).await?;
        Ok(())
    })
    .await?;
    let reason = eviction(room);
    ensure!(failure.reason == reason, "expected reason {reason}, found {failure:?}");
    Ok(vec![format!("{reason}: {}", failure.message)])
}

/// What an API server says of a pod that is evicted: before 1.26 only that it is deleted.
pub(super) fn eviction(room: &Room) -> &'static str {
    match room.cluster().since(1, 26) {
        true => "EvictionByEvictionAPI",
        false => "PodDeleted",
    }
}

/// Its process is killed, as for lack of memory.
pub(super) async fn process(room: &Room, role: &str) -> anyhow::Result<Figures> {
    let failure = killed(room, role, async |pod: &Pod| kill(room, pod).await).await?;
    ensure!(
        failure.reason == "Killed" && failure.exit_code == Some(137),
        "expected reason Killed and exit code 137, found {failure:?}"
    );
    Ok(Figures::new())
}

/// Kills the process of a pod on this machine.
pub(super) async fn kill(room: &Room, pod: &Pod) -> anyhow::Result<()> {
    let machine = room.cluster().machine.as_ref().context("needs the node's processes")?;
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let id = containers.and_then(|containers| containers.first()?.container_id.clone());
    let id = id.with_context(|| format!("{} has no container", pod.name_any()))?;
    machine.signal(&id, "KILL").await
}

/// Ends a party with `end`; what was said of the first attempt.
async fn killed(
    room: &Room,
    role: &str,
    end: impl AsyncFnOnce(&Pod) -> anyhow::Result<()>,
) -> anyhow::Result<Failure> {
    let secrets: Film<Secret> = room.film().await?;
    room.create("run", lasting(LASTING)).await?;
    if role == "model-owner" {
        // Once all are ready it is done, and its loss is none.
        let made = |status: &SecureInferenceStatus| (!status.parties.is_empty()).then_some(());
        room.status("run", "has parties", PATIENCE, made).await?;
    } else {
        room.ready("run", 1).await?;
    }
    end(&room.pod(role)?).await?;
    let failure =
        room.status("run", "failed once", PATIENCE, |status| status.failure.clone()).await?;
    ensure!(
        failure.role.as_deref() == Some(role) && failure.attempt == 1,
        "expected {role} to have failed in attempt 1, found {failure:?}"
    );
    told(room, &failure).await?;
    let status = room.complete("run", 2 * PATIENCE).await?;
    check_complete(&status)?;
    ensure!(
        status.attempt == Some(2),
        "expected attempt 2 to be complete, found {:?}",
        status.attempt
    );
    let failures = status.failed_attempts;
    ensure!(failures == Some(1), "expected 1 failed attempt, found {failures:?}");
    check_attempts_share_nothing(&secrets)?;
    Ok(failure)
}

/// Checks that an event tells people who failed, and why.
pub(super) async fn told(room: &Room, failure: &Failure) -> anyhow::Result<()> {
    let role = failure.role.as_deref().context("expected a role in the failure")?;
    let note = format!("attempt {}: {role}: {}: ", failure.attempt, failure.reason);
    let events: Film<Event> = Film::start(room.api(), "").await?;
    let what = format!("an event AttemptFailed with «{note}»");
    events
        .until(&what, PATIENCE, |events| {
            let tells = |event: &&Event| {
                event.reason.as_deref() == Some("AttemptFailed")
                    && event.message.as_ref().is_some_and(|message| message.starts_with(&note))
            };
            events.values().find(tells).map(|_| ())
        })
        .await
}

/// No session, key or authority of one attempt is of another, and no two parties share a key.
pub(super) fn check_attempts_share_nothing(secrets: &Film<Secret>) -> anyhow::Result<()> {
    // By attempt, what there is of a kind; and all keys, by whose they are.
    let mut sessions = BTreeMap::<String, BTreeSet<String>>::new();
    let mut authorities = BTreeMap::<String, BTreeSet<Vec<u8>>>::new();
    let mut keys = BTreeMap::<Vec<u8>, BTreeSet<(String, String)>>::new();
    for frame in secrets.frames() {
        let secret = frame.object;
        let label = |key: &str| {
            let value = secret.labels().get(key).cloned();
            value.with_context(|| format!("a Secret has no label {key}"))
        };
        let data = |key: &str| {
            let value = secret.data.as_ref().and_then(|data| data.get(key)).cloned();
            Ok::<_, anyhow::Error>(value.with_context(|| format!("a Secret has no {key}"))?.0)
        };
        let (attempt, role) = (label(ATTEMPT)?, label(ROLE)?);
        let session = secret.annotations().get(SESSION).context("a Secret has no session")?;
        sessions.entry(attempt.clone()).or_default().insert(session.clone());
        authorities.entry(attempt.clone()).or_default().insert(data("ca.crt")?);
        keys.entry(data("tls.key")?).or_default().insert((attempt, role));
    }
    ensure!(sessions.len() == 2, "expected Secrets of 2 attempts, found {:?}", sessions.keys());
    for (what, of_attempts) in [
        ("session", sessions.values().map(BTreeSet::len).collect::<Vec<_>>()),
        ("authority", authorities.values().map(BTreeSet::len).collect()),
    ] {
        ensure!(
            of_attempts == [1, 1],
            "expected one {what} in each attempt, found {of_attempts:?}"
        );
    }
    let distinct = |count: usize, what: &str| {
        ensure!(count == 2, "both attempts have the same {what}");
        Ok(())
    };
    distinct(sessions.values().flatten().collect::<BTreeSet<_>>().len(), "session")?;
    distinct(authorities.values().flatten().collect::<BTreeSet<_>>().len(), "authority")?;
    let expected = 2 * ROLES.len();
    ensure!(keys.len() == expected, "expected {expected} keys, found {}", keys.len());
    let shared = keys.values().find(|owners| owners.len() > 1);
    ensure!(shared.is_none(), "a key is of several parties: {shared:?}");
    Ok(())
}
