//! What is done to the parties, and what must come of it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use bytes::Bytes;
use party::net::wire::{Chunk, Frame};
use party::termination::{Reason, Termination};
use rustix::process::Signal;
use spdz::channel::{Phase, Role};

use crate::common::{Strangers, get, own_folder, party_program, wait_for, watch};
use crate::openings::{Record, under_one_mask};
use crate::relay::{Admission, Place, Rule, Verdict, chunk, of_chunk, tag};
use crate::report::{Figures, Skip};
use crate::scene::{CONNECT, End, MESSAGE, Outcome, Processes, Scene, all_roles};
use crate::{Effort, each};

/// Something that happens to the parties.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Effort) -> anyhow::Result<Figures>,
}

const fn case(name: &'static str, run: fn(&Effort) -> anyhow::Result<Figures>) -> Case {
    Case { name, run }
}

/// All of them.
pub(crate) const CASES: &[Case] = &[
    case("killed at a message, and tried again", killed),
    case("stopped, and going on when it is too late", stalled),
    case("a connection falls silent", silent),
    case("a connection is cut, and tried again", cut),
    case("connections fail before the session begins", before_the_session),
    case("messages are late", late),
    case("messages are not what they should be", wrong),
    case("clocks jump", clocks),
    case("a disk is full", full_disk),
    case("out of memory", out_of_memory),
    case("strangers at every port", strangers),
];

/// Does something at the first frame of a place, and passes the others on.
fn at(
    place: Place,
    act: impl FnOnce() -> Verdict + Send + 'static,
) -> impl FnMut(Place, &Frame) -> Verdict + Send {
    let mut act = Some(act);
    move |found, _| match act.take_if(|_| found == place) {
        Some(act) => act(),
        None => Verdict::Pass,
    }
}

/// All messages of a session in which nothing happens.
fn messages(scene: &Scene) -> anyhow::Result<Vec<(Place, Frame)>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seeing = seen.clone();
    let mut parties = scene.start(move |place, frame: &Frame| {
        seeing.lock().unwrap().push((place, frame.clone()));
        Verdict::Pass
    })?;
    scene.judge_undisturbed(&parties.wait(&[])?)?;
    drop(parties);
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    ensure!(seen.len() > 60, "expected a session to have more than {} messages", seen.len());
    let chunks = seen.iter().filter_map(|(_, frame)| chunk(frame));
    let whole = chunks.clone().all(|chunk| chunk.data.len() as u64 == chunk.length);
    ensure!(whole, "expected each message to be one frame");
    Ok(seen)
}

/// Where something can happen: at each message of a session.
fn places() -> anyhow::Result<Vec<Place>> {
    let mut places: Vec<Place> =
        messages(&Scene::new())?.into_iter().map(|(place, _)| place).collect();
    places.sort();
    Ok(places)
}

/// Times from a fault until the last party had ended.
#[derive(Clone, Default)]
struct Fault(Arc<Mutex<Option<Instant>>>);

impl Fault {
    fn happens(&self) {
        self.0.lock().unwrap().get_or_insert_with(Instant::now);
    }

    fn since(&self) -> anyhow::Result<Duration> {
        self.0.lock().unwrap().map(|at| at.elapsed()).context("expected the fault to happen")
    }
}

/// Counts how sessions ended.
fn outcomes(ends: &[(Outcome, Duration)]) -> String {
    let count = |wanted| ends.iter().filter(|(outcome, _)| *outcome == wanted).count();
    let slowest = ends.iter().map(|(_, took)| *took).max().unwrap_or_default().as_secs_f64();
    format!(
        "{} sessions: {} ended in errors that name a peer, {} with a right result; the last party \
         had ended at most {slowest:.1} s after the fault",
        ends.len(),
        count(Outcome::Named),
        count(Outcome::Right),
    )
}

/// When a party is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The sender, before anybody has its message.
    Unsent,
    /// The sender, when the message is delivered.
    Sent,
    /// The receiver, when the message reaches it.
    Received,
}

