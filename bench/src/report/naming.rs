//! How a report calls cells and network conditions.

use party::config::Conditions;

use crate::cell::{CellId, computed};

/// Whether a cell has the truncation that its format has unless something else is asked for.
pub(super) fn is_usual(key: &CellId) -> bool {
    key.truncation == key.format.usual_truncation()
}

/// What is behind the name of a cell whose trials differ more than they should.
pub(super) const SUSPICIOUS: &str = " (suspicious)";

/// How cells are called where others are around: without what all share.
#[derive(Debug, Default)]
pub(super) struct Naming {
    truncations: bool,
    modes: bool,
    conditions: bool,
    places: bool,
    /// Cells that carry a mark wherever they are named.
    suspicious: Vec<CellId>,
}

impl Naming {
    /// Of these cells; `suspicious` are those whose trials differ more than they should.
    pub(super) fn of<'a>(
        keys: impl Iterator<Item = &'a CellId> + Clone,
        suspicious: Vec<CellId>,
    ) -> Self {
        let keys = || keys.clone();
        let differ = |same: fn(&CellId, &CellId) -> bool| {
            let mut keys = keys();
            keys.next().is_some_and(|first| keys.any(|key| !same(first, key)))
        };
        Self {
            truncations: keys().any(|key| !is_usual(key)),
            modes: differ(|a, b| a.offline_mode == b.offline_mode),
            conditions: differ(|a, b| a.conditions == b.conditions),
            places: differ(|a, b| a.place == b.place),
            suspicious,
        }
    }

    /// That a cell is suspicious.
    pub(super) fn mark(&self, key: &CellId) -> &'static str {
        if self.suspicious.contains(key) { SUSPICIOUS } else { "" }
    }

    /// What is said of a cell besides network, format, truncation and batch size.
    fn circumstances(&self, key: &CellId) -> String {
        let mode = self.modes.then(|| format!(", randomness {}", key.offline_mode));
        let shaped = || key.conditions.map_or_else(|| "links as they are".into(), conditions);
        let conditions = self.conditions.then(|| format!(", {}", shaped()));
        let place = self.places.then(|| format!(", {}", key.place));
        [mode, conditions, place].into_iter().flatten().collect()
    }

    /// What cells of one plot share: `Batch 10, randomness ahead`.
    pub(super) fn group(&self, key: &CellId) -> String {
        format!("Batch {}{}", key.batch_size, self.circumstances(key))
    }

    /// What tells cells of one plot apart: `C Int64`.
    pub(super) fn cell(&self, key: &CellId) -> String {
        format!("{}{}", self.computation(key), self.mark(key))
    }

    /// What is computed, at whatever batch size: `C Int64`.
    pub(super) fn computation(&self, key: &CellId) -> String {
        format!("{} {}", computed(&key.network, key.reveal), self.format(key))
    }

    /// The format, and what else tells lines of one network apart.
    pub(super) fn format(&self, key: &CellId) -> String {
        if self.truncations {
            format!("{} {}", key.format, key.truncation)
        } else {
            key.format.to_string()
        }
    }

    /// The network, and the rest of what is the same at all batch sizes.
    pub(super) fn network(&self, key: &CellId) -> String {
        format!("{}{}", computed(&key.network, key.reveal), self.circumstances(key))
    }

    /// A row of Table 1, where all are of batch 1.
    pub(super) fn table1(&self, key: &CellId) -> String {
        format!("{}{}{}", self.computation(key), self.circumstances(key), self.mark(key))
    }

    /// What cells share that differ in their format.
    pub(super) fn pair(&self, key: &CellId) -> String {
        let network = computed(&key.network, key.reveal);
        format!("{network}, batch {}{}", key.batch_size, self.circumstances(key))
    }

    /// What tells cells of one network apart: `Int64, batch 10`.
    pub(super) fn without_network(&self, key: &CellId) -> String {
        let (format, circumstances) = (self.format(key), self.circumstances(key));
        format!("{format}, batch {}{circumstances}{}", key.batch_size, self.mark(key))
    }

    /// All that tells a cell from the others of its run: `C Int64, batch 10`.
    pub(super) fn full(&self, key: &CellId) -> String {
        format!("{} {}", computed(&key.network, key.reveal), self.without_network(key))
    }
}

/// `40 ms round trip, 100 Mbit/s`.
pub(super) fn conditions(conditions: Conditions) -> String {
    let Conditions { rtt_ms, jitter_ms, bandwidth_mbps } = conditions;
    let mut text = format!("{rtt_ms} ms round trip");
    if jitter_ms > 0.0 {
        text.push_str(&format!(" ± {jitter_ms} ms"));
    }
    if let Some(bandwidth) = bandwidth_mbps {
        text.push_str(&format!(", {bandwidth} Mbit/s"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_as_a_sentence() {
        let text =
            conditions(Conditions { rtt_ms: 40.0, jitter_ms: 2.0, bandwidth_mbps: Some(100.0) });
        assert_eq!(text, "40 ms round trip ± 2 ms, 100 Mbit/s");
    }
}
