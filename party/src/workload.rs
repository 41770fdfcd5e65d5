//! The client's files: images, labels, and the logits of the plaintext network.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use spdz::channel::Name;
use spdz::graph::{Op, Plaintext, Tensors};
use spdz::network::{IMAGES, LABELS, LOGITS};
use spdz::plan::Plan;

use crate::config::{AccuracyWorkload, Workload};
use crate::data::{DataError, read};
use crate::idx;
use crate::result::Prediction;

/// Images as a network takes them.
pub(crate) struct ImageSet {
    pixels: Vec<u8>,
    count: usize,
    /// `[batch, ...]`.
    shape: Vec<usize>,
}

impl ImageSet {
    pub(crate) fn load(workload: &Workload, plan: &Plan) -> Result<Self, DataError> {
        let path = &workload.images;
        let images = idx::read_images(&read(path)?)
            .map_err(|source| DataError::Idx { path: path.clone(), source })?;
        let inputs = plan.graph().inputs_of(Name::CLIENT).into_iter();
        let shape = inputs.filter(|input| input.name == IMAGES).map(|input| input.shape).next();
        let shape = shape.unwrap_or_default();
        let size = images.height * images.width;
        let expected: usize = shape.iter().skip(1).product();
        if size != expected || images.count == 0 {
            return Err(DataError::Content {
                path: path.clone(),
                found: format!("{} images of {}x{}", images.count, images.height, images.width),
                expected: format!("at least one image of {expected} pixels"),
            });
        }
        Ok(Self { pixels: images.pixels, count: images.count, shape })
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// A batch of images from `first` on, going round; pixels from 0 to 1.
    pub(crate) fn batch(&self, first: usize) -> Tensors {
        let size: usize = self.shape.iter().skip(1).product();
        let values = (first..first + self.shape[0])
            .flat_map(|image| {
                let start = image % self.count * size;
                &self.pixels[start..start + size]
            })
            .map(|pixel| f64::from(f32::from(*pixel) / 255.0))
            .collect();
        let Ok(images) = Plaintext::new(self.shape.as_slice(), values) else {
            unreachable!("a batch of images fills its shape");
        };
        Tensors::from([(IMAGES.to_owned(), images)])
    }
}

/// What outputs are scored against.
pub(crate) struct Expected {
    pub(crate) samples: usize,
    pub(crate) labels: Vec<u8>,
    /// The logits of the plaintext network, `[samples, classes]`, if they are known.
    pub(crate) logits: Option<Vec<f32>>,
    pub(crate) classes: usize,
}

impl Expected {
    pub(crate) fn load(
        workload: &AccuracyWorkload,
        inputs: &ImageSet,
        plan: &Plan,
    ) -> Result<Self, DataError> {
        let samples = workload.samples;
        let classes = classes(plan);
        let path = &workload.labels;
        let labels = idx::read_labels(&read(path)?)
            .map_err(|source| DataError::Idx { path: path.clone(), source })?;
        let available = labels.len().min(inputs.count());
        if available < samples {
            return Err(DataError::Content {
                path: path.clone(),
                found: format!("labels for {} of {} images", labels.len(), inputs.count()),
                expected: format!("{samples} images with labels (accuracy.samples)"),
            });
        }
        let reference = workload.reference.as_ref();
        let logits = reference.map(|path| plaintext_logits(&read(path)?, path, samples, classes));
        let logits = logits.transpose()?;
        Ok(Self { samples, labels, logits, classes })
    }
}

/// The classes that a network tells apart.
fn classes(plan: &Plan) -> usize {
    let graph = plan.graph();
    let chosen = graph.nodes().iter().find_map(|node| match node.operation {
        // A network that reveals labels has one.
        Op::ArgMax { input } => graph.facts(input).shape.last().copied(),
        _ => None,
    });
    let outputs = graph.outputs_of(Name::CLIENT);
    let logits = outputs.iter().find(|(name, _)| name == LOGITS);
    let logits = logits.map(|(_, shape)| shape.iter().skip(1).product());
    logits.or(chosen).unwrap_or_default()
}

/// What the client learnt of the image at a place of a batch; `classes` are the network's.
pub(crate) fn prediction(
    outputs: &Tensors,
    place: usize,
    classes: usize,
) -> Option<Prediction<'_>> {
    match (outputs.get(LOGITS), outputs.get(LABELS)) {
        (Some(logits), _) => {
            let row = place * classes..(place + 1) * classes;
            logits.as_slice().get(row).map(Prediction::Logits)
        }
        (None, Some(labels)) => labels.as_slice().get(place).copied().map(Prediction::Label),
        (None, None) => None,
    }
}

/// The logits of the plaintext network for so many images, from a file's bytes; `path` is for
/// messages.
pub(crate) fn plaintext_logits(
    bytes: &[u8],
    path: &Path,
    samples: usize,
    classes: usize,
) -> Result<Vec<f32>, DataError> {
    let content = |found: String| DataError::Content {
        path: path.into(),
        found,
        expected: format!("a tensor `logits` of F32, [at least {samples}, {classes}]"),
    };
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| content(format!("no safetensors ({error})")))?;
    let tensor = file.tensor("logits").map_err(|_| content("no tensor `logits`".into()))?;
    let shape_fits =
        matches!(tensor.shape(), [rows, columns] if *rows >= samples && *columns == classes);
    if tensor.dtype() != Dtype::F32 || !shape_fits {
        return Err(content(format!("{:?} of {:?}", tensor.dtype(), tensor.shape())));
    }
    let values = tensor.data().as_chunks::<4>().0.iter();
    Ok(values.take(samples * classes).map(|bytes| f32::from_le_bytes(*bytes)).collect())
}
