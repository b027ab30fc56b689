//! Fields as header blocks.
//!
//! What goes into the table: a field that was said before, not long ago. On first sight it is written as text and only
//! its hash is kept, so that values which never come again (lengths, ids, most paths) push nothing out, and cost the
//! peer no room. Never in it are secrets, whose bytes could be guessed by watching the length of what is sent (RFC 7541
//! §7.1); neither are queries and names that sound like secrets, for the same reason.

use super::hash::hash;
use super::places::{Alive, Places};
use super::static_table::{self, COUNT};
use super::table::{Table, size};
use super::{Kind, Pseudo, TABLE_BYTES, huffman, integer};
use crate::fields::{Field, Known, KnownSet};

/// Encodes the header blocks of one connection, in the order they are sent.
#[derive(Clone, Debug)]
pub struct Encoder {
    table: Table<Kind>,
    /// Entries of the table, by name and value and by name alone.
    places: Places,
    seen: Seen,
    /// Of the next entry.
    number: u16,
    /// What the peer has said since the last block.
    change: Option<Change>,
    /// The name or the line at hand.
    scratch: Vec<u8>,
}

/// The table's size is to change. If it was to be smaller for a while, the peer has forgotten entries.
#[derive(Clone, Copy, Debug)]
struct Change {
    least: usize,
    last: usize,
}

/// Representations of fields (RFC 7541 §6): the first bits, and how many bits a number has behind them.
const INDEXED: (u8, u32) = (0x80, 7);
const INDEXING: (u8, u32) = (0x40, 6);
const SIZE: (u8, u32) = (0x20, 5);
const NEVER: (u8, u32) = (0x10, 4);
const WITHOUT: (u8, u32) = (0x00, 4);
/// A string, coded.
const CODED: (u8, u32) = (0x80, 7);
const PLAIN: (u8, u32) = (0x00, 7);

/// Another value each time: not even worth a hash.
const PASSING: KnownSet = KnownSet::of(&[
    Known::GrpcTimeout,
    Known::Traceparent,
    Known::Tracestate,
    Known::XRequestId,
]);

