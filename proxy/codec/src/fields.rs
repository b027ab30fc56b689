//! The fields of a message: one buffer of lines, and where in it each field is.
//!
//! The lines are kept just as HTTP/1 writes them, so that forwarding copies runs of bytes instead of fields, and a set
//! that is cleared and filled again allocates nothing. Deliberately absent: a map. A message has a dozen fields; a bit
//! per known name answers most questions ("is there an `Upgrade`?") before any field is looked at.

mod known;
mod value;

use std::fmt;
use std::ops::Range;

use thiserror::Error;

pub use known::{Known, KnownSet, Name};
pub use value::Value;

use crate::octets;

/// Fields in the order they came; names from the wire in the case they came in, known ones added here in lower case.
#[derive(Clone, Default)]
pub struct Fields {
    /// Each entry's line is `name: value\r\n` here, exactly. What was removed stays until the set is cleared.
    lines: Vec<u8>,
    entries: Vec<Entry>,
    /// The known names among the entries.
    present: KnownSet,
}

#[derive(Clone, Copy)]
struct Entry {
    /// Where its line begins.
    at: u32,
    name_length: u16,
    value_length: u16,
    known: Option<Known>,
    never_indexed: bool,
}

/// Why a field cannot be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum FieldError {
    /// The name is no token.
    #[error("the name of a field is no token")]
    BadName,
    /// The value has a control character.
    #[error("the value of a field has a control character")]
    BadValue,
    /// Name or value are longer than 65,535 bytes, or all lines together than [`Fields::BYTES_MAX`].
    #[error("a field is too long")]
    TooLong,
}

/// A field, borrowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// As it came.
    pub name: &'a [u8],
    /// What the name is, if it is known.
    pub known: Option<Known>,
    /// Without the spaces around it.
    pub value: &'a [u8],
    /// The sender wants it in no table of HPACK, here and further on (RFC 7541 §7.1.3).
    pub never_indexed: bool,
}

/// Room that is made for a value that is written in its place.
const USUAL_VALUE_BYTES: usize = 128;
/// `: ` and the end of the line.
const AROUND: usize = 4;

impl Fields {
    /// Of all lines, removed ones as well: sixteen times what a peer may send by default.
    pub const BYTES_MAX: usize = 1024 * 1024;

