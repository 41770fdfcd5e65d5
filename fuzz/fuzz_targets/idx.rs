//! Images and labels.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(decoders::IDX.check(bytes)));