/// Larger entries would push too many others out.
const ENTRY_BYTES_MAX: usize = TABLE_BYTES / 4;

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// With a table of 4,096 bytes, as peers have it until they say otherwise.
    pub fn new() -> Self {
        Self {
            table: Table::new(TABLE_BYTES),
            places: Places::default(),
            seen: Seen::default(),
            number: 0,
            change: None,
            scratch: Vec::new(),
        }
    }

    /// How many entries there are, and their bytes.
    #[cfg(test)]
    pub(super) fn table_size(&self) -> (usize, usize) {
        (self.table.len(), self.table.bytes())
    }

    /// Takes over the peer's SETTINGS_HEADER_TABLE_SIZE. More than 4,096 bytes are not used.
    pub fn limit_table(&mut self, bytes_max: usize) {
        let last = bytes_max.min(TABLE_BYTES);
        let least = self.change.map_or(last, |change| change.least.min(last));
        self.change = Some(Change { least, last });
    }

    /// Begins a block. If the table's size has changed, the peer is told (RFC 7541 §4.2).
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        let Some(Change { least, last }) = self.change.take() else {
            return;
        };
        for bytes_max in [least, last] {
            let shrinks = bytes_max < self.table.bytes_max();
            let grows = bytes_max == last && bytes_max > self.table.bytes_max();
            if shrinks || grows {
                self.table.resize(bytes_max);
                write(SIZE, bytes_max, out);
            }
        }
    }

    /// Writes a field, its name in lower case.
    pub fn field(&mut self, field: Field<'_>, out: &mut Vec<u8>) {
        let value = field.value;
        match field.known {
            Some(known) if known.is_secret() || field.never_indexed => {
                self.literal(
                    NEVER,
                    Kind::Known(known),
                    known.as_str().as_bytes(),
                    value,
                    out,
                );
            }
            Some(known) if PASSING.has(known) => {
                self.literal(
                    WITHOUT,
                    Kind::Known(known),
                    known.as_str().as_bytes(),
                    value,
                    out,
                );
            }
            Some(known) => {
                self.indexable(Kind::Known(known), known.as_str().as_bytes(), value, out);
            }
            None => {
                let mut name = std::mem::take(&mut self.scratch);
                name.clear();
                name.extend_from_slice(field.name);
                name.make_ascii_lowercase();
                match field.never_indexed {
                    true => self.literal(NEVER, Kind::Other, &name, value, out),
                    false => self.indexable(Kind::Other, &name, value, out),
                }
                self.scratch = name;
            }
        }
    }

    /// Writes what stands for the first line.
    pub(crate) fn pseudo(&mut self, pseudo: Pseudo, value: &[u8], out: &mut Vec<u8>) {
        let kind = Kind::Pseudo(pseudo);
        let name = pseudo.as_str().as_bytes();
        if let Some(index) = static_table::exact_index(kind, value) {
            write(INDEXED, index, out);
        } else if pseudo == Pseudo::Path && memchr::memchr(b'?', value).is_some() {
            self.literal(WITHOUT, kind, name, value, out);
        } else {
            self.indexable(kind, name, value, out);
        }
    }

    /// Writes a field as its index, or as text that is or is not put into the table.
    fn indexable(&mut self, kind: Kind, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let name_hash = hash_name(kind, name);
        let hash = hash(name_hash, value);
        let alive = self.alive();
        let table = &self.table;
        let found = self.places.find(hash, alive, |index| {
            table.row(index).is_some_and(|row| {
                row.note == kind
                    && row.line.len() == name.len() + value.len() + 4
                    && (kind != Kind::Other || row.line.starts_with(name))
                    && row
                        .line
                        .get(name.len() + 2..)
                        .is_some_and(|rest| rest.starts_with(value))
            })
        });
        if let Some(index) = found {
            return write(INDEXED, COUNT + 1 + index, out);
        }
        let too_large = size(name.len(), value.len()) > ENTRY_BYTES_MAX.min(self.table.bytes_max());
        if too_large || !self.seen.again(hash) || kind == Kind::Other && sounds_secret(name) {
            return self.literal(WITHOUT, kind, name, value, out);
        }
        self.literal(INDEXING, kind, name, value, out);
        self.insert(kind, name, value, hash, name_hash);
    }

    fn insert(&mut self, kind: Kind, name: &[u8], value: &[u8], hash: u64, name_hash: u64) {
        if self.table.insert(name, value, kind) {
            self.number = self.number.wrapping_add(1);
            let alive = self.alive();
            self.places.note(hash, alive);
            if static_table::name_index(kind, name).is_none() {
                self.places.note(name_hash, alive);
            }
        }
    }

    fn alive(&self) -> Alive {
        Alive {
            next: self.number,
            count: self.table.len(),
        }
    }

    /// Writes a field as text; its name as an index if there is one.
    fn literal(
        &self,
        representation: (u8, u32),
        kind: Kind,
        name: &[u8],
        value: &[u8],
        out: &mut Vec<u8>,
    ) {
        let index = static_table::name_index(kind, name).or_else(|| {
            let is_it = |index| {
                self.table
                    .row(index)
                    .is_some_and(|row| row.line.get(..row.name_length) == Some(name))
            };
            let found = self.places.find(hash_name(kind, name), self.alive(), is_it);
            found.map(|index| COUNT + 1 + index)
        });
        write(representation, index.unwrap_or(0), out);
        if index.is_none() {
            string(name, out);
        }
        string(value, out);
    }
}

/// Hashes that were asked for lately. It errs now and then, which costs a few bytes.
#[derive(Clone, Debug)]
struct Seen([u16; 64]);

impl Default for Seen {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Seen {
    /// Whether this one was.
    fn again(&mut self, hash: u64) -> bool {
        let (place, tag) = ((hash >> 32) as usize % self.0.len(), hash as u16);
        let slot = self.0.get_mut(place);
        slot.is_some_and(|slot| std::mem::replace(slot, tag) == tag)
    }
}

#[inline]
fn hash_name(kind: Kind, name: &[u8]) -> u64 {
    match kind {
        Kind::Pseudo(pseudo) => 0x100 + pseudo as u64,
        Kind::Known(known) => 0x200 + known as u64,
        Kind::Other | Kind::Malformed => hash(0, name),
    }
}

/// Keys and tokens under names that nobody has registered.
fn sounds_secret(name: &[u8]) -> bool {
    const WORDS: [&[u8]; 8] = [
        b"auth", b"csrf", b"key", b"passw", b"secret", b"session", b"token", b"xsrf",
    ];
    WORDS
        .iter()
        .any(|word| name.windows(word.len()).any(|part| part == *word))
}

#[inline]
fn write((first, prefix_bits): (u8, u32), number: usize, out: &mut Vec<u8>) {
    integer::write(first, prefix_bits, number, out);
}

/// Appends a string, coded if that is shorter (RFC 7541 §5.2).
fn string(text: &[u8], out: &mut Vec<u8>) {
    let length = huffman::encoded_length(text);
    if length < text.len() {
        write(CODED, length, out);
        huffman::encode(text, out);
    } else {
        write(PLAIN, text.len(), out);
        out.extend_from_slice(text);
    }
}