    pub(crate) fn with_room(lines: usize, fields: usize) -> Self {
        Self {
            lines: Vec::with_capacity(lines),
            entries: Vec::with_capacity(fields),
            present: KnownSet::EMPTY,
        }
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the fields take on an HTTP/1 wire; limits count this.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.line().len()).sum()
    }

    /// Bytes of lines that fit without an allocation.
    pub fn room(&self) -> usize {
        self.lines.capacity()
    }

    /// Forgets all; the room stays for the next message.
    pub fn clear(&mut self) {
        self.lines.clear();
        self.entries.clear();
        self.present = KnownSet::EMPTY;
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Field<'_>> + ExactSizeIterator {
        self.entries.iter().map(|entry| entry.field(&self.lines))
    }

    /// The known names among them.
    #[inline]
    pub fn present(&self) -> KnownSet {
        self.present
    }

    /// The first value.
    #[inline]
    pub fn get<'a>(&self, name: impl Into<Name<'a>>) -> Option<&[u8]> {
        let name = name.into();
        let entry = match name {
            Name::Known(known) if !self.present.has(known) => return None,
            _ => self
                .entries
                .iter()
                .find(|entry| entry.is(name, &self.lines)),
        };
        entry.map(|entry| entry.field(&self.lines).value)
    }

    /// Every value, line by line.
    pub fn all<'a>(&self, name: impl Into<Name<'a>>) -> impl DoubleEndedIterator<Item = &[u8]> {
        let name = name.into();
        let entries = match name {
            Name::Known(known) if !self.present.has(known) => [].iter(),
            _ => self.entries.iter(),
        };
        entries
            .filter(move |entry| entry.is(name, &self.lines))
            .map(|entry| entry.field(&self.lines).value)
    }

    /// How many lines have this name.
    pub fn count<'a>(&self, name: impl Into<Name<'a>>) -> usize {
        self.all(name).count()
    }

    /// Whether any line has this name.
    #[inline]
    pub fn contains<'a>(&self, name: impl Into<Name<'a>>) -> bool {
        match name.into() {
            Name::Known(known) => self.present.has(known),
            other => self.get(other).is_some(),
        }
    }

    /// Whether a comma-separated list, over all lines of the name, has this element. Case does not matter.
    pub fn has_token<'a>(&self, name: impl Into<Name<'a>>, token: &str) -> bool {
        self.all(name)
            .flat_map(elements)
            .any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Adds a line at the end. Spaces around the value are dropped: no reader would see them.
    pub fn append<'a>(
        &mut self,
        name: impl Into<Name<'a>>,
        value: &[u8],
    ) -> Result<(), FieldError> {
        let entry = self.write(name.into(), value)?;
        self.enter(entry);
        Ok(())
    }

    /// Adds all lines of others at the end, as they are.
    pub fn append_all(&mut self, others: &Self) -> Result<(), FieldError> {
        let base = self.lines.len();
        if base + others.lines.len() > Self::BYTES_MAX {
            return Err(FieldError::TooLong);
        }
        let base = u32::try_from(base).map_err(|_| FieldError::TooLong)?;
        self.lines.extend_from_slice(&others.lines);
        self.entries
            .extend(others.entries.iter().map(|entry| Entry {
                at: base + entry.at,
                ..*entry
            }));
        self.present = self.present.and(others.present);
        Ok(())
    }

    /// Makes this the only line of the name, in the place of the first one if there was any.
    pub fn set<'a>(&mut self, name: impl Into<Name<'a>>, value: &[u8]) -> Result<(), FieldError> {
        let name = name.into();
        let entry = self.write(name, value)?;
        self.put(name, entry);
        Ok(())
    }

    /// The same, of a value that is written in its place.
    pub fn set_with<'a>(
        &mut self,
        name: impl Into<Name<'a>>,
        write: impl FnOnce(&mut Value<'_>),
    ) -> Result<(), FieldError> {
        let name = name.into();
        let (text, known) = judge_name(name)?;
        let at = self.lines.len();
        self.lines.reserve(text.len() + USUAL_VALUE_BYTES);
        self.lines.extend_from_slice(text);
        self.lines.extend_from_slice(b": ");
        let from = self.lines.len();
        let mut value = Value::at_end_of(&mut self.lines);
        write(&mut value);
        let entry = match value.is_ours() {
            true => Entry::new(at, text, known, self.lines.get(from..).unwrap_or_default()),
            false => self.judge_written(at, from, text, known),
        };
        match entry {
            Ok(_) => self.lines.extend_from_slice(b"\r\n"),
            Err(_) => self.lines.truncate(at),
        }
        self.put(name, entry?);
        Ok(())
    }

    /// Removes every line of the name; says how many there were.
    pub fn remove<'a>(&mut self, name: impl Into<Name<'a>>) -> usize {
        let name = name.into();
        if !self.contains(name) {
            return 0;
        }
        let before = self.entries.len();
        let lines = &self.lines;
        self.entries.retain(|entry| !entry.is(name, lines));
        if let Name::Known(known) = name {
            self.present.remove(known);
        }
        before - self.entries.len()
    }

    /// Removes every line of these names.
    pub fn remove_all(&mut self, names: KnownSet) {
        if self.present.meets(names) {
            self.retain(|field| !field.known.is_some_and(|known| names.has(known)));
        }
    }

    /// Keeps what the judge says.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let Self {
            lines,
            entries,
            present,
        } = self;
        *present = KnownSet::EMPTY;
        entries.retain(|entry| {
            let kept = keep(entry.field(lines));
            if let (true, Some(known)) = (kept, entry.known) {
                present.insert(known);
            }
            kept
        });
    }

    /// Writes the lines as HTTP/1 has them, without those of some names.
    pub(crate) fn write_lines(&self, without: KnownSet, out: &mut Vec<u8>) {
        let mut run = 0..0;
        for entry in &self.entries {
            if entry.known.is_some_and(|known| without.has(known)) {
                continue;
            }
            let line = entry.line();
            if line.start == run.end {
                run.end = line.end;
            } else {
                out.extend_from_slice(self.lines.get(run).unwrap_or_default());
                run = line;
            }
        }
        out.extend_from_slice(self.lines.get(run).unwrap_or_default());
    }

    /// Adds a line that was judged already.
    pub(crate) fn append_line(&mut self, line: FieldLine<'_>) -> Result<(), FieldError> {
        let entry = self.write_line(line.name, line.known, line.value)?;
        self.enter(entry);
        Ok(())
    }

    /// Adds a line that was judged already, and is `name: value\r\n` exactly.
    #[inline]
    pub(crate) fn append_whole(
        &mut self,
        line: &[u8],
        name_length: usize,
        known: Option<Known>,
        never_indexed: bool,
    ) -> Result<(), FieldError> {
        let (name, rest) = line.split_at_checked(name_length).unwrap_or_default();
        let value = rest.get(2..rest.len() - 2).unwrap_or_default();
        let entry = Entry::new(self.lines.len(), name, known, value)?;
        self.lines.extend_from_slice(line);
        self.enter(Entry {
            never_indexed,
            ..entry
        });
        Ok(())
    }

    /// Adds to the last line's value if the line has this name; says whether it has. What is added was judged already.
    pub(crate) fn lengthen_last(
        &mut self,
        known: Known,
        separator: &[u8],
        more: &[u8],
    ) -> Result<bool, FieldError> {
        let Some(last) = self
            .entries
            .last_mut()
            .filter(|last| last.known == Some(known) && last.line().end == self.lines.len())
        else {
            return Ok(false);
        };
        let added = separator.len() + more.len();
        if self.lines.len() + added > Self::BYTES_MAX {
            return Err(FieldError::TooLong);
        }
        last.value_length = u16::try_from(usize::from(last.value_length) + added)
            .map_err(|_| FieldError::TooLong)?;
        self.lines.truncate(self.lines.len() - 2);
        self.lines.extend_from_slice(separator);
        self.lines.extend_from_slice(more);
        self.lines.extend_from_slice(b"\r\n");
        Ok(true)
    }

    /// Writes a line that no entry knows yet.
    fn write(&mut self, name: Name<'_>, value: &[u8]) -> Result<Entry, FieldError> {
        let (text, known) = judge_name(name)?;
        let value = octets::trim(value);
        if !octets::is_value(value) {
            return Err(FieldError::BadValue);
        }
        self.write_line(text, known, value)
    }

    /// The entry of a line at the end of the lines, which begins at `at` and whose value begins at `from`.
    fn judge_written(
        &mut self,
        at: usize,
        from: usize,
        name: &[u8],
        known: Option<Known>,
    ) -> Result<Entry, FieldError> {
        let written = self.lines.get(from..).unwrap_or_default();
        let value = octets::trim(written);
        if !octets::is_value(value) {
            return Err(FieldError::BadValue);
        }
        let entry = Entry::new(at, name, known, value)?;
        if value.len() != written.len() {
            let value = value.to_vec();
            self.lines.truncate(from);
            self.lines.extend_from_slice(&value);
        }
        Ok(entry)
    }

    /// Makes a written line the only one of its name.
    fn put(&mut self, name: Name<'_>, entry: Entry) {
        let first = match name {
            Name::Known(known) if !self.present.has(known) => None,
            _ => self
                .entries
                .iter()
                .position(|old| old.is(name, &self.lines)),
        };
        match first.and_then(|first| self.entries.get_mut(first)) {
            None => self.enter(entry),
            Some(old) => {
                *old = entry;
                let lines = &self.lines;
                self.entries
                    .retain(|other| other.at == entry.at || !other.is(name, lines));
            }
        }
    }

    /// Name and value are judged already.
    fn write_line(
        &mut self,
        name: &[u8],
        known: Option<Known>,
        value: &[u8],
    ) -> Result<Entry, FieldError> {
        let entry = Entry::new(self.lines.len(), name, known, value)?;
        self.lines.reserve(entry.line().len());
        self.lines.extend_from_slice(name);
        self.lines.extend_from_slice(b": ");
        self.lines.extend_from_slice(value);
        self.lines.extend_from_slice(b"\r\n");
        Ok(entry)
    }

    #[inline]
    fn enter(&mut self, entry: Entry) {
        if let Some(known) = entry.known {
            self.present.insert(known);
        }
        self.entries.push(entry);
    }
}