/// kill -9 of the sender or the receiver of each message; then the same again in a new
/// session, in the same folders. Whatever either session has sent is recorded: nothing was
/// hidden by a mask that has hidden something else.
fn killed(effort: &Effort) -> anyhow::Result<Figures> {
    let moments = |place| {
        [Moment::Unsent, Moment::Sent, Moment::Received].map(|moment: Moment| (place, moment))
    };
    let all: Vec<(Place, Moment)> = places()?.into_iter().flat_map(moments).collect();
    let count = all.len();
    let chosen = effort.choose(all, 12);
    let done = each(&chosen, |index, (place, moment)| {
        let (place, moment) = (*place, *moment);
        let victim = if matches!(moment, Moment::Received) { place.to } else { place.from };
        let scene = Scene::new();
        let (processes, fault, first) = (Processes::default(), Fault::default(), Record::default());
        let act = at(place, {
            let (processes, fault) = (processes.clone(), fault.clone());
            move || {
                let kill = move || {
                    fault.happens();
                    processes.signal(victim, Signal::KILL);
                };
                match moment {
                    Moment::Sent => Verdict::Then(Box::new(kill)),
                    Moment::Unsent | Moment::Received => {
                        kill();
                        Verdict::Cut
                    }
                }
            }
        });
        let mut parties = scene.start_with(processes, recorded(first.clone(), act))?;
        let mut ended = parties.wait(&[])?;
        let took = fault.since();
        let outcome = scene.judge(&ended, Some(victim))?;
        let took = took.with_context(|| scene.describe(&ended))?;
        let end = ended.remove(&victim).context("the victim is gone")?;
        ensure!(matches!(end, End::Signal(_) | End::Code(..)), "{victim} lives");
        drop(parties);
        let left = scene.sealed();

        let second = Record::default();
        let mut parties =
            scene.start(recorded(second.clone(), |_: Place, _: &Frame| Verdict::Pass))?;
        scene.judge_undisturbed(&parties.wait(&[])?).context("the second session")?;
        let openings = [first.openings(2 * index), second.openings(2 * index + 1)];
        Ok(((outcome, took), left, openings))
    })?;
    let ends: Vec<(Outcome, Duration)> = done.iter().map(|(end, ..)| *end).collect();
    let left: usize = done.iter().map(|(_, left, _)| left).sum();
    let openings: Vec<_> = done.into_iter().flat_map(|(.., openings)| openings).flatten().collect();
    ensure!(openings.len() > 10 * chosen.len(), "expected more openings than {}", openings.len());
    // It would be seen: a session whose values differ and whose masks do not is found.
    let again = openings.iter().filter(|opening| opening.session == 1);
    let again: Vec<_> = again.map(crate::openings::Opening::of_another_value).collect();
    let forged = openings.iter().cloned().chain(again.iter().cloned()).collect();
    let found = under_one_mask(forged).len();
    ensure!(found >= again.len() && !again.is_empty(), "found {found} of {}", again.len());
    let reused = under_one_mask(openings.clone());
    let reused = reused.first().map(|(x, y)| format!("{} and {}", x.name, y.name));
    ensure!(reused.is_none(), "one mask for two values: {reused:?}");
    Ok(vec![
        format!("{} of {count} moments; {}", chosen.len(), outcomes(&ends)),
        format!(
            "as many second sessions in the same folders, all with a right result; {left} \
                 sealed bundles were left behind and removed"
        ),
        format!("parts of openings compared: {}, under the mask of another: none", openings.len()),
    ])
}

/// Records what another rule decides about.
fn recorded(
    record: Record,
    mut rule: impl FnMut(Place, &Frame) -> Verdict + Send,
) -> impl FnMut(Place, &Frame) -> Verdict + Send {
    move |place, frame| {
        record.add(place, frame);
        rule(place, frame)
    }
}

/// A process stops: its connections stay open, and nobody answers. The others give up within
/// their deadlines, and so does it when it goes on.
fn stalled(effort: &Effort) -> anyhow::Result<Figures> {
    let chosen = effort.choose(places()?, 6);
    let ends = each(&chosen, |_, place| {
        let (place, scene, fault) = (*place, Scene::new(), Fault::default());
        let processes = Processes::default();
        let rule = at(place, {
            let (processes, fault) = (processes.clone(), fault.clone());
            move || {
                fault.happens();
                processes.signal(place.from, Signal::STOP);
                // What it has sent until then arrives.
                Verdict::Pass
            }
        });
        let mut parties = scene.start_with(processes, rule)?;
        let mut ended = parties.wait(&[place.from])?;
        let took = fault.since();
        parties.signal(place.from, Signal::CONT);
        let others = all_roles().into_iter().filter(|role| *role != place.from);
        ended.extend(parties.wait(&others.collect::<Vec<_>>())?);
        // What it says then is that the others have gone.
        scene.judge(&ended, None)?;
        let outcome = scene.judge(&ended, Some(place.from))?;
        Ok((outcome, took.with_context(|| scene.describe(&ended))?))
    })?;
    Ok(vec![outcomes(&ends)])
}

