//! How sure an accuracy is.

use party::result::Accuracy;

/// The quantile of the normal distribution for an interval of 95 %.
const Z: f64 = 1.959_964;

/// The parts that are plausible at a confidence of 95 % where `part` of so many samples was
/// found: Wilson's interval, which also holds near 0 and 1. Nothing without samples.
#[must_use]
pub fn wilson(part: f64, samples: usize) -> Option<[f64; 2]> {
    let n = samples as f64;
    if samples == 0 || !(0.0..=1.0).contains(&part) {
        return None;
    }
    let centre = part + Z * Z / (2.0 * n);
    let half = Z * (part * (1.0 - part) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    Some([(centre - half) / scale, (centre + half) / scale].map(|end| end.clamp(0.0, 1.0)))
}

/// The interval of the accuracy on shares.
#[must_use]
pub fn interval(accuracy: &Accuracy) -> Option<[f64; 2]> {
    wilson(accuracy.secure, accuracy.samples)
}

/// `98.99 to 99.35`, percent.
#[must_use]
pub fn percents([low, high]: [f64; 2]) -> String {
    format!("{:.2} to {:.2}", low * 100.0, high * 100.0)
}

/// `99.19 % (98.99 to 99.35 %, n = 10000)`.
#[must_use]
pub fn in_words(accuracy: &Accuracy) -> String {
    let Accuracy { samples, secure, .. } = *accuracy;
    let interval =
        interval(accuracy).map_or(String::new(), |ends| format!("{} %, ", percents(ends)));
    format!("{:.2} % ({interval}n = {samples})", secure * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_wilsons() {
        // Newcombe, Two-sided confidence intervals for the single proportion, Statistics in
        // Medicine 17 (1998), table I, method 3.
        for (hits, samples, expected) in [
            (81.0, 263, [0.2553, 0.3662]),
            (15.0, 148, [0.0624, 0.1605]),
            (0.0, 20, [0.0, 0.1611]),
            (1.0, 29, [0.0061, 0.1718]),
        ] {
            let found = wilson(hits / f64::from(samples), samples as usize).unwrap();
            for (found, expected) in found.into_iter().zip(expected) {
                assert!((found - expected).abs() < 5e-5, "{hits} of {samples}: {found}");
            }
        }
        assert_eq!(wilson(1.0, 0), None);
        assert_eq!(wilson(f64::NAN, 10), None);
        let all = wilson(1.0, 10_000).unwrap();
        assert!(all[0] > 0.9996 && all[1] == 1.0, "{all:?}");
    }

    #[test]
    fn an_accuracy_says_of_how_many() {
        let accuracy = Accuracy {
            samples: 10_000,
            plaintext: None,
            secure: 0.9919,
            agreement: None,
            mean_kl_divergence: None,
        };
        assert_eq!(in_words(&accuracy), "99.19 % (98.99 to 99.35 %, n = 10000)");
    }
}
