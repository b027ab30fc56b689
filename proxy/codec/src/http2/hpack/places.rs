//! Where in a dynamic table something may be, by its hash.
//!
//! Only hints: whoever asks compares, so that nothing needs to be taken out when the table forgets an entry, and what
//! is overwritten costs no more than to be said as text again.

/// Open addressing with short walks.
#[derive(Clone, Default, Debug)]
pub(super) struct Places {
    /// None before the first entry: many connections never say anything twice.
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Slot {
    /// Other bits of the hash than those that lead here.
    tag: u16,
    /// The low bits of the entry's number, counted from the connection's first.
    number: u16,
}

/// A table of 4,096 bytes has at most 128 entries, usually 50; each may be here twice.
const SLOTS: usize = 256;
/// How many slots are looked at.
const WALK: usize = 8;

/// The numbers of the entries that a table has.
#[derive(Clone, Copy)]
pub(super) struct Alive {
    /// Of the next entry.
    pub(super) next: u16,
    pub(super) count: usize,
}

impl Alive {
    /// Of the entry in front of which there are so many.
    #[inline]
    pub(super) fn number(self, age: usize) -> u16 {
        self.next.wrapping_sub(1).wrapping_sub(age as u16)
    }

    /// How many entries are newer; more than there are, if it is no longer alive.
    #[inline]
    pub(super) fn age(self, number: u16) -> usize {
        usize::from(self.number(0).wrapping_sub(number))
    }

    #[inline]
    fn has(self, number: u16) -> bool {
        self.age(number) < self.count
    }
}

impl Places {
    /// The place, counted from the newest entry, that is the one in question.
    #[inline]
    pub(super) fn find(
        &self,
        hash: u64,
        alive: Alive,
        mut is_it: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        if alive.count == 0 {
            return None;
        }
        let (home, tag) = split(hash);
        (0..WALK)
            .filter_map(|step| self.slots.get((home + step) % SLOTS))
            .filter(|slot| slot.tag == tag && alive.has(slot.number))
            .map(|slot| alive.age(slot.number))
            .find(|index| is_it(*index))
    }

    /// Notes the newest entry: in a slot of the same tag or of a dead entry, else in that of the oldest.
    pub(super) fn note(&mut self, hash: u64, alive: Alive) {
        self.slots.resize(SLOTS, Slot::default());
        let (home, tag) = split(hash);
        let steps = (0..WALK).map(|step| (home + step) % SLOTS);
        let best = steps.max_by_key(|place| {
            self.slots
                .get(*place)
                .map(|slot| (slot.tag == tag, alive.age(slot.number)))
        });
        if let Some(slot) = best.and_then(|place| self.slots.get_mut(place)) {
            *slot = Slot {
                tag,
                number: alive.number(0),
            };
        }
    }
}

#[inline]
fn split(hash: u64) -> (usize, u16) {
    ((hash >> 16) as usize % SLOTS, hash as u16)
}
