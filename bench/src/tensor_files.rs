//! The inputs of players in the files that people have: safetensors, NumPy's `.npy` and `.npz`,
//! and CSV.
//!
//! A party reads safetensors. Other files are made into one; what is wrong with them is said with
//! the file, and the row and column or the place in the array.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ndarray::ArrayD;
use ndarray_npy::{ReadNpyError, ReadNpyExt, ReadableElement};
use party::files::{self, write_private};
use party::tensors::describe;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use spdz::channel::Name;
use spdz::graph::{InputSpec, Lifetime, Plaintext, Tensors};
use spdz::plan::Plan;
use spdz::role;

use crate::usage::refuse;

/// Largest file that is read, and most that it may hold unpacked, bytes: as a party reads.
const MAX_BYTES: u64 = 1 << 30;

/// A file with inputs of a player.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The input that it is, if it holds one alone and the player has several.
    pub tensor: Option<String>,
    /// Where it is.
    pub path: PathBuf,
}

/// Numbers in rows.
#[derive(Debug, PartialEq)]
struct Array {
    shape: Vec<usize>,
    values: Vec<f64>,
    /// Of a table, which a graph may want in another shape, the line of each row in its file.
    table: Option<Table>,
}

/// Where the numbers of a table are in its file.
#[derive(Debug, PartialEq)]
struct Table {
    columns: usize,
    lines: Vec<u64>,
}

impl Array {
    /// Where an element is, as people find it.
    fn place(&self, index: usize) -> String {
        match &self.table {
            Some(Table { columns, lines }) => {
                format!("row {}, column {}", lines[index / columns], index % columns + 1)
            }
            None => format!("at {:?}", place_in(&self.shape, index)),
        }
    }
}

/// The one safetensors file of each player: its own, or one that is made of its files in
/// `folder`.
///
/// # Errors
/// If a file cannot be read or is not what the graph needs.
pub(crate) fn of_players(
    sources: &BTreeMap<Name, Vec<Source>>,
    plan: &Plan,
    evaluations: u64,
    folder: &Path,
) -> anyhow::Result<BTreeMap<Name, PathBuf>> {
    let one = |(player, sources): (&Name, &Vec<Source>)| {
        Ok((*player, of_player(*player, sources, plan, evaluations, folder)?))
    };
    sources.iter().map(one).collect()
}

fn of_player(
    player: Name,
    sources: &[Source],
    plan: &Plan,
    evaluations: u64,
    folder: &Path,
) -> anyhow::Result<PathBuf> {
    let specs = &plan.graph().inputs_of(player)[..];
    // Who has no inputs, or a file that is not there, is told so by those who look for it.
    if let [Source { tensor: None, path }] = sources
        && (specs.is_empty() || !is_converted(path) || !path.exists())
    {
        return Ok(path.clone());
    }
    let mut arrays: BTreeMap<String, (Array, &Path)> = BTreeMap::new();
    for Source { tensor, path } in sources {
        for (name, array) in read(player, tensor.as_deref(), path, specs)? {
            if let Some((_, other)) = arrays.insert(name.clone(), (array, path)) {
                bail!("{} and {} both hold {name}", other.display(), path.display());
            }
        }
    }
    let mut tensors = Vec::new();
    for spec in specs {
        let Some((array, path)) = arrays.remove(&spec.name) else {
            let found: Vec<&str> = arrays.keys().map(String::as_str).collect();
            let found = if found.is_empty() { "nothing else".into() } else { found.join(", ") };
            bail!(
                "{player} needs {}, and its files hold no {}; found {found}",
                describe(specs),
                spec.name
            );
        };
        tensors.push(Input { spec, array: fitted(array, spec, path)?, path });
    }
    check(player, plan, evaluations, &tensors)?;
    let names = sources.iter().filter_map(|source| source.path.file_name());
    let names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    // Its name is in what a party says of it.
    let made = folder.join(format!("{player}-{}.safetensors", names.join("-")));
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|Input { spec, array: Array { shape, values, .. }, .. }| {
            (spec.name.clone(), shape, values.into_iter().flat_map(f64::to_le_bytes).collect())
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        anyhow::Ok((name.as_str(), TensorView::new(Dtype::F64, shape.clone(), bytes)?))
    });
    let file = safetensors::serialize(views.collect::<anyhow::Result<Vec<_>>>()?, None)?;
    write_private(&made, &file).with_context(|| format!("cannot write {}", made.display()))?;
    Ok(made)
}

