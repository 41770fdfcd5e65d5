//! Rounds: which exchanges between the servers share a message.
//!
//! An exchange can take place as soon as all that it depends on is there. Those that have
//! the same number of exchanges before them do not depend on each other, so they share one
//! round: the number of rounds is the length of the longest chain of exchanges.

use std::collections::HashMap;
use std::ops::Range;

use super::step::Step;
use crate::tensors::{Route, Table, TensorId};

/// The order within a round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Inputs come when the evaluation begins, in the order in which players send them.
    Input,
    /// What the servers do alone, and outputs as soon as they are there.
    Alone,
    /// The exchanges, which end the round.
    Exchange,
}

/// The steps of an evaluation in the order of their rounds, and of each round the exchanges.
/// Within a round steps keep their order; what a server does alone waits for the round that
/// needs it, so that tensors live no longer than they must.
pub(super) fn in_rounds(steps: Vec<Step>, table: &Table) -> (Vec<Step>, Vec<Range<usize>>) {
    let routes: Vec<Option<Route>> = steps
        .iter()
        .map(|step| step.operation.message(table).map(|message| message.route))
        .collect();
    // Which of the steps writes a tensor, and how many exchanges it takes until it is there.
    let mut writers: HashMap<TensorId, usize> = HashMap::new();
    let mut ready: HashMap<TensorId, usize> = HashMap::new();
    let mut earliest = vec![0; steps.len()];
    let mut last_output = 0;
    for (index, step) in steps.iter().enumerate() {
        let reads = step.operation.reads();
        let after = reads.iter().filter_map(|id| ready.get(id)).max().copied().unwrap_or(0);
        earliest[index] = after;
        if matches!(routes[index], Some(Route::Output(_))) {
            // A player's outputs keep their order.
            last_output = after.max(last_output);
            earliest[index] = last_output;
        }
        if let Some(id) = step.operation.writes() {
            writers.insert(id, index);
            ready.insert(id, after + usize::from(routes[index] == Some(Route::Exchange)));
        }
    }
    // What a server does alone waits for the first step that needs it.
    let mut latest = vec![None; steps.len()];
    let mut rounds = earliest.clone();
    for (index, step) in steps.iter().enumerate().rev() {
        if routes[index].is_none() {
            rounds[index] = latest[index].unwrap_or(earliest[index]);
        }
        for id in step.operation.reads() {
            if let Some(writer) = writers.get(&id) {
                let first =
                    latest[*writer].map_or(rounds[index], |it: usize| it.min(rounds[index]));
                latest[*writer] = Some(first);
            }
        }
    }
    let place = |index: usize| match routes[index] {
        Some(Route::Input(_)) => (0, Place::Input),
        Some(Route::Exchange) => (rounds[index], Place::Exchange),
        Some(Route::Output(_)) | None => (rounds[index], Place::Alone),
    };
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.sort_by_key(|index| place(*index));
    let mut exchanges: Vec<Range<usize>> = Vec::new();
    let mut round = None;
    for (position, index) in order.iter().enumerate() {
        if routes[*index] != Some(Route::Exchange) {
            continue;
        }
        match exchanges.last_mut() {
            Some(last) if round == Some(rounds[*index]) => last.end = position + 1,
            _ => exchanges.push(position..position + 1),
        }
        round = Some(rounds[*index]);
    }
    let mut steps: Vec<Option<Step>> = steps.into_iter().map(Some).collect();
    let ordered = order.into_iter().filter_map(|index| steps[index].take()).collect();
    (ordered, exchanges)
}
