//! The forms of a tensor, each made when it is first needed: private, reduced to the format's
//! precision, and masked.

use std::sync::Arc;

use super::compiler::Compiler;
use super::lowered::{Layout, LoweredValue, Scaled, ScaledMask};
use super::public::expanded_view;
use crate::geometry::View;
use crate::graph::NodeId;
use crate::ops;
use crate::ring::Truncation;

impl Compiler<'_> {
    /// A private form of the tensor, with whatever fractional bits it has.
    pub(super) fn private(&mut self, slot: usize) -> Scaled {
        let forms = &self.lowered[slot];
        if let Some(raw) = forms.raw.or(forms.reduced) {
            return raw;
        }
        let len = forms.len;
        if let Some(wire) = forms.wire {
            let lifted = self.lifted_wire(wire, 0, len);
            self.lowered[slot].raw = Some(lifted);
            return lifted;
        }
        let scaled = match (forms.masked, forms.layout.clone()) {
            (Some(masked), _) => self.unmask(masked, len),
            (None, Some(Layout::Alias(source))) => return self.private(source),
            (None, Some(Layout::Whole(source, view) | Layout::Part(source, view))) => {
                let input = self.private(source);
                let output = self.private_of(len);
                self.push(Arc::new(ops::View { input: input.id, view, output }));
                Scaled { id: output, ..input }
            }
            (None, Some(Layout::Concat(sources, outer))) => {
                let most = |parts: &[Scaled]| {
                    let fraction = parts.iter().map(|part| part.fraction).max();
                    let integral = parts.iter().map(|part| part.integral).max();
                    (fraction.unwrap_or_default(), integral.unwrap_or_default())
                };
                let mut parts: Vec<Scaled> =
                    sources.iter().map(|&slot| self.private(slot)).collect();
                let (fraction, integral) = most(&parts);
                if !self.truncates_well(fraction, integral) {
                    parts = sources.iter().map(|&slot| self.reduced(slot)).collect();
                }
                let (fraction, integral) = most(&parts);
                let inputs = parts.iter().map(|part| self.lifted(*part, fraction).id).collect();
                let output = self.private_of(len);
                self.push(Arc::new(ops::Concat { inputs, outer, output }));
                Scaled { id: output, fraction, integral }
            }
            (None, None) => unreachable!("a graph's nodes are lowered before they are read"),
        };
        self.lowered[slot].raw = Some(scaled);
        scaled
    }

    pub(super) fn unmask(&mut self, masked: ScaledMask, len: usize) -> Scaled {
        let id = self.private_of(len);
        self.push(Arc::new(ops::Unmask { input: masked.id, output: id }));
        Scaled { id, fraction: masked.fraction, integral: self.integral() }
    }

    /// The same values with more fractional bits.
    pub(super) fn lifted(&mut self, value: Scaled, fraction: i32) -> Scaled {
        if value.fraction >= fraction {
            return value;
        }
        let id = self.private_of(self.table.len(value.id));
        let factor = 1 << (fraction - value.fraction);
        self.push(Arc::new(ops::Combine {
            terms: vec![(value.id, factor)],
            constant: 0,
            output: id,
        }));
        Scaled { id, fraction, ..value }
    }

    /// The values with at most `fraction` fractional bits, and in masked form if that
    /// came with it. They are below `2^integral`, or those that use them are wrong anyway.
    pub(super) fn truncated(
        &mut self,
        value: Scaled,
        fraction: i32,
        integral: i32,
    ) -> (Scaled, Option<ScaledMask>) {
        if value.fraction <= fraction {
            return (value, None);
        }
        let bits = (value.fraction - fraction) as u32;
        let len = self.table.len(value.id);
        let integral = integral.min(value.integral);
        let is_safe = || self.truncates_safely(value.fraction, integral);
        if self.exact
            && !is_safe()
            && let Some(quotient) = self.lifted_quotient(Scaled { integral, ..value }, bits as i32)
        {
            return (quotient, None);
        }
        if self.truncation == Truncation::Local {
            self.may_fail(value.fraction, integral, len);
            let output = self.private_of(len);
            self.push(Arc::new(ops::Truncate { input: value.id, bits, output }));
            return (Scaled { id: output, fraction, integral }, None);
        }
        self.check_dividend(value.fraction, integral);
        let output = self.masked_of(len);
        self.push(Arc::new(ops::TruncateInteractive { input: value.id, bits, output }));
        let masked = ScaledMask { id: output, fraction };
        let quotient = Scaled { integral, ..self.unmask(masked, len) };
        (quotient, (self.format.truncation_parts() == 0).then_some(masked))
    }

    /// The values masked, with at most `fraction` fractional bits. They are below
    /// `2^integral`.
    pub(super) fn opened(&mut self, value: Scaled, fraction: i32, integral: i32) -> ScaledMask {
        let mask_is_known =
            self.truncation == Truncation::Interactive && self.format.truncation_parts() == 0;
        if value.fraction > fraction && mask_is_known {
            let output = self.masked_of(self.table.len(value.id));
            let bits = (value.fraction - fraction) as u32;
            self.push(Arc::new(ops::TruncateInteractive { input: value.id, bits, output }));
            return ScaledMask { id: output, fraction };
        }
        let (value, _) = self.truncated(value, fraction, integral);
        let output = self.masked_of(self.table.len(value.id));
        self.push(Arc::new(ops::Open { input: value.id, output }));
        ScaledMask { id: output, fraction: value.fraction }
    }

    /// A private form of the tensor with at most the format's fractional bits.
    pub(super) fn reduced(&mut self, slot: usize) -> Scaled {
        if let Some(reduced) = self.lowered[slot].reduced {
            return reduced;
        }
        match self.lowered[slot].layout.clone() {
            Some(Layout::Alias(source)) => return self.reduced(source),
            Some(Layout::Whole(source, view)) if self.lowered[slot].raw.is_none() => {
                // Whatever is repeated is truncated once.
                let input = self.reduced(source);
                let output = self.private_of(self.lowered[slot].len);
                self.push(Arc::new(ops::View { input: input.id, view, output }));
                let reduced = Scaled { id: output, ..input };
                self.lowered[slot].reduced = Some(reduced);
                return reduced;
            }
            _ => {}
        }
        if let Some(masked) = self.lowered[slot].masked.filter(|masked| masked.fraction <= self.f())
        {
            let reduced = match self.lowered[slot].raw {
                Some(raw) if raw.fraction <= self.f() => raw,
                _ => self.unmask(masked, self.lowered[slot].len),
            };
            self.lowered[slot].reduced = Some(reduced);
            return reduced;
        }
        let value = self.private(slot);
        let (reduced, masked) = self.truncated(value, self.f(), self.integral());
        let forms = &mut self.lowered[slot];
        forms.reduced = Some(reduced);
        forms.masked = forms.masked.or(masked);
        reduced
    }

    /// The masked form of the tensor.
    pub(super) fn masked(&mut self, slot: usize) -> ScaledMask {
        if let Some(masked) = self.lowered[slot].masked {
            return masked;
        }
        let len = self.lowered[slot].len;
        let masked = match self.lowered[slot].layout.clone() {
            Some(Layout::Alias(source)) => return self.masked(source),
            Some(Layout::Whole(source, view)) => self.view_masked(source, view, len),
            Some(Layout::Part(source, view)) if self.lowered[source].masked.is_some() => {
                self.view_masked(source, view, len)
            }
            Some(Layout::Concat(sources, outer)) if self.masked_alike(&sources) => {
                let masked: Vec<ScaledMask> =
                    sources.iter().map(|slot| self.masked(*slot)).collect();
                let output = self.masked_of(len);
                let inputs = masked.iter().map(|masked| masked.id).collect();
                self.push(Arc::new(ops::ConcatMasked { inputs, outer, output }));
                ScaledMask { id: output, fraction: masked[0].fraction }
            }
            _ => {
                let forms = &self.lowered[slot];
                let value = match forms.reduced {
                    Some(reduced) => reduced,
                    None => self.private(slot),
                };
                self.opened(value, self.f(), self.integral())
            }
        };
        self.lowered[slot].masked = Some(masked);
        masked
    }

    /// The masked form of the tensor as the operand of a product that has room for `most`
    /// fractional bits: those that it has more than the format are not worth an exchange.
    pub(super) fn fine(&mut self, slot: usize, most: i32) -> ScaledMask {
        let forms = &self.lowered[slot];
        if let Some(fine) = forms.fine.filter(|fine| fine.fraction <= most) {
            return fine;
        }
        if forms.masked.is_some() || forms.reduced.is_some() {
            return self.masked(slot);
        }
        let len = forms.len;
        let fine = match forms.layout.clone() {
            Some(Layout::Alias(source)) => return self.fine(source, most),
            Some(Layout::Whole(source, view)) => {
                let input = self.fine(source, most);
                self.view_of(input, view, len)
            }
            _ => {
                let value = self.private(slot);
                if value.fraction <= self.f() || value.fraction > most {
                    return self.masked(slot);
                }
                let output = self.masked_of(len);
                self.push(Arc::new(ops::Open { input: value.id, output }));
                ScaledMask { id: output, fraction: value.fraction }
            }
        };
        self.lowered[slot].fine = Some(fine);
        fine
    }

    pub(super) fn masked_alike(&self, slots: &[usize]) -> bool {
        let mut fractions = slots.iter().map(|slot| self.lowered[*slot].masked.map(|m| m.fraction));
        let first = fractions.next().flatten();
        first.is_some() && fractions.all(|fraction| fraction == first)
    }

    pub(super) fn view_masked(&mut self, source: usize, view: View, len: usize) -> ScaledMask {
        let input = self.masked(source);
        self.view_of(input, view, len)
    }

    fn view_of(&mut self, input: ScaledMask, view: View, len: usize) -> ScaledMask {
        let output = self.masked_of(len);
        self.push(Arc::new(ops::ViewMasked { input: input.id, view, output }));
        ScaledMask { id: output, ..input }
    }

    /// A slot for `id` repeated to `shape`; `id`'s own if there is nothing to repeat.
    pub(super) fn expanded(&mut self, id: NodeId, shape: &[usize]) -> usize {
        let from = self.shape(id);
        let len: usize = shape.iter().product();
        let layout = if self.lowered[id.0].len == len {
            return id.0;
        } else {
            Layout::Whole(id.0, expanded_view(from, shape))
        };
        self.lowered.push(LoweredValue { len, layout: Some(layout), ..LoweredValue::default() });
        self.lowered.len() - 1
    }

    /// A private form of which so many bits more can be summed up.
    pub(super) fn summable(&mut self, slot: usize, more: i32) -> Scaled {
        let value = self.private(slot);
        if self.truncates_well(value.fraction, value.integral + more) {
            value
        } else {
            self.reduced(slot)
        }
    }

    /// A private form that has bits for so many more fractional and integral bits: truncated only
    /// if it has to be.
    pub(super) fn with_room(&mut self, slot: usize, fraction: i32, integral: i32) -> Scaled {
        let value = self.private(slot);
        let fits = self.check_bits(value.fraction + fraction, value.integral + integral).is_ok();
        if value.fraction <= self.f() || (fits && self.truncates_seldom()) {
            return value;
        }
        self.reduced(slot)
    }
}
