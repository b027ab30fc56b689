//! The encoder's table, and how what was said is found in it: first by what was last said under the same name, which most
//! connections say again and again, then by a hash of name and value.

use super::Kind;
use super::hash::hash;
use super::places::{Alive, Places};
use super::table::{AROUND, Row, Table, size};

/// Entries, and where they are.
#[derive(Clone, Debug)]
pub(super) struct Said {
    table: Table<Kind>,
    /// Of the next entry.
    number: u16,
    /// Of each name, the number of an entry. Names may share a place: whoever asks compares.
    last: [u16; LASTS],
    places: Places,
}

/// A field, its name in lower case.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
}

/// Where a field is said.
pub(super) enum Found {
    /// Counted from the newest entry.
    At(usize),
    /// With its hash.
    Nowhere(u64),
}

/// A place for each pseudo-field and each known name; the other names share the rest.
const LASTS: usize = 128;
const KNOWN: usize = 8;
const OTHERS: usize = KNOWN + 64;

impl Said {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            table: Table::new(bytes_max),
            number: 0,
            last: [0; LASTS],
            places: Places::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn table_size(&self) -> (usize, usize) {
        (self.table.len(), self.table.bytes())
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.table.bytes_max()
    }

    pub(super) fn resize(&mut self, bytes_max: usize) {
        self.table.resize(bytes_max);
    }

    /// Holds no more memory than the entries need. What is found by hash only is said once more.
    pub(super) fn shrink(&mut self) {
        self.table.shrink();
        self.places = Places::default();
    }

    /// Where the field is.
    #[inline]
    pub(super) fn find(&mut self, text: Text<'_>) -> Found {
        let is_it = |row: Row<'_, Kind>| text.is_said(row);
        match self.find_last(text.place(), is_it) {
            Some(index) => Found::At(index),
            None => self.find_any(text),
        }
    }

    fn find_any(&mut self, text: Text<'_>) -> Found {
        let hash = hash(text.name_hash(), text.value);
        let alive = self.alive();
        let is_it = |index| self.table.row(index).is_some_and(|row| text.is_said(row));
        match self.places.find(hash, alive, is_it) {
            Some(index) => {
                self.keep_last(text, alive.number(index));
                Found::At(index)
            }
            None => Found::Nowhere(hash),
        }
    }

    /// Where a field with this name is.
    pub(super) fn find_name(&self, text: Text<'_>) -> Option<usize> {
        self.find_last(text.place(), |row| text.is_named(row))
    }

    /// Puts a field in front. `hash` is as it was found nowhere.
    pub(super) fn insert(&mut self, text: Text<'_>, hash: u64) {
        if self.table.insert(text.name, text.value, text.kind) {
            self.number = self.number.wrapping_add(1);
            let alive = self.alive();
            self.places.note(hash, alive);
            self.keep_last(text, alive.number(0));
        }
    }

    #[inline]
    fn find_last(&self, place: usize, is_it: impl FnOnce(Row<'_, Kind>) -> bool) -> Option<usize> {
        let index = self.alive().age(*self.last.get(place)?);
        is_it(self.table.row(index)?).then_some(index)
    }

    fn keep_last(&mut self, text: Text<'_>, number: u16) {
        if let Some(last) = self.last.get_mut(text.place()) {
            *last = number;
        }
    }

    #[inline]
    fn alive(&self) -> Alive {
        Alive {
            next: self.number,
            count: self.table.len(),
        }
    }
}

impl Text<'_> {
    /// What it counts in a table.
    pub(super) fn size(self) -> usize {
        size(self.name.len(), self.value.len())
    }

    pub(super) fn name_hash(self) -> u64 {
        match self.kind {
            Kind::Pseudo(pseudo) => 0x100 + pseudo as u64,
            Kind::Known(known) => 0x200 + known as u64,
            Kind::Other | Kind::Malformed => hash(0, self.name),
        }
    }

    #[inline]
    fn place(self) -> usize {
        match self.kind {
            Kind::Pseudo(pseudo) => pseudo as usize,
            Kind::Known(known) => KNOWN + known as usize,
            Kind::Other | Kind::Malformed => {
                OTHERS + hash(0, self.name) as usize % (LASTS - OTHERS)
            }
        }
    }

    #[inline]
    fn is_said(self, row: Row<'_, Kind>) -> bool {
        row.line.len() == self.name.len() + self.value.len() + AROUND
            && self.is_named(row)
            && row
                .line
                .get(row.name_length + 2..)
                .is_some_and(|rest| rest.starts_with(self.value))
    }

    #[inline]
    fn is_named(self, row: Row<'_, Kind>) -> bool {
        // A number tells as much as a name.
        row.note == self.kind
            && (self.kind != Kind::Other || row.line.get(..row.name_length) == Some(self.name))
    }

    /// Keys and tokens under names that nobody has registered.
    pub(super) fn sounds_secret(self) -> bool {
        const WORDS: [&[u8]; 8] = [
            b"auth", b"csrf", b"key", b"passw", b"secret", b"session", b"token", b"xsrf",
        ];
        let has = |word: &[u8]| self.name.windows(word.len()).any(|part| part == word);
        self.kind == Kind::Other && WORDS.into_iter().any(has)
    }
}
