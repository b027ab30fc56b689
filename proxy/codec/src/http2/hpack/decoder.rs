//! Header blocks as fields.

use std::fmt;

use super::static_table::{self, COUNT};
use super::table::{AROUND, Row, Table};
use super::{BadBlock, Kind, TABLE_BYTES, huffman, integer};
use crate::fields::{Field, Known};
use crate::octets;

/// Decodes the header blocks of one connection, in the order they come.
#[derive(Clone, Debug)]
pub struct Decoder {
    table: Table<Judged>,
    /// As announced.
    table_bytes_max: usize,
    /// The line of a field that came as text.
    line: Vec<u8>,
}

/// What is known about the texts of an entry.
#[derive(Clone, Copy, Debug)]
struct Judged {
    kind: Kind,
    clean: bool,
}

/// A field of a header block.
#[derive(Clone, Copy)]
pub struct Decoded<'a> {
    pub(crate) line: &'a [u8],
    pub(crate) name_length: usize,
    /// What the name is.
    pub kind: Kind,
    /// Whether the value is one: no control characters but HTAB in it, no spaces around it (RFC 9113 §8.2.1).
    pub clean: bool,
    /// The sender wants it to be in no table, here and further on (RFC 7541 §7.1.3).
    pub never_indexed: bool,
}

/// Room that is kept from one block to the next.
const LINE_ROOM: usize = 2048;

impl Decoder {
    /// `table_bytes_max` is what SETTINGS_HEADER_TABLE_SIZE announced. Less than the protocol's 4,096 counts as 4,096:
    /// the peer may use as much until it has read what is announced.
    pub fn new(table_bytes_max: usize) -> Self {
        Self {
            table: Table::new(TABLE_BYTES),
            table_bytes_max: table_bytes_max.max(TABLE_BYTES),
            line: Vec::new(),
        }
    }

    /// Decodes a whole block and hands out field by field. An error breaks the whole connection (COMPRESSION_ERROR).
    pub fn decode(
        &mut self,
        block: &[u8],
        mut take: impl FnMut(Decoded<'_>),
    ) -> Result<(), BadBlock> {
        let mut rest = block;
        let mut first_field = true;
        while let Some(first) = rest.first() {
            match first {
                0x80.. => {
                    let index = integer::read(&mut rest, 7)?;
                    take(self.indexed(index)?);
                }
                0x40.. => {
                    let literal = self.literal(&mut rest, 6)?;
                    let field = literal.decoded(&self.line, false);
                    self.table
                        .insert(field.name(), field.value(), literal.judged);
                    take(field);
                }
                0x20.. if first_field => {
                    let bytes_max = integer::read(&mut rest, 5)?;
                    if bytes_max > self.table_bytes_max {
                        return Err(BadBlock::TableSize);
                    }
                    self.table.resize(bytes_max);
                    continue;
                }
                0x20.. => return Err(BadBlock::LateTableSize),
                _ => {
                    let never_indexed = *first >= 0x10;
                    let field = self.literal(&mut rest, 4)?;
                    take(field.decoded(&self.line, never_indexed));
                }
            }
            first_field = false;
        }
        if self.line.capacity() > LINE_ROOM {
            self.line = Vec::new();
        }
        Ok(())
    }

    /// Gives back the memory that only work needs, when the connection falls idle.
    pub fn give_back(&mut self) {
        self.table.shrink();
        self.line = Vec::new();
    }

    /// How many entries there are, and their bytes.
    #[cfg(test)]
    pub(super) fn table_size(&self) -> (usize, usize) {
        (self.table.len(), self.table.bytes())
    }

    /// Bytes of texts that memory is held for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.table.room() + self.line.capacity()
    }

    #[inline]
    fn indexed(&self, index: usize) -> Result<Decoded<'_>, BadBlock> {
        if let Some(entry) = static_table::entry(index) {
            return Ok(Decoded {
                line: entry.line.as_bytes(),
                name_length: entry.name_length,
                kind: entry.kind,
                clean: true,
                never_indexed: false,
            });
        }
        let row = self.row(index)?;
        Ok(Decoded {
            line: row.line,
            name_length: row.name_length,
            kind: row.note.kind,
            clean: row.note.clean,
            never_indexed: false,
        })
    }

    /// Beyond the static table.
    #[inline]
    fn row(&self, index: usize) -> Result<Row<'_, Judged>, BadBlock> {
        let index = index.checked_sub(COUNT + 1).ok_or(BadBlock::Index)?;
        self.table.row(index).ok_or(BadBlock::Index)
    }

    /// Reads a field that comes as text, its name maybe as an index, and makes its line.
    fn literal(&mut self, rest: &mut &[u8], prefix_bits: u32) -> Result<Literal, BadBlock> {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        let kind = match integer::read(rest, prefix_bits)? {
            0 => {
                string(rest, &mut line)?;
                Kind::of(&line)
            }
            index => {
                let named = self.indexed(index)?;
                line.extend_from_slice(named.name());
                named.kind
            }
        };
        let name_length = line.len();
        line.extend_from_slice(b": ");
        let value_at = line.len();
        string(rest, &mut line)?;
        let clean = is_clean(line.get(value_at..).unwrap_or_default());
        line.extend_from_slice(b"\r\n");
        self.line = line;
        Ok(Literal {
            name_length,
            judged: Judged { kind, clean },
        })
    }
}

/// A field that came as text. Its line is the decoder's.
#[derive(Clone, Copy)]
struct Literal {
    name_length: usize,
    judged: Judged,
}

impl Literal {
    fn decoded(self, line: &[u8], never_indexed: bool) -> Decoded<'_> {
        Decoded {
            line,
            name_length: self.name_length,
            kind: self.judged.kind,
            clean: self.judged.clean,
            never_indexed,
        }
    }
}

/// Appends a string (RFC 7541 §5.2).
fn string(rest: &mut &[u8], out: &mut Vec<u8>) -> Result<(), BadBlock> {
    let is_coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer::read(rest, 7)?;
    let (text, behind) = rest.split_at_checked(length).ok_or(BadBlock::Partial)?;
    *rest = behind;
    if is_coded {
        return huffman::decode(text, out);
    }
    out.extend_from_slice(text);
    Ok(())
}

fn is_clean(value: &[u8]) -> bool {
    let around = [value.first(), value.last()];
    octets::is_value(value) && !around.iter().any(|byte| matches!(byte, Some(b' ' | b'\t')))
}

impl<'a> Decoded<'a> {
    /// As it came.
    #[inline]
    pub fn name(&self) -> &'a [u8] {
        self.line.get(..self.name_length).unwrap_or_default()
    }

    /// As it came.
    #[inline]
    pub fn value(&self) -> &'a [u8] {
        let from = self.name_length + 2;
        let to = from + self.value_length();
        self.line.get(from..to).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn value_length(&self) -> usize {
        self.line.len() - self.name_length - AROUND
    }

    /// The name, if it is known.
    #[inline]
    pub fn known(&self) -> Option<Known> {
        match self.kind {
            Kind::Known(known) => Some(known),
            _ => None,
        }
    }
}

impl fmt::Debug for Decoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = Field {
            name: self.name(),
            known: self.known(),
            value: self.value(),
            never_indexed: self.never_indexed,
        };
        field.fmt(f)
    }
}
