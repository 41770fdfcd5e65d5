//! Players' files: weights, tensors, plaintext logits.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(decoders::WEIGHTS.check(bytes)));
