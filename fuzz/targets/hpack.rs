//! See `meshgate_claims::hpack`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| meshgate_claims::hpack(input));
