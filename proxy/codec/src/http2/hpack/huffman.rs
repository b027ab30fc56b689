//! The Huffman code of strings (RFC 7541 appendix B).
//!
//! It is canonical: codes of one length are consecutive numbers, and shorter ones come first. So the lengths tell all of
//! it, and every table is made from them when this is built.

use super::BadBlock;

/// Of each byte's code, and of the code that means the end.
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

const SYMBOLS: usize = 257;
/// A whole one is an error; its first bits fill the last byte.
const END: usize = 256;
const LENGTH_MAX: usize = 30;
const LENGTH_MIN: usize = 5;

/// Of each byte: the code, and in the low eight bits its length.
static CODES: [u64; 256] = codes();

const fn codes() -> [u64; 256] {
    let canon = CANON;
    let mut codes = [0; 256];
    let mut place = 0;
    while place < SYMBOLS {
        let symbol = canon.symbols[place] as usize;
        if symbol != END {
            let length = LENGTHS[symbol];
            let code = canon.first[length as usize] + place as u32 - canon.place[length as usize];
            codes[symbol] = (code as u64) << 8 | length as u64;
        }
        place += 1;
    }
    codes
}

/// The code, by lengths.
struct Canon {
    /// The first code of each length.
    first: [u32; LENGTH_MAX + 1],
    /// Where its symbol is.
    place: [u32; LENGTH_MAX + 1],
    /// The first number that is no code of this length or a shorter one, when codes stand at the left of 32 bits.
    end: [u64; LENGTH_MAX + 1],
    /// In the order of their codes.
    symbols: [u16; SYMBOLS],
}

const CANON: Canon = canon();
static CANONICAL: Canon = CANON;

const fn canon() -> Canon {
    let mut canon = Canon {
        first: [0; LENGTH_MAX + 1],
        place: [0; LENGTH_MAX + 1],
        end: [0; LENGTH_MAX + 1],
        symbols: [0; SYMBOLS],
    };
    let mut code = 0;
    let mut place = 0;
    let mut length = 1;
    while length <= LENGTH_MAX {
        code <<= 1;
        canon.first[length] = code;
        canon.place[length] = place as u32;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                canon.symbols[place] = symbol as u16;
                place += 1;
                code += 1;
            }
            symbol += 1;
        }
        canon.end[length] = (code as u64) << (32 - length);
        length += 1;
    }
    // Every number is a code.
    assert!(place == SYMBOLS && canon.end[LENGTH_MAX] == 1 << 32);
    canon
}

/// How many bits are looked at at once: enough for two of the most common bytes.
const LOOK_BITS: usize = 12;

/// Of each look: the length of the codes in the lowest byte, then how many there are, then one or two bytes. Zero when
/// the code is longer than the look.
static LOOKS: [u32; 1 << LOOK_BITS] = looks();

const fn looks() -> [u32; 1 << LOOK_BITS] {
    let mut looks = [0; 1 << LOOK_BITS];
    let mut look = 0;
    while look < looks.len() {
        if let Some((first, used)) = whole(look, 0) {
            looks[look] = match whole(look, used) {
                Some((second, both)) => second << 24 | first << 16 | 2 << 8 | both as u32,
                None => first << 16 | 1 << 8 | used as u32,
            };
        }
        look += 1;
    }
    looks
}

/// The byte whose code stands in the look behind some bits, and how many bits are used then.
const fn whole(look: usize, behind: usize) -> Option<(u32, usize)> {
    let left = ((look << behind) % (1 << LOOK_BITS)) << (32 - LOOK_BITS);
    let mut length = LENGTH_MIN;
    while length + behind <= LOOK_BITS {
        if (left as u64) < CANON.end[length] {
            let code = (left >> (32 - length)) as u32;
            let place = CANON.place[length] + code - CANON.first[length];
            return Some((CANON.symbols[place as usize] as u32, behind + length));
        }
        length += 1;
    }
    None
}

/// Appends what the code says.
pub(super) fn decode(code: &[u8], out: &mut Vec<u8>) -> Result<(), BadBlock> {
    let start = out.len();
    // The shortest codes alone, and one byte that the last look may write too much.
    out.resize(start + code.len() * 8 / LENGTH_MIN + 1, 0);
    let length = decode_into(code, out.get_mut(start..).unwrap_or_default())?;
    out.truncate(start + length);
    Ok(())
}

