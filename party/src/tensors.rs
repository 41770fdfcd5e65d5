//! A player's files: its inputs and its outputs, as safetensors.

use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use spdz::channel::Name;
use spdz::graph::{Graph, InputSpec, Lifetime, Plaintext, Tensors};
use spdz::plan::Plan;
use spdz::role;
use zeroize::Zeroizing;

use crate::files;

/// Most that is kept of a player's outputs, bytes.
pub(crate) const MAX_OUTPUT_BYTES: usize = 256 << 20;

/// Tensors of a file that a message names, when it does not hold the right one.
const NAMED: usize = 12;

/// What is wrong with a file of tensors.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// The bytes are not a safetensors file.
    #[error("not a readable safetensors file ({0}); it may be truncated")]
    Unreadable(String),
    /// A tensor is not there.
    #[error("tensor {tensor} is missing, expected with shape {shape:?}; found {found}")]
    Missing {
        /// Its name.
        tensor: String,
        /// The shape it should have.
        shape: Vec<usize>,
        /// The tensors that are there.
        found: String,
    },
    /// A tensor has another shape.
    #[error("tensor {tensor} has shape {found:?}, expected {expected:?}{or_rows}")]
    Shape {
        /// Its name.
        tensor: String,
        /// The shape that the graph says.
        expected: Vec<usize>,
        /// Whether it may be several of them.
        or_rows: &'static str,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has another element type.
    #[error("tensor {tensor} holds {found}, expected F32 or F64")]
    Type {
        /// Its name.
        tensor: String,
        /// The type in the file.
        found: String,
    },
    /// A value is NaN or infinite.
    #[error("tensor {tensor} holds {value} at index {index}; every value must be a finite number")]
    NotFinite {
        /// Its name.
        tensor: String,
        /// Place in the flattened tensor.
        index: usize,
        /// The value there.
        value: f64,
    },
    /// A variance is negative.
    #[error("tensor {tensor} holds a negative number at index {index}; a variance is not negative")]
    Variance {
        /// Its name.
        tensor: String,
        /// Place in the flattened tensor.
        index: usize,
    },
}