/// A connection is half open: nothing gets through any more, and neither side is told.
fn silent(effort: &Effort) -> anyhow::Result<Figures> {
    disturbed(effort.choose(places()?, 6), || Verdict::Silence, false)
}

/// A connection ends without a word. Nothing is sent again, so the session has failed; the next
/// one goes well.
fn cut(effort: &Effort) -> anyhow::Result<Figures> {
    disturbed(effort.choose(places()?, 6), || Verdict::Cut, true)
}

/// The same at each place.
fn disturbed(places: Vec<Place>, verdict: fn() -> Verdict, again: bool) -> anyhow::Result<Figures> {
    let ends = each(&places, |_, place| {
        let (scene, fault) = (Scene::new(), Fault::default());
        let rule = at(*place, {
            let fault = fault.clone();
            move || {
                fault.happens();
                verdict()
            }
        });
        let mut parties = scene.start(rule)?;
        let ended = parties.wait(&[])?;
        let took = fault.since();
        let outcome = scene.judge(&ended, None)?;
        let took = took.with_context(|| scene.describe(&ended))?;
        drop(parties);
        if again {
            let mut parties = scene.start(())?;
            scene.judge_undisturbed(&parties.wait(&[])?).context("the second session")?;
        }
        Ok((outcome, took))
    })?;
    let retried = format!("as many second sessions, all with a right result: {}", ends.len());
    Ok([outcomes(&ends)].into_iter().chain(again.then_some(retried)).collect())
}

/// The first connections fail in some way.
struct Refusing {
    first: usize,
    admission: Admission,
}

impl Rule for Refusing {
    fn frame(&mut self, _: Place, _: &Frame) -> Verdict {
        Verdict::Pass
    }

    fn connection(&mut self, _: Role, number: usize) -> Admission {
        if number < self.first { self.admission } else { Admission::Relay }
    }
}

/// Before the parties have found each other nothing is lost, so they try again, until their
/// deadline.
fn before_the_session(_: &Effort) -> anyhow::Result<Figures> {
    let run = |first, admission| {
        let scene = Scene::new();
        let mut parties = scene.start(Refusing { first, admission })?;
        let began = Instant::now();
        let ended = parties.wait(&[])?;
        anyhow::Ok((scene, ended, began.elapsed()))
    };
    let mut figures = Vec::new();
    for (first, admission, what) in [
        (20, Admission::Close, "20 connections to each server closed at once"),
        (2, Admission::Ignore, "2 connections to each server never answered"),
    ] {
        let (scene, ended, took) = run(first, admission)?;
        scene.judge_undisturbed(&ended).context(what)?;
        figures.push(format!("{what}: a right result after {:.1} s", took.as_secs_f64()));
    }
    for (admission, what) in [
        (Admission::Close, "all connections closed at once"),
        (Admission::Ignore, "no connection ever answered"),
    ] {
        let (scene, ended, took) = run(usize::MAX, admission)?;
        ensure!(scene.judge(&ended, None)? == Outcome::Named, "{what}: {ended:?}");
        let took = took.as_secs_f64();
        ensure!(took < 2.0 * CONNECT, "{what}: expected an end by the deadline, not {took:.1} s");
        figures.push(format!("{what}: all had ended with a peer's name after {took:.1} s"));
    }
    Ok(figures)
}

/// Late within the deadline is only slow; later than that is a failure.
fn late(effort: &Effort) -> anyhow::Result<Figures> {
    let slow = effort.choose(all_roles().to_vec(), 2);
    each(&slow, |_, role| {
        let (scene, role) = (Scene::new(), *role);
        let mut parties = scene.start(move |place: Place, _: &Frame| match place.from == role {
            true => Verdict::Delay(Duration::from_millis(100)),
            false => Verdict::Pass,
        })?;
        scene.judge_undisturbed(&parties.wait(&[])?)
    })?;
    let places = places()?;
    let pauses = effort.choose(places.clone(), 3);
    each(&pauses, |_, place| {
        let scene = Scene::new();
        let pause = Duration::from_secs_f64(MESSAGE / 2.0);
        let mut parties = scene.start(at(*place, move || Verdict::Delay(pause)))?;
        scene.judge_undisturbed(&parties.wait(&[])?)
    })?;
    let late = disturbed(
        effort.choose(places, 3),
        || Verdict::Delay(Duration::from_secs_f64(CONNECT + 2.0 * MESSAGE)),
        false,
    )?;
    Ok(vec![
        format!("every message of a party 100 ms late: {} sessions, all right", slow.len()),
        format!("one message {} s late: {} sessions, all right", MESSAGE / 2.0, pauses.len()),
        format!("one message {} s late: {}", CONNECT + 2.0 * MESSAGE, late.join(", ")),
    ])
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Lost,
    Twice,
    /// After the next of its direction.
    Later,
    /// Without its last byte.
    Shorter,
    /// Without its last byte, and it says so.
    ShorterAndSaysSo,
    Longer,
    /// The one before it in its direction, again.
    Replayed,
    OtherSequence,
    OtherStep,
    OtherInference,
    OtherPhase,
    OtherSession,
}

