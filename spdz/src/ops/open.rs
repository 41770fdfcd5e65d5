//! The two ways between private and masked tensors: opening one under a fresh mask, and
//! taking the mask into the shares again.

use std::fmt;

use super::operation::{Correlation, Execute, Operation, Randomness};
use super::values::Values;
use crate::low;
use crate::masked::{Made, Mask, Masked, Opening};
use crate::packed::Order;
use crate::packed_opening::PackedOpening;
use crate::prg::Purpose;
use crate::ring::{Plane, Ring, Side, combined};
use crate::share::Share;
use crate::tensors::{MaskedId, Message, PrivateId, Route, Table, TensorId};

/// Opens a private tensor under a fresh mask: one exchange.
#[derive(Clone, Debug)]
pub struct Open {
    /// The private tensor.
    pub input: PrivateId,
    /// Its masked form.
    pub output: MaskedId,
}

impl Operation for Open {
    fn name(&self) -> &'static str {
        "open"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn message(&self, table: &Table) -> Option<Message> {
        Some(table.message(Route::Exchange, self.output))
    }

    fn randomness(&self, table: &Table) -> Randomness {
        Randomness::mask(Purpose::OpeningMask, table.len(self.output))
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        write!(f, " {} -> {} len {}", self.input, self.output, table.len(self.output))
    }
}

impl<R: Ring> Execute<R> for Open {
    fn open<'a>(
        &self,
        values: &'a Values<'_, R>,
        correlation: Correlation<R>,
    ) -> Box<dyn Opening<R> + 'a> {
        let (x, mask) = (values.get(self.input), correlation.into_mask());
        match values.low_bits() {
            None => mask.opening(x),
            Some(bits) => low_opening(mask, x, bits),
        }
    }
}

/// The exchange in which the low bits of `x` are opened under a mask.
fn low_opening<'a, R: Ring>(mask: Mask<R>, x: &'a Share<R>, bits: u32) -> Box<dyn Opening<R> + 'a> {
    let mask = mask.into_share();
    let ours = low::difference::<R>(&x.0, &mask.0, bits);
    Box::new(PackedOpening::new(Order::Values, ours, move |ours, theirs| {
        let mut alpha = Share::<R>::zeros(ours.len());
        low::add(&mut alpha, &ours);
        low::add(&mut alpha, &theirs);
        Made::Masked(Masked { alpha: alpha.0, mask })
    }))
}

/// The private form of a masked tensor. Local.
#[derive(Clone, Debug)]
pub struct Unmask {
    /// The masked tensor.
    pub input: MaskedId,
    /// Its private form.
    pub output: PrivateId,
}

impl Operation for Unmask {
    fn name(&self) -> &'static str {
        "unmask"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        write!(f, " {} -> {}", self.input, self.output)
    }
}

impl<R: Ring> Execute<R> for Unmask {
    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let share = unmask(values.masked(self.input), values.side());
        values.put(self.output, share);
    }
}

/// The private form of a masked tensor: `a_0` at server 0, `a_1 + alpha` at server 1.
pub(crate) fn unmask<R: Ring>(x: &Masked<R>, side: Side) -> Share<R> {
    match side {
        Side::Zero => x.mask.clone(),
        Side::One => Share(combined::<R>(&x.mask.0, &x.alpha, R::Plane::add)),
    }
}
