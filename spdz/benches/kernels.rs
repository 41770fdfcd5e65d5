//! Speed of the matrix kernels, for every instruction set of the machine, in
//! multiplications per second: on the shapes of the networks' layers, and on some
//! larger ones that show the limit. A multiplication of residues is that of all ten.

// The shapes are fixed, and a benchmark that does not fit its own shape has to stop.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use spdz::prg::Seed;
use spdz::ring::kernels::residues::{PackedResidues, multiply_add_with};
use spdz::ring::kernels::{InstructionSet, Kernels, PackedRight, Rows, multiply_with, vectorized};
use spdz::ring::residues::{self, Bounded, Modulus};
use spdz::ring::{Int100, Ring};

/// Words without a pattern.
fn words(count: usize) -> Vec<u64> {
    (1..=count as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ i).collect()
}

/// The same in 32 bits.
fn short_words(count: usize) -> Vec<u32> {
    words(count).into_iter().map(|word| word as u32).collect()
}

/// Those with a kernel of their own for words.
fn word_instruction_sets() -> impl Iterator<Item = InstructionSet> {
    InstructionSet::available().filter(|isa| *isa != InstructionSet::Avx512Vnni)
}

/// Products of matrices of words, in a group of the name of those.
fn products<W: Kernels>(criterion: &mut Criterion, name: &str, words: fn(usize) -> Vec<W>) {
    let matrices = [
        (512, 512, 512),
        (64, 500, 50),
        (6400, 500, 50),
        (100, 800, 500),
        (100, 500, 10),
        (1, 800, 500),
        (1, 784, 128),
        (57600, 25, 20),
        (576, 25, 20),
        (576, 25, 16),
        (64, 400, 16),
    ];
    let mut group = criterion.benchmark_group(format!("matrix{name}"));
    for (m, k, n) in matrices {
        let left = words(m * k);
        let right = PackedRight::new(&words(k * n), k, n);
        let rows = Rows::matrix(&left, m, k).unwrap();
        let mut out = vec![W::default(); m * n];
        group.throughput(Throughput::Elements((m * k * n) as u64));
        for isa in word_instruction_sets() {
            let id = BenchmarkId::new(format!("{m}x{k}x{n}"), format!("{isa:?}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| multiply_with(isa, &rows, &right, black_box(&mut out), false));
            });
        }
    }
    group.finish();
}

/// Convolutions of 5 by 5 over a square channels-last image, without padding.
fn convolutions<W: Kernels>(criterion: &mut Criterion, name: &str, words: fn(usize) -> Vec<W>) {
    let mut group = criterion.benchmark_group(format!("convolution{name}"));
    for (size, channels, filters) in [(28, 1, 20), (28, 1, 16), (12, 20, 50), (12, 16, 16)] {
        let side = size - 4;
        let (m, k, n) = (side * side, 25 * channels, filters);
        let image = words(size * size * channels);
        let starts: Vec<u32> =
            (0..m).map(|row| ((row / side * size + row % side) * channels) as u32).collect();
        let right = PackedRight::new(&words(k * n), k, n);
        let rows = Rows::new(&image, &starts, 5, size * channels, 5 * channels).unwrap();
        let mut out = vec![W::default(); m * n];
        group.throughput(Throughput::Elements((m * k * n) as u64));
        for isa in word_instruction_sets() {
            let id = BenchmarkId::new(format!("{m}x{k}x{n}"), format!("{isa:?}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| multiply_with(isa, &rows, &right, black_box(&mut out), false));
            });
        }
    }
    group.finish();
}

/// Products of both kinds of words.
fn word_products(criterion: &mut Criterion) {
    products(criterion, "", words);
    products(criterion, "-u32", short_words);
    convolutions(criterion, "", words);
    convolutions(criterion, "-u32", short_words);
}

/// Residues without a pattern: all planes of `count` elements.
fn planes(count: usize) -> Vec<Vec<i16>> {
    let plane = |modulus: &Modulus| {
        words(count).iter().map(|word| modulus.of(i128::from(*word >> 7))).collect()
    };
    Modulus::ALL.iter().map(plane).collect()
}

/// Where the rows of a left operand of residues lie: in a matrix, or in images.
struct Layout {
    name: &'static str,
    /// Words in a plane.
    words: usize,
    /// For images where the patches start, and the words in a row of an image.
    patches: Option<(Vec<u32>, usize)>,
    shape: (usize, usize, usize),
}

impl Layout {
    fn matrix(m: usize, k: usize, n: usize) -> Self {
        Self { name: "matrix", words: m * k, patches: None, shape: (m, k, n) }
    }

    /// A convolution of 5 by 5 over square channels-last images, without padding.
    fn convolution(batch: usize, size: usize, channels: usize, filters: usize) -> Self {
        let side = size - 4;
        let start = |row: usize| {
            let (image, row) = (row / (side * side), row % (side * side));
            (((image * size + row / side) * size + row % side) * channels) as u32
        };
        let starts: Vec<u32> = (0..batch * side * side).map(start).collect();
        Self {
            name: "convolution",
            words: batch * size * size * channels,
            shape: (starts.len(), 25 * channels, filters),
            patches: Some((starts, size * channels)),
        }
    }

    fn segment_length(&self) -> usize {
        if self.patches.is_some() { self.shape.1 / 5 } else { self.shape.1 }
    }

