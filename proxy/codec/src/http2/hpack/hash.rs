//! A hash of names and values. Nothing depends on its quality but speed: what is found by it is compared.

/// Odd, and with bits everywhere: that of FxHash.
const MIX: u64 = 0x517c_c1b7_2722_0a95;

/// Goes on from the hash of what stands before.
#[inline]
pub(super) fn hash(before: u64, bytes: &[u8]) -> u64 {
    let mut sum = mix(before, bytes.len() as u64);
    let (words, _) = bytes.as_chunks::<8>();
    for word in words {
        sum = mix(sum, u64::from_le_bytes(*word));
    }
    // The last word overlaps the one before it.
    let last = match (bytes.last_chunk::<8>(), bytes) {
        (Some(_), _) if words.len() * 8 == bytes.len() => return finish(sum),
        (Some(last), _) => u64::from_le_bytes(*last),
        (None, []) => return finish(sum),
        (None, [one]) => u64::from(*one),
        (None, [first, .., last]) => match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            (Some(low), Some(high)) => {
                u64::from(u32::from_le_bytes(*low)) | u64::from(u32::from_le_bytes(*high)) << 32
            }
            _ => {
                let middle = bytes.get(bytes.len() / 2).copied().unwrap_or_default();
                u64::from(u32::from_le_bytes([*first, middle, *last, 0]))
            }
        },
    };
    finish(mix(sum, last))
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
