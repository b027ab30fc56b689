//! See `meshgate_claims::chunked`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| meshgate_claims::chunked(input));