const HARMS: [Harm; 12] = [
    Harm::Lost,
    Harm::Twice,
    Harm::Later,
    Harm::Shorter,
    Harm::ShorterAndSaysSo,
    Harm::Longer,
    Harm::Replayed,
    Harm::OtherSequence,
    Harm::OtherStep,
    Harm::OtherInference,
    Harm::OtherPhase,
    Harm::OtherSession,
];

impl Harm {
    /// What comes instead of a chunk; `before` is the frame before it.
    fn of(self, chunk: &Chunk, before: Option<&Frame>) -> Vec<Frame> {
        let whole = || of_chunk(chunk.clone());
        let length = chunk.data.len();
        let changed = match self {
            Self::Lost | Self::Later => return Vec::new(),
            Self::Twice => return vec![whole(), whole()],
            Self::Replayed => return before.cloned().into_iter().collect(),
            Self::Shorter => {
                Chunk { data: chunk.data.slice(..length.saturating_sub(1)), ..chunk.clone() }
            }
            Self::ShorterAndSaysSo => Chunk {
                data: chunk.data.slice(..length.saturating_sub(1)),
                length: chunk.length.saturating_sub(1),
                ..chunk.clone()
            },
            Self::Longer => {
                let data = [&chunk.data[..], &[0]].concat();
                Chunk { data: Bytes::from(data), length: chunk.length + 1, ..chunk.clone() }
            }
            Self::OtherSequence => Chunk { sequence: chunk.sequence + 1, ..chunk.clone() },
            Self::OtherStep => Chunk { step: chunk.step + 1, ..chunk.clone() },
            Self::OtherInference => Chunk { inference: chunk.inference + 1, ..chunk.clone() },
            Self::OtherPhase => Chunk { phase: (chunk.phase + 1) % 4, ..chunk.clone() },
            Self::OtherSession => {
                let session = chunk.session.iter().map(|byte| !byte).collect::<Vec<u8>>();
                Chunk { session: session.into(), ..chunk.clone() }
            }
        };
        vec![of_chunk(changed)]
    }
}

/// A peer that says something else than it should. Nobody takes it for what it is not.
fn wrong(effort: &Effort) -> anyhow::Result<Figures> {
    let seen = messages(&Scene::new())?;
    // Empty ones have nothing to cut off.
    let chunks = seen.iter().filter(|(_, frame)| chunk(frame).is_some_and(|c| !c.data.is_empty()));
    let mut places: Vec<Place> = chunks.map(|(place, _)| *place).collect();
    places.sort();
    let shift = effort.one(places.len());
    // Each harm at some messages, and each message with some harms.
    let all = places.iter().enumerate().flat_map(|(index, place)| {
        (0..3).map(move |turn| (*place, HARMS[(index + shift + 4 * turn) % HARMS.len()]))
    });
    let chosen = match effort.all {
        true => all.collect(),
        false => {
            let place = |harm: usize| places[(7 * harm + shift) % places.len()];
            HARMS.iter().enumerate().map(|(index, harm)| (place(index), *harm)).collect()
        }
    };
    let chosen: Vec<(Place, Harm)> = chosen;
    let ends = each(&chosen, |_, (place, harm)| {
        let (place, harm, fault) = (*place, *harm, Fault::default());
        let happening = fault.clone();
        let (mut before, mut kept) = (None, None);
        let rule = move |found: Place, frame: &Frame| {
            if (found.from, found.to) != (place.from, place.to) {
                return Verdict::Pass;
            }
            let verdict = match (chunk(frame), kept.take()) {
                (Some(chunk), _) if found == place => {
                    happening.happens();
                    kept = matches!(harm, Harm::Later).then(|| frame.clone());
                    Verdict::Replace(harm.of(chunk, before.as_ref()))
                }
                (_, Some(late)) => Verdict::Replace(vec![frame.clone(), late]),
                _ => Verdict::Pass,
            };
            before = Some(frame.clone());
            verdict
        };
        let scene = Scene::new();
        let mut parties = scene.start(rule)?;
        let ended = parties.wait(&[])?;
        let took = fault.since();
        let outcome = scene.judge(&ended, None)?;
        let took = took.with_context(|| scene.describe(&ended))?;
        let disagree = ended.values().any(|end| {
            matches!(end, End::Code(_, Some(failure)) if failure.reason == Reason::Disagreement)
        });
        Ok(((outcome, took), disagree))
    })?;
    let disagreements = ends.iter().filter(|(_, disagree)| *disagree).count();
    let ends: Vec<_> = ends.into_iter().map(|(end, _)| end).collect();
    Ok(vec![
        outcomes(&ends),
        format!(
            "in {disagreements} the receiver said which message it was, in the others that \
                 it never came or that the peer had gone"
        ),
    ])
}

