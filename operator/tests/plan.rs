//! The plan against a model of a cluster: whatever happens, in whatever order, and wherever
//! the operator is interrupted.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod model;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use model::cluster::{Event, Fault, Loss, ROLES, object};
use model::shell::Request;
use model::{Step, World};
use operator::api::v1alpha1::{
    PartyPhase, Phase, SecureInferenceSpec, SecureInferenceStatus, TtlAfterFinished,
};
use operator::conditions::{self, ACCEPTED, COMPLETE, FAILED, PARTIES_READY};
use party::termination::{Reason, Termination};
use proptest::collection::vec;
use proptest::prelude::*;

fn settings() -> impl Strategy<Value = SecureInferenceSpec> {
    let ttl = prop_oneof![6 => Just(None), 1 => (0u32..200).prop_map(Some)];
    let deadlines = prop_oneof![Just(20u32), Just(90), Just(300)];
    (0u32..4, deadlines, prop_oneof![Just(60u32), Just(1800)], any::<bool>(), any::<bool>(), ttl)
        .prop_map(|(backoff_limit, start, active, network_policy, suspend, ttl)| {
            SecureInferenceSpec {
                backoff_limit,
                start_deadline_seconds: start,
                active_deadline_seconds: active,
                network_policy,
                suspend: suspend && backoff_limit == 0,
                ttl_after_finished: ttl
                    .map(|ttl| TtlAfterFinished { succeeded: Some(ttl), failed: Some(ttl) }),
                ..SecureInferenceSpec::default()
            }
        })
}

fn event() -> impl Strategy<Value = Event> {
    let reasons = prop_oneof![
        Just(Reason::Internal),
        Just(Reason::BadInput),
        Just(Reason::Disagreement),
        Just(Reason::PeerLost),
        Just(Reason::Terminated),
    ];
    let fault = prop_oneof![
        6 => (reasons, any::<bool>()).prop_map(|(reason, speaks)| Fault::Exit(reason, speaks)),
        1 => Just(Fault::Memory),
        1 => Just(Fault::Mute),
    ];
    let loss = prop_oneof![
        Just(Loss::Deleted),
        Just(Loss::Forced),
        Just(Loss::Evicted),
        Just(Loss::Preempted),
        Just(Loss::NodeLost),
    ];
    let which = any::<u8>();
    prop_oneof![
        12 => which.prop_map(Event::Advance),
        12 => Just(Event::AdvanceAll),
        3 => (0u32..3000).prop_map(Event::Wait),
        2 => (0u32..100_000).prop_map(Event::Wait),
        1 => which.prop_map(Event::NoNode),
        1 => which.prop_map(Event::NoImage),
        1 => which.prop_map(Event::Flap),
        2 => (which, fault).prop_map(|(which, fault)| Event::Fail(which, fault)),
        3 => (which, loss).prop_map(|(which, loss)| Event::Lose(which, loss)),
        1 => which.prop_map(Event::DeleteService),
        1 => which.prop_map(Event::DeletePolicy),
        1 => which.prop_map(Event::DeleteSecret),
        1 => any::<bool>().prop_map(Event::Quota),
        1 => prop::bool::weighted(0.3).prop_map(Event::Suspend),
        1 => (0u32..4).prop_map(Event::BackoffLimit),
        1 => proptest::option::of(0u32..100).prop_map(Event::Ttl),
    ]
}

fn rare_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        300 => event(),
        1 => Just(Event::ChangeSpec),
        1 => any::<bool>().prop_map(|foreground| Event::DeleteResource { foreground }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        16 => Just(Request::Answered),
        2 => rare_event().prop_map(Request::After),
        1 => Just(Request::Refused),
        1 => prop::bool::weighted(0.2).prop_map(|ever| if ever { Request::Denied } else { Request::Refused }),
        1 => Just(Request::Failed),
        1 => Just(Request::NeverSent),
        1 => Just(Request::NeverHeard),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => rare_event().prop_map(Step::Happens),
        5 => Just(Step::Woken),
        5 => (vec(request(), 0..24), any::<u8>())
            .prop_map(|(requests, order)| Step::Reconcile(requests, order)),
        1 => any::<bool>().prop_map(Step::Rival),
        1 => any::<bool>().prop_map(Step::Crash),
    ]
}

