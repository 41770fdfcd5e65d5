//! Random shifts, rotations and scalings of the training images.

use std::f32::consts::PI;

use rand::{RngExt, rngs::StdRng};

use crate::card::Augmentation;
use party::idx::Images;

/// Appends the `index`-th image, changed at random, as values in `[0, 1]`.
pub(super) fn append(
    augmentation: &Augmentation,
    images: &Images,
    index: usize,
    random: &mut StdRng,
    values: &mut Vec<f32>,
) {
    let mut up_to = |bound: f32| bound * random.random_range(-1.0f32..=1.0);
    let (sine, cosine) = (up_to(augmentation.rotation) * PI / 180.0).sin_cos();
    let [scale_y, scale_x] = [1.0 + up_to(augmentation.scale), 1.0 + up_to(augmentation.scale)];
    let [shift_y, shift_x] = [up_to(augmentation.shift), up_to(augmentation.shift)];
    let size = images.height * images.width;
    let pixels = &images.pixels[index * size..][..size];
    let center_y = (images.height - 1) as f32 / 2.0;
    let center_x = (images.width - 1) as f32 / 2.0;
    for y in 0..images.height {
        for x in 0..images.width {
            let dy = (y as f32 - center_y) * scale_y;
            let dx = (x as f32 - center_x) * scale_x;
            values.push(interpolate(
                pixels,
                images.width,
                cosine * dy - sine * dx + center_y + shift_y,
                sine * dy + cosine * dx + center_x + shift_x,
            ));
        }
    }
}

/// The image's value between its pixels, in `[0, 1]`; zero outside.
fn interpolate(pixels: &[u8], width: usize, y: f32, x: f32) -> f32 {
    let (top, left) = (y.floor(), x.floor());
    let (down, right) = (y - top, x - left);
    let height = pixels.len() / width;
    let pixel = |y: f32, x: f32| {
        let inside = y >= 0.0 && x >= 0.0 && y < height as f32 && x < width as f32;
        if inside { f32::from(pixels[y as usize * width + x as usize]) } else { 0.0 }
    };
    let upper = (1.0 - right) * pixel(top, left) + right * pixel(top, left + 1.0);
    let lower = (1.0 - right) * pixel(top + 1.0, left) + right * pixel(top + 1.0, left + 1.0);
    ((1.0 - down) * upper + down * lower) / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn dot() -> Images {
        let mut pixels = vec![0; 49];
        pixels[3 * 7 + 3] = 255;
        Images { count: 1, height: 7, width: 7, pixels }
    }

    fn apply(augmentation: Augmentation, seed: u64) -> Vec<f32> {
        let mut values = Vec::new();
        let mut random = StdRng::seed_from_u64(seed);
        append(&augmentation, &dot(), 0, &mut random, &mut values);
        values
    }

    #[test]
    fn nothing_changes_an_image_by_nothing() {
        let none = Augmentation { shift: 0.0, rotation: 0.0, scale: 0.0 };
        let values = apply(none, 1);
        assert_eq!(values.iter().filter(|&&value| value == 0.0).count(), 48);
        assert!((values[24] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_shift_moves_the_ink_and_keeps_it() {
        let shift = Augmentation { shift: 2.0, rotation: 0.0, scale: 0.0 };
        let values = apply(shift, 1);
        assert!(values[24] < 0.9, "{values:?}");
        assert!((values.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        assert_eq!(values, apply(shift, 1));
        assert_ne!(values, apply(shift, 2));
    }
}