/// The clock of a party jumps while it runs. Deadlines do not depend on it.
fn clocks(effort: &Effort) -> anyhow::Result<Figures> {
    let library = faketime()?;
    let day = 86_400;
    let jumps = [day, -day].into_iter();
    let all = jumps.flat_map(|jump| all_roles().map(|role| (role, jump))).collect();
    let chosen: Vec<(Role, i64)> = effort.choose(all, 3);
    each(&chosen, |_, (role, jump)| {
        let (role, jump, scene) = (*role, *jump, Scene::new());
        let clock = scene.path().join("clock");
        fs::write(&clock, "+0")?;
        let script = scene.party_after(&format!(
            "export LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 \
             FAKETIME_DONT_FAKE_MONOTONIC=1",
            library.display(),
            clock.display(),
        ))?;
        // In the middle of the evaluations.
        let rule = move |_: Place, frame: &Frame| {
            let online = tag(frame).is_some_and(|tag| tag.phase == Phase::Online);
            if online {
                fs::write(&clock, format!("{jump:+}")).unwrap();
            }
            Verdict::Pass
        };
        let program = |party| if party == role { script.clone() } else { party_program() };
        let configs = scene.configure()?;
        let mut parties = scene.run(configs, Processes::default(), rule, program)?;
        scene.judge_undisturbed(&parties.wait(&[])?)?;
        // It did see another time.
        let said = bench::launch::local::termination_path(scene.path(), role);
        let said = Termination::parse(&fs::read_to_string(said)?)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() as i64;
        let off = said.finished_at_ms as i64 / 1000 - now;
        ensure!((off - jump).abs() < 60, "{role}'s clock was {off} s off, expected {jump} s");
        Ok(())
    })?;
    Ok(vec![format!("by a day, forth or back: {} sessions, all right", chosen.len())])
}

/// The library that shows a process another time.
fn faketime() -> anyhow::Result<PathBuf> {
    let script = own_folder("../hack/faketime.sh");
    let output = Command::new(&script).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(PathBuf::from(text(&output.stdout))),
        Some(3) => Err(Skip(text(&output.stderr)).into()),
        _ => Err(anyhow::anyhow!("{}: {}", script.display(), text(&output.stderr))),
    }
}