/// `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases.unwrap_or(500)) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_it_comes_to_a_rightful_end(
        spec in settings(),
        steps in vec(step(), 0..60),
        resume in prop::bool::weighted(0.8),
    ) {
        let mut world = World::new(spec);
        for step in &steps {
            world.step(step);
        }
        if resume {
            world.step(&Step::Happens(Event::Suspend(false)));
        }
        world.settle();
    }

    #[test]
    fn an_operator_that_is_interrupted_changes_nothing_about_the_outcome(
        requests in vec(vec(request_without_events(), 0..24), 0..12),
        order in any::<u8>(),
    ) {
        let mut world = World::new(SecureInferenceSpec::default());
        for requests in requests {
            world.step(&Step::Reconcile(requests, order));
            world.step(&Step::Happens(Event::AdvanceAll));
        }
        world.settle();
        prop_assert!(world.is(COMPLETE), "{:#?}", world.status());
        prop_assert_eq!(world.status().attempt, Some(1));
    }
}

fn request_without_events() -> impl Strategy<Value = Request> {
    prop_oneof![
        8 => Just(Request::Answered),
        1 => Just(Request::Refused),
        1 => Just(Request::Failed),
        1 => Just(Request::NeverSent),
        1 => Just(Request::NeverHeard),
    ]
}

fn job() -> World {
    World::new(SecureInferenceSpec::default())
}

/// A run whose parties are all ready.
fn ready(spec: SecureInferenceSpec) -> World {
    let mut world = World::new(spec);
    world.reconcile();
    for _ in 0..3 {
        world.happen(Event::AdvanceAll);
    }
    world.reconcile();
    assert!(world.is(PARTIES_READY), "{:#?}", world.status());
    world
}

/// A run whose first attempt has just failed.
fn failed_once(spec: SecureInferenceSpec) -> World {
    let mut world = ready(spec);
    world.fail("alice", Fault::Exit(Reason::Internal, true));
    world.reconcile();
    assert_eq!(world.status().failed_attempts, Some(1));
    world
}

#[test]
fn a_run_without_trouble_is_complete_in_its_first_attempt() {
    let mut world = job();
    world.settle();
    assert!(world.is(COMPLETE), "{:#?}", world.status());
    let status = world.status();
    assert_eq!((status.attempt, status.failed_attempts), (Some(1), None));
    let phases: Vec<PartyPhase> = status.parties.iter().map(|party| party.phase).collect();
    let (stopped, done) = (PartyPhase::Stopped, PartyPhase::Succeeded);
    assert!(phases.iter().all(|phase| [stopped, done].contains(phase)), "{phases:?}");
    assert_eq!(phases[3..], [done, done], "without the players it is not complete");
    assert!(status.parties.iter().all(|party| party.ready_at.is_some()));
}

#[test]
fn how_the_parties_of_a_failed_run_ended_is_told_though_it_was_over_before() {
    let mut world = ready(SecureInferenceSpec { backoff_limit: 0, ..Default::default() });
    world.fail("alice", Fault::Exit(Reason::Internal, true));
    world.reconcile();
    let phase = |world: &World, role: &str| {
        let status = world.status();
        let party = status.parties.iter().find(|party| party.role == role).unwrap();
        (party.phase, party.exit_code)
    };
    assert!(world.is(FAILED));
    assert_eq!(phase(&world, "alice"), (PartyPhase::Failed, Some(1)));
    assert_eq!(phase(&world, "server0"), (PartyPhase::Stopped, None), "it still runs");
    world.settle();
    assert_eq!(phase(&world, "server0"), (PartyPhase::Failed, Some(4)), "{:#?}", world.status());
}

#[test]
fn results_do_not_pass_for_those_of_a_spec_that_was_changed_afterwards() {
    let mut world = job();
    world.settle();
    assert!(world.is(COMPLETE) && world.is(ACCEPTED));
    let results = world.status().results;
    world.happen(Event::ChangeSpec);
    world.settle();
    let status = world.status();
    let (reason, message) = world.condition(ACCEPTED);
    assert_eq!(reason, "SpecChanged");
    assert!(message.contains(&format!("digest {}", status.spec_digest.unwrap())), "{message}");
    assert!(world.is(COMPLETE) && !world.is(ACCEPTED) && status.results == results);
    assert_eq!(status.observed_generation, Some(2));
    // What may be changed changes nothing.
    let mut world = job();
    world.settle();
    world.happen(Event::BackoffLimit(3));
    world.settle();
    assert!(world.is(ACCEPTED) && world.status().observed_generation == Some(2));
}

