//! What players bring: weights, tensors, logits in the clear.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(decoders::WEIGHTS.check(bytes)));
