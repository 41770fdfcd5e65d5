//! The place of the largest value along an axis, of equal ones the first.
//!
//! Few values are all compared with each other at once. Many are compared in a tree, in which
//! neighbours meet first, so that of equal values the earlier one goes on; their numbers go with
//! them.

use std::sync::Arc;

use super::comparisons::{DIFFERENCE_BITS, From};
use super::compiler::Compiler;
use super::lowered::{Scaled, ScaledWire};
use crate::geometry::{Linear, MatMul, View};
use crate::graph::NodeId;
use crate::ops::{self, Pairs};
use crate::plan::error::PlanError;
use crate::tensors::{Domain, MaskedId, PrivateId};

/// Most values that are all compared with each other: 120 comparisons.
const MOST_IN_PAIRS: usize = 16;

/// Two bits more than numbers have, so that they can be lifted to the ring.
const LIFT_BITS: u32 = 2;

/// Values and their numbers.
#[derive(Clone, Copy)]
struct Candidates {
    value: From,
    number: From,
}

impl Candidates {
    fn of(value: MaskedId, number: MaskedId, from: usize) -> Self {
        Self { value: (value, from), number: (number, from) }
    }
}

impl Compiler<'_> {
    /// The place along the last axis, or one where it is and zeros elsewhere.
    pub(super) fn argmax(
        &mut self,
        index: usize,
        input: NodeId,
        one_hot: bool,
    ) -> Result<(), PlanError> {
        self.check_gate()?;
        let count = self.shape(input).last().copied().unwrap_or(1);
        let rows = self.lowered[input.0].len / count;
        let number_bits = count.next_power_of_two().ilog2();
        let bits = if count <= MOST_IN_PAIRS {
            self.winners(input.0, count, rows)
        } else {
            let width = number_bits + if one_hot { 0 } else { LIFT_BITS };
            let id = self.number_of_largest(input.0, count, rows, width);
            if !one_hot {
                let number = self.lifted_wire(ScaledWire { id, fraction: 0 }, 0, rows);
                let number = Scaled { integral: number_bits as i32, ..number };
                self.lowered[index].raw = Some(number);
                return Ok(());
            }
            let bits = self.private_in(Domain::Bits, count * rows);
            self.push(Arc::new(ops::OneHot { wire: id, first: 0, count, output: bits }));
            bits
        };
        let ones = self.private_of(count * rows);
        self.push(Arc::new(ops::Convert { wire: None, bits, output: ones }));
        if one_hot {
            // Row by row again.
            let view = View { offset: 0, axes: vec![(rows, 1), (count, rows)] };
            return self
                .set(index, 0, 1, |output| Arc::new(ops::View { input: ones, view, output }));
        }
        let numbers = self.public((0..count as i128).collect(), 0);
        let linear = Linear::MatMul(MatMul { m: 1, k: count, n: rows });
        self.set(index, 0, number_bits as i32, |output| {
            Arc::new(ops::PublicLeft { left: numbers, right: ones, linear, output })
        })
    }

    /// Whether each value is the first of the largest of its row, place by place: whether it wins
    /// against all others.
    fn winners(&mut self, slot: usize, count: usize, rows: usize) -> PrivateId {
        let view = View { offset: 0, axes: vec![(count, 1), (rows, count)] };
        let wire = self.opened_wire(slot, (rows > 1).then_some(view)).id;
        let apart = |places: usize| {
            let (right, len) = (places * rows, (count - places) * rows);
            Pairs { left: 0, right, len }
        };
        let pairs: Vec<Pairs> = (1..count).map(apart).collect();
        let len = pairs.iter().map(|pairs| pairs.len).sum();
        let difference = self.alike(wire, len);
        self.push(Arc::new(ops::Difference { left: wire, right: wire, pairs, output: difference }));
        let less = self.comparison(difference);
        // As many bits as a count of wins has, of which the largest is looked for.
        let counted = Domain::Integers { bits: count.next_power_of_two().ilog2() };
        let earlier = self.private_in(counted, len);
        self.push(Arc::new(ops::Convert { wire: Some(difference), bits: less, output: earlier }));
        let wins = self.private_in(counted, count * rows);
        self.push(Arc::new(ops::Wins { input: earlier, count, output: wins }));
        let wire = self.masked_in(counted, count * rows);
        self.push(Arc::new(ops::OpenIntegers { wire: None, input: wins, output: wire }));
        let bits = self.private_in(Domain::Bits, count * rows);
        let first = count as u64 - 1;
        self.push(Arc::new(ops::OneHot { wire, first, count: 1, output: bits }));
        bits
    }

    /// The number of the largest of each row, in so many bits. The values are divided into
    /// neighbours of powers of two, each a tree, from the largest power on.
    fn number_of_largest(
        &mut self,
        slot: usize,
        count: usize,
        rows: usize,
        width: u32,
    ) -> MaskedId {
        let value = self.openable(slot, DIFFERENCE_BITS);
        let numbers = Domain::Integers { bits: width };
        let (mut trees, mut first) = (Vec::new(), 0);
        for levels in (0..usize::BITS).rev().filter(|bit| count >> bit & 1 == 1) {
            let len = rows << levels;
            // The bits of a place are those of the number from the other end.
            let mut axes: Vec<(usize, usize)> = (0..levels).map(|bit| (2, 1 << bit)).collect();
            axes.push((rows, count));
            let part = self.private_of(len);
            let view = View { offset: first, axes };
            self.push(Arc::new(ops::View { input: value.id, view, output: part }));
            let values = self.opened_value(Scaled { id: part, ..value }, DIFFERENCE_BITS).id;
            let number = self.masked_in(numbers, len);
            self.push(Arc::new(ops::Numbered { first, levels, output: number }));
            trees.push((Candidates::of(values, number, 0), levels));
            first += 1 << levels;
        }
        let single = trees.len() == 1;
        let mut best: Option<Candidates> = None;
        for (number, (mut tree, levels)) in trees.into_iter().enumerate().rev() {
            for level in (0..levels).rev() {
                let len = rows << level;
                let right = Candidates::of(tree.value.0, tree.number.0, len);
                tree = self.better(tree, right, len, single && level == 0);
            }
            best = Some(match best {
                None => tree,
                Some(later) => self.better(tree, later, rows, number == 0),
            });
        }
        let Some(Candidates { number: (number, _), .. }) = best else {
            unreachable!("there are two values or more");
        };
        number
    }

    /// The larger of two values and its number, those of `left` if they are equal. At last the
    /// number alone.
    fn better(
        &mut self,
        left: Candidates,
        right: Candidates,
        len: usize,
        last: bool,
    ) -> Candidates {
        let wire = self.difference(left.value, right.value, len);
        let less = self.comparison(wire);
        let value = if last { wire } else { self.selected(wire, less, wire, right.value) };
        let more = self.difference(left.number, right.number, len);
        Candidates::of(value, self.selected(wire, less, more, right.number), 0)
    }
}
