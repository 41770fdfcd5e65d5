//! The arithmetic as a whole, against the definition.

use proptest::prelude::*;

use super::*;
use crate::prg::{KeyStream, Seed};
use crate::ring::{Int100, Ring};

pub(super) fn stream(seed: u8) -> KeyStream {
    Seed::from_bytes([seed; 32]).into_stream()
}

/// Centred residues by the definition.
pub(super) fn residue(value: i128, modulus: i16) -> i16 {
    let modulus = i128::from(modulus);
    let least = value.rem_euclid(modulus);
    (if least > modulus / 2 { least - modulus } else { least }) as i16
}

fn residues(values: &[i128]) -> Vec<i16> {
    MODULI.iter().flat_map(|m| values.iter().map(|value| residue(*value, *m))).collect()
}

/// The integer from 0 to `MODULUS - 1` with these residues, digit by digit in the
/// mixed radix of the moduli (Garner).
fn garner(residues: &[i16; PLANES]) -> u128 {
    let (mut value, mut radix) = (0u128, 1u128);
    for (residue, modulus) in residues.iter().zip(MODULI) {
        let m = modulus as u128;
        let wanted = i128::from(*residue).rem_euclid(i128::from(modulus)) as u128;
        let digit = (0..m).find(|digit| (value + digit * radix) % m == wanted).unwrap();
        value += digit * radix;
        radix *= m;
    }
    value
}

fn nonnegative(value: i128) -> u128 {
    value.rem_euclid(MODULUS as i128) as u128
}

fn centred(value: i128) -> i128 {
    let value = nonnegative(value) as i128;
    if value > MODULUS as i128 / 2 { value - MODULUS as i128 } else { value }
}

/// Values at and around all bounds that the conversions have.
fn bounds() -> Vec<i128> {
    let modulus = MODULUS as i128;
    let mut bounds = vec![i128::MIN, i128::MIN + 1, i128::MAX, i128::MAX - 1];
    let mut around = |value: i128| bounds.extend((-2..=2).map(|i| value + i));
    for value in [0, modulus / 2, modulus, 2 * modulus, 7 * modulus, modulus / 3] {
        around(value);
        around(-value);
    }
    for power in 0..126 {
        around(1 << power);
        around(-(1 << power));
    }
    for m in MODULI {
        around(modulus / i128::from(m));
        around(modulus / i128::from(m) * i128::from(m / 2));
    }
    bounds
}

/// Integers without a pattern, of all magnitudes.
fn values(count: usize) -> Vec<i128> {
    let mut bytes = vec![0; 16 * count];
    stream(3).fill(&mut bytes);
    let value = |(i, bytes): (usize, &[u8; 16])| i128::from_le_bytes(*bytes) >> (i % 127);
    bytes.as_chunks().0.iter().enumerate().map(value).collect()
}

fn element<T: Copy>(words: &[T], index: usize) -> [T; PLANES] {
    std::array::from_fn(|plane| words[plane * (words.len() / PLANES) + index])
}

#[test]
fn the_moduli_are_pairwise_coprime_and_their_product_is_known() {
    assert_eq!(MODULUS, 6_616_464_272_061_971_915_798_970_247_351);
    for (i, m) in MODULI.into_iter().enumerate() {
        assert!((2..m).take_while(|d| d * d <= m).all(|d| m % d != 0), "{m} is no prime");
        assert!(!MODULI[..i].contains(&m));
    }
}

#[test]
fn sums_and_products_of_all_residues() {
    for modulus in Modulus::ALL {
        let (m, half) = (modulus.value(), modulus.value() / 2);
        // A table instead of a division for each product.
        let table: Vec<i16> = (0..i128::from(m)).map(|value| residue(value, m)).collect();
        let expected = |value: i32| table[value.rem_euclid(i32::from(m)) as usize];
        for x in -half..=half {
            assert_eq!(modulus.neg(x), expected(-i32::from(x)));
            for y in -half..=half {
                let (wide_x, wide_y) = (i32::from(x), i32::from(y));
                assert_eq!(modulus.add(x, y), expected(wide_x + wide_y), "{x} + {y} mod {m}");
                assert_eq!(modulus.sub(x, y), expected(wide_x - wide_y), "{x} - {y} mod {m}");
                assert_eq!(modulus.mul(x, y), expected(wide_x * wide_y), "{x} * {y} mod {m}");
            }
        }
    }
}

