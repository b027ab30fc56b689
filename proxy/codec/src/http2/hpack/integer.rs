//! Numbers (RFC 7541 §5.1): in the low bits of a byte if they fit, else seven bits a byte behind it.

use super::BadBlock;

/// Reads what begins with the low bits of the first byte of `rest`.
#[inline]
pub(super) fn read(rest: &mut &[u8], prefix_bits: u32) -> Result<usize, BadBlock> {
    let (first, behind) = rest.split_first().ok_or(BadBlock::Partial)?;
    *rest = behind;
    let most = (1_u32 << prefix_bits) - 1;
    let number = u32::from(*first) & most;
    match number < most {
        true => Ok(number as usize),
        false => read_long(rest, most),
    }
}

/// So many bytes hold 32 bits.
const BYTES_MAX: u32 = 5;

fn read_long(rest: &mut &[u8], most: u32) -> Result<usize, BadBlock> {
    let mut sum = u64::from(most);
    for place in 0..BYTES_MAX {
        let (byte, behind) = rest.split_first().ok_or(BadBlock::Partial)?;
        *rest = behind;
        sum += u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let number = u32::try_from(sum).map_err(|_| BadBlock::Integer)?;
            return usize::try_from(number).map_err(|_| BadBlock::Integer);
        }
    }
    Err(BadBlock::Integer)
}

/// Writes the number into the low bits of `first`, and behind it as needed.
#[inline]
pub(super) fn write(first: u8, prefix_bits: u32, number: usize, out: &mut Vec<u8>) {
    let most = (1_usize << prefix_bits) - 1;
    if number < most {
        out.push(first | number as u8);
        return;
    }
    out.push(first | most as u8);
    let mut left = number - most;
    while left > 0x7f {
        out.push(0x80 | (left & 0x7f) as u8);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bytes: &[u8], prefix_bits: u32, expected: Result<usize, BadBlock>) {
        let mut rest = bytes;
        let found = read(&mut rest, prefix_bits);
        assert_eq!(found, expected, "{bytes:x?}");
        if found.is_ok() {
            assert_eq!(rest, b"", "{bytes:x?}");
        }
    }

    #[test]
    fn numbers_are_at_most_32_bits_in_at_most_five_more_bytes() {
        // RFC 7541 C.1
        check(&[0b1110_1010], 5, Ok(10));
        check(&[0b0001_1111, 0b1001_1010, 0b0000_1010], 5, Ok(1337));
        check(&[42], 8, Ok(42));
        // Zeros behind are a waste, but the RFC lets them pass.
        check(&[0xff, 0x80, 0x80, 0x00], 7, Ok(127));
        let most = [0x7f, 0x80, 0xff, 0xff, 0xff, 0x0f];
        check(&most, 7, Ok(0xffff_ffff));
        check(
            &[0x7f, 0x81, 0xff, 0xff, 0xff, 0x0f],
            7,
            Err(BadBlock::Integer),
        );
        check(
            &[0x7f, 0, 0, 0, 0, 0x10].map(|byte| byte | 0x80),
            7,
            Err(BadBlock::Integer),
        );
        check(
            &[0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f],
            7,
            Err(BadBlock::Integer),
        );
        check(
            &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
            7,
            Err(BadBlock::Integer),
        );
        for bad in [&b""[..], &[0x7f], &[0x7f, 0x80]] {
            check(bad, 7, Err(BadBlock::Partial));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number in 0..=u32::MAX, bits in 4..=8_u32, shift in 0..32_u32) {
            let number = (number >> shift) as usize;
            let mut bytes = Vec::new();
            write(0, bits, number, &mut bytes);
            check(&bytes, bits, Ok(number));
        }
    }
}
