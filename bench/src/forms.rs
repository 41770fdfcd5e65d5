//! Which networks are meant by lists of names, activations and poolings, and in which number
//! formats.

use spdz::network::{Activation, Builtin, Pooling, Reveal, UnknownNetwork, Variant};
use spdz::plan::NumberFormat;

/// Every network with every activation and pooling, each once: the forms one after the other,
/// and in each the networks. Forms that a network has not are left out.
///
/// # Errors
/// If there is no such network, or it has none of these forms.
pub fn networks(
    architectures: &[impl AsRef<str>],
    activations: &[Activation],
    poolings: &[Pooling],
) -> Result<Vec<Builtin>, UnknownNetwork> {
    let mut found = Vec::new();
    let mut refused = Vec::new();
    for &activation in activations {
        for &pooling in poolings {
            for architecture in architectures.iter().map(AsRef::as_ref) {
                match Builtin::new(architecture, Variant { activation, pooling }) {
                    Ok(network) if found.contains(&network) => {}
                    Ok(network) => found.push(network),
                    Err(error) => refused.push((architecture, error)),
                }
            }
        }
    }
    let has_none = |architecture: &str| {
        found.iter().all(|network: &Builtin| network.architecture() != architecture)
    };
    match refused.into_iter().find(|(architecture, _)| has_none(architecture)) {
        Some((_, error)) => Err(error),
        None => Ok(found),
    }
}

/// Those of the formats in which a network can be computed and reveal this: with comparisons,
/// polynomials, or both. All of them if there are none, for the plan to say what they lack.
#[must_use]
pub fn formats(network: Builtin, reveal: Reveal, formats: &[NumberFormat]) -> Vec<NumberFormat> {
    let compares = network.compares() || reveal == Reveal::Label;
    let can = |format: &&NumberFormat| {
        (!compares || format.has_gates()) && (network.compares() || format.has_polynomials())
    };
    let able: Vec<NumberFormat> = formats.iter().filter(can).copied().collect();
    if able.is_empty() { formats.into() } else { able }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Activation::{Polynomial, Relu};
    use Pooling::{Average, Max};
    use Reveal::{Label, Logits};

    fn names(
        architectures: &[&str],
        activations: &[Activation],
        poolings: &[Pooling],
    ) -> Result<Vec<String>, String> {
        let networks = networks(architectures, activations, poolings);
        let names = |networks: Vec<Builtin>| networks.iter().map(ToString::to_string).collect();
        networks.map(names).map_err(|error| error.to_string())
    }

    #[test]
    fn forms_follow_each_other_and_what_there_is_not_is_left_out() {
        let all = ["A", "B", "C"];
        assert_eq!(names(&all, &[Polynomial], &[Average]).unwrap(), all);
        assert_eq!(
            names(&all, &Activation::ALL, &Pooling::ALL).unwrap(),
            ["A", "B", "C", "A-relu", "B-relu", "C-relu", "B-relu-max", "C-relu-max"]
        );
        assert_eq!(names(&["B", "B"], &[Relu], &[Max, Max]).unwrap(), ["B-relu-max"]);
        assert_eq!(names(&["B"], &[Polynomial, Relu], &[Max]).unwrap(), ["B-relu-max"]);
        assert_eq!(names(&[], &[Relu], &[Max]).unwrap(), [""; 0]);
    }

    #[test]
    fn a_network_without_any_of_the_forms_is_refused() {
        for (architectures, activations, poolings, expected) in [
            (&["A", "B"][..], &[Relu][..], &[Max][..], "network A has no pooling"),
            (&["B"], &[Polynomial], &[Max], "with the activation relu alone"),
            (&["B", "D"], &[Relu], &[Max], "there is no network D"),
        ] {
            let error = names(architectures, activations, poolings).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_network_is_left_out_of_formats_that_it_cannot_be_computed_in() {
        use NumberFormat::{Int32, Int64, Int100};
        let relu: Builtin = "A-relu".parse().unwrap();
        for (network, reveal, among, expected) in [
            (Builtin::A, Logits, &NumberFormat::ALL[..], &[Int64, Int100][..]),
            (relu, Logits, &NumberFormat::ALL, &[Int64, Int32]),
            (relu, Logits, &[Int100, Int32], &[Int32]),
            // To find the label takes comparisons, whatever the activations are.
            (Builtin::A, Label, &NumberFormat::ALL, &[Int64]),
            (relu, Label, &NumberFormat::ALL, &[Int64, Int32]),
            // Nothing is left: the plan says why.
            (relu, Logits, &[Int100], &[Int100]),
            (Builtin::A, Logits, &[Int32], &[Int32]),
            (Builtin::A, Label, &[Int100, Int32], &[Int100, Int32]),
        ] {
            assert_eq!(formats(network, reveal, among), expected, "{network} {reveal} {among:?}");
        }
    }
}