/// An input as the graph wants it.
struct Input<'a> {
    spec: &'a InputSpec,
    array: Array,
    path: &'a Path,
}

impl Input<'_> {
    /// Elements of one evaluation, or of the session.
    fn len(&self) -> usize {
        self.spec.shape.iter().product()
    }

    /// How many evaluations it has numbers for.
    fn rows(&self) -> usize {
        if self.spec.lifetime == Lifetime::Session {
            1
        } else {
            self.array.values.len() / self.len().max(1)
        }
    }

    /// The row of an evaluation; after the last the first is the next.
    fn row(&self, evaluation: usize) -> usize {
        evaluation % self.rows()
    }
}

/// Makes sure that the player can share what it has: the party would say so too, but not where it
/// is in these files.
fn check(player: Name, plan: &Plan, evaluations: u64, inputs: &[Input<'_>]) -> anyhow::Result<()> {
    let of = |evaluation: usize, lifetime: Lifetime| -> anyhow::Result<()> {
        let tensor = |input: &Input<'_>| {
            let values = &input.array.values[input.row(evaluation) * input.len()..][..input.len()];
            let tensor = Plaintext::new(input.spec.shape.as_slice(), values.to_vec())?;
            anyhow::Ok((input.spec.name.clone(), tensor))
        };
        let tensors = inputs.iter().map(tensor).collect::<anyhow::Result<Tensors>>()?;
        let Err(error) = role::check_inputs(plan, player, lifetime, &tensors) else {
            return Ok(());
        };
        // What is shared may be computed from inputs, and then has no place in a file.
        if let role::Error::Range { tensor, index, limit } = &error
            && let Some(input) = inputs.iter().find(|input| input.spec.name == *tensor)
            && *index < input.len()
        {
            let place = input.array.place(input.row(evaluation) * input.len() + index);
            bail!(
                "{}: {place}: expected a number between -{limit} and {limit}, the fixed-point \
                 range, for {tensor}",
                input.path.display()
            );
        }
        Err(error.into())
    };
    of(0, Lifetime::Session)?;
    let rows = inputs.iter().map(Input::rows).max().unwrap_or(0);
    let rows = rows.min(usize::try_from(evaluations).unwrap_or(usize::MAX));
    (0..rows).try_for_each(|evaluation| of(evaluation, Lifetime::Evaluation))
}

fn ending(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default()
}

fn is_converted(path: &Path) -> bool {
    ["npy", "npz", "csv"].contains(&ending(path).as_str())
}

/// What a file holds, by the names of inputs.
fn read(
    player: Name,
    tensor: Option<&str>,
    path: &Path,
    specs: &[InputSpec],
) -> anyhow::Result<Vec<(String, Array)>> {
    let place = || path.display().to_string();
    let size = files::len(path).with_context(place)?;
    if size > MAX_BYTES {
        bail!("{} has {size} bytes, at most {MAX_BYTES} are read", path.display());
    }
    let one_of = || match (tensor, specs) {
        (Some(name), _) if specs.iter().any(|spec| spec.name == name) => Ok(name.to_owned()),
        (Some(name), _) => refuse!("{player} has no input {name}; it has {}", describe(specs)),
        (None, [only]) => Ok(only.name.clone()),
        (None, _) => refuse!(
            "{} holds one input, and {player} has several: {}; say which it is, as in \
             --player {player}.{}={}",
            path.display(),
            describe(specs),
            specs.first().map_or("NAME", |spec| spec.name.as_str()),
            path.display()
        ),
    };
    match ending(path).as_str() {
        "csv" => Ok(vec![(one_of()?, table(path)?)]),
        "npy" => {
            let name = one_of()?;
            let bytes = fs::read(path).with_context(place)?;
            Ok(vec![(name, array(&bytes).with_context(place)?)])
        }
        "npz" if tensor.is_none() => archive(path),
        "npz" => refuse!("{} names its arrays itself; say --player {player}={0}", path.display()),
        _ => bail!(
            "{}: expected .npy, .npz or .csv where a player has several files or an input is \
             named; one safetensors file has all inputs of a player",
            path.display()
        ),
    }
}