/// A file system of so many kilobytes; gone when it is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(folder: &Path, kilobytes: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let size = format!("size={kilobytes}k");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder)
            .output()
            .map_err(|error| Skip(format!("cannot run mount: {error}")))?;
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure!(output.status.success(), Skip(format!("cannot mount a small disk: {error}")));
        Ok(Self(folder.into()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// There is less room than `store.diskMegabytes` says.
fn full_disk(_: &Effort) -> anyhow::Result<Figures> {
    let servers = [Role::Server0, Role::Server1];
    let said = each(&servers, |_, server| {
        let scene = Scene::new();
        let _disk = Small::mount(&scene.path().join(format!("store_of_{server}")), 64)?;
        let mut parties = scene.start(())?;
        let ended = parties.wait(&[])?;
        ensure!(scene.judge(&ended, None)? == Outcome::Named, "{ended:?}");
        let End::Code(2, Some(failure)) = &ended[server] else {
            anyhow::bail!("expected {server} to say that its disk is full: {ended:#?}");
        };
        for part in ["cannot write store-", "in `store.folder`", "No space left on device"] {
            ensure!(failure.message.contains(part), "{server} says: {}", failure.message);
        }
        let left = scene.sealed();
        ensure!(left == 0, "expected nothing to be left on a full disk, found {left}");
        Ok(failure.message.clone())
    })?;
    Ok(vec![said[0].clone()])
}

/// A group of processes that may not have more than so much memory; gone when it is dropped.
struct Confined {
    folder: PathBuf,
}

impl Confined {
    /// Some bytes less than what a party needs.
    const BYTES: u64 = 6 << 20;

    fn make(name: &str) -> anyhow::Result<Self> {
        // The memory controller is the first version's or the second's.
        let hierarchies =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        let id = std::process::id();
        for (root, limit) in hierarchies {
            let root = Path::new(root);
            let folder = root.join(format!("secure-inference-{id}-{name}"));
            let procs = root.join("cgroup.procs");
            if !procs.is_file() || fs::create_dir(&folder).is_err() {
                continue;
            }
            let confined = Self { folder };
            if fs::write(confined.folder.join(limit), Self::BYTES.to_string()).is_ok() {
                return Ok(confined);
            }
        }
        Err(Skip("cannot make a group of processes with a limit of memory".into()).into())
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The kernel ends a party that wants more memory than there is. The others say that it is
/// gone.
fn out_of_memory(effort: &Effort) -> anyhow::Result<Figures> {
    let chosen = effort.choose(all_roles().to_vec(), 2);
    let ends = each(&chosen, |_, role| {
        let (scene, role) = (Scene::new(), *role);
        let group = Confined::make(role.name())?;
        let join = format!("echo $$ > {}/cgroup.procs || exit 99", group.folder.display());
        let script = scene.party_after(&join)?;
        let program = |party| if party == role { script.clone() } else { party_program() };
        let began = Instant::now();
        let mut parties = scene.run(scene.configure()?, Processes::default(), (), program)?;
        let ended = parties.wait(&[])?;
        let took = began.elapsed();
        let killed = matches!(ended[&role], End::Signal(_));
        ensure!(killed, "expected the kernel to end {role}: {ended:#?}");
        Ok((scene.judge(&ended, Some(role))?, took))
    })?;
    Ok(vec![outcomes(&ends)])
}

/// Connections of strangers to each port a second: half of them silent, half slow.
const STRANGERS: u32 = 200;

/// The longest that a probe may wait beside them.
const PROBED: Duration = Duration::from_millis(500);

/// Strangers at the ports of both servers and of all probes but the producer's, while the servers
/// wait for it and during the session. The producer comes after the places that a server has would
/// have run out.
fn strangers(effort: &Effort) -> anyhow::Result<Figures> {
    let sessions = if effort.all { 12 } else { 1 };
    let (mut slowest, mut count) = (Duration::ZERO, 0);
    // One after the other, as each has more connections than a party.
    for _ in 0..sessions {
        let scene = Scene::new();
        let mut configs = scene.configure()?;
        let mut probes = watch(&mut configs);
        probes.remove(&Role::Producer);
        let probes: Vec<SocketAddr> = probes.into_values().collect();
        let servers: Vec<SocketAddr> = configs.iter().filter_map(|config| config.listen).collect();
        let late = scene.party_after("sleep 4")?;
        let program = |role| if role == Role::Producer { late.clone() } else { party_program() };
        let mut parties = scene.run(configs, Processes::default(), (), program)?;
        // A connection to a port at which nobody listens yet may take that port for its own end.
        for probe in &probes {
            wait_for("a party", || get(*probe, "/healthz"));
        }
        let strangers = Strangers::begin([&servers[..], &probes].concat(), STRANGERS);
        let over = AtomicBool::new(false);
        let (ended, waited) = std::thread::scope(|scope| {
            let probing = scope.spawn(|| longest(&probes, &over));
            let ended = parties.wait(&[]);
            over.store(true, Ordering::SeqCst);
            (ended, probing.join().unwrap())
        });
        let made = strangers.end();
        count += made.iter().sum::<usize>();
        scene.judge_undisturbed(&ended?)?;
        slowest = slowest.max(waited);
    }
    ensure!(slowest < PROBED, "expected probes within {PROBED:?}, one took {slowest:?}");
    Ok(vec![format!(
        "{sessions} sessions beside {count} strangers: all results are right; a probe took at most \
         {:.0} ms",
        1e3 * slowest.as_secs_f64()
    )])
}

/// The longest that a probe took to answer.
fn longest(probes: &[SocketAddr], over: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    while !over.load(Ordering::SeqCst) {
        for probe in probes {
            let began = Instant::now();
            // None from a party that has ended.
            if get(*probe, "/healthz").is_some() {
                longest = longest.max(began.elapsed());
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    longest
}
