//! Buckets by key, in bounded memory: the least recently used go first.

use std::collections::HashMap;
use std::sync::Arc;

/// Most buckets of one limit.
pub(crate) const BUCKETS_MAX: usize = 16 * 1024;

/// A map that forgets the least recently used entry when it is full.
#[derive(Debug)]
pub(crate) struct Buckets<T> {
    index: HashMap<Arc<str>, usize>,
    slots: Vec<Slot<T>>,
    newest: usize,
    oldest: usize,
    max: usize,
    /// How many were forgotten.
    evicted: u64,
}

#[derive(Debug)]
struct Slot<T> {
    key: Arc<str>,
    value: T,
    newer: usize,
    older: usize,
}

const NONE: usize = usize::MAX;

impl<T> Buckets<T> {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            index: HashMap::new(),
            slots: Vec::new(),
            newest: NONE,
            oldest: NONE,
            max: max.max(1),
            evicted: 0,
        }
    }

    /// The value of a key, made if it is missing; it becomes the most recently used. A value that must make room is
    /// given to `evict` first.
    pub(crate) fn touch(
        &mut self,
        key: &str,
        make: impl FnOnce() -> T,
        evict: impl FnOnce(&Arc<str>, &mut T),
    ) -> &mut T {
        let slot = match self.index.get(key) {
            Some(&slot) => {
                self.unlink(slot);
                slot
            }
            None if self.slots.len() < self.max => {
                let key: Arc<str> = key.into();
                self.index.insert(key.clone(), self.slots.len());
                self.slots.push(Slot {
                    key,
                    value: make(),
                    newer: NONE,
                    older: NONE,
                });
                self.slots.len() - 1
            }
            None => {
                let slot = self.oldest;
                self.unlink(slot);
                self.evicted += 1;
                let key: Arc<str> = key.into();
                let reused = &mut self.slots[slot];
                evict(&reused.key, &mut reused.value);
                self.index.remove(&*reused.key);
                reused.key = key.clone();
                reused.value = make();
                self.index.insert(key, slot);
                slot
            }
        };
        self.link_newest(slot);
        &mut self.slots[slot].value
    }

    /// The value of a key, without changing the order.
    pub(crate) fn find(&mut self, key: &str) -> Option<&mut T> {
        let slot = *self.index.get(key)?;
        Some(&mut self.slots[slot].value)
    }

    /// All entries, in no order.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&Arc<str>, &mut T)> {
        self.slots
            .iter_mut()
            .map(|slot| (&slot.key, &mut slot.value))
    }

    /// Forgets the least recently used entry.
    pub(crate) fn pop_oldest(&mut self) -> Option<T> {
        let slot = self.oldest;
        if slot == NONE {
            return None;
        }
        self.unlink(slot);
        self.evicted += 1;
        let gone = self.slots.swap_remove(slot);
        self.index.remove(&*gone.key);
        // The last slot took the place of the gone one: whoever pointed to it must follow.
        if let Some(moved) = self.slots.get(slot) {
            let (key, newer, older) = (moved.key.clone(), moved.newer, moved.older);
            self.index.insert(key, slot);
            match newer {
                NONE => self.newest = slot,
                newer => self.slots[newer].older = slot,
            }
            match older {
                NONE => self.oldest = slot,
                older => self.slots[older].newer = slot,
            }
        }
        Some(gone.value)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    fn unlink(&mut self, slot: usize) {
        let (newer, older) = (self.slots[slot].newer, self.slots[slot].older);
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older].newer = newer,
        }
    }

    fn link_newest(&mut self, slot: usize) {
        self.slots[slot].newer = NONE;
        self.slots[slot].older = self.newest;
        match self.newest {
            NONE => self.oldest = slot,
            newest => self.slots[newest].newer = slot,
        }
        self.newest = slot;
    }
}

#[cfg(test)]
mod tests {
    use super::Buckets;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut buckets = Buckets::new(2);
        let touch = |buckets: &mut Buckets<u32>, key: &str, made: u32| {
            *buckets.touch(key, || made, |_, _| {})
        };
        assert_eq!(touch(&mut buckets, "a", 1), 1);
        assert_eq!(touch(&mut buckets, "b", 2), 2);
        assert_eq!(touch(&mut buckets, "a", 9), 1);
        assert_eq!(touch(&mut buckets, "c", 3), 3);
        assert_eq!(touch(&mut buckets, "a", 9), 1);
        assert_eq!(touch(&mut buckets, "b", 4), 4, "was forgotten");
        assert_eq!((buckets.len(), buckets.evicted()), (2, 2));
        assert!(buckets.find("c").is_none());
        assert_eq!(buckets.pop_oldest(), Some(1));
        assert_eq!(touch(&mut buckets, "b", 9), 4);
        assert_eq!(touch(&mut buckets, "d", 5), 5);
        assert_eq!(buckets.pop_oldest(), Some(4));
        assert_eq!(buckets.pop_oldest(), Some(5));
        assert_eq!(buckets.pop_oldest(), None);
    }
}
