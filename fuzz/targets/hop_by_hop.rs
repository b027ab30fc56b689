//! See `meshgate_claims::hop_by_hop`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| meshgate_claims::hop_by_hop(input));
