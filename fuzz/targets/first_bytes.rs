//! See `meshgate_claims::first_bytes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| meshgate_claims::first_bytes(input));
