//! `bench reference`: the outputs of the plaintext networks, for clients to score their
//! outputs against.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ndarray::s;
use party::files::write_whole;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use spdz::network::Builtin;
use spdz::network::weights::Weights;

use crate::data::Dataset;
use crate::plaintext;

/// A network's file in a folder: of its weights, or of its reference.
#[must_use]
pub fn file_in(folder: &Path, network: Builtin) -> PathBuf {
    folder.join(format!("{}.safetensors", network.file_stem()))
}

/// Writes a network's logits of the first `samples` images of the test set, or of all if
/// there are fewer: a safetensors file with `logits`, `[images, classes]`, F32.
///
/// `data` is the folder of the test set, `models` the one of the weights.
///
/// # Errors
/// If a file is missing or wrong, or `path` cannot be written.
pub fn write(
    network: Builtin,
    data: &Path,
    models: &Path,
    samples: usize,
    path: &Path,
) -> anyhow::Result<()> {
    let weights_path = file_in(models, network);
    let network = network.network();
    let bytes = fs::read(&weights_path).with_context(|| {
        format!(
            "cannot read the weights {}; run this in the repository's folder, or say where they are with --models",
            weights_path.display()
        )
    })?;
    let weights = Weights::from_safetensors(&bytes, &network)
        .with_context(|| format!("weights {}", weights_path.display()))?;
    let images = Dataset::test(data)?.images;
    let samples = samples.min(images.count);
    let inputs = plaintext::inputs(&images);
    let logits = plaintext::logits(&network, &weights, inputs.slice(s![..samples, ..]), |_, _| {})?;
    let bytes: Vec<u8> = logits.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, logits.shape().to_vec(), &bytes)?;
    let file = safetensors::serialize([("logits", view)], None)?;
    write_whole(path, &file)
        .with_context(|| format!("cannot write the reference {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    #[test]
    fn a_reference_is_the_logits_of_the_first_images() {
        let own = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let (data, models) = (own("data"), own("models"));
        let folder = tempfile::tempdir().unwrap();
        let path = file_in(folder.path(), Builtin::A);
        write(Builtin::A, &data, &models, 100, &path).unwrap();

        let bytes = fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor("logits").unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, [100, 10].as_slice()));
        let values = tensor.data().as_chunks::<4>().0.iter();
        let values = values.map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let logits = ndarray::Array2::from_shape_vec((100, 10), values).unwrap();
        let labels = Dataset::test(&data).unwrap().labels;
        assert!(plaintext::accuracy(logits.view(), &labels[..100]) >= 0.97);
    }

    #[test]
    fn missing_weights_are_named() {
        let network = "B-relu-max".parse().unwrap();
        let error = write(network, Path::new("data"), Path::new("nowhere"), 1, Path::new("b"));
        let error = error.unwrap_err().to_string();
        let file = "nowhere/b-relu-max.safetensors";
        assert!(error.contains(file) && error.contains("--models"), "{error}");
    }
}
