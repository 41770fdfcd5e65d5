//! Network conditions that are not there: a link's outgoing bytes are held back as long as a
//! slower network would, so that one machine shows what parties far apart would see.
//!
//! What is shaped is what TLS makes of the messages, in this process, without privileges. Each
//! party holds back what it sends, half a round trip each way. The protocol's thread drives its
//! connections only while it sends or waits, so the bytes wait in threads of their own; tokio's
//! timers, which count milliseconds, would be too coarse for a local network.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::num::NonZeroU64;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use tokio_util::either::Either;

use crate::config::Conditions;

/// A connection below TLS: the network's own, or one that is held back.
pub(super) type Wire = Either<tokio::net::TcpStream, tokio::net::UnixStream>;

/// Most bytes that are taken from the connection at once.
const PART: usize = 64 << 10;

/// What waits for its time beside what is on its way, as in the buffers of a socket; bytes.
const BUFFER: usize = 4 << 20;

/// How long what is still on its way may take to arrive after its connection has ended, beside
/// the time that the conditions give it.
const LAST: Duration = Duration::from_secs(2);

/// When what is sent over a line with some conditions arrives at its other end.
struct Line {
    conditions: Conditions,
    /// When the last byte so far has left.
    idle_at: Instant,
    /// When the last byte so far arrives.
    arrived_at: Instant,
    random: SmallRng,
}

impl Line {
    fn new(conditions: Conditions, now: Instant, seed: u64) -> Self {
        let random = SmallRng::seed_from_u64(seed);
        Self { conditions, idle_at: now, arrived_at: now, random }
    }

    /// When `bytes` that are there at `now` arrive; nothing overtakes.
    fn arrival(&mut self, now: Instant, bytes: usize) -> Instant {
        self.idle_at = self.idle_at.max(now) + self.conditions.transmission(bytes);
        let late = self.conditions.jitter().mul_f64(self.random.random());
        let arrival = self.idle_at + self.conditions.one_way() + late;
        self.arrived_at = self.arrived_at.max(arrival);
        self.arrived_at
    }
}

/// The lines of a party under the same conditions. Waits, when it is dropped, for what is still
/// on its way.
#[derive(Debug)]
pub(super) struct Shaping {
    conditions: Conditions,
    lines: Mutex<(Sender<()>, u64)>,
    /// Ends when all lines have.
    ended: Mutex<Receiver<()>>,
}

impl Shaping {
    pub(super) fn new(conditions: Conditions) -> Self {
        let (line, ended) = channel();
        Self { conditions, lines: Mutex::new((line, 0)), ended: Mutex::new(ended) }
    }

    /// What to use in place of `stream`.
    ///
    /// # Errors
    /// If the operating system gives no sockets or threads.
    pub(super) fn wire(
        shaping: Option<&Arc<Self>>,
        stream: tokio::net::TcpStream,
    ) -> io::Result<Wire> {
        // Without it a small message waits for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        match shaping {
            None => Ok(Either::Left(stream)),
            Some(shaping) => {
                let near = shaping.line(stream.into_std()?)?;
                Ok(Either::Right(tokio::net::UnixStream::from_std(near)?))
            }
        }
    }

    /// The near end of a line that ends in `far`, whatever is connected to it.
    ///
    /// # Errors
    /// If the operating system gives no sockets or threads.
    fn line(&self, far: TcpStream) -> io::Result<UnixStream> {
        let (near, relay) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(false)?;
        let line = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.1 += 1;
            lines.clone()
        };
        let (alive, number) = line;
        let line = Line::new(self.conditions, Instant::now(), number);
        let (waiting, due) = sync_channel(self.conditions.under_way(BUFFER).div_ceil(PART));
        let (from, to) = (relay.try_clone()?, far.try_clone()?);
        let spawn = |name: &str, task: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.into()).spawn(task).map(drop)
        };
        spawn("line-in", Box::new(move || hand_over(far, relay)))?;
        spawn("line-wait", Box::new(move || take(from, line, &waiting)))?;
        spawn(
            "line-out",
            Box::new(move || {
                deliver(to, &due);
                drop(alive);
            }),
        )
        .map(|()| near)
    }
}

