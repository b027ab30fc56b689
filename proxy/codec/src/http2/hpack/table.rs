//! The dynamic table (RFC 7541 §2.3.2): what was said lately, the newest first, the oldest forgotten when room is short.

use std::collections::VecDeque;
use std::ops::Range;

/// Entries, each with what its owner wants to know about it.
#[derive(Clone, Debug)]
pub(super) struct Table<T> {
    /// Each entry's line, `name: value\r\n`, the oldest first. In front of it lines of entries that are gone.
    lines: Vec<u8>,
    /// The newest first.
    entries: VecDeque<Entry<T>>,
    /// As RFC 7541 §4.1 counts.
    bytes: usize,
    bytes_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    at: u32,
    length: u32,
    name_length: u32,
    note: T,
}

/// An entry, borrowed.
#[derive(Clone, Copy)]
pub(super) struct Row<'a, T> {
    pub(super) line: &'a [u8],
    pub(super) name_length: usize,
    pub(super) note: T,
}

/// `: ` and the end of the line.
pub(super) const AROUND: usize = 4;
/// What an entry costs beside its texts (RFC 7541 §4.1).
const ENTRY_BYTES: usize = 32;
/// The room that the first entry makes.
const ROOM_MIN: usize = 512;

/// What a field counts, in a table and in a head (RFC 7541 §4.1, RFC 9113 §6.5.2).
#[inline]
pub(crate) const fn size(name_length: usize, value_length: usize) -> usize {
    name_length + value_length + ENTRY_BYTES
}

impl<T: Copy> Table<T> {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self {
            lines: Vec::new(),
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.lines.capacity()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Forgets what no longer fits.
    pub(super) fn resize(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.evict(bytes_max);
    }

    /// The newest is 0.
    #[inline]
    pub(super) fn row(&self, index: usize) -> Option<Row<'_, T>> {
        let entry = self.entries.get(index)?;
        Some(Row {
            line: self.lines.get(entry.line())?,
            name_length: entry.name_length as usize,
            note: entry.note,
        })
    }

    /// Puts an entry in front. One that is larger than the table empties it, and is not kept itself. Says whether it is.
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], note: T) -> bool {
        let size = size(name.len(), value.len());
        self.evict(self.bytes_max.saturating_sub(size));
        if size > self.bytes_max {
            return false;
        }
        let length = name.len() + value.len() + AROUND;
        self.make_room(length);
        // All lines together are shorter than twice the table, whose size has 32 bits.
        self.entries.push_front(Entry {
            at: self.lines.len() as u32,
            length: length as u32,
            name_length: name.len() as u32,
            note,
        });
        for part in [name, b": ", value, b"\r\n"] {
            self.lines.extend_from_slice(part);
        }
        self.bytes += size;
        true
    }

    /// Holds no more memory than the entries need.
    pub(super) fn shrink(&mut self) {
        self.forget_dead();
        self.lines.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    fn evict(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some(oldest) = self.entries.pop_back()
        {
            self.bytes -= oldest.length as usize - AROUND + ENTRY_BYTES;
        }
        if self.entries.is_empty() {
            self.lines.clear();
        }
    }

    /// Forgets dead lines if they are at least half as much as the live ones, so that a byte is moved twice at most on
    /// average, and grows if that is not enough: to one and a half tables at most.
    fn make_room(&mut self, more: usize) {
        if self.lines.len() + more <= self.lines.capacity() {
            return;
        }
        if self.dead() >= (self.lines.len() - self.dead()) / 2 {
            self.forget_dead();
        }
        let needed = self.lines.len() + more;
        if needed > self.lines.capacity() {
            let room = (self.lines.capacity() * 2)
                .min(self.bytes_max + self.bytes_max / 2)
                .max(needed)
                .max(ROOM_MIN);
            self.lines.reserve_exact(room - self.lines.len());
        }
    }

    /// How many bytes there are in front of the oldest entry's line.
    fn dead(&self) -> usize {
        let oldest = self.entries.back();
        oldest.map_or(self.lines.len(), |oldest| oldest.at as usize)
    }

    fn forget_dead(&mut self) {
        let dead = self.dead();
        self.lines.drain(..dead);
        for entry in &mut self.entries {
            entry.at -= dead as u32;
        }
    }
}

impl<T> Entry<T> {
    #[inline]
    fn line(&self) -> Range<usize> {
        self.at as usize..self.at as usize + self.length as usize
    }
}
