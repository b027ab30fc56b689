//! See `meshgate_claims::http2_client`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| meshgate_claims::http2_client(input));