impl Drop for Shaping {
    fn drop(&mut self) {
        let lines = self.lines.get_mut().unwrap_or_else(PoisonError::into_inner);
        // The lines hold the other senders; nothing is ever sent.
        lines.0 = channel().0;
        let patience = self.conditions.one_way() + self.conditions.jitter() + LAST;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(patience);
    }
}

/// What waits, and until when.
type Waiting = (Instant, Bytes);

/// Takes what the connection sends, and says when it is to arrive.
fn take(mut from: UnixStream, mut line: Line, waiting: &SyncSender<Waiting>) {
    let mut buffer = BytesMut::zeroed(PART);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let due = line.arrival(Instant::now(), count);
        if waiting.send((due, Bytes::copy_from_slice(&buffer[..count]))).is_err() {
            return;
        }
    }
}

/// Sends on what has waited long enough, and then the end.
fn deliver(mut to: TcpStream, due: &Receiver<Waiting>) {
    // The default lets a sleep of a quarter of a millisecond last a fifth longer.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    for (at, bytes) in due {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Hands over what arrives; the sender has held it back.
fn hand_over(mut from: TcpStream, mut to: UnixStream) {
    // Whichever side fails, the other sees the end.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const fn conditions(rtt_ms: f64, jitter_ms: f64, bandwidth_mbps: Option<f64>) -> Conditions {
        Conditions { rtt_ms, jitter_ms, bandwidth_mbps }
    }

    #[test]
    fn what_is_sent_arrives_as_late_as_arithmetic_says() {
        let start = Instant::now();
        let after = |ms: u64| start + Duration::from_millis(ms);
        let mut line = Line::new(conditions(40.0, 0.0, Some(8.0)), start, 1);
        // A megabyte a second, and twenty milliseconds on the way.
        assert_eq!(line.arrival(start, 5000), after(25));
        assert_eq!(line.arrival(start, 5000), after(30), "after what was sent before");
        assert_eq!(line.arrival(after(100), 1000), after(121), "the line was idle");
        let mut endless = Line::new(conditions(1.0, 0.0, None), start, 1);
        assert_eq!(endless.arrival(start, usize::MAX), start + Duration::from_micros(500));
    }

    #[test]
    fn jitter_makes_late_and_never_overtakes() {
        let start = Instant::now();
        let mut line = Line::new(conditions(2.0, 4.0, None), start, 1);
        let arrivals: Vec<Instant> = (0..1000u32)
            .map(|n| line.arrival(start + Duration::from_millis(10) * n, 100))
            .collect();
        assert!(arrivals.is_sorted());
        let late = (0..).zip(&arrivals).map(|(n, at)| {
            at.duration_since(start + Duration::from_millis(10) * n).as_secs_f64() * 1e3
        });
        let late: Vec<f64> = late.collect();
        let mean = late.iter().sum::<f64>() / 1000.0;
        assert!(late.iter().all(|late| (1.0..=5.0).contains(late)), "{late:?}");
        assert!((2.7..3.3).contains(&mean), "{mean}");
    }

    #[test]
    fn bytes_cross_a_line_whole_and_late_and_are_not_lost_with_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut peer = listener.accept().unwrap().0;
        let shaping = Shaping::new(conditions(60.0, 0.0, Some(80.0)));
        let mut near = shaping.line(far).unwrap();
        near.set_nonblocking(false).unwrap();
        let sent: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let began = Instant::now();
        peer.write_all(b"here").unwrap();
        let mut word = [0; 4];
        near.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"here");
        near.write_all(&sent).unwrap();
        drop(near);
        drop(shaping);
        // 30 ms on the way, 10 ms to send it.
        assert!(began.elapsed() >= Duration::from_millis(40));
        let mut received = Vec::new();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        peer.read_to_end(&mut received).unwrap();
        assert_eq!(received, sent);
    }
}