#[test]
fn a_failed_attempt_is_followed_by_another_of_all_parties() {
    let mut world = failed_once(SecureInferenceSpec::default());
    let status = world.status();
    assert_eq!(
        world.condition(PARTIES_READY),
        ("AttemptFailed", "alice: Internal: alice failed in the test")
    );
    assert_eq!(status.failure.unwrap().exit_code, Some(1));
    world.settle();
    assert!(world.is(COMPLETE) && world.status().attempt == Some(2));
    assert_eq!(world.status().failure, None, "it is complete");
}

#[test]
fn what_a_new_attempt_would_not_mend_fails_at_once() {
    for reason in [Reason::BadInput, Reason::Disagreement] {
        for speaks in [true, false] {
            let mut world = ready(SecureInferenceSpec::default());
            world.fail("server1", Fault::Exit(reason, speaks));
            world.settle();
            let (told, message) = world.condition(FAILED);
            assert_eq!(told, format!("{reason:?}"), "{message}");
            assert!(
                message.starts_with("a new attempt would fail the same way: server1: "),
                "{message}"
            );
            assert_eq!(world.status().attempt, Some(1));
        }
    }
}

#[test]
fn an_end_without_a_result_is_the_failure_whatever_others_say() {
    let mut world = ready(SecureInferenceSpec::default());
    world.fail("bob", Fault::Mute);
    world.fail("alice", Fault::Exit(Reason::PeerLost, true));
    world.reconcile();
    assert_eq!(world.condition(FAILED).0, "NoResult");
}