fn decode_into(code: &[u8], room: &mut [u8]) -> Result<usize, BadBlock> {
    let mut bits = Bits {
        bits: 0,
        count: 0,
        rest: code,
        end: code.last_chunk::<8>().map(|word| u64::from_be_bytes(*word)),
    };
    let mut at = 0;
    loop {
        bits.refill();
        while bits.count >= LOOK_BITS {
            let look = LOOKS[(bits.bits >> (64 - LOOK_BITS)) as usize];
            if look == 0 {
                break;
            }
            let [used, count, bytes @ ..] = look.to_le_bytes();
            if let Some(to) = room.get_mut(at..at + 2) {
                to.copy_from_slice(&bytes);
            }
            at += usize::from(count);
            bits.bits = bits.bits.wrapping_shl(look);
            bits.count -= usize::from(used);
        }
        if bits.count >= LENGTH_MAX || bits.rest.is_empty() {
            let Some(byte) = bits.long()? else {
                return Ok(at);
            };
            if let Some(to) = room.get_mut(at) {
                *to = byte;
            }
            at += 1;
        }
    }
}

/// What is next, and what is behind it.
struct Bits<'a> {
    /// The next bit is the highest.
    bits: u64,
    /// How many of them are there. Those behind may be there too.
    count: usize,
    rest: &'a [u8],
    /// The last eight bytes.
    end: Option<u64>,
}

impl Bits<'_> {
    #[inline]
    fn refill(&mut self) {
        if let Some(word) = self.rest.first_chunk::<8>() {
            self.bits |= u64::from_be_bytes(*word) >> self.count;
            let bytes = (63 - self.count) / 8;
            self.rest = self.rest.get(bytes..).unwrap_or_default();
            self.count += bytes * 8;
            return;
        }
        if let (Some(end), length @ 1..) = (self.end, self.rest.len()) {
            self.bits |= end << (64 - 8 * length) >> self.count;
            let bytes = length.min((63 - self.count) / 8);
            self.rest = self.rest.get(bytes..).unwrap_or_default();
            self.count += bytes * 8;
            return;
        }
        while self.count <= 56
            && let [byte, rest @ ..] = self.rest
        {
            self.bits |= u64::from(*byte) << (56 - self.count);
            self.count += 8;
            self.rest = rest;
        }
    }

    #[inline]
    fn skip(&mut self, count: usize) {
        self.bits <<= count;
        self.count -= count;
    }

    /// One code of any length; `None` at the end, where less than a byte is filled with ones.
    fn long(&mut self) -> Result<Option<u8>, BadBlock> {
        let filled = self.bits | u64::MAX >> self.count.min(63);
        let left = (filled >> 32) as u32;
        let length = (LENGTH_MIN..LENGTH_MAX)
            .find(|length| u64::from(left) < CANONICAL.end[*length])
            .unwrap_or(LENGTH_MAX);
        if length > self.count {
            let is_filling = self.count < 8 && left == u32::MAX;
            return is_filling.then_some(None).ok_or(BadBlock::Huffman);
        }
        let code = left >> (32 - length);
        let place = CANONICAL.place[length] + code - CANONICAL.first[length];
        let symbol = CANONICAL.symbols.get(place as usize);
        let symbol = symbol.and_then(|symbol| u8::try_from(*symbol).ok());
        self.skip(length);
        symbol.map(Some).ok_or(BadBlock::Huffman)
    }
}

/// How many bytes [`encode`] writes.
#[inline]
pub(super) fn encoded_length(bytes: &[u8]) -> usize {
    let bits: usize = bytes
        .iter()
        .map(|byte| usize::from(LENGTHS[usize::from(*byte)]))
        .sum();
    bits.div_ceil(8)
}

/// Appends the code.
pub(super) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let mut bits = 0_u64;
    let mut count = 0;
    for byte in bytes {
        let code = CODES[usize::from(*byte)];
        let length = code & 0xff;
        bits = bits << length | code >> 8;
        count += length;
        if count >= 32 {
            count -= 32;
            out.extend_from_slice(&((bits >> count) as u32).to_be_bytes());
        }
    }
    // Filled with the first bits of the end's code.
    let left = (bits << 32 | u64::from(u32::MAX)) >> count;
    let bytes = (left as u32).to_be_bytes();
    out.extend_from_slice(bytes.get(..count.div_ceil(8) as usize).unwrap_or_default());
}
