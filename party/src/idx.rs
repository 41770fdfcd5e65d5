//! Reader of the idx format, in which MNIST's images and labels are distributed.
//!
//! A file is a magic number, one big-endian 32-bit size per dimension, and one
//! byte per element. It may be gzipped. The reader trusts nothing it is told:
//! sizes are checked before memory is taken, and a compressed file is unpacked
//! no further than its header declares.

use std::io::Read;

use flate2::read::MultiGzDecoder;

const IMAGES_MAGIC: u32 = 0x0000_0803;
const LABELS_MAGIC: u32 = 0x0000_0801;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The most elements a file may declare: five times MNIST's training set.
const MAX_ELEMENTS: usize = 1 << 28;

/// Why bytes are not the idx file expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdxError {
    /// The file is of another kind.
    #[error(
        "magic number 0x{found:08x}, expected 0x{expected:08x} ({what}); this is another kind of file"
    )]
    Magic {
        /// What was expected.
        what: &'static str,
        /// The magic number of that.
        expected: u32,
        /// The first four bytes of the file.
        found: u32,
    },
    /// The file ends inside its header.
    #[error("{found} bytes, expected a header of {expected}; the file is truncated")]
    Header {
        /// Bytes of the header.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
    /// The images have no pixels.
    #[error("images of {height}x{width} pixels, expected at least 1x1")]
    NoPixels {
        /// Declared height, pixels.
        height: usize,
        /// Declared width, pixels.
        width: usize,
    },
    /// The file declares more than this reader takes.
    #[error("dimensions {dimensions:?} are declared, expected at most {MAX_ELEMENTS} elements")]
    TooLarge {
        /// The declared sizes.
        dimensions: Vec<usize>,
    },
    /// The file holds less or more than it declares.
    #[error(
        "{} bytes after the header, expected {expected}; the file is {}",
        if *.more { format!("more than {expected}") } else { found.to_string() },
        if *.more { "followed by something else" } else { "truncated" }
    )]
    Length {
        /// Bytes that the header declares.
        expected: usize,
        /// Bytes read: reading stops one past those declared.
        found: usize,
        /// Whether bytes are left after those declared.
        more: bool,
    },
    /// The compressed stream is broken.
    #[error("not a readable gzip stream ({0}); it may be truncated")]
    Gzip(String),
}

/// Grey images of equal size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Number of images.
    pub count: usize,
    /// Height of each, pixels.
    pub height: usize,
    /// Width of each, pixels.
    pub width: usize,
    /// `[count, height, width]` in C order, 0 for the background to 255.
    pub pixels: Vec<u8>,
}

/// Reads a file of images (magic number 0x00000803), gzipped or not.
///
/// # Errors
/// If the bytes are not exactly one such file.
pub fn read_images(bytes: &[u8]) -> Result<Images, IdxError> {
    let ([count, height, width], pixels) = read(bytes, IMAGES_MAGIC, "images")?;
    if height == 0 || width == 0 {
        return Err(IdxError::NoPixels { height, width });
    }
    Ok(Images { count, height, width, pixels })
}

/// Reads a file of labels (magic number 0x00000801), gzipped or not: one byte per label.
///
/// # Errors
/// If the bytes are not exactly one such file.
pub fn read_labels(bytes: &[u8]) -> Result<Vec<u8>, IdxError> {
    let ([_], labels) = read(bytes, LABELS_MAGIC, "labels")?;
    Ok(labels)
}

/// The dimensions and the elements of a file with that magic number.
fn read<const DIMENSIONS: usize>(
    bytes: &[u8],
    magic: u32,
    what: &'static str,
) -> Result<([usize; DIMENSIONS], Vec<u8>), IdxError> {
    if bytes.starts_with(&GZIP_MAGIC) {
        read_from(MultiGzDecoder::new(bytes), magic, what)
    } else {
        read_from(bytes, magic, what)
    }
}