#[test]
fn the_lost_are_named_and_not_those_that_miss_them() {
    let mut world = ready(SecureInferenceSpec::default());
    world.lose("server0", Loss::NodeLost);
    world.advance("producer", 0);
    // It blames the producer, which was taken along, and ended later by its node's clock.
    world.advance("alice", 1);
    let pod = world.cluster.pods.get_mut(&object(1, "alice")).unwrap();
    let state = pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].state.as_mut();
    let words = state.unwrap().terminated.as_mut().unwrap().message.as_mut().unwrap();
    assert!(words.contains(r#""peer":"producer""#), "{words}");
    let mut earlier = Termination::parse(words).unwrap();
    earlier.finished_at_ms -= 500;
    *words = earlier.to_json().unwrap();
    world.reconcile();
    let began = world.cluster.now;
    while world.status().failure.is_none() {
        assert_eq!(world.status().failed_attempts, None, "the cause may still show up");
        world.cluster.now = world.operator.again_at().expect("the end of the wait");
        world.reconcile();
    }
    let waited = world.cluster.now.duration_since(began).as_millis();
    assert!((14_000..=15_000).contains(&waited), "{waited} ms");
    let failure = world.status().failure.unwrap();
    assert_eq!((failure.role.as_deref(), &*failure.reason), (Some("server0"), "PeerLost"));
    assert_eq!(failure.message, "producer says: server0 has left");
    assert_eq!(failure.exit_code, None, "its own is not known");
}

#[test]
fn a_cause_that_shows_up_later_than_its_consequence_is_the_one_named() {
    let mut world = ready(SecureInferenceSpec::default());
    world.lose("server0", Loss::NodeLost);
    world.advance("alice", 0);
    world.reconcile();
    world.happen(Event::Wait(1000));
    world.fail("producer", Fault::Memory);
    world.reconcile();
    let failure = world.status().failure.unwrap();
    assert_eq!((failure.role.as_deref(), &*failure.reason), (Some("producer"), "OOMKilled"));
}

#[test]
fn a_node_whose_clock_is_ahead_does_not_keep_the_others_waiting() {
    let mut world = ready(SecureInferenceSpec::default());
    world.lose("server0", Loss::NodeLost);
    let now = world.cluster.now;
    world.cluster.wait(3_600_000);
    world.advance("alice", 0);
    world.cluster.now = now;
    world.reconcile();
    assert_eq!(world.status().failure.unwrap().role.as_deref(), Some("server0"));
}

#[test]
fn no_attempt_follows_when_the_limit_was_lowered_meanwhile() {
    let mut world = failed_once(SecureInferenceSpec::default());
    world.happen(Event::BackoffLimit(0));
    world.settle();
    let (reason, message) = world.condition(FAILED);
    assert_eq!(reason, "BackoffLimitExceeded");
    assert_eq!(
        message,
        "1 failed, spec.backoffLimit is 0: alice: Internal: alice failed in the test"
    );
    let status = world.status();
    assert_eq!((status.attempt, status.failed_attempts), (Some(1), Some(1)));
}

#[test]
fn what_it_waits_suspended_between_attempts_does_not_count() {
    let mut world = failed_once(SecureInferenceSpec::default());
    world.happen(Event::Suspend(true));
    world.settle();
    assert_eq!(world.status().phase, Some(Phase::Suspended));
    world.happen(Event::Wait(4_000_000));
    world.happen(Event::Suspend(false));
    world.settle();
    assert!(world.is(COMPLETE), "{:#?}", world.status());
}

#[test]
fn the_active_deadline_ends_the_wait_for_another_attempt() {
    let mut world = failed_once(SecureInferenceSpec::default());
    world.happen(Event::AdvanceAll);
    world.happen(Event::AdvanceAll);
    world.step(&Step::Rival(true));
    world.reconcile();
    assert_eq!(world.condition(PARTIES_READY).0, "Queued");
    let again = world.operator.again_at().expect("the deadline");
    world.cluster.now = again;
    world.reconcile();
    assert_eq!(
        world.condition(FAILED),
        (
            "ActiveDeadlineExceeded",
            "not complete after 1800 s (spec.activeDeadlineSeconds): it is queued: the \
             pods of another run are being scheduled"
        )
    );
    let status = world.status();
    assert_eq!(status.attempt, Some(1), "no attempt begins only to fail");
    assert_eq!(status.failure.unwrap().reason, "Internal", "why the last attempt failed");
}

/// While the API server is away, runs end and deadlines pass.
#[test]
fn what_ended_while_nobody_looked_is_complete_though_its_time_is_over() {
    let mut world = ready(SecureInferenceSpec::default());
    for _ in 0..3 {
        world.happen(Event::AdvanceAll);
    }
    world.step(&Step::Crash(false));
    world.happen(Event::Wait(4_000_000));
    world.reconcile();
    assert!(world.is(COMPLETE), "{:#?}", world.status());
    let status = world.status();
    assert_eq!((status.attempt, status.failed_attempts), (Some(1), None));
}

#[test]
fn the_active_deadline_names_who_is_late() {
    let spec =
        SecureInferenceSpec { active_deadline_seconds: 60, ..SecureInferenceSpec::default() };
    let mut world = World::new(spec);
    world.reconcile();
    world.happen(Event::AdvanceAll);
    world.no_image("alice");
    world.reconcile();
    world.happen(Event::Wait(60_000));
    world.reconcile();
    assert_eq!(world.condition(FAILED).0, "ActiveDeadlineExceeded");
    let failure = world.status().failure.unwrap();
    assert_eq!((failure.role.as_deref(), &*failure.reason), (Some("alice"), "ImagePullBackOff"));

    let mut world = ready(SecureInferenceSpec::default());
    world.happen(Event::Wait(1_800_000));
    world.reconcile();
    let (reason, message) = world.condition(FAILED);
    assert_eq!(reason, "ActiveDeadlineExceeded");
    assert_eq!(message, "not complete after 1800 s (spec.activeDeadlineSeconds): it still runs");
}

#[test]
fn the_start_deadline_names_who_is_late_and_why() {
    let mut world = job();
    world.reconcile();
    world.happen(Event::AdvanceAll);
    // The others are on their way.
    world.no_image("bob");
    world.reconcile();
    let image = "Back-off pulling image \"party\"";
    assert_eq!(world.condition(PARTIES_READY), ("ImagePullBackOff", &*format!("bob: {image}")));
    world.happen(Event::Wait(299_000));
    world.reconcile();
    assert!(!world.is(FAILED));
    world.cluster.now = world.operator.again_at().expect("the deadline");
    world.reconcile();
    let (reason, message) = world.condition(FAILED);
    assert_eq!(reason, "StartDeadlineExceeded");
    assert_eq!(
        message,
        format!("not all parties were ready within 300 s: bob: ImagePullBackOff: {image}")
    );
    let failure = world.status().failure.unwrap();
    assert_eq!((failure.role.as_deref(), &*failure.reason), (Some("bob"), "ImagePullBackOff"));
    assert_eq!(world.status().failed_attempts, None);
    world.settle();
}

#[test]
fn the_start_deadline_says_what_the_late_party_waits_for() {
    type Late = fn(&mut World);
    let cases: [(Late, &str, &str); 5] = [
        (|world| world.happen(Event::Quota(true)), "server0", "Refused"),
        (|_| {}, "server0", "NoNode"),
        (|world| world.happen(Event::NoNode(3)), "server0", "Unschedulable"),
        (|world| world.happen(Event::AdvanceAll), "server0", "ContainerCreating"),
        (
            |world| {
                world.happen(Event::AdvanceAll);
                world.happen(Event::DeleteSecret(0));
                world.happen(Event::AdvanceAll);
            },
            "alice",
            "ContainerCreating",
        ),
    ];
    for (happens, role, reason) in cases {
        let mut world = job();
        if reason == "Refused" {
            happens(&mut world);
        }
        world.reconcile();
        happens(&mut world);
        world.happen(Event::Wait(300_000));
        world.reconcile();
        let failure = world.status().failure.unwrap();
        assert_eq!((failure.role.as_deref(), &*failure.reason), (Some(role), reason));
        assert!(!failure.message.is_empty());
    }
}

#[test]
fn a_party_that_a_probe_missed_once_is_connected() {
    let mut world = job();
    world.reconcile();
    for _ in 0..2 {
        world.happen(Event::AdvanceAll);
    }
    world.advance("alice", 0);
    world.reconcile();
    world.unready("alice");
    for role in ["bob", "producer", "server0", "server1"] {
        world.advance(role, 0);
    }
    world.reconcile();
    assert!(world.is(PARTIES_READY), "{:#?}", world.status());
}

#[test]
fn what_a_party_has_done_is_done_though_its_pod_is_deleted() {
    let mut world = ready(SecureInferenceSpec::default());
    // The node of the player that commands is slow to say that it is done.
    let running = world.cluster.pods[&object(1, "bob")].clone();
    world.advance("bob", 0);
    let done = world.cluster.pods.insert(object(1, "bob"), running).unwrap();
    world.advance("alice", 0);
    // Details are not published more often.
    world.happen(Event::Wait(1000));
    world.reconcile();
    world.lose("alice", Loss::Forced);
    world.cluster.pods.insert(object(1, "bob"), done);
    world.reconcile();
    assert!(world.is(COMPLETE), "{:#?}", world.status());

    let mut world = ready(SecureInferenceSpec::default());
    world.advance("bob", 0);
    world.reconcile();
    world.lose("bob", Loss::Forced);
    world.reconcile();
    let failure = world.status().failure.expect("the result is gone with the pod");
    assert_eq!((failure.role.as_deref(), &*failure.reason), (Some("bob"), "PodDeleted"));
}

#[test]
fn policies_stay_until_nothing_runs() {
    let mut world = ready(SecureInferenceSpec::default());
    assert_eq!(world.cluster.policies.len(), 4);
    world.advance("bob", 0);
    world.advance("alice", 0);
    world.reconcile();
    assert!(world.is(COMPLETE));
    assert_eq!((world.cluster.pods.len(), world.cluster.policies.len()), (3, 4));
    assert!(world.cluster.services.is_empty() && world.cluster.secrets.is_empty());
    for _ in 0..2 {
        world.happen(Event::AdvanceAll);
    }
    world.reconcile();
    assert_eq!((world.cluster.pods.len(), world.cluster.policies.len()), (0, 0));
}

#[test]
fn the_pods_of_a_failed_run_get_a_moment_and_those_that_ended_stay() {
    let spec = SecureInferenceSpec { backoff_limit: 0, ..SecureInferenceSpec::default() };
    let mut world = failed_once(spec);
    assert!(world.is(FAILED));
    assert!(world.cluster.services.is_empty() && world.cluster.secrets.is_empty());
    world.advance("bob", 0);
    let deleted = |world: &World| {
        let pods = world.cluster.pods.values();
        pods.filter(|pod| pod.metadata.deletion_timestamp.is_some()).count()
    };
    world.reconcile();
    assert_eq!(deleted(&world), 0);
    // First it tells how bob ended.
    for _ in 0..2 {
        assert_eq!(deleted(&world), 0);
        world.cluster.now = world.operator.again_at().expect("the moment's end");
        world.reconcile();
    }
    assert_eq!(deleted(&world), 3);
    world.settle();
    assert_eq!(world.cluster.names(), [object(1, "alice"), object(1, "bob")]);
}

#[test]
fn secrets_go_even_if_somebody_deletes_services_and_pods_at_once() {
    let mut world = ready(SecureInferenceSpec::default());
    world.happen(Event::DeleteService(0));
    world.happen(Event::DeleteService(0));
    for role in ROLES {
        world.lose(role, Loss::Forced);
    }
    assert_eq!(world.cluster.secrets.len(), 5);
    world.reconcile();
    assert_eq!(world.cluster.secrets.len(), 0);
}

#[test]
fn a_pod_that_lands_late_goes_before_others_come() {
    let mut world = ready(SecureInferenceSpec::default());
    let late = world.cluster.pods[&object(1, "server1")].clone();
    world.fail("alice", Fault::Exit(Reason::Internal, true));
    world.reconcile();
    for _ in 0..2 {
        world.happen(Event::AdvanceAll);
    }
    assert!(world.cluster.pods.is_empty());
    // It begins the next attempt and ends before it has made anything.
    world.step(&Step::Reconcile(vec![Request::NeverHeard], 0));
    assert_eq!(world.status().attempt, Some(2));
    world.cluster.pods.insert(object(1, "server1"), late);
    world.reconcile();
    assert!(world.cluster.pods[&object(1, "server1")].metadata.deletion_timestamp.is_some());
    world.settle();
    assert!(world.is(COMPLETE) && world.status().attempt == Some(2));
}

#[test]
fn a_run_without_nodes_gives_way_to_those_that_wait() {
    type Without = fn(&mut World);
    let cases: [(Without, &str); 2] = [
        (
            |world| (0..5).for_each(|which| world.happen(Event::NoNode(which))),
            "other runs were waiting: Unschedulable: server0: 0/3 nodes are available: 3 \
             Insufficient cpu.",
        ),
        (
            |world| {
                world.happen(Event::Quota(true));
                world.happen(Event::Lose(0, Loss::Forced));
            },
            "other runs were waiting: Refused: cannot make the pods: exceeded quota: pods",
        ),
    ];
    for (happens, message) in cases {
        let mut world = job();
        world.reconcile();
        happens(&mut world);
        world.reconcile();
        world.step(&Step::Rival(true));
        world.reconcile();
        assert!(world.holds_turn(), "patience");
        world.happen(Event::Wait(30_000));
        world.reconcile();
        assert_eq!(world.condition(PARTIES_READY), ("GaveWay", message));
        let status = world.status();
        assert_eq!((status.start_seconds_used, status.failed_attempts), (Some(30), None));
        assert!(!world.holds_turn());
        world.settle();
        assert!(world.is(COMPLETE) && world.status().attempt == Some(2), "{:#?}", world.status());
    }
}

#[test]
fn who_is_queued_wakes_the_run_that_has_the_turn() {
    let mut world = job();
    world.reconcile();
    (0..5).for_each(|which| world.happen(Event::NoNode(which)));
    world.reconcile();
    let waits = |world: &World| {
        let again = world.operator.again_at().expect("a deadline");
        again.duration_since(world.cluster.now).as_secs()
    };
    assert!(waits(&world) > 200, "nobody waits for it: its own deadline is the next thing");
    assert!(!world.operator.is_due(&world.cluster));
    world.step(&Step::Rival(true));
    assert!(world.operator.is_due(&world.cluster), "it is told");
    world.reconcile();
    assert!(waits(&world) <= 30);
    world.happen(Event::Wait(30_000));
    world.reconcile();
    assert_eq!(world.condition(PARTIES_READY).0, "GaveWay");
    // The other has the turn now, and this one does not take it back.
    for _ in 0..2 {
        world.happen(Event::AdvanceAll);
    }
    world.reconcile();
    assert!(!world.holds_turn());
    assert_eq!(world.status().attempt, Some(1));
}

#[test]
fn a_run_whose_scheduler_says_nothing_gives_way_too() {
    let mut world = job();
    world.reconcile();
    world.step(&Step::Rival(true));
    world.happen(Event::Wait(40_000));
    world.reconcile();
    assert!(world.holds_turn(), "the scheduler may be busy");
    world.happen(Event::Wait(20_000));
    world.reconcile();
    assert_eq!(world.condition(PARTIES_READY).0, "GaveWay");
}

/// A quantity that is none, a label that is none, a rule of the cluster's.
#[test]
fn what_would_be_refused_again_fails_at_once_with_the_api_servers_words() {
    let mut world = job();
    let mut requests = vec![Request::Answered; 7];
    requests.push(Request::Denied);
    world.step(&Step::Reconcile(requests, 0));
    world.reconcile();
    let (reason, message) = world.condition(FAILED);
    assert_eq!(reason, "Refused");
    assert!(
        message.starts_with(
            "a new attempt would fail the same way: server0: Refused: cannot make the "
        ),
        "{message}"
    );
    assert!(message.ends_with(": invalid"), "{message}");
    let status = world.status();
    assert_eq!((status.attempt, status.failed_attempts), (Some(1), None));
    assert_eq!(status.failure.unwrap().reason, "Refused");
    assert!(!world.holds_turn());
    world.settle();
}

#[test]
fn one_pod_that_is_refused_does_not_keep_the_others_from_being_made() {
    let mut world = job();
    let made = |world: &mut World, refused: usize| {
        // The status, four policies, two Services, the status, five Secrets, five pods.
        let mut requests = vec![Request::Answered; 18];
        requests[13 + refused] = Request::Refused;
        world.step(&Step::Reconcile(requests, 0));
        world.cluster.pods.len()
    };
    assert_eq!(made(&mut world, 0), 4);
    world.settle();
    assert!(world.is(COMPLETE) && world.status().attempt == Some(1), "{:#?}", world.status());
}

#[test]
fn time_without_nodes_counts_until_an_attempt_fails_by_itself() {
    let mut world = job();
    world.reconcile();
    (0..5).for_each(|which| world.happen(Event::NoNode(which)));
    world.step(&Step::Rival(true));
    world.happen(Event::Wait(40_000));
    world.reconcile();
    assert_eq!(world.status().start_seconds_used, Some(40));
    world.step(&Step::Rival(false));
    world.reconcile();
    for _ in 0..3 {
        world.happen(Event::AdvanceAll);
    }
    world.reconcile();
    assert!(world.is(PARTIES_READY) && world.status().attempt == Some(2));
    world.fail("alice", Fault::Memory);
    world.reconcile();
    assert_eq!(world.status().start_seconds_used, None);
}

#[test]
fn the_turn_is_held_until_all_pods_have_nodes() {
    let mut world = job();
    world.step(&Step::Rival(true));
    world.reconcile();
    assert_eq!(world.condition(PARTIES_READY).0, "Queued");
    assert_eq!((world.status().attempt, world.cluster.pods.len()), (None, 0));
    world.step(&Step::Rival(false));
    world.reconcile();
    assert!(world.holds_turn() && world.cluster.pods.len() == 5);
    for role in ["alice", "bob", "producer", "server0"] {
        world.advance(role, 0);
        world.reconcile();
        assert!(world.holds_turn());
    }
    world.advance("server1", 0);
    world.reconcile();
    assert!(!world.holds_turn());
}

#[test]
fn a_pod_of_a_silent_node_is_forgotten_in_the_end() {
    let mut world = ready(SecureInferenceSpec::default());
    world.lose("server0", Loss::NodeLost);
    world.settle();
    assert!(world.is(COMPLETE) && world.status().attempt == Some(2), "{:#?}", world.status());
}

#[test]
fn a_finished_resource_goes_when_its_time_is_over() {
    let ttl = |succeeded, failed| SecureInferenceSpec {
        backoff_limit: 0,
        ttl_after_finished: Some(TtlAfterFinished { succeeded, failed }),
        ..SecureInferenceSpec::default()
    };
    for (spec, fails, goes) in [
        (ttl(Some(60), None), false, true),
        (ttl(None, Some(60)), true, true),
        (ttl(None, Some(60)), false, false),
        (ttl(Some(60), None), true, false),
    ] {
        let mut world = ready(spec);
        if fails {
            world.fail("alice", Fault::Memory);
        } else {
            world.advance("bob", 0);
            world.advance("alice", 0);
        }
        world.reconcile();
        let ended = world.cluster.now;
        world.settle();
        assert_eq!(world.cluster.resource.is_none(), goes);
        let waited = world.cluster.now.duration_since(ended).as_secs();
        assert!(!goes || (59..90).contains(&waited), "{waited} s");
    }
}

#[test]
fn a_resource_that_could_not_be_read_has_its_time_too() {
    let mut world = job();
    let (now, mut status) = (world.cluster.now, SecureInferenceStatus::default());
    conditions::set(&mut status, FAILED, true, "Malformed", "cannot be read", now, Some(1));
    world.cluster.resource.as_mut().unwrap().status = Some(status);
    world.happen(Event::Ttl(Some(60)));
    world.happen(Event::Wait(50_000));
    world.reconcile();
    let goes = world.operator.again_at().expect("its time");
    assert_eq!(goes.duration_since(now).as_secs(), 59, "from when it failed, to the second");
}

#[test]
fn a_changed_spec_is_refused_unless_the_operator_is_what_changed() {
    let mut world = ready(SecureInferenceSpec::default());
    world.happen(Event::ChangeSpec);
    world.settle();
    assert_eq!(world.condition(FAILED).0, "SpecChanged");
    assert_eq!(world.condition(ACCEPTED).0, "SpecChanged");

    let mut world = ready(SecureInferenceSpec::default());
    let resource = world.cluster.resource.as_mut().unwrap();
    resource.status.as_mut().unwrap().spec_digest = Some("of an older operator".into());
    world.settle();
    assert!(world.is(COMPLETE));
}

#[test]
fn an_invalid_resource_is_refused_and_nothing_is_made() {
    let mut world = job();
    world.cluster.resource.as_mut().unwrap().metadata.name = Some("Sum".into());
    world.settle();
    assert_eq!(world.condition(FAILED).0, "InvalidSpec");
    let (reason, message) = world.condition(ACCEPTED);
    assert_eq!(reason, "InvalidSpec");
    assert!(message.starts_with("metadata.name is \"Sum\"; it must be"), "{message}");
    assert!(world.cluster.pods.is_empty() && world.cluster.services.is_empty());
}

#[test]
fn what_turned_and_turned_back_at_once_has_not_turned() {
    let spec =
        SecureInferenceSpec { active_deadline_seconds: 60, ..SecureInferenceSpec::default() };
    let mut world = World::new(spec);
    world.reconcile();
    for _ in 0..3 {
        world.happen(Event::AdvanceAll);
    }
    world.happen(Event::Wait(60_000));
    world.reconcile();
    let status = world.status();
    let [ready, failed] =
        [PARTIES_READY, FAILED].map(|kind| conditions::find(&status, kind).unwrap());
    assert_eq!((&*ready.status, &*failed.status), ("False", "True"));
    assert!(ready.last_transition_time < failed.last_transition_time);
}

#[test]
fn a_run_waits_for_the_pods_of_an_earlier_resource_of_its_name_and_says_so() {
    let owned = |deleted: bool| -> Pod {
        let mut world = ready(SecureInferenceSpec::default());
        let mut pod = world.cluster.pods.pop_first().unwrap().1;
        pod.metadata.uid = Some("earlier".into());
        pod.metadata.deletion_timestamp = deleted.then_some(Time(world.cluster.now));
        pod
    };
    // Whether it is deleted already, and how long it is waited for if nobody says that it is gone.
    for (deleted, seconds) in [(true, 60), (false, 60)] {
        let mut world = job();
        world.cluster.predecessors = vec![owned(deleted)];
        world.reconcile();
        let status = world.status();
        let waits = conditions::find(&status, PARTIES_READY).unwrap();
        assert_eq!(&*waits.reason, "TearingDown");
        assert_eq!(waits.message, "the pods of an earlier resource of this name are going");
        assert_eq!((status.attempt, world.cluster.pods.len()), (None, 0), "nothing is made");
        assert!(!world.holds_turn(), "others have their turn meanwhile");
        let mut lost = job();
        lost.cluster.predecessors = vec![owned(deleted)];
        lost.reconcile();
        lost.happen(Event::Wait(1000 * (seconds + 1)));
        lost.reconcile();
        assert_eq!(lost.status().attempt, Some(1), "not for ever: {deleted}");
        // Once they are gone it begins.
        world.cluster.predecessors.clear();
        world.settle();
        assert!(world.is(COMPLETE), "{:#?}", world.status());
    }
    // What has ended needs nothing any more.
    let mut world = job();
    let mut ended = owned(false);
    ended.status.get_or_insert_default().phase = Some("Failed".into());
    world.cluster.predecessors = vec![ended];
    world.reconcile();
    assert_eq!(world.status().attempt, Some(1));
}
