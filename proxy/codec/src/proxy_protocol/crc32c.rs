//! CRC32c (RFC 3720 §B.4). One table, byte by byte: headers are short, and most have no checksum.

static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    /// The polynomial 0x1edc6f41, bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut entry = index as u32;
        let mut bit = 0;
        while bit < 8 {
            entry = if entry & 1 == 1 {
                entry >> 1 ^ POLYNOMIAL
            } else {
                entry >> 1
            };
            bit += 1;
        }
        table[index] = entry;
        index += 1;
    }
    table
}

/// Over the parts, one behind the other.
pub(super) fn crc32c(parts: [&[u8]; 3]) -> u32 {
    let sum = parts.into_iter().flatten().fold(!0_u32, |sum, byte| {
        let index = (sum as u8) ^ byte;
        TABLE[usize::from(index)] ^ sum >> 8
    });
    !sum
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn the_standard_examples() {
        assert_eq!(crc32c([b"1234", b"", b"56789"]), 0xe306_9283);
        assert_eq!(crc32c([&[0; 32], b"", b""]), 0x8a91_36aa);
        assert_eq!(crc32c([b"", &[0xff; 32], b""]), 0x62a8_ab43);
    }
}
