//! How busy the machine is with the work of others while something is measured.
//!
//! The load average would count the parties themselves. What counts here is the time that the
//! machine's cores worked, less what this program and the processes that it has waited for used.

use std::fs;

/// Others who use more than this part of the machine's cores disturb a measurement.
pub const BUSY: f64 = 0.1;

/// What others used of the machine during a trial.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Load {
    /// Cores that others kept busy, on average.
    pub others_cores: f64,
    /// Cores of the machine.
    pub cores: usize,
}

impl Load {
    /// Whether that is so much that it may have made the trial slower.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.others_cores > BUSY * self.cores as f64
    }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "others used {:.1} of {} cores meanwhile", self.others_cores, self.cores)
    }
}

/// The counters of the system at a moment, in its ticks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ticks {
    /// That cores have worked.
    busy: u64,
    /// That there were, of all cores.
    all: u64,
    cores: usize,
    /// That this process and those that it waited for have worked.
    own: u64,
}

impl Ticks {
    /// Now; nothing if the system does not tell.
    pub(crate) fn now() -> Option<Self> {
        let read = |path| fs::read_to_string(path).ok();
        Self::parse(&read("/proc/stat")?, &read("/proc/self/stat")?)
    }

    /// Of `/proc/stat` and `/proc/self/stat`.
    fn parse(machine: &str, process: &str) -> Option<Self> {
        let mut lines = machine.lines().filter(|line| line.starts_with("cpu"));
        let numbers: Vec<u64> =
            lines.next()?.split_whitespace().skip(1).map_while(|x| x.parse().ok()).collect();
        // The work of interrupts is nobody's, and in part the parties' own.
        let [user, nice, system, idle, waiting, interrupts, soft, stolen, ..] = numbers[..] else {
            return None;
        };
        let busy = user + nice + system + stolen;
        // The name may hold anything; what follows its last bracket begins with the third field.
        let (_, fields) = process.rsplit_once(')')?;
        let own: Vec<u64> =
            fields.split_whitespace().skip(11).take(4).map_while(|x| x.parse().ok()).collect();
        let [_, _, _, _] = own[..] else { return None };
        Some(Self {
            busy,
            all: busy + idle + waiting + interrupts + soft,
            cores: lines.count(),
            own: own.iter().sum(),
        })
    }

    /// What others used from then to now; nothing if no time has passed.
    pub(crate) fn load_until(&self, now: &Self) -> Option<Load> {
        let since = |of: fn(&Self) -> u64| of(now).saturating_sub(of(self));
        let all = since(|ticks| ticks.all);
        let others = since(|ticks| ticks.busy).saturating_sub(since(|ticks| ticks.own));
        let part = others as f64 / all as f64;
        (all > 0).then(|| Load {
            others_cores: (part * now.cores as f64 * 100.0).round() / 100.0,
            cores: now.cores,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_all_but_this_program_and_its_children() {
        let machine = |user: u64, idle: u64, stolen: u64| {
            let line = format!("{user} 10 20 {idle} 5 0 7 {stolen} 0 0");
            format!("cpu  {line}\ncpu0 1 1 1 1 0 0 0 0 0 0\ncpu1 1 1 1 1 0 0 0 0 0 0\nintr 7\n")
        };
        let process = |own: u64, children: u64| {
            format!("7 (a) b) R 1 1 1 0 -1 4 98 0 0 0 {own} 1 {children} 2 20 0 1 0 25\n")
        };
        let ticks = |user, idle, stolen, own, children| {
            Ticks::parse(&machine(user, idle, stolen), &process(own, children)).unwrap()
        };
        let before = ticks(100, 1000, 0, 5, 10);
        // 1000 ticks on two cores: 600 of work, of which 400 were the parties' and 50 this one's.
        let after = ticks(690, 1400, 10, 55, 410);
        let load = before.load_until(&after).unwrap();
        assert_eq!((load.others_cores, load.cores), (0.3, 2));
        assert!(load.is_busy());
        assert_eq!(load.to_string(), "others used 0.3 of 2 cores meanwhile");
        assert!(!Load { others_cores: 0.3, cores: 4 }.is_busy());
        assert_eq!(before.load_until(&before), None, "no time has passed");
        assert_eq!(Ticks::parse("cpu 1 2", "7 (a) R"), None);
    }

    #[test]
    fn the_system_tells() {
        let before = Ticks::now().unwrap();
        // Of a core of its own, and so nobody else's.
        let until = std::time::Instant::now() + std::time::Duration::from_millis(300);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        let now = Ticks::now().unwrap();
        assert!(now.own >= before.own + 10, "{before:?} {now:?}");
        let load = before.load_until(&now).unwrap();
        assert!(load.others_cores <= load.cores as f64 && load.others_cores >= 0.0, "{load:?}");
    }
}
