//! Plaintext tensors.

use std::collections::BTreeMap;
use std::fmt;

use ndarray::{ArrayD, IxDyn};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A plaintext tensor, which a player has.
///
/// It is kept row-major, printed by its shape alone, and overwritten when dropped.
#[derive(Clone, PartialEq)]
pub struct Plaintext(ArrayD<f64>);

/// Plaintext tensors of a player, by name.
pub type Tensors = BTreeMap<String, Plaintext>;

/// Values that are not as many as a shape has elements.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} values do not fill the shape {shape:?}")]
pub struct FillError {
    /// The shape.
    pub shape: Vec<usize>,
    /// How many values there are.
    pub found: usize,
}

impl Plaintext {
    /// A tensor of `shape` from its elements in row-major order.
    ///
    /// # Errors
    /// If there are more or fewer values than the shape has elements.
    pub fn new(shape: impl Into<Vec<usize>>, mut values: Vec<f64>) -> Result<Self, FillError> {
        let (shape, found) = (shape.into(), values.len());
        let len = shape.iter().try_fold(1usize, |len, side| len.checked_mul(*side));
        if len != Some(found) {
            values.zeroize();
            return Err(FillError { shape, found });
        }
        ArrayD::from_shape_vec(IxDyn(&shape), values)
            .map(Self)
            .map_err(|_| FillError { shape, found })
    }

    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    /// The tensor as an array.
    #[must_use]
    pub fn as_array(&self) -> &ArrayD<f64> {
        &self.0
    }

    /// Its elements in row-major order.
    #[must_use]
    pub fn as_slice(&self) -> &[f64] {
        // Every constructor makes it row-major.
        self.0.as_slice().unwrap_or_default()
    }

    /// The array, which nothing overwrites from here on.
    #[must_use]
    pub fn into_array(mut self) -> ArrayD<f64> {
        std::mem::take(&mut self.0)
    }
}

impl From<ArrayD<f64>> for Plaintext {
    /// Keeps the elements of the array and overwrites those that slicing hid.
    fn from(array: ArrayD<f64>) -> Self {
        let (shape, len) = (array.shape().to_vec(), array.len());
        let reordered = (!array.is_standard_layout()).then(|| array.iter().copied().collect());
        let (mut stored, start) = array.into_raw_vec_and_offset();
        let values: Vec<f64> = match reordered {
            None if stored.len() == len => stored,
            reordered => {
                let start = start.unwrap_or(0);
                let values = reordered.unwrap_or_else(|| stored[start..start + len].to_vec());
                stored.zeroize();
                values
            }
        };
        // As many as before, in the same shape.
        Self(ArrayD::from_shape_vec(shape, values).unwrap_or_default())
    }
}

impl Drop for Plaintext {
    fn drop(&mut self) {
        std::mem::take(&mut self.0).into_raw_vec_and_offset().0.zeroize();
    }
}

impl ZeroizeOnDrop for Plaintext {}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plaintext({:?})", self.shape())
    }
}
