//! What is known of a node without any numbers, and how it follows from the nodes before.

use std::fmt;

use super::function::Function;
use super::limits::{
    MAX_AXES, MAX_CHOICES, MAX_DEGREE, MAX_LABEL_BYTES, MAX_NODES, MAX_POLYNOMIALS, MAX_TENSOR,
    too_many,
};
use super::op::{Lifetime, Node, Op};
use crate::channel::Name;
use crate::geometry::{Padding, Stride, Window, Windows};
use crate::polynomial::Polynomial;

/// Where a tensor's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the graph.
    Public,
    /// Shared between the servers.
    Private,
    /// Plaintext at a player.
    Local {
        /// The player.
        player: Name,
        /// Whether it depends on something that the player was revealed.
        received: bool,
    },
}

/// What is known of a node without any numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where it is.
    pub place: Place,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How long its value lasts.
    pub lifetime: Lifetime,
}

impl Facts {
    /// Elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements; never, in a graph.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tensor's shape for people: `[2, 3]`. Not all of it, if nothing can have so many axes.
pub(super) struct Shape<'a>(pub(super) &'a [usize]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..2 * MAX_AXES) {
            Some(first) => write!(f, "{first:?} and more, {} in all,", self.0.len()),
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// Refuses a label or name that is not 1 to `longest` visible ASCII characters.
pub(super) fn check_visible(what: &str, text: &str, longest: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > longest {
        let found = text.len();
        return Err(format!("{what} has 1 to {longest} bytes, found {found}"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{what} has visible ASCII characters only and no white space, found \"{}\"",
            text.escape_default()
        ));
    }
    Ok(())
}

/// How many places a filter or window of `[height, width]` has along each axis of so many
/// pixels; `None` if it does not fit.
fn places(
    stride: Stride,
    [height, width]: [usize; 2],
    [high, wide]: [usize; 2],
) -> Result<Option<[usize; 2]>, String> {
    let Stride { vertical, horizontal } = stride;
    if vertical == 0 || horizontal == 0 {
        return Err(format!("stride {stride}; expected at least 1 pixel along each axis"));
    }
    let fits = height >= high && width >= wide;
    Ok(fits.then(|| [(height - high) / vertical + 1, (width - wide) / horizontal + 1]))
}

fn check_finite(number: f64) -> Result<(), String> {
    if number.is_finite() { Ok(()) } else { Err(format!("{number} is not a finite number")) }
}

/// Refuses ends between which there is nothing.
fn check_clip(low: Option<f64>, high: Option<f64>) -> Result<(), String> {
    low.into_iter().chain(high).try_for_each(check_finite)?;
    match (low, high) {
        (None, None) => Err("a clip has a low end or a high one, found neither".into()),
        (Some(low), Some(high)) if low >= high => {
            Err(format!("the low end of a clip is below the high one, found {low} and {high}"))
        }
        _ => Ok(()),
    }
}

/// The shape of the places of the largest values.
fn argmax_shape(shape: &[usize]) -> Result<&[usize], String> {
    let [leading @ .., side] = shape else {
        return Err("a single number has no last axis".into());
    };
    if !(2..=MAX_CHOICES).contains(side) {
        return Err(format!(
            "shape {} has {side} elements along its last axis; expected 2 to {MAX_CHOICES} to choose from",
            Shape(shape)
        ));
    }
    Ok(leading)
}

/// The shape of the largest values of windows.
fn max_pool_shape(
    images: &[usize],
    window: Window,
    stride: Stride,
    padding: Padding,
) -> Result<Vec<usize>, String> {
    let &[batch, height, width, channels] = images else {
        let found = Shape(images);
        return Err(format!("shape {found}; expected [batch, height, width, channels]"));
    };
    let Window { height: high, width: wide } = window;
    if high == 0 || wide == 0 {
        return Err(format!("windows of {high}x{wide} pixels have none"));
    }
    let does_not_fit = || {
        format!(
            "windows of {high}x{wide} do not fit into {height}x{width} pixels with padding {padding}"
        )
    };
    let padded = padding.around([height, width]).ok_or_else(does_not_fit)?;
    let Some([rows, columns]) = places(stride, padded, [high, wide])? else {
        return Err(does_not_fit());
    };
    let Padding { top, bottom, left, right } = padding;
    if top.max(bottom) >= high || left.max(right) >= wide {
        return Err(format!(
            "padding {padding} has room for whole windows of {high}x{wide}, which have no largest value; expected less than a window along each side"
        ));
    }
    let sides = [batch, rows, columns, channels, window.area()];
    match sides.into_iter().try_fold(1usize, |product, side| product.checked_mul(side)) {
        Some(..=MAX_TENSOR) => Ok(vec![batch, rows, columns, channels]),
        _ => Err(format!(
            "{rows}x{columns} windows of {high}x{wide} pixels of {} have more than {MAX_TENSOR} elements",
            Shape(images)
        )),
    }
}

/// The shape of two operands broadcast against each other, as in NumPy.
fn broadcast(left: &[usize], right: &[usize]) -> Option<Vec<usize>> {
    let rank = left.len().max(right.len());
    let side = |shape: &[usize], axis: usize| {
        (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis])
    };
    (0..rank)
        .map(|axis| match (side(left, axis), side(right, axis)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// A graph so far: what the next node can refer to.
pub(super) struct Known<'a> {
    pub(super) players: &'a [Name],
    pub(super) nodes: &'a [Node],
    /// As many as nodes.
    pub(super) facts: &'a [Facts],
}

impl Known<'_> {
    /// What follows for the result of an operation, or why it cannot be.
    pub(super) fn infer(&self, op: &Op) -> Result<Facts, String> {
        if self.nodes.len() >= MAX_NODES {
            return Err(too_many("nodes", MAX_NODES));
        }
        let is_polynomial = |op: &Op| matches!(op, Op::Polynomial { .. });
        let polynomials = || self.nodes.iter().filter(|node| is_polynomial(&node.operation));
        if is_polynomial(op) && polynomials().count() >= MAX_POLYNOMIALS {
            return Err(too_many("polynomials", MAX_POLYNOMIALS));
        }
        let inputs = op.inputs();
        let facts: Vec<&Facts> = inputs
            .iter()
            .map(|id| self.facts.get(id.0).ok_or_else(|| format!("there is no node {} yet", id.0)))
            .collect::<Result<_, _>>()?;
        for (id, facts) in inputs.iter().zip(&facts) {
            if matches!(self.nodes[id.0].operation, Op::Output { .. }) {
                return Err(format!("node {} is an output and cannot be read", id.0));
            }
            debug_assert!(!facts.is_empty());
        }
        let shape = self.infer_shape(op, &facts)?;
        if shape.len() > MAX_AXES {
            return Err(format!("a tensor has at most {MAX_AXES} axes, found {}", shape.len()));
        }
        let len = shape.iter().try_fold(1usize, |len, side| len.checked_mul(*side));
        match len {
            Some(1..=MAX_TENSOR) => {}
            Some(0) => return Err(format!("a tensor of shape {} is empty", Shape(&shape))),
            _ => {
                return Err(format!(
                    "a tensor of shape {} has more than {MAX_TENSOR} elements",
                    Shape(&shape)
                ));
            }
        }
        let place = self.infer_place(op, &facts)?;
        let lifetime = match op {
            Op::Input { lifetime, .. } => *lifetime,
            _ if facts.iter().all(|facts| facts.lifetime == Lifetime::Session) => Lifetime::Session,
            _ => Lifetime::Evaluation,
        };
        Ok(Facts { place, shape, lifetime })
    }

    fn known(&self, player: Name) -> Result<Name, String> {
        if self.players.contains(&player) {
            return Ok(player);
        }
        let players: Vec<String> = self.players.iter().map(ToString::to_string).collect();
        Err(format!("unknown player {player}; the players are {}", players.join(", ")))
    }

    fn infer_place(&self, op: &Op, facts: &[&Facts]) -> Result<Place, String> {
        match op {
            Op::Input { player, name, .. } => {
                let player = self.known(*player)?;
                check_visible("an input's name", name, MAX_LABEL_BYTES)?;
                let taken = self.nodes.iter().any(|node| {
                    matches!(&node.operation, Op::Input { player: p, name: n, .. } if *p == player && n == name)
                });
                if taken {
                    return Err(format!("{player} already has an input {name}"));
                }
                return Ok(Place::Local { player, received: false });
            }
            Op::Constant { .. } => return Ok(Place::Public),
            Op::Share { .. } => {
                return match facts[0].place {
                    Place::Local { received: false, .. } => Ok(Place::Private),
                    Place::Local { player, received: true } => Err(format!(
                        "{player} computed it from what it was revealed; only what does not depend on a revealed tensor can be shared"
                    )),
                    Place::Private => Err("the tensor is private already".into()),
                    Place::Public => {
                        Err("the tensor is public; use it as it is, it needs no sharing".into())
                    }
                };
            }
            Op::Reveal { player, .. } => {
                let player = self.known(*player)?;
                return match facts[0].place {
                    Place::Private => Ok(Place::Local { player, received: true }),
                    _ => Err("only private tensors are revealed".into()),
                };
            }
            Op::Output { name, .. } => {
                check_visible("an output's name", name, MAX_LABEL_BYTES)?;
                let Place::Local { player, received } = facts[0].place else {
                    return Err("an output is a local tensor; reveal it to a player first".into());
                };
                if !received {
                    return Err(format!(
                        "{player} would get back what it brings; an output depends on something that is revealed to {player}"
                    ));
                }
                let taken = self.nodes.iter().zip(self.facts).any(|(node, facts)| {
                    matches!(&node.operation, Op::Output { name: n, .. } if n == name)
                        && matches!(facts.place, Place::Local { player: p, .. } if p == player)
                });
                if taken {
                    return Err(format!("{player} already has an output {name}"));
                }
            }
            _ => {}
        }
        let mut place = Place::Public;
        for facts in facts {
            place = match (place, facts.place) {
                (place, Place::Public) => place,
                (Place::Public, other) => other,
                (Place::Private, Place::Private) => Place::Private,
                (
                    Place::Local { player: left, received: before },
                    Place::Local { player: right, received: after },
                ) => {
                    if left != right {
                        return Err(format!(
                            "one operand is local to {left}, the other to {right}; share them first"
                        ));
                    }
                    Place::Local { player: left, received: before || after }
                }
                (Place::Private, Place::Local { player, .. })
                | (Place::Local { player, .. }, Place::Private) => {
                    return Err(format!(
                        "one operand is private, the other local to {player}; share it first"
                    ));
                }
            };
        }
        if let (Op::Function { .. }, Place::Private) = (op, place) {
            return Err(
                "private tensors have no such function; use a polynomial, or reveal them first"
                    .into(),
            );
        }
        Ok(place)
    }

    fn infer_shape(&self, op: &Op, facts: &[&Facts]) -> Result<Vec<usize>, String> {
        let shape = |index: usize| facts[index].shape.as_slice();
        match op {
            Op::Input { shape, .. } => Ok(shape.clone()),
            Op::Constant { shape, values } => {
                let len = shape.iter().try_fold(1usize, |len, side| len.checked_mul(*side));
                if len != Some(values.len()) {
                    return Err(format!(
                        "{} values do not fill the shape {}",
                        values.len(),
                        Shape(shape)
                    ));
                }
                values.iter().try_for_each(|value| check_finite(*value))?;
                Ok(shape.clone())
            }
            Op::Share { .. }
            | Op::Reveal { .. }
            | Op::Output { .. }
            | Op::Neg { .. }
            | Op::Square { .. }
            | Op::Relu { .. }
            | Op::Abs { .. } => Ok(shape(0).to_vec()),
            Op::Clip { low, high, .. } => {
                check_clip(*low, *high)?;
                Ok(shape(0).to_vec())
            }
            Op::LeakyRelu { slope: number, .. } | Op::Step { threshold: number, .. } => {
                check_finite(*number)?;
                Ok(shape(0).to_vec())
            }
            Op::Piecewise { piecewise, .. } => {
                piecewise.check().map_err(|error| error.to_string())?;
                Ok(shape(0).to_vec())
            }
            Op::Activation { activation, .. } => {
                activation.check().map_err(|error| error.to_string())?;
                Ok(shape(0).to_vec())
            }
            Op::Prelu { .. } => match broadcast(shape(0), shape(1)) {
                Some(result) if result == shape(0) => Ok(result),
                _ => Err(format!(
                    "slopes of shape {} cannot be broadcast to {}",
                    Shape(shape(1)),
                    Shape(shape(0))
                )),
            },
            Op::Polynomial { polynomial, .. } => {
                let Polynomial { coefficients, range } = polynomial;
                if coefficients.is_empty() || coefficients.iter().any(|c| !c.is_finite()) {
                    return Err("a polynomial needs finite coefficients, at least one".into());
                }
                let degree = coefficients.len() - 1;
                if degree > MAX_DEGREE {
                    return Err(format!(
                        "a polynomial has at most degree {MAX_DEGREE}, found {degree}"
                    ));
                }
                if !(range.is_finite() && *range > 0.0) {
                    return Err(format!(
                        "a polynomial's range is a positive number, found {range}"
                    ));
                }
                Ok(shape(0).to_vec())
            }
            Op::Function { function, .. } => match (function, shape(0)) {
                (Function::Softmax | Function::ArgMax, []) => {
                    Err("a single number has no last axis".into())
                }
                (Function::ArgMax, [leading @ .., _]) => Ok(leading.to_vec()),
                (_, shape) => Ok(shape.to_vec()),
            },
            Op::Add { .. }
            | Op::Sub { .. }
            | Op::Mul { .. }
            | Op::Maximum { .. }
            | Op::Minimum { .. } => broadcast(shape(0), shape(1)).ok_or_else(|| {
                format!(
                    "shapes {} and {} cannot be broadcast against each other",
                    Shape(shape(0)),
                    Shape(shape(1))
                )
            }),
            Op::MatMul { .. } => match (shape(0), shape(1)) {
                (&[m, k], &[l, n]) if k == l => Ok(vec![m, n]),
                (left, right) => Err(format!(
                    "shapes {} and {} cannot be multiplied; expected [m, k] and [k, n]",
                    Shape(left),
                    Shape(right)
                )),
            },
            Op::Conv2d { stride, padding, .. } => {
                let (&[batch, height, width, inputs], &[rows, columns, channels, outputs]) =
                    (shape(0), shape(1))
                else {
                    return Err(format!(
                        "shapes {} and {}; expected images [batch, height, width, in] and filters [height, width, in, out]",
                        Shape(shape(0)),
                        Shape(shape(1))
                    ));
                };
                if inputs != channels {
                    return Err(format!("images of {inputs} channels and filters for {channels}"));
                }
                let padded = padding.around([height, width]);
                let elements = padded.and_then(|[height, width]| {
                    let sides = [batch, height, width, inputs];
                    sides.into_iter().try_fold(1usize, |product, side| product.checked_mul(side))
                });
                let (Some(padded), Some(..=MAX_TENSOR)) = (padded, elements) else {
                    return Err(format!(
                        "images {} with padding {padding} have more than {MAX_TENSOR} elements",
                        Shape(shape(0))
                    ));
                };
                match places(*stride, padded, [rows, columns])? {
                    Some([height, width]) => Ok(vec![batch, height, width, outputs]),
                    None => Err(format!(
                        "filters of {rows}x{columns} do not fit into {height}x{width} pixels with padding {padding}"
                    )),
                }
            }
            Op::SumPool { window, stride, .. } => {
                let &[batch, height, width, channels] = shape(0) else {
                    return Err(format!(
                        "shape {}; expected [batch, height, width, channels]",
                        Shape(shape(0))
                    ));
                };
                let Window { height: high, width: wide } = *window;
                if high == 0 || wide == 0 {
                    return Err(format!("windows of {high}x{wide} pixels have none"));
                }
                let Windows { stride, .. } = Windows::of(*window, *stride);
                match places(stride, [height, width], [high, wide])? {
                    Some([height, width]) => Ok(vec![batch, height, width, channels]),
                    None => Err(format!(
                        "windows of {high}x{wide} do not fit into {height}x{width} pixels"
                    )),
                }
            }
            Op::ArgMax { .. } => argmax_shape(shape(0)).map(<[usize]>::to_vec),
            Op::OneHotArgMax { .. } => argmax_shape(shape(0)).map(|_| shape(0).to_vec()),
            Op::MaxPool { window, stride, padding, .. } => {
                max_pool_shape(shape(0), *window, Windows::of(*window, *stride).stride, *padding)
            }
            Op::Reshape { shape: new, .. } => {
                let len = new.iter().try_fold(1usize, |len, side| len.checked_mul(*side));
                if len != Some(facts[0].len()) {
                    return Err(format!(
                        "shape {} has not as many elements as {}",
                        Shape(new),
                        Shape(shape(0))
                    ));
                }
                Ok(new.clone())
            }
            Op::Transpose { axes, .. } => {
                let mut sorted = axes.clone();
                sorted.sort_unstable();
                if !sorted.iter().copied().eq(0..shape(0).len()) {
                    return Err(format!(
                        "axes {} are no order of the {} axes of {}",
                        Shape(axes),
                        shape(0).len(),
                        Shape(shape(0))
                    ));
                }
                Ok(axes.iter().map(|axis| shape(0)[*axis]).collect())
            }
            Op::Concat { axis, inputs } => {
                let Some(first) = facts.first() else {
                    return Err("there is nothing to concatenate".into());
                };
                if inputs.len() > MAX_NODES {
                    let found = inputs.len();
                    return Err(format!(
                        "at most {MAX_NODES} tensors are concatenated, found {found}"
                    ));
                }
                let mut joined = first.shape.clone();
                if *axis >= joined.len() {
                    return Err(format!("there is no axis {axis} in {}", Shape(&joined)));
                }
                for index in 1..inputs.len() {
                    let other = shape(index);
                    let alike = other.len() == joined.len()
                        && (0..other.len()).all(|a| a == *axis || other[a] == joined[a]);
                    if !alike {
                        return Err(format!(
                            "shapes {} and {} differ in more than axis {axis}",
                            Shape(&first.shape),
                            Shape(other)
                        ));
                    }
                    joined[*axis] += other[*axis];
                }
                Ok(joined)
            }
            Op::Slice { ranges, .. } => {
                if ranges.len() != shape(0).len() {
                    return Err(format!(
                        "{} ranges for the {} axes of {}",
                        ranges.len(),
                        shape(0).len(),
                        Shape(shape(0))
                    ));
                }
                ranges
                    .iter()
                    .zip(shape(0))
                    .map(|(&(start, end, step), &side)| {
                        if start < end && end <= side && step > 0 {
                            Ok((end - start).div_ceil(step))
                        } else {
                            Err(format!(
                                "range {start}..{end} by {step} does not lie within an axis of {side}"
                            ))
                        }
                    })
                    .collect()
            }
            Op::Expand { shape: new, .. } => {
                if broadcast(shape(0), new).as_ref() != Some(new) {
                    return Err(format!(
                        "shape {} cannot be expanded to {}",
                        Shape(shape(0)),
                        Shape(new)
                    ));
                }
                Ok(new.clone())
            }
            Op::ReduceSum { axes, .. } => {
                let rank = shape(0).len();
                let ascending = axes.windows(2).all(|pair| pair[0] < pair[1]);
                if !ascending || axes.iter().any(|axis| *axis >= rank) {
                    return Err(format!(
                        "axes {} are not ascending axes of {}",
                        Shape(axes),
                        Shape(shape(0))
                    ));
                }
                let kept = shape(0).iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
                Ok(kept.map(|(_, side)| *side).collect())
            }
        }
    }
}