/// The arrays of an `.npz`.
fn archive(path: &Path) -> anyhow::Result<Vec<(String, Array)>> {
    let place = || path.display().to_string();
    let file = File::open(path).with_context(place)?;
    let mut archive = zip::ZipArchive::new(file).with_context(place)?;
    let (mut arrays, mut left) = (Vec::new(), MAX_BYTES);
    for index in 0..archive.len() {
        let entry = archive.by_index(index).with_context(place)?;
        let file = entry.name().with_context(place)?.into_owned();
        let Some(name) = file.strip_suffix(".npy") else { continue };
        let mut bytes = Vec::new();
        // What it says of its size is no more than a word.
        entry.take(left + 1).read_to_end(&mut bytes).with_context(place)?;
        left = left
            .checked_sub(bytes.len() as u64)
            .with_context(|| format!("{} holds more than {MAX_BYTES} bytes", path.display()))?;
        let array = array(&bytes).with_context(|| format!("{}: {file}", path.display()))?;
        arrays.push((name.to_owned(), array));
    }
    Ok(arrays)
}

/// The array in the bytes of an `.npy`, of whatever numbers.
fn array(bytes: &[u8]) -> anyhow::Result<Array> {
    fn of<T: ReadableElement + Copy>(
        bytes: &[u8],
        number: fn(T) -> f64,
    ) -> Result<Array, ReadNpyError> {
        let array = ArrayD::<T>::read_npy(Cursor::new(bytes))?;
        // Row by row, in whichever order the file has them.
        let values = array.iter().map(|value| number(*value)).collect();
        Ok(Array { shape: array.shape().to_vec(), values, table: None })
    }
    type Kind = fn(&[u8]) -> Result<Array, ReadNpyError>;
    let kinds: [Kind; 11] = [
        |bytes| of::<f64>(bytes, |x| x),
        |bytes| of::<f32>(bytes, f64::from),
        |bytes| of::<u8>(bytes, f64::from),
        |bytes| of::<i8>(bytes, f64::from),
        |bytes| of::<u16>(bytes, f64::from),
        |bytes| of::<i16>(bytes, f64::from),
        |bytes| of::<u32>(bytes, f64::from),
        |bytes| of::<i32>(bytes, f64::from),
        |bytes| of::<u64>(bytes, |x| x as f64),
        |bytes| of::<i64>(bytes, |x| x as f64),
        |bytes| of::<bool>(bytes, |x| f64::from(u8::from(x))),
    ];
    let mut of_another_kind = None;
    for kind in kinds {
        match kind(bytes) {
            Ok(array) => {
                if let Some(index) = array.values.iter().position(|value| !value.is_finite()) {
                    let (place, value) = (array.place(index), array.values[index]);
                    bail!("holds {value} {place}; every value must be a finite number");
                }
                return Ok(array);
            }
            Err(ReadNpyError::WrongDescriptor(found)) => of_another_kind = Some(found),
            Err(error) => return Err(error).context("is no array of NumPy's"),
        }
    }
    bail!(
        "holds elements of the type {}; expected floating-point numbers of 32 or 64 bits, integers \
         or truth values",
        of_another_kind.map_or_else(|| "unknown".into(), |found| found.to_string())
    )
}

/// The place of an element in an array, from 0.
fn place_in(shape: &[usize], mut index: usize) -> Vec<usize> {
    let mut place: Vec<usize> = Vec::new();
    for side in shape.iter().rev() {
        place.push(index % side);
        index /= side;
    }
    place.reverse();
    place
}

/// The rows of a CSV file; the first may be names.
fn table(path: &Path) -> anyhow::Result<Array> {
    let place = || path.display().to_string();
    let mut text = fs::read(path).with_context(place)?;
    // A byte order mark is no part of the first number.
    if text.starts_with(b"\xef\xbb\xbf") {
        text.drain(..3);
    }
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(&text[..]);
    let (mut values, mut lines, mut columns) = (Vec::new(), Vec::new(), 0);
    for (index, record) in reader.records().enumerate() {
        let record = record.with_context(place)?;
        let line = record.position().map_or(index as u64 + 1, csv::Position::line);
        let numbers: Vec<Option<f64>> =
            record.iter().map(|field| field.parse().ok().filter(|x: &f64| x.is_finite())).collect();
        if index == 0 && numbers.iter().all(Option::is_none) {
            continue;
        }
        if lines.is_empty() {
            columns = numbers.len();
        } else if numbers.len() != columns {
            bail!(
                "{}: row {line} has {} columns, expected {columns} as in the rows before",
                path.display(),
                numbers.len()
            );
        }
        for (column, number) in numbers.into_iter().enumerate() {
            let Some(number) = number else {
                bail!(
                    "{}: row {line}, column {}: expected a finite number, found {:?}",
                    path.display(),
                    column + 1,
                    record[column].chars().take(40).collect::<String>()
                );
            };
            values.push(number);
        }
        lines.push(line);
    }
    if lines.is_empty() {
        bail!("{} holds no row of numbers", path.display());
    }
    let shape = vec![lines.len(), columns];
    Ok(Array { shape, values, table: Some(Table { columns, lines }) })
}

