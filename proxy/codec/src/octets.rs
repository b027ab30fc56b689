//! Kinds of bytes in HTTP (RFC 9110 §5.6), eight at a time where much text is judged.

/// `tchar`: what names and methods are made of.
static TOKEN: [bool; 256] = token_table();

const fn token_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
}

/// How many bytes at the beginning are of a token.
#[inline]
pub(crate) fn token_length(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|byte| !is_token_byte(*byte))
        .unwrap_or(bytes.len())
}

#[inline]
pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && token_length(bytes) == bytes.len()
}

/// A name as HTTP/2 has it.
pub(crate) fn is_lower_token(bytes: &[u8]) -> bool {
    is_token(bytes) && !has_upper(bytes)
}

/// Of a token, which is ASCII.
#[inline]
pub(crate) fn has_upper(token: &[u8]) -> bool {
    // From `A` on the first sum has the high bit, from behind `Z` on the second.
    !every(token, |word| {
        let from_a = word.wrapping_add(ONES * u64::from(0x80 - b'A'));
        let behind_z = word.wrapping_add(ONES * u64::from(0x7f - b'Z'));
        from_a & !behind_z & HIGH
    })
}

/// What the value of a field may hold: no control character but HTAB. Bytes from 0x80 are opaque.
#[inline]
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    // HTAB is rare: a text that has one is read again, byte by byte.
    every(bytes, |word| below(word, 0x20) | equal(word, 0x7f))
        || bytes.iter().all(|byte| is_value_byte(*byte))
}

#[inline]
pub(crate) fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// What a target may hold: visible ASCII, and no fragment.
#[inline]
pub(crate) fn is_target(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && every(bytes, |word| {
            (word & HIGH) | below(word, 0x21) | equal(word, 0x7f) | equal(word, b'#')
        })
}

/// Where the first colon is.
#[inline]
pub(crate) fn colon(bytes: &[u8]) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        // The lowest bit that is set is that of a colon: a borrow only goes on to higher ones.
        let found = equal(u64::from_le_bytes(*word), b':');
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let found = rest.iter().position(|byte| *byte == b':')?;
    Some(words.len() * 8 + found)
}

/// Whether a text can stand between double quotes as it is, in JSON as well: no control character, no quote, no
/// backslash.
#[inline]
pub fn needs_no_escape(text: &str) -> bool {
    every(text.as_bytes(), |word| {
        below(word, 0x20) | equal(word, b'"') | equal(word, b'\\')
    })
}

/// Without the spaces and tabs around it. Not `trim_ascii`, which would hide a bare CR.
#[inline]
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Whether `lower` is this text in lower case, eight bytes at a time.
#[inline]
pub(crate) fn is_lower_of(lower: &[u8], text: &[u8]) -> bool {
    if lower.len() != text.len() {
        return false;
    }
    let differ = |a: [u8; 8], b: [u8; 8]| u64::from_ne_bytes(a) ^ lowered(u64::from_ne_bytes(b));
    let pairs = lower.as_chunks::<8>().0.iter().zip(text.as_chunks::<8>().0);
    let found = pairs.fold(0, |found, (a, b)| found | differ(*a, *b));
    match (lower.last_chunk::<8>(), text.last_chunk::<8>()) {
        (Some(a), Some(b)) => found | differ(*a, *b) == 0,
        _ => lower
            .iter()
            .zip(text)
            .all(|(a, b)| *a == b.to_ascii_lowercase()),
    }
}

/// Every byte that is an upper-case letter in lower case.
#[inline]
fn lowered(word: u64) -> u64 {
    // Without the highest bits nothing is carried from one byte to the next.
    let low = word & !HIGH;
    let from_a = low + ONES * u64::from(0x80 - b'A');
    let behind_z = low + ONES * u64::from(0x80 - b'Z' - 1);
    let upper = (from_a & !behind_z & !word) & HIGH;
    word | upper >> 2
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH: u64 = ONES << 7;

/// Not zero when a byte of the word is below `limit`, which is at most 0x80. Which bit is set says nothing: a borrow
/// may have gone on to the next byte.
#[inline]
fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGH
}

/// Not zero when a byte of the word is this one.
#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * u64::from(byte)), 1)
}

/// Whether no word is bad. Without a branch per word, so that the compiler may take several at once.
#[inline]
fn every(bytes: &[u8], bad: impl Fn(u64) -> u64) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let found = words
        .iter()
        .fold(0, |found, word| found | bad(u64::from_ne_bytes(*word)));
    let last = match bytes.last_chunk::<8>() {
        // Overlaps the last word: judging a byte twice is cheaper than judging the rest one by one.
        Some(last) => *last,
        None => {
            // `x` is harmless to every judge.
            let mut last = [b'x'; 8];
            for (to, from) in last.iter_mut().zip(rest) {
                *to = *from;
            }
            last
        }
    };
    found | bad(u64::from_ne_bytes(last)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place() {
        for length in [1, 2, 7, 8, 9, 15, 16, 17, 40] {
            for place in 0..length {
                for byte in 0..=255_u8 {
                    let mut text = vec![b'a'; length];
                    text[place] = byte;
                    let graphic = (0x21..=0x7e).contains(&byte) && byte != b'#';
                    let context = format!("{byte:#x} at {place} of {length}");
                    assert_eq!(is_target(&text), graphic, "{context}");
                    let value = byte == b'\t' || byte >= b' ' && byte != 0x7f;
                    assert_eq!(is_value(&text), value, "{context}");
                    let colon = (byte == b':').then_some(place);
                    assert_eq!(super::colon(&text), colon, "{context}");
                    if let Ok(text) = std::str::from_utf8(&text) {
                        let plain = byte >= b' ' && byte != b'"' && byte != b'\\';
                        assert_eq!(needs_no_escape(text), plain, "{context}");
                    }
                    let token = byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte);
                    assert_eq!(is_token(&text), token, "{context}");
                    let lower = token && !byte.is_ascii_uppercase();
                    assert_eq!(is_lower_token(&text), lower, "{context}");
                }
            }
        }
    }

    #[test]
    fn lower_case_is_that_of_the_standard_library() {
        for length in [1, 3, 7, 8, 9, 16, 19] {
            for place in 0..length {
                for byte in 0..=255_u8 {
                    let mut text = vec![b'K'; length];
                    text[place] = byte;
                    let mut lower = text.to_ascii_lowercase();
                    let context = format!("{byte:#x} at {place} of {length}");
                    assert!(is_lower_of(&lower, &text), "{context}");
                    lower[place] ^= 0x20;
                    assert!(!is_lower_of(&lower, &text), "{context}");
                }
            }
        }
        assert!(!is_lower_of(b"a", b"ab") && is_lower_of(b"", b""));
    }

    #[test]
    fn only_spaces_and_tabs_are_trimmed() {
        assert_eq!(trim(b" \ta b\t "), b"a b");
        assert_eq!(trim(b"\ra\r"), b"\ra\r");
        assert_eq!(trim(b" \t"), b"");
        assert_eq!(colon(b"a::"), Some(1));
        assert_eq!(
            colon(&[b"aaaaaaa:", &[b';'; 8][..], b":"].concat()),
            Some(7)
        );
        assert!(is_value(b"") && !is_target(b"") && !is_token(b""));
    }
}
