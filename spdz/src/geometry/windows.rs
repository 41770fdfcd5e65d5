//! Windows over images: their sides, how far apart they are, and what lies around the image.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far apart neighbouring places of a filter or window are, pixels, at least 1.
///
/// Serialised as one number if both axes have the same, else as `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Axes", into = "Axes")]
pub struct Stride {
    /// From one row of places to the next.
    pub vertical: usize,
    /// From one place of a row to the next.
    pub horizontal: usize,
}

/// The sides of a window, pixels, at least 1.
///
/// Serialised as one number if it is square, else as `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Axes", into = "Axes")]
pub struct Window {
    /// Its height.
    pub height: usize,
    /// Its width.
    pub width: usize,
}

/// A number for both axes, or one for each.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of pixels, or [vertical, horizontal]")]
enum Axes {
    Both(usize),
    Each([usize; 2]),
}

impl From<Axes> for [usize; 2] {
    fn from(axes: Axes) -> Self {
        match axes {
            Axes::Both(pixels) => [pixels; 2],
            Axes::Each(pixels) => pixels,
        }
    }
}

impl From<[usize; 2]> for Axes {
    fn from(pixels: [usize; 2]) -> Self {
        if pixels[0] == pixels[1] { Self::Both(pixels[0]) } else { Self::Each(pixels) }
    }
}

/// The conversions and the text of two numbers, one for each axis: `2` or `2x3`.
macro_rules! of_axes {
    ($name:ident, $vertical:ident, $horizontal:ident) => {
        impl From<usize> for $name {
            /// The same along both axes.
            fn from(pixels: usize) -> Self {
                Self { $vertical: pixels, $horizontal: pixels }
            }
        }

        impl From<[usize; 2]> for $name {
            /// The vertical, then the horizontal one.
            fn from([$vertical, $horizontal]: [usize; 2]) -> Self {
                Self { $vertical, $horizontal }
            }
        }

        impl From<Axes> for $name {
            fn from(axes: Axes) -> Self {
                <[usize; 2]>::from(axes).into()
            }
        }

        impl From<$name> for Axes {
            fn from($name { $vertical, $horizontal }: $name) -> Self {
                [$vertical, $horizontal].into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match Axes::from(*self) {
                    Axes::Both(pixels) => write!(f, "{pixels}"),
                    Axes::Each([vertical, horizontal]) => write!(f, "{vertical}x{horizontal}"),
                }
            }
        }
    };
}

of_axes!(Stride, vertical, horizontal);
of_axes!(Window, height, width);

impl Window {
    /// Windows of these sides that are `stride` apart: they overlap, or leave pixels out,
    /// if it is smaller or larger than they are.
    #[must_use]
    pub fn every(self, stride: impl Into<Stride>) -> Windows {
        Windows { window: self, stride: stride.into() }
    }

    /// Pixels of a window; `usize::MAX` if there are more.
    #[must_use]
    pub fn area(&self) -> usize {
        self.height.saturating_mul(self.width)
    }
}

/// The windows of a pooling.
///
/// A number or `[height, width]` is windows next to each other, which neither overlap
/// nor leave anything between them; [`Window::every`] is any others. What is left at the
/// lower and right border, too small for another window, belongs to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// The sides of each.
    pub window: Window,
    /// How far apart they are.
    pub stride: Stride,
}

impl Windows {
    /// Windows that are `stride` apart, or next to each other.
    pub(crate) fn of(window: Window, stride: Option<Stride>) -> Self {
        stride.map_or_else(|| window.into(), |stride| window.every(stride))
    }
}

impl From<Window> for Windows {
    /// Next to each other.
    fn from(window: Window) -> Self {
        window.every([window.height, window.width])
    }
}

impl From<usize> for Windows {
    /// Squares next to each other.
    fn from(pixels: usize) -> Self {
        Window::from(pixels).into()
    }
}

impl From<[usize; 2]> for Windows {
    /// Of that height and width, next to each other.
    fn from(sides: [usize; 2]) -> Self {
        Window::from(sides).into()
    }
}

/// Zeros added around images, pixels.
///
/// Serialised as one number if all sides have the same, else as `[top, bottom, left,
/// right]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Borders", into = "Borders")]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

/// A number for all borders, or one for each.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of pixels, or [top, bottom, left, right]")]
enum Borders {
    All(usize),
    Each([usize; 4]),
}

impl From<Borders> for Padding {
    fn from(borders: Borders) -> Self {
        match borders {
            Borders::All(pixels) => pixels.into(),
            Borders::Each(pixels) => pixels.into(),
        }
    }
}

impl From<Padding> for Borders {
    fn from(Padding { top, bottom, left, right }: Padding) -> Self {
        if [bottom, left, right] == [top; 3] {
            Self::All(top)
        } else {
            Self::Each([top, bottom, left, right])
        }
    }
}

impl From<usize> for Padding {
    /// The same at all borders.
    fn from(pixels: usize) -> Self {
        [pixels; 4].into()
    }
}

impl From<[usize; 4]> for Padding {
    /// Top, bottom, left, right.
    fn from([top, bottom, left, right]: [usize; 4]) -> Self {
        Self { top, bottom, left, right }
    }
}

/// `1`, or `0,1,0,1` for top, bottom, left and right.
impl fmt::Display for Padding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Borders::from(*self) {
            Borders::All(pixels) => write!(f, "{pixels}"),
            Borders::Each([top, bottom, left, right]) => {
                write!(f, "{top},{bottom},{left},{right}")
            }
        }
    }
}

impl Padding {
    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// What TensorFlow calls `SAME`: as many outputs as images of `[height, width]` have
    /// pixels, divided by the stride and rounded up. The odd pixel of what filters of
    /// `[height, width]` need goes below and to the right.
    #[must_use]
    pub fn same(image: [usize; 2], filter: [usize; 2], stride: impl Into<Stride>) -> Self {
        let Stride { vertical, horizontal } = stride.into();
        let around = |pixels: usize, filter: usize, stride: usize| {
            // A stride of zero is refused where it is used.
            let places = pixels.div_ceil(stride.max(1));
            let covered = places.saturating_sub(1).saturating_mul(stride).saturating_add(filter);
            let missing = covered.saturating_sub(pixels);
            [missing / 2, missing - missing / 2]
        };
        let [top, bottom] = around(image[0], filter[0], vertical);
        let [left, right] = around(image[1], filter[1], horizontal);
        Self { top, bottom, left, right }
    }

    /// The `[height, width]` of padded images; `None` if nothing can be so large.
    pub(crate) fn around(&self, [height, width]: [usize; 2]) -> Option<[usize; 2]> {
        let Self { top, bottom, left, right } = *self;
        let along = |before: usize, pixels, after| before.checked_add(pixels)?.checked_add(after);
        Some([along(top, height, bottom)?, along(left, width, right)?])
    }
}
