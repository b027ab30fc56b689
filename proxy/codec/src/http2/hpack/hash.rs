//! A hash of names and values. Nothing depends on its quality but speed: what is found by it is compared.

/// Odd, and with bits everywhere: that of FxHash.
const MIX: u64 = 0x517c_c1b7_2722_0a95;

/// Goes on from the hash of what stands before.
#[inline]
pub(super) fn hash(before: u64, bytes: &[u8]) -> u64 {
    let mut sum = mix(before, bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        sum = mix(sum, u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        // Overlaps the word before it, if there is one.
        let last = bytes.last_chunk::<8>();
        sum = mix(
            sum,
            last.map_or_else(|| short(rest), |last| u64::from_le_bytes(*last)),
        );
    }
    finish(sum)
}

/// Up to seven bytes, some of them twice.
#[inline]
fn short(bytes: &[u8]) -> u64 {
    if let (Some(low), Some(high)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*low)) | u64::from(u32::from_le_bytes(*high)) << 32;
    }
    let byte = |place: usize| bytes.get(place).copied().unwrap_or_default();
    u64::from(u32::from_le_bytes([byte(0), byte(1), byte(2), 0]))
}

#[inline]
const fn mix(sum: u64, word: u64) -> u64 {
    (sum.rotate_left(5) ^ word).wrapping_mul(MIX)
}

/// High bits, which depend on all, to the low ones.
#[inline]
const fn finish(sum: u64) -> u64 {
    sum ^ sum >> 32
}