fn read_from<const DIMENSIONS: usize>(
    mut file: impl Read,
    magic: u32,
    what: &'static str,
) -> Result<([usize; DIMENSIONS], Vec<u8>), IdxError> {
    let header_length = 4 * (1 + DIMENSIONS);
    let header = read_at_most(&mut file, header_length)?;
    let (words, _) = header.as_chunks::<4>();
    let mut words = words.iter().map(|word| u32::from_be_bytes(*word));
    match words.next() {
        Some(found) if found != magic => {
            return Err(IdxError::Magic { what, expected: magic, found });
        }
        _ if header.len() < header_length => {
            return Err(IdxError::Header { expected: header_length, found: header.len() });
        }
        _ => {}
    }
    let mut dimensions = [0; DIMENSIONS];
    for (dimension, word) in dimensions.iter_mut().zip(words) {
        *dimension = word as usize;
    }
    let expected = dimensions
        .iter()
        .try_fold(1usize, |product, &dimension| product.checked_mul(dimension))
        .filter(|&elements| elements <= MAX_ELEMENTS)
        .ok_or_else(|| IdxError::TooLarge { dimensions: dimensions.to_vec() })?;
    // One byte more than declared, to notice what follows.
    let elements = read_at_most(&mut file, expected + 1)?;
    if elements.len() != expected {
        return Err(IdxError::Length {
            expected,
            found: elements.len(),
            more: elements.len() > expected,
        });
    }
    Ok((dimensions, elements))
}

fn read_at_most(file: &mut impl Read, length: usize) -> Result<Vec<u8>, IdxError> {
    let mut bytes = Vec::new();
    file.take(length as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| IdxError::Gzip(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn file(words: &[u32], elements: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend_from_slice(elements);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn images_and_labels_are_read_plain_or_gzipped() {
        let images = file(&[0x803, 2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        let labels = file(&[0x801, 2], &[7, 9]);
        let expected = Images { count: 2, height: 1, width: 3, pixels: vec![1, 2, 3, 4, 5, 6] };
        assert_eq!(read_images(&images).unwrap(), expected);
        assert_eq!(read_images(&gzip(&images)).unwrap(), expected);
        assert_eq!(read_labels(&labels).unwrap(), [7, 9]);
        assert_eq!(read_labels(&gzip(&labels)).unwrap(), [7, 9]);
    }

    #[test]
    fn every_truncation_is_refused() {
        let images = file(&[0x803, 2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        let zipped = gzip(&images);
        for length in 0..images.len() {
            let error = read_images(&images[..length]).unwrap_err().to_string();
            assert!(error.contains("truncated"), "{length}: {error}");
        }
        for length in 0..zipped.len() {
            assert!(read_images(&zipped[..length]).is_err(), "{length}");
        }
        assert_eq!(
            read_images(&images[..20]).unwrap_err(),
            IdxError::Length { expected: 6, found: 4, more: false }
        );
    }

    #[test]
    fn another_magic_number_is_named() {
        let labels = file(&[0x801, 2], &[7, 9]);
        let error = read_images(&labels).unwrap_err().to_string();
        assert!(error.contains("0x00000801") && error.contains("0x00000803"), "{error}");
        assert!(matches!(read_labels(b"PK\x03\x04 a zip"), Err(IdxError::Magic { .. })));
    }

    #[test]
    fn a_huge_declaration_takes_no_memory() {
        let most = u32::MAX;
        for words in [[0x803, most, most, most], [0x803, 1 << 20, 28, 28]] {
            let error = read_images(&file(&words, &[0])).unwrap_err();
            assert!(matches!(error, IdxError::TooLarge { .. }), "{error}");
        }
        let within = file(&[0x803, 60_000, 28, 28], &[0; 10]);
        let error = read_images(&within).unwrap_err().to_string();
        assert!(error.contains("47040000"), "{error}");
    }

    #[test]
    fn a_gzip_bomb_is_unpacked_no_further_than_declared() {
        let mut bytes = file(&[0x801, 3], &[1, 2, 3]);
        bytes.resize(64 << 20, 0);
        assert_eq!(
            read_labels(&gzip(&bytes)).unwrap_err(),
            IdxError::Length { expected: 3, found: 4, more: true }
        );
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut labels = file(&[0x801, 2], &[7, 9]);
        let mut zipped = gzip(&labels);
        labels.push(0);
        let error = read_labels(&labels).unwrap_err().to_string();
        assert!(error.contains("followed by something else"), "{error}");
        assert!(read_labels(&gzip(&labels)).is_err());
        zipped.extend_from_slice(b"more");
        assert!(read_labels(&zipped).is_err());
    }

    #[test]
    fn images_without_pixels_are_refused() {
        assert_eq!(
            read_images(&file(&[0x803, 2, 0, 28], &[])).unwrap_err(),
            IdxError::NoPixels { height: 0, width: 28 }
        );
    }
}