#[test]
fn all_words_have_a_canonical_residue() {
    for modulus in Modulus::ALL {
        for word in i16::MIN..=i16::MAX {
            let expected = residue(i128::from(word), modulus.value());
            assert_eq!(modulus.canonical(word), expected);
            assert_eq!(modulus.of(i128::from(word)), expected);
            assert_eq!(modulus.reduce(i32::from(word)), expected);
        }
    }
}

/// Wherever the quotient changes, for all quotients: nowhere else can an estimate of
/// it go wrong first.
#[test]
fn sums_of_products_are_reduced_exactly() {
    for modulus in Modulus::ALL {
        let m = i64::from(modulus.value());
        for quotient in i64::from(i32::MIN) / m - 1..=i64::from(i32::MAX) / m + 1 {
            for residue in [-(m / 2), 0, m / 2] {
                if let Ok(sum) = i32::try_from(quotient * m + residue) {
                    assert_eq!(i64::from(modulus.reduce(sum)), residue, "{sum} mod {m}");
                }
            }
        }
        for sum in [i32::MIN, i32::MIN + 1, i32::MAX - 1, i32::MAX] {
            let expected = residue(i128::from(sum), modulus.value());
            assert_eq!(modulus.reduce(sum), expected);
        }
    }
}

#[test]
fn integers_there_and_back() {
    for values in [bounds(), values(1000)] {
        let mut words = vec![i16::MIN; PLANES * values.len()];
        from_integers(&values, &mut words);
        assert_eq!(words, residues(&values));
        let expected: Vec<i128> = values.iter().map(|value| centred(*value)).collect();
        assert_eq!(to_integers(&words), expected);
    }
}

#[test]
fn integers_by_another_algorithm() {
    let mut words = vec![0; PLANES * 1000];
    Int100::sample(&mut stream(8), &mut words);
    for (index, integer) in to_integers(&words).into_iter().enumerate() {
        assert_eq!(nonnegative(integer), garner(&element(&words, index)));
    }
}

#[test]
fn tensors_of_all_lengths() {
    for count in (0..3).chain(60..70).chain(127..130) {
        let values = values(count);
        let mut words = vec![0; PLANES * count];
        from_integers(&values, &mut words);
        let expected: Vec<i128> = values.iter().map(|value| centred(*value)).collect();
        assert_eq!(to_integers(&words), expected);
        assert_eq!(planes(&words).count(), if count == 0 { 0 } else { PLANES });
        shift_right(&mut words, 9);
        let shifted: Vec<i128> =
            values.iter().map(|value| (nonnegative(*value) >> 9) as i128).collect();
        assert_eq!(words, residues(&shifted));
    }
}

#[test]
fn shifts_by_all_bits() {
    let mut values = bounds();
    values.extend(self::values(500));
    let words = residues(&values);
    for bits in 1..64 {
        let mut shifted = words.clone();
        shift_right(&mut shifted, bits);
        let expected: Vec<i128> =
            values.iter().map(|value| (nonnegative(*value) >> bits) as i128).collect();
        assert_eq!(shifted, residues(&expected), "by {bits} bits");
    }
}

#[test]
#[should_panic(expected = "a shift by 64 bits")]
fn shifts_have_a_limit() {
    shift_right(&mut [0; PLANES], 64);
}

#[test]
#[should_panic(expected = "11 words in 10 planes")]
fn tensors_have_ten_planes() {
    let _ = to_integers(&[0; 11]);
}

/// Each residue is drawn as often as the others, and the planes do not depend on each
/// other: every count is within five standard deviations of its mean.
#[test]
fn samples_are_uniform() {
    const COUNT: usize = 200_000;
    let mut words = vec![0; PLANES * COUNT];
    Int100::sample(&mut stream(1), &mut words);
    let near = |count: usize, mean: f64| (count as f64 - mean).abs() < 5.0 * mean.sqrt();
    for (modulus, plane) in planes(&words) {
        let mut counts = vec![0; modulus.value() as usize];
        for word in plane {
            counts[(word + modulus.value() / 2) as usize] += 1;
        }
        let mean = COUNT as f64 / f64::from(modulus.value());
        assert!(counts.iter().all(|count| near(*count, mean)), "{modulus:?}");
    }
    for (one, other) in (0..PLANES).flat_map(|x| (0..x).map(move |y| (x, y))) {
        let signs = |plane: usize| words[plane * COUNT..][..COUNT].iter().map(|word| *word > 0);
        let equal = signs(one).zip(signs(other)).filter(|(x, y)| x == y).count();
        assert!(near(equal, COUNT as f64 / 2.0), "planes {one} and {other}");
    }
}

