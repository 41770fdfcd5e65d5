//! A plan's canonical listing, and its fingerprint.

use std::fmt;

use super::compiled::Plan;
use super::digest::Digest;
use crate::fixed::Precision;

impl Plan {
    /// BLAKE3 of the listing and of the graph as JSON, which has the public numbers and what
    /// players compute alone; each after its length in bytes, 64 bits little endian.
    pub(super) fn fingerprint(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let graph = serde_json::to_string(self.graph());
        let Ok(graph) = graph else {
            unreachable!("a graph's numbers are finite and its maps have no keys to refuse");
        };
        for part in [self.to_string(), graph] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Digest(*hasher.finalize().as_bytes())
    }
}

/// The canonical listing: what happens at each step, a line each. Steps whose messages share
/// an exchange say the number of their round.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = self.format();
        let Precision { fraction, integral, ring, dividend } = self.precision();
        writeln!(f, "plan version 3")?;
        writeln!(f, "graph {}", self.graph().name())?;
        writeln!(
            f,
            "format {format} fraction {fraction} integral {integral} ring {ring} dividend {dividend}",
        )?;
        writeln!(f, "truncation {}", self.truncation())?;
        if let Some(bits) = self.table().low_bits() {
            writeln!(f, "low bits {bits}")?;
        }
        for player in self.graph().players() {
            writeln!(f, "player {player}")?;
        }
        writeln!(f, "coordinator {}", self.coordinator())?;
        for (index, public) in self.publics().iter().enumerate() {
            writeln!(
                f,
                "public c{index} len {} fraction {}",
                public.integers.len(),
                public.fraction
            )?;
        }
        let mut rounds = self.exchanges().iter().enumerate().peekable();
        for (index, step) in self.steps().iter().enumerate() {
            if index == self.setup_steps() {
                writeln!(f, "evaluation")?;
            }
            write!(f, "{index} {} {}", step.layer, step.operation.name())?;
            step.operation.list(f, self.table())?;
            while rounds.next_if(|(_, round)| round.end <= index).is_some() {}
            if let Some((number, round)) = rounds.peek()
                && round.contains(&index)
            {
                write!(f, " round {number}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
