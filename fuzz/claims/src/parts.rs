//! An input as it may come in: the ends of reads are anywhere.

/// Where reads end, in a few ways: after each byte, and at places that the input itself chooses.
pub(crate) fn ways(input: &[u8]) -> [Vec<usize>; 3] {
    let each = (1..=input.len()).collect();
    [each, chosen(input, 7), chosen(input, 64)]
}

/// Steps up to a length, chosen by a hash of the input, so that a finding can be shown again.
fn chosen(input: &[u8], step_max: u64) -> Vec<usize> {
    let mut state = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut ends = Vec::new();
    let mut at = 0;
    while at < input.len() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        at += 1 + ((state >> 33) % step_max) as usize;
        ends.push(at.min(input.len()));
    }
    ends
}