    fn rows<'a>(&'a self, data: &'a [i16]) -> Rows<'a, i16> {
        match &self.patches {
            Some((starts, stride)) => Rows::new(data, starts, 5, *stride, self.segment_length()),
            None => Rows::matrix(data, self.shape.0, self.shape.1),
        }
        .unwrap()
    }
}

/// Products of residues, of which an element has ten.
fn residue_products(criterion: &mut Criterion) {
    let layouts = [
        Layout::matrix(512, 512, 512),
        Layout::matrix(100, 800, 500),
        Layout::matrix(64, 500, 50),
        Layout::matrix(1, 800, 500),
        Layout::matrix(1, 784, 128),
        Layout::matrix(100, 500, 10),
        Layout::convolution(100, 12, 20, 50),
        Layout::convolution(1, 12, 20, 50),
        Layout::convolution(1, 12, 16, 16),
        Layout::convolution(1, 28, 1, 20),
        Layout::convolution(100, 28, 1, 20),
        Layout::convolution(1, 28, 1, 16),
    ];
    let mut group = criterion.benchmark_group("residues");
    for layout in layouts {
        let (m, k, n) = layout.shape;
        let left = planes(layout.words);
        let right: Vec<_> = planes(k * n)
            .iter()
            .zip(Modulus::ALL)
            .map(|(plane, m)| PackedResidues::new(plane, k, n, layout.segment_length(), m))
            .collect();
        let mut out = planes(m * n);
        group.throughput(Throughput::Elements((m * k * n) as u64));
        for isa in InstructionSet::available() {
            let id = BenchmarkId::new(format!("{}/{m}x{k}x{n}", layout.name), format!("{isa:?}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    for ((left, right), out) in left.iter().zip(&right).zip(&mut out) {
                        multiply_add_with(isa, &layout.rows(left), right, black_box(out));
                    }
                });
            });
        }
    }
    group.finish();
}

/// What is done with elements of ten residues beside products of matrices.
fn residue_elements(criterion: &mut Criterion) {
    #[inline(always)]
    fn multiply(modulus: Modulus, x: &mut [i16], y: &[i16]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x = modulus.mul(*x, *y);
        }
    }
    const LENGTH: usize = 4096;
    let mut words = planes(LENGTH).concat();
    let other = words.clone();
    let mut stream = Seed::from_bytes([1; 32]).into_stream();
    let bounded = Bounded::sample(&mut stream, 87, LENGTH);
    let mut group = criterion.benchmark_group("elements");
    group.throughput(Throughput::Elements(LENGTH as u64));
    for bits in [16, 32] {
        group.bench_function(format!("shift_right/{bits}"), |bencher| {
            bencher.iter(|| residues::shift_right(black_box(&mut words), bits));
        });
    }
    group.bench_function("mul", |bencher| {
        bencher.iter(|| {
            let words = black_box(&mut words);
            vectorized(
                #[inline(always)]
                || {
                    for ((modulus, x), (_, y)) in
                        residues::planes_mut(words).zip(residues::planes(&other))
                    {
                        multiply(modulus, x, y);
                    }
                },
            );
        });
    });
    group.bench_function("sample", |bencher| {
        bencher.iter(|| Int100::sample(&mut stream, black_box(&mut words)));
    });
    group.bench_function("sample_bounded", |bencher| {
        bencher.iter(|| Bounded::sample(&mut stream, 87, LENGTH));
    });
    group.bench_function("from_bounded", |bencher| {
        bencher.iter(|| bounded.to_residues(black_box(&mut words)));
    });
    group.bench_function("to_integers", |bencher| {
        bencher.iter(|| residues::to_integers(black_box(&words)));
    });
    group.finish();
}

fn packing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pack");
    for (k, n) in [(800, 500), (500, 50)] {
        let values = words(k * n);
        group.throughput(Throughput::Elements((k * n) as u64));
        group.bench_function(format!("{k}x{n}"), |bencher| {
            bencher.iter(|| PackedRight::new(black_box(&values), k, n));
        });
    }
    group.finish();
}

/// The same loop compiled for the machine and for any processor.
fn elementwise(criterion: &mut Criterion) {
    #[inline(always)]
    fn multiply_add(x: &[u64], y: &[u64], sum: &mut [u64]) {
        for ((sum, x), y) in sum.iter_mut().zip(x).zip(y) {
            *sum = x.wrapping_mul(*y).wrapping_add(*sum);
        }
    }
    const LENGTH: usize = 1024;
    let (x, y, mut sum) = (words(LENGTH + 8), words(LENGTH + 8), words(LENGTH + 8));
    // From the start of a cache line on: how the allocator happened to align the
    // operands makes the vectors twice as fast or not.
    let aligned = |values: &[u64]| values.as_ptr().align_offset(64);
    let (at_x, at_y, at_sum) = (aligned(&x), aligned(&y), aligned(&sum));
    let (x, y) = (&x[at_x..][..LENGTH], &y[at_y..][..LENGTH]);
    let sum = &mut sum[at_sum..][..LENGTH];
    let mut group = criterion.benchmark_group("elementwise");
    group.throughput(Throughput::Elements(LENGTH as u64));
    group.bench_function("vectorized", |bencher| {
        bencher.iter(|| vectorized(|| multiply_add(x, y, black_box(sum))));
    });
    group.bench_function("plain", |bencher| {
        bencher.iter(|| multiply_add(x, y, black_box(sum)));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    targets = word_products, residue_products, residue_elements, packing, elementwise
}
criterion_main!(benches);