/// The name as it is written, and its number.
fn judge_name(name: Name<'_>) -> Result<(&[u8], Option<Known>), FieldError> {
    match name {
        Name::Known(known) => Ok((known.as_str().as_bytes(), Some(known))),
        Name::Other(text) if octets::is_token(text.as_bytes()) => {
            Ok((text.as_bytes(), Known::find(text.as_bytes())))
        }
        Name::Other(_) => Err(FieldError::BadName),
    }
}

impl Entry {
    #[inline]
    fn new(at: usize, name: &[u8], known: Option<Known>, value: &[u8]) -> Result<Self, FieldError> {
        if at + name.len() + value.len() + AROUND > Fields::BYTES_MAX {
            return Err(FieldError::TooLong);
        }
        let too_long = |_| FieldError::TooLong;
        Ok(Self {
            at: u32::try_from(at).map_err(too_long)?,
            name_length: u16::try_from(name.len()).map_err(too_long)?,
            value_length: u16::try_from(value.len()).map_err(too_long)?,
            known,
            never_indexed: false,
        })
    }

    #[inline]
    fn line(&self) -> Range<usize> {
        let at = self.at as usize;
        at..at + usize::from(self.name_length) + usize::from(self.value_length) + AROUND
    }

    #[inline]
    fn field<'a>(&self, lines: &'a [u8]) -> Field<'a> {
        let line = lines.get(self.line()).unwrap_or_default();
        let (name, rest) = line
            .split_at_checked(usize::from(self.name_length))
            .unwrap_or_default();
        let value = 2..2 + usize::from(self.value_length);
        Field {
            name,
            known: self.known,
            value: rest.get(value).unwrap_or_default(),
            never_indexed: self.never_indexed,
        }
    }

    #[inline]
    fn is(&self, name: Name<'_>, lines: &[u8]) -> bool {
        match name {
            Name::Known(known) => self.known == Some(known),
            Name::Other(text) => {
                self.known.is_none()
                    && usize::from(self.name_length) == text.len()
                    && self.field(lines).name.eq_ignore_ascii_case(text.as_bytes())
            }
        }
    }
}

