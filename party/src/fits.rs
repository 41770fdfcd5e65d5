//! The fits of polynomials in a graph's text: a graph that was read has their coefficients alone,
//! and whoever computes it wants to know how far they are from the functions.

use serde_yaml::Value;
use spdz::polynomial::WrittenFit;

use crate::yaml;

/// The fits that a text in YAML or JSON has, each once, in their order. Nothing if it cannot be
/// read.
#[must_use]
pub fn in_text(text: &str) -> Vec<WrittenFit> {
    let mut fits = Vec::new();
    // Most have none, and some have megabytes of numbers.
    if text.contains("fit") {
        collect(&yaml::parse(text).unwrap_or_default(), &mut fits);
    }
    fits
}

fn collect(value: &Value, fits: &mut Vec<WrittenFit>) {
    match value {
        Value::Sequence(values) => values.iter().for_each(|value| collect(value, fits)),
        Value::Mapping(mapping) => {
            for (key, value) in mapping {
                if key.as_str() != Some("fit") {
                    collect(value, fits);
                } else if let Ok(fit) = serde_yaml::from_value(value.clone())
                    && !fits.contains(&fit)
                {
                    fits.push(fit);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fit_is_found_once_wherever_it_is() {
        let fit = |function: &str| {
            format!(
                r#"{{"fit": {{"function": "{function}", "bound": 8, "degree": 9}}, "range": 8}}"#
            )
        };
        let (sigmoid, tanh) = (fit("sigmoid"), fit("tanh"));
        let text = format!(r#"{{"nodes": [{sigmoid}, {{"x": {tanh}}}, {sigmoid}, {{"fit": 1}}]}}"#);
        let found: Vec<_> = in_text(&text).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("sigmoid by degree 9: within 1."), "{found:?}");
        assert!(found[1].ends_with(" on [-8, 8]"), "{found:?}");
        for text in ["", "a fit: [", "{}", "[1, 2]"] {
            assert_eq!(in_text(text), []);
        }
    }
}
