//! The committed models are what their cards say, on the committed test set.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use bench::card::{Measured, ModelCard};
use bench::data::{Dataset, sha256};
use spdz::network::{Builtin, weights::Weights};

/// Checks one model, and that it reaches the accuracy its network is meant to.
fn check(name: &str, least: f64) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model: Builtin = name.parse().unwrap();
    let models = folder.join("models").join(model.file_stem());
    let file = std::fs::read(models.with_extension("safetensors")).unwrap();
    let card = std::fs::read(models.with_extension("json")).unwrap();
    let card: ModelCard = serde_json::from_slice(&card).unwrap();
    assert_eq!((card.model().unwrap(), &card.sha256), (model, &sha256(&file)));

    let network = model.network();
    let weights = Weights::from_safetensors(&file, &network).unwrap();
    let test_set = Dataset::test(&folder.join("data")).unwrap();
    let measured = Measured::of(&network, &weights, &test_set).unwrap();
    assert!(measured.plaintext_accuracy >= least, "{measured:?}");
    // Another machine adds up in another order, which may turn a borderline image.
    let apart = (measured.plaintext_accuracy - card.measured.plaintext_accuracy).abs();
    assert!(apart <= 1.5e-4, "{measured:?} {:?}", card.measured);
    for (found, expected) in [
        (measured.largest_pre_activation, card.measured.largest_pre_activation),
        (measured.largest_logit, card.measured.largest_logit),
    ] {
        assert!((found - expected).abs() < 1e-3, "{found} {expected}");
    }
}

#[test]
fn network_a_is_what_its_card_says() {
    check("A", 0.98);
}

#[test]
fn network_b_is_what_its_card_says() {
    check("B", 0.9926);
}

#[test]
fn network_c_is_what_its_card_says() {
    check("C", 0.9944);
}

#[test]
fn networks_with_exact_relu_are_what_their_cards_say() {
    check("A-relu", 0.990);
    check("B-relu", 0.995);
    check("C-relu", 0.996);
}

#[test]
fn networks_with_max_pooling_are_what_their_cards_say() {
    check("B-relu-max", 0.995);
    check("C-relu-max", 0.996);
}

#[test]
fn what_is_compared_stays_far_below_what_formats_hold() {
    for model in Builtin::ALL.into_iter().filter(|model| model.compares()) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let card = std::fs::read(folder.join(model.file_stem()).with_extension("json")).unwrap();
        let Measured { largest_pre_activation, largest_logit, .. } =
            serde_json::from_slice::<ModelCard>(&card).unwrap().measured;
        assert!(largest_pre_activation < 16.0 && largest_logit < 16.0, "{model}");
    }
}