/// The elements of a comma-separated list (RFC 9110 §5.6.1), empty ones left out.
pub fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',')
        .map(octets::trim)
        .filter(|element| !element.is_empty())
}

/// Takes field lines over from a section of input: runs of well-written lines at once, others one by one.
pub(crate) struct Intake<'f, 'i> {
    fields: &'f mut Fields,
    input: &'i [u8],
    /// What of the input is entered, but not copied yet.
    run: Range<usize>,
}

/// A line of input, judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FieldLine<'i> {
    pub(crate) name: &'i [u8],
    pub(crate) known: Option<Known>,
    pub(crate) value: &'i [u8],
    /// Whether the line is `name: value` exactly.
    pub(crate) exact: bool,
}

impl<'f, 'i> Intake<'f, 'i> {
    pub(crate) fn new(fields: &'f mut Fields, input: &'i [u8]) -> Self {
        Self {
            fields,
            input,
            run: 0..0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.fields.entries.len()
    }

    /// The line came from `place` of the input, which ends with CR LF.
    #[inline]
    pub(crate) fn push(
        &mut self,
        place: Range<usize>,
        line: FieldLine<'_>,
    ) -> Result<(), FieldError> {
        if !line.exact {
            self.flush();
            return self.fields.append_line(line);
        }
        if place.start != self.run.end {
            self.flush();
            self.run = place.start..place.start;
        }
        let at = self.fields.lines.len() + self.run.len();
        let entry = Entry::new(at, line.name, line.known, line.value)?;
        self.run.end = place.end;
        self.fields.enter(entry);
        Ok(())
    }

    /// Must follow the last line, lest entries point at nothing.
    pub(crate) fn flush(&mut self) {
        let run = std::mem::take(&mut self.run);
        let lines = self.input.get(run).unwrap_or_default();
        self.fields.lines.extend_from_slice(lines);
    }
}

impl Drop for Intake<'_, '_> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.escape_ascii();
        if self.never_indexed || self.known.is_some_and(Known::is_secret) {
            write!(f, "{name}: <hidden>")
        } else {
            write!(f, "{name}: {}", self.value.escape_ascii())
        }
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Same lines in the same order; the case of names does not matter.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self
                .iter()
                .zip(other.iter())
                .all(|(a, b)| a.name.eq_ignore_ascii_case(b.name) && a.value == b.value)
    }
}

impl Eq for Fields {}

#[cfg(test)]
mod tests;