/// Names and shapes for people: `x [2, 3], y [4]`.
#[must_use]
pub fn describe(inputs: &[InputSpec]) -> String {
    let one = |input: &InputSpec| format!("{} {:?}", input.name, input.shape);
    inputs.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A player's inputs to a session, read and checked.
pub struct Inputs {
    session: Tensors,
    evaluation: Vec<Rows>,
}

/// A player's inputs to evaluations under a name, one after the other.
struct Rows {
    name: String,
    /// Of each.
    shape: Vec<usize>,
    values: Zeroizing<Vec<f64>>,
}

impl Inputs {
    /// Reads `specs` from the bytes of a safetensors file. Tensors that are not among
    /// them are ignored. With `variances`, what is called so must not be negative.
    ///
    /// # Errors
    /// If it is no such file, or a tensor is missing, of another shape or type, or not finite.
    pub fn read(bytes: &[u8], specs: Vec<InputSpec>, variances: bool) -> Result<Self, TensorError> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| TensorError::Unreadable(error.to_string()))?;
        let mut inputs = Self { session: Tensors::new(), evaluation: Vec::new() };
        for InputSpec { name, shape, lifetime } in specs {
            let Ok(view) = file.tensor(&name) else {
                let found = contents(&file);
                return Err(TensorError::Missing { tensor: name, shape, found });
            };
            let several = lifetime == Lifetime::Evaluation
                && view.shape().len() == shape.len() + 1
                && view.shape()[0] > 0
                && view.shape()[1..] == shape;
            if !several && view.shape() != shape {
                return Err(TensorError::Shape {
                    tensor: name,
                    expected: shape,
                    or_rows: match lifetime {
                        Lifetime::Evaluation => ", or several of them along one more axis in front",
                        Lifetime::Session => "",
                    },
                    found: view.shape().to_vec(),
                });
            }
            let mut values = numbers(&name, &view)?;
            check(&name, &values, variances)?;
            match lifetime {
                Lifetime::Evaluation => inputs.evaluation.push(Rows { name, shape, values }),
                Lifetime::Session => {
                    let Ok(tensor) = Plaintext::new(shape, std::mem::take(&mut *values)) else {
                        unreachable!("a tensor fills its own shape");
                    };
                    inputs.session.insert(name, tensor);
                }
            }
        }
        Ok(inputs)
    }

    /// The inputs of a player without a file.
    #[must_use]
    pub fn none() -> Self {
        Self { session: Tensors::new(), evaluation: Vec::new() }
    }

    /// How many evaluations have inputs of their own: 1, or the rows of the tensor that has most.
    #[must_use]
    pub fn evaluations(&self) -> u64 {
        self.evaluation.iter().map(Rows::count).max().unwrap_or(1)
    }

    /// All inputs of the session, and those of evaluation `number`.
    #[must_use]
    pub fn tensors(&self, number: u64) -> Tensors {
        let mut tensors = self.session.clone();
        self.evaluation.iter().for_each(|rows| rows.insert_into(&mut tensors, number));
        tensors
    }

    /// Makes sure that the player can share its inputs to the session and to so many
    /// evaluations, or all that differ.
    ///
    /// # Errors
    /// The first number that the format cannot hold, and where it is.
    pub(crate) fn check(
        &self,
        plan: &Plan,
        player: Name,
        evaluations: Option<u64>,
    ) -> Result<(), Unshareable> {
        let mut tensors = self.session.clone();
        let refuse = |row| move |source| Unshareable { row, source };
        role::check_inputs(plan, player, Lifetime::Session, &tensors).map_err(refuse(None))?;
        let rows = if self.evaluation.is_empty() { 0 } else { self.evaluations() };
        for number in 0..rows.min(evaluations.unwrap_or(u64::MAX)) {
            self.evaluation.iter().for_each(|rows| rows.insert_into(&mut tensors, number));
            let row = (rows > 1).then_some(number);
            role::check_inputs(plan, player, Lifetime::Evaluation, &tensors)
                .map_err(refuse(row))?;
        }
        Ok(())
    }
}

impl Rows {
    /// How many there are: as many as fit into memory.
    fn count(&self) -> u64 {
        (self.values.len() / self.len()) as u64
    }

    /// Elements of each.
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The row of evaluation `number`; after the last the first is the next.
    fn insert_into(&self, tensors: &mut Tensors, number: u64) {
        let (row, len) = ((number % self.count()) as usize, self.len());
        let values = self.values[row * len..][..len].to_vec();
        let Ok(tensor) = Plaintext::new(self.shape.as_slice(), values) else {
            unreachable!("a row fills its shape");
        };
        tensors.insert(self.name.clone(), tensor);
    }
}

/// Inputs that a player cannot share.
#[derive(Debug, thiserror::Error)]
#[error("{}{source}", row.map(|row| format!("row {row} of ")).unwrap_or_default())]
pub struct Unshareable {
    /// Of which evaluation's inputs, counted from 0; none of a tensor that has no rows.
    row: Option<u64>,
    /// What is wrong with them.
    source: role::Error,
}

/// The names of a file's tensors, or of some.
fn contents(file: &SafeTensors<'_>) -> String {
    let mut names = file.names();
    names.sort_unstable();
    let more = names.len().saturating_sub(NAMED);
    let named = names.iter().take(NAMED);
    let text = named.map(|name| name.escape_default().to_string()).collect::<Vec<_>>().join(", ");
    match (names.len(), more) {
        (0, _) => "no tensor".into(),
        (_, 0) => text,
        _ => format!("{text} and {more} more"),
    }
}

fn numbers(name: &str, view: &TensorView<'_>) -> Result<Zeroizing<Vec<f64>>, TensorError> {
    let data = view.data();
    let numbers = match view.dtype() {
        Dtype::F32 => {
            let values = data.as_chunks::<4>().0.iter();
            values.map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
        }
        Dtype::F64 => {
            data.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
        }
        other => {
            return Err(TensorError::Type { tensor: name.into(), found: format!("{other:?}") });
        }
    };
    Ok(Zeroizing::new(numbers))
}