/// An array in the shape that the graph has. A table has no shape of its own but rows and
/// columns: all of it is the input, or each of its rows that of one evaluation.
fn fitted(mut array: Array, spec: &InputSpec, path: &Path) -> anyhow::Result<Array> {
    let InputSpec { name, shape, lifetime } = spec;
    let several = |found: &[usize]| {
        *lifetime == Lifetime::Evaluation
            && found.len() == shape.len() + 1
            && found[0] > 0
            && found[1..] == shape[..]
    };
    let len: usize = shape.iter().product();
    if let Some(Table { columns, lines }) = &array.table {
        let (rows, columns) = (lines.len(), *columns);
        if array.values.len() == len {
            array.shape.clone_from(shape);
        } else if array.values.len().is_multiple_of(len)
            && (columns == len || shape.last() == Some(&columns))
        {
            array.shape = [&[array.values.len() / len], &shape[..]].concat();
        } else {
            bail!(
                "{}: found {rows} rows of {columns} columns; expected {len} numbers for {name} \
                 {shape:?}{}",
                path.display(),
                match lifetime {
                    Lifetime::Evaluation => ", or as many for each evaluation",
                    Lifetime::Session => "",
                }
            );
        }
    }
    if array.shape != *shape && !several(&array.shape) {
        bail!(
            "{}: {name} has shape {:?}, expected {shape:?}{}",
            path.display(),
            array.shape,
            match lifetime {
                Lifetime::Evaluation => ", or several of them along one more axis in front",
                Lifetime::Session => "",
            }
        );
    }
    Ok(array)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, ShapeBuilder};
    use ndarray_npy::WriteNpyExt;
    use spdz::graph::GraphBuilder;
    use spdz::plan::{NumberFormat, Truncation};
    use std::io::Write;

    /// alice brings `x` `[2, 3]` to each evaluation and `w` `[3]` to the session, bob `y`.
    fn plan() -> Plan {
        let g = GraphBuilder::named("files", ["alice", "bob"]);
        let x = g.share(g.local_input("alice", "x", [2, 3]));
        let w = g.private_variable("alice", "w", [3]);
        let y = g.share(g.local_input("bob", "y", [2, 3]));
        let z = g.add(g.mul(x, w), y);
        let z = g.reveal("alice", z);
        g.output("z", z);
        Plan::compile(&g.build().unwrap(), NumberFormat::Int64, Truncation::Local).unwrap()
    }

    /// A shape and what is in it.
    type Numbers = (Vec<usize>, Vec<f64>);

    struct Case {
        folder: tempfile::TempDir,
    }

    impl Case {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        }

        /// What a player's files come to: for each tensor its shape and numbers.
        fn of(
            &self,
            player: &str,
            sources: &[(Option<&str>, PathBuf)],
        ) -> Result<BTreeMap<String, Numbers>, String> {
            let sources = sources.iter().map(|(tensor, path)| Source {
                tensor: tensor.map(String::from),
                path: path.clone(),
            });
            let sources = BTreeMap::from([(player.parse().unwrap(), sources.collect())]);
            let made = of_players(&sources, &plan(), 2, self.folder.path());
            let made = made.map_err(|error| format!("{error:#}"))?;
            let bytes = fs::read(made.values().next().unwrap()).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let tensors = file.iter().map(|(name, view)| {
                let numbers = view.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b));
                (name.to_owned(), (view.shape().to_vec(), numbers.collect()))
            });
            Ok(tensors.collect())
        }
    }

    fn npy<T: ndarray_npy::WritableElement, D: ndarray::Dimension>(
        array: &ndarray::Array<T, D>,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        array.write_npy(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn tables_and_arrays_become_what_the_graph_needs() {
        let case = Case::new();
        let numbers: Vec<f64> = (1..=6).map(f64::from).collect();
        // With names, a byte order mark and spaces.
        let csv = case.write("x.csv", b"\xef\xbb\xbfa,b,c\n1, 2 ,3\n4,5,6\n");
        // Column by column in the file.
        let columns = Array2::from_shape_fn((2, 3).f(), |(i, j)| (i * 3 + j + 1) as f32);
        let array = case.write("x.npy", &npy(&columns));
        let whole = ndarray::arr1(&[1i64, 2, 3]);
        let w = case.write("w.npy", &npy(&whole));
        for file in [csv, array] {
            let found = case.of("alice", &[(Some("x"), file), (Some("w"), w.clone())]).unwrap();
            assert_eq!(found["x"], (vec![2, 3], numbers.clone()));
            assert_eq!(found["w"], (vec![3], vec![1.0, 2.0, 3.0]));
        }
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in [("x.npy", npy(&columns)), ("w.npy", npy(&whole))] {
            archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(&bytes).unwrap();
        }
        let archive = case.write("both.npz", &archive.finish().unwrap().into_inner());
        let found = case.of("alice", &[(None, archive)]).unwrap();
        assert_eq!((&found["x"].1, &found["w"].0), (&numbers, &vec![3]));
        // The only input needs no name; each row is an evaluation's, or two of them.
        let lines = case.write("y.csv", b"1,2,3,4,5,6\n7,8,9,10,11,12\n");
        let found = case.of("bob", &[(None, lines)]).unwrap();
        assert_eq!(found["y"].0, [2, 2, 3]);
        let lines = case.write("y.csv", b"1,2,3\n4,5,6\n7,8,9\n10,11,12\n");
        assert_eq!(case.of("bob", &[(None, lines)]).unwrap()["y"].0, [2, 2, 3]);
    }

    #[test]
    fn what_is_wrong_is_said_with_file_row_and_column() {
        let case = Case::new();
        let bob = |name: &str, bytes: &[u8]| {
            case.of("bob", &[(None, case.write(name, bytes))]).unwrap_err()
        };
        for (text, expected) in [
            (
                "1,2,3\n4,five,6\n",
                "y.csv: row 2, column 2: expected a finite number, found \"five\"",
            ),
            ("a,b,c\n1,2,3\n4,5,nan\n", "y.csv: row 3, column 3: expected a finite number"),
            ("1,2,3\n4,5\n", "y.csv: row 2 has 2 columns, expected 3"),
            ("1,2\n3,4\n", "found 2 rows of 2 columns; expected 6 numbers for y [2, 3]"),
            ("a,b\n", "y.csv holds no row of numbers"),
        ] {
            let error = bob("y.csv", text.as_bytes());
            assert!(error.contains(expected), "{error}\n(expected {expected})");
        }
        // What the format cannot hold, in whichever evaluation; the third is none.
        let rows = "a,b,c\n1,2,3\n4,5,6\n1,2,3\n4,5000,6\n1,2,3\n4,5,6000\n";
        let error = bob("y.csv", rows.as_bytes());
        let expected = "y.csv: row 5, column 2: expected a number between -1024 and 1024";
        assert!(error.contains(expected) && !error.contains("5000"), "{error}");
        let large = ndarray::arr2(&[[1.0, 2.0, 3.0], [4.0, 5.0, -6e5]]);
        let error = bob("y.npy", &npy(&large));
        assert!(error.contains("y.npy: at [1, 2]: expected a number between"), "{error}");
        let nan = ndarray::arr2(&[[1.0, 2.0, 3.0], [4.0, f64::NAN, 6.0]]);
        let error = bob("y.npy", &npy(&nan));
        assert!(error.contains("y.npy: holds NaN at [1, 1]"), "{error}");
        let error = bob("y.npy", &npy(&ndarray::arr1(&[1.0])));
        assert!(error.contains("y.npy: y has shape [1], expected [2, 3], or several"), "{error}");
        let error = bob("y.npy", b"\x93NUMPY");
        assert!(error.contains("y.npy: is no array of NumPy's"), "{error}");
        assert!(bob("y.npz", b"PK").contains("y.npz"));
        let x = case.write("x.csv", b"1,2,3\n4,5,6\n");
        for (sources, expected) in [
            (vec![(None, x.clone())], "say which it is, as in --player alice.x="),
            (vec![(Some("v"), x.clone())], "alice has no input v; it has x [2, 3], w [3]"),
            (vec![(Some("x"), x.clone())], "its files hold no w; found nothing else"),
            (vec![(Some("x"), x.clone()), (Some("x"), x.clone())], "both hold x"),
            (vec![(Some("x"), "x.safetensors".into())], "x.safetensors"),
        ] {
            let error = case.of("alice", &sources).unwrap_err();
            assert!(error.contains(expected), "{error}\n(expected {expected})");
        }
    }
}
