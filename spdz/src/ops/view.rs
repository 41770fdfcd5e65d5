//! Some elements in some order: transposing, slicing, repeating. Local, and the same for
//! shares, masks and public values.

use std::borrow::Cow;
use std::fmt;

use super::operation::{Correlation, Execute, Operation, Producer};
use super::values::Values;
use crate::buffer::Buffer;
use crate::geometry::View as Elements;
use crate::masked::Masked;
use crate::ring::{Ring, planes, planes_mut};
use crate::share::Share;
use crate::tensors::{MaskedId, PrivateId, Table, TensorId};

/// Some elements of a private tensor in some order.
#[derive(Clone, Debug)]
pub struct View {
    /// The tensor.
    pub input: PrivateId,
    /// Which elements.
    pub view: Elements,
    /// The result.
    pub output: PrivateId,
}

impl Operation for View {
    fn name(&self) -> &'static str {
        "view"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        write!(f, " {} -> {}", self.input, self.output)?;
        list_view(f, &self.view)
    }
}

impl<R: Ring> Execute<R> for View {
    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let share = Share(view::<R>(&values.get(self.input).0, &self.view));
        values.put(self.output, share);
    }
}

/// Some elements of a masked tensor in some order.
#[derive(Clone, Debug)]
pub struct ViewMasked {
    /// The masked tensor.
    pub input: MaskedId,
    /// Which elements.
    pub view: Elements,
    /// The result.
    pub output: MaskedId,
}

impl Operation for ViewMasked {
    fn name(&self) -> &'static str {
        "view"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        write!(f, " {} -> {}", self.input, self.output)?;
        list_view(f, &self.view)
    }
}

impl<R: Ring> Execute<R> for ViewMasked {
    fn mask(&self, producer: &mut dyn Producer<R>) -> Share<R> {
        producer.make(self.input);
        Share(view::<R>(&producer.get(self.input).0, &self.view))
    }

    fn mask_share<'a>(
        &self,
        _: &'a Correlation<R>,
        shares: &dyn Fn(MaskedId) -> Cow<'a, Share<R>>,
    ) -> Cow<'a, Share<R>> {
        Cow::Owned(Share(view::<R>(&shares(self.input).0, &self.view)))
    }

    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let Masked { alpha, mask } = values.masked(self.input);
        let alpha = view::<R>(alpha, &self.view);
        let mask = Share(view::<R>(&mask.0, &self.view));
        values.put_masked(self.output, Masked { alpha, mask });
    }
}

fn list_view(f: &mut fmt::Formatter<'_>, view: &Elements) -> fmt::Result {
    write!(f, " from {} axes", view.offset)?;
    view.axes.iter().try_for_each(|(length, stride)| write!(f, " {length}*{stride}"))
}

/// The elements that `view` names, in its order.
#[must_use]
pub fn view<R: Ring>(words: &[R::Word], view: &Elements) -> Buffer<R::Word> {
    let mut out = Buffer::zeros(R::PLANES * view.len());
    for (words, out) in planes::<R>(words).zip(planes_mut::<R>(&mut out)) {
        view.read(words, out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Int64;

    #[test]
    fn views_transpose_slice_and_repeat() {
        let words: Vec<u64> = (0..6).collect();
        let transposed = Elements { offset: 0, axes: vec![(3, 1), (2, 3)] };
        assert_eq!(view::<Int64>(&words, &transposed)[..], [0, 3, 1, 4, 2, 5]);
        let sliced = Elements { offset: 1, axes: vec![(2, 3), (1, 2)] };
        assert_eq!(view::<Int64>(&words, &sliced)[..], [1, 4]);
        let repeated = Elements { offset: 4, axes: vec![(3, 0), (2, 1)] };
        assert_eq!(view::<Int64>(&words, &repeated)[..], [4, 5, 4, 5, 4, 5]);
        assert_eq!(view::<Int64>(&words, &Elements { offset: 2, axes: vec![] })[..], [2]);
    }
}