fn check(name: &str, values: &[f64], variances: bool) -> Result<(), TensorError> {
    let not_negative = variances && name.ends_with(".variance");
    for (index, &value) in values.iter().enumerate() {
        let tensor = || name.to_owned();
        if !value.is_finite() {
            return Err(TensorError::NotFinite { tensor: tensor(), index, value });
        }
        if not_negative && value < 0.0 {
            return Err(TensorError::Variance { tensor: tensor(), index });
        }
    }
    Ok(())
}

/// A player's outputs, kept until they are written.
pub(crate) struct Outputs {
    path: PathBuf,
    outputs: Vec<Output>,
    evaluations: usize,
}

struct Output {
    name: String,
    shape: Vec<usize>,
    /// F64, little-endian, one evaluation after the other.
    bytes: Zeroizing<Vec<u8>>,
}

/// More outputs than are kept.
#[derive(Debug, thiserror::Error)]
#[error(
    "the outputs of more than {evaluations} evaluations do not fit into {}: it may have \
     {MAX_OUTPUT_BYTES} bytes; have fewer evaluations",
    path.display()
)]
pub struct OutputTooLarge {
    path: PathBuf,
    evaluations: usize,
}

impl Outputs {
    /// The outputs of `graph` that `player` learns, for the file at `path`.
    pub(crate) fn new(path: &Path, graph: &Graph, player: Name) -> Self {
        let output = |(name, shape)| Output { name, shape, bytes: Zeroizing::default() };
        let outputs = graph.outputs_of(player).into_iter().map(output).collect();
        Self { path: path.into(), outputs, evaluations: 0 }
    }

    /// Where it is written to.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the outputs of one more evaluation; NaN if there are none.
    pub(crate) fn keep(&mut self, tensors: Option<&Tensors>) -> Result<(), OutputTooLarge> {
        let len = |output: &Output| 8 * output.shape.iter().product::<usize>();
        let kept: usize = self.outputs.iter().map(|output| output.bytes.len() + len(output)).sum();
        if kept > MAX_OUTPUT_BYTES {
            return Err(OutputTooLarge { path: self.path.clone(), evaluations: self.evaluations });
        }
        for output in &mut self.outputs {
            let count = output.shape.iter().product();
            match tensors.and_then(|tensors| tensors.get(&output.name)) {
                Some(tensor) => {
                    let values = tensor.as_slice().iter();
                    output.bytes.extend(values.flat_map(|value| value.to_le_bytes()));
                }
                None => {
                    let values = std::iter::repeat_n(f64::NAN, count);
                    output.bytes.extend(values.flat_map(f64::to_le_bytes));
                }
            }
        }
        self.evaluations += 1;
        Ok(())
    }