#[test]
fn bounded_integers() {
    for bits in [0, 1, 15, 63, 64, 65, 87, 101, 102] {
        let mut bounded = Bounded::sample(&mut stream(4), bits, 1000);
        assert_eq!((bounded.len(), bounded.is_empty()), (1000, false));
        let integers = |bounded: &Bounded| -> Vec<i128> {
            bounded.limbs().map(|(low, high)| i128::from(high) << 64 | i128::from(low)).collect()
        };
        let drawn = integers(&bounded);
        // All bits below the bound occur, set and not, and none above.
        let (all, any) = drawn.iter().fold((-1, 0), |(all, any), x| (all & x, any | x));
        assert_eq!((all, any), (0, (1 << bits) - 1));
        let mut words = vec![0; PLANES * 1000];
        bounded.to_residues(&mut words);
        assert_eq!(words, residues(&drawn));
        bounded.shift_right(13);
        let shifted: Vec<i128> = drawn.iter().map(|x| x >> 13).collect();
        assert_eq!(integers(&bounded), shifted);
    }
    assert_eq!(Bounded::MAX_BITS, 102);
    assert!(Bounded::sample(&mut stream(4), 5, 0).is_empty());
}

#[test]
#[should_panic(expected = "103 bits are too many")]
fn bounded_integers_are_elements() {
    let _ = Bounded::sample(&mut stream(4), 103, 1);
}

#[test]
fn limbs_of_all_magnitudes() {
    let values: Vec<u128> = bounds()
        .into_iter()
        .filter(|value| (0..1 << 102).contains(value))
        .map(|value| value as u128)
        .collect();
    let low: Vec<u64> = values.iter().map(|value| *value as u64).collect();
    let high: Vec<u64> = values.iter().map(|value| (value >> 64) as u64).collect();
    let mut words = vec![0; PLANES * values.len()];
    from_limbs(&low, &high, &mut words);
    assert_eq!(words, residues(&values.iter().map(|value| *value as i128).collect::<Vec<_>>()));
}

#[test]
fn debug_output_has_no_values() {
    let bounded = Bounded::sample(&mut stream(5), 87, 3);
    assert_eq!(format!("{bounded:?}"), "Bounded { len: 3, .. }");
    assert_eq!(format!("{:?}", Modulus::ALL[0]), "Modulus(1201)");
}

#[test]
fn bytes_there_and_back() {
    let mut words = vec![0; PLANES * 333];
    Int100::sample(&mut stream(6), &mut words);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(bytes.len(), WIRE_BYTES * 333);
    assert_eq!(bytes[..2], words[0].to_le_bytes());
    let mut read = vec![0; words.len()];
    Int100::from_bytes(&bytes, &mut read);
    assert_eq!(read, words);
}

#[test]
fn bytes_of_any_length_and_content() {
    for length in [0, 1, 39, 40, 41, 100] {
        let bytes: Vec<u8> = (0..length).map(|i: u8| 0x80 ^ i.wrapping_mul(7)).collect();
        let mut words = [9; 2 * PLANES];
        Int100::from_bytes(&bytes, &mut words);
        for (i, word) in words.into_iter().enumerate() {
            let expected =
                bytes.as_chunks().0.get(i).map_or(9, |bytes| {
                    residue(i128::from(i16::from_le_bytes(*bytes)), MODULI[i / 2])
                });
            assert_eq!(word, expected, "word {i} of {length} bytes");
        }
    }
    Int100::from_bytes(&[1, 2, 3], &mut []);
}

proptest! {
    #[test]
    fn any_integers(values in prop::collection::vec(any::<i128>(), 0..150)) {
        let mut words = vec![0; PLANES * values.len()];
        from_integers(&values, &mut words);
        prop_assert_eq!(&words, &residues(&values));
        let expected: Vec<i128> = values.iter().map(|value| centred(*value)).collect();
        prop_assert_eq!(to_integers(&words), expected);
    }

    /// As products of shares are: an element near 0, near the modulus or anywhere.
    #[test]
    fn any_shifts(value in 0..MODULUS, near in 0u128..1 << 20, bits in 1u32..64) {
        let values = [value, near, MODULUS - 1 - near].map(|value| value as i128);
        let mut words = residues(&values);
        shift_right(&mut words, bits);
        prop_assert_eq!(words, residues(&values.map(|value| value >> bits)));
    }
}
