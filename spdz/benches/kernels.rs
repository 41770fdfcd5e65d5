//! Speed of the matrix kernels, for every instruction set of the machine, in
//! multiplications per second: on the shapes of the networks' layers, and on some
//! larger ones that show the limit.

// The shapes are fixed, and a benchmark that does not fit its own shape has to stop.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use spdz::ring::kernels::{InstructionSet, PackedRight, Rows, multiply_with, vectorized};

/// Words without a pattern.
fn words(count: usize) -> Vec<u64> {
    (1..=count as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ i).collect()
}

fn products(criterion: &mut Criterion) {
    let matrices = [
        (512, 512, 512),
        (64, 500, 50),
        (6400, 500, 50),
        (100, 800, 500),
        (1, 800, 500),
        (1, 784, 128),
        (576, 25, 20),
        (576, 25, 16),
        (64, 400, 16),
    ];
    let mut group = criterion.benchmark_group("matrix");
    for (m, k, n) in matrices {
        let left = words(m * k);
        let right = PackedRight::new(&words(k * n), k, n);
        let rows = Rows::matrix(&left, m, k).unwrap();
        let mut out = vec![0; m * n];
        group.throughput(Throughput::Elements((m * k * n) as u64));
        for isa in InstructionSet::available() {
            let id = BenchmarkId::new(format!("{m}x{k}x{n}"), format!("{isa:?}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| multiply_with(isa, &rows, &right, black_box(&mut out), false));
            });
        }
    }
    group.finish();
}

/// Convolutions of 5 by 5 over a square channels-last image, without padding.
fn convolutions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("convolution");
    for (size, channels, filters) in [(28, 1, 20), (28, 1, 16), (12, 20, 50), (12, 16, 16)] {
        let side = size - 4;
        let (m, k, n) = (side * side, 25 * channels, filters);
        let image = words(size * size * channels);
        let starts: Vec<u32> =
            (0..m).map(|row| ((row / side * size + row % side) * channels) as u32).collect();
        let right = PackedRight::new(&words(k * n), k, n);
        let rows = Rows::new(&image, &starts, 5, size * channels, 5 * channels).unwrap();
        let mut out = vec![0; m * n];
        group.throughput(Throughput::Elements((m * k * n) as u64));
        for isa in InstructionSet::available() {
            let id = BenchmarkId::new(format!("{m}x{k}x{n}"), format!("{isa:?}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| multiply_with(isa, &rows, &right, black_box(&mut out), false));
            });
        }
    }
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
    targets = products, convolutions, packing, elementwise
}
criterion_main!(benches);