    /// Writes the file.
    pub(crate) fn write(&self) -> std::io::Result<()> {
        let views = self.outputs.iter().map(|Output { name, shape, bytes }| {
            let shape: Vec<usize> = [self.evaluations].iter().chain(shape).copied().collect();
            Ok((name, TensorView::new(Dtype::F64, shape, bytes).map_err(std::io::Error::other)?))
        });
        let views = views.collect::<std::io::Result<Vec<_>>>()?;
        let file = safetensors::serialize(views, None).map_err(std::io::Error::other)?;
        files::write_private(&self.path, &Zeroizing::new(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spdz::graph::GraphBuilder;

    fn file(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
        let views = tensors.iter().map(|(name, dtype, shape, data)| {
            (*name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn f64s(values: &[f64]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn spec(name: &str, shape: &[usize], lifetime: Lifetime) -> InputSpec {
        InputSpec { name: name.into(), shape: shape.into(), lifetime }
    }

    fn specs() -> Vec<InputSpec> {
        vec![spec("w", &[2], Lifetime::Session), spec("x", &[1, 2], Lifetime::Evaluation)]
    }

    #[test]
    fn evaluations_take_their_rows_in_turn() {
        let bytes = file(&[
            ("w", Dtype::F32, vec![2], f32s(&[0.5, -0.5])),
            ("x", Dtype::F64, vec![3, 1, 2], f64s(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
            ("unused", Dtype::U8, vec![1], vec![1]),
        ]);
        let inputs = Inputs::read(&bytes, specs(), false).unwrap();
        for (number, expected) in [(0, [0.0, 1.0]), (2, [4.0, 5.0]), (4, [2.0, 3.0])] {
            let tensors = inputs.tensors(number);
            assert_eq!(tensors["x"].shape(), [1, 2]);
            assert_eq!(tensors["x"].as_slice(), expected);
            assert_eq!(tensors["w"].as_slice(), [0.5, -0.5]);
        }
        let one = file(&[
            ("w", Dtype::F64, vec![2], f64s(&[1.0, 2.0])),
            ("x", Dtype::F32, vec![1, 2], f32s(&[6.0, 7.0])),
        ]);
        let inputs = Inputs::read(&one, specs(), false).unwrap();
        assert_eq!(inputs.tensors(9)["x"].as_slice(), [6.0, 7.0]);
    }

    #[test]
    fn a_bad_tensor_is_named() {
        let w = || ("w", Dtype::F32, vec![2], f32s(&[1.0, 2.0]));
        let x = |shape: &[usize], values: &[f32]| ("x", Dtype::F32, shape.to_vec(), f32s(values));
        let cases = [
            (vec![w()], "x is missing, expected with shape [1, 2]; found w"),
            (vec![], "w is missing, expected with shape [2]; found no tensor"),
            (
                vec![w(), x(&[2, 1], &[0.0; 2])],
                "x has shape [2, 1], expected [1, 2], or several of them",
            ),
            (vec![w(), x(&[0, 1, 2], &[])], "x has shape [0, 1, 2]"),
            // What lasts for the session is there once.
            (
                vec![("w", Dtype::F32, vec![1, 2], f32s(&[1.0; 2])), x(&[1, 2], &[0.0; 2])],
                "w has shape [1, 2], expected [2]",
            ),
            (vec![("w", Dtype::I32, vec![2], f32s(&[1.0; 2]))], "w holds I32, expected F32 or F64"),
            (vec![w(), x(&[1, 2], &[0.0, f32::NAN])], "x holds NaN at index 1"),
            (vec![w(), x(&[1, 2], &[f32::INFINITY, 0.0])], "x holds inf at index 0"),
        ];
        for (tensors, expected) in cases {
            let error = Inputs::read(&file(&tensors), specs(), false).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}\n(expected {expected})");
        }
        let cut = &file(&[w()])[..20];
        let error = Inputs::read(cut, specs(), false).err().unwrap().to_string();
        assert!(error.contains("truncated"), "{error}");
    }

    #[test]
    fn a_variance_is_not_negative() {
        let specs = || vec![spec("bn1.variance", &[2], Lifetime::Session)];
        let bytes = file(&[("bn1.variance", Dtype::F32, vec![2], f32s(&[1.0, -1.0]))]);
        let error = Inputs::read(&bytes, specs(), true).err().unwrap().to_string();
        assert!(error.contains("bn1.variance holds a negative number at index 1"), "{error}");
        assert!(Inputs::read(&bytes, specs(), false).is_ok(), "any other graph's");
    }

    #[test]
    fn outputs_are_written_with_a_row_for_each_evaluation() {
        let player: Name = "carol".parse().unwrap();
        let g = GraphBuilder::new(["carol"]);
        let x = g.private_input("carol", [2]);
        g.output("y", g.reveal("carol", x));
        let graph = g.build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("carol.safetensors");
        let mut outputs = Outputs::new(&path, &graph, player);
        let tensor = Plaintext::new([2], vec![1.5, -2.0]).unwrap();
        outputs.keep(Some(&Tensors::from([("y".to_owned(), tensor)]))).unwrap();
        outputs.keep(None).unwrap();
        outputs.write().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let view = file.tensor("y").unwrap();
        assert_eq!((view.dtype(), view.shape()), (Dtype::F64, &[2, 2][..]));
        let values = numbers("y", &view).unwrap();
        assert_eq!(values[..2], [1.5, -2.0]);
        assert!(values[2].is_nan() && values[3].is_nan());
    }
}
