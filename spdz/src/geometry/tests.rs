//! The index arithmetic against examples by hand.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::*;

#[test]
fn padding_puts_zeros_around_each_image() {
    let convolution = Convolution {
        batch: 2,
        height: 2,
        width: 1,
        inputs: 2,
        filter_height: 3,
        filter_width: 3,
        outputs: 1,
        stride: 1.into(),
        padding: 1.into(),
    };
    let mut padded = vec![0; convolution.padded_len()];
    convolution.pad(&[1, 2, 3, 4, 5, 6, 7, 8], &mut padded);
    let image = |a, b, c, d| {
        [[0, 0, 0, 0, 0, 0], [0, 0, a, b, 0, 0], [0, 0, c, d, 0, 0], [0, 0, 0, 0, 0, 0]].concat()
    };
    assert_eq!(padded, [image(1, 2, 3, 4), image(5, 6, 7, 8)].concat());
}

#[test]
fn filters_start_where_stride_and_padding_say() {
    let convolution = Convolution {
        batch: 2,
        height: 3,
        width: 3,
        inputs: 2,
        filter_height: 3,
        filter_width: 3,
        outputs: 4,
        stride: 2.into(),
        padding: 1.into(),
    };
    assert_eq!((convolution.output_height(), convolution.output_width()), (2, 2));
    // Padded rows are 5 pixels of 2 channels, images 5 rows.
    assert_eq!(convolution.row_starts(), [0, 4, 20, 24, 50, 54, 70, 74]);
    assert_eq!(convolution.as_matmul(), MatMul { m: 8, k: 18, n: 4 });
}

#[test]
fn each_axis_has_its_stride_and_each_border_its_padding() {
    let convolution = Convolution {
        batch: 2,
        height: 2,
        width: 3,
        inputs: 1,
        filter_height: 2,
        filter_width: 1,
        outputs: 1,
        stride: [2, 3].into(),
        padding: [0, 1, 2, 3].into(),
    };
    assert_eq!((convolution.padded_height(), convolution.padded_width()), (3, 8));
    assert_eq!((convolution.output_height(), convolution.output_width()), (1, 3));
    assert_eq!(convolution.row_starts(), [0, 3, 6, 24, 27, 30]);
    let mut padded = vec![0; convolution.padded_len()];
    convolution.pad(&(1..=12).collect::<Vec<_>>(), &mut padded);
    let image = |[a, b, c, d, e, f]: [i32; 6]| {
        [[0, 0, a, b, c, 0, 0, 0], [0, 0, d, e, f, 0, 0, 0], [0; 8]].concat()
    };
    let expected = [image([1, 2, 3, 4, 5, 6]), image([7, 8, 9, 10, 11, 12])].concat();
    assert_eq!(padded, expected);
}

/// What TensorFlow 2 pads: sides, filter and stride of one axis, before and after.
#[test]
fn same_padding_is_tensorflows() {
    let cases = [
        (5, 3, 1, [1, 1]),
        (5, 2, 1, [0, 1]),
        (5, 4, 1, [1, 2]),
        (6, 3, 2, [0, 1]),
        (7, 3, 2, [1, 1]),
        (28, 5, 2, [1, 2]),
        (224, 7, 2, [2, 3]),
        (10, 3, 4, [0, 1]),
        // Filters that lie apart need none.
        (4, 1, 2, [0, 0]),
        (9, 2, 5, [0, 0]),
    ];
    for (pixels, filter, stride, [before, after]) in cases {
        let padding = Padding::same([pixels, 1], [filter, 1], stride);
        let vertical = Padding { top: before, bottom: after, ..Padding::default() };
        assert_eq!(padding, vertical, "{pixels} {filter} {stride}");
        let padding = Padding::same([1, pixels], [1, filter], [1, stride]);
        let horizontal = Padding { left: before, right: after, ..Padding::default() };
        assert_eq!(padding, horizontal, "{pixels} {filter} {stride}");
        assert_eq!((before + pixels + after - filter) / stride + 1, pixels.div_ceil(stride));
    }
    assert_eq!(Padding::same([3, 3], [3, 3], 0), Padding::default());
    let largest = Padding::same([1, usize::MAX], [usize::MAX, 1], usize::MAX);
    assert_eq!(largest, [usize::MAX / 2, usize::MAX / 2, 0, 0].into());
}

#[test]
fn what_is_alike_is_written_as_one_number() {
    fn check<T>(value: T, json: &str, text: &str)
    where
        T: Serialize + for<'de> Deserialize<'de> + fmt::Debug + fmt::Display + PartialEq,
    {
        assert_eq!(serde_json::to_string(&value).unwrap(), json);
        assert_eq!(serde_json::from_str::<T>(json).unwrap(), value);
        assert_eq!(value.to_string(), text);
    }
    check(Stride::from(2), "2", "2");
    check(Stride::from([2, 1]), "[2,1]", "2x1");
    check(Window::from([3, 3]), "3", "3");
    check(Window::from([3, 4]), "[3,4]", "3x4");
    check(Padding::from([1; 4]), "1", "1");
    check(Padding::from([0, 1, 0, 1]), "[0,1,0,1]", "0,1,0,1");
    // The longer form means the same.
    assert_eq!(serde_json::from_str::<Stride>("[2,2]").unwrap(), 2.into());
    assert_eq!(serde_json::from_str::<Padding>("[1,1,1,1]").unwrap(), 1.into());

    for text in ["-1", "1.5", "[1]", "[1,2,3]", "\"1\"", "null"] {
        let axes = serde_json::from_str::<Stride>(text).unwrap_err().to_string();
        assert!(axes.contains("a number of pixels, or [vertical, horizontal]"), "{axes}");
        let borders = serde_json::from_str::<Padding>(text).unwrap_err().to_string();
        assert!(borders.contains("or [top, bottom, left, right]"), "{borders}");
    }
}
