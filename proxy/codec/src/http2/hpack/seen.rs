//! What came by lately, and was not worth an entry yet.

/// By hash. If it errs, a table has an entry too many.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    tags: [u32; SEEN],
    /// Where the oldest is.
    oldest: usize,
}

/// A few heads' worth of fields that are not in the table.
const SEEN: usize = 64;

impl Default for Seen {
    fn default() -> Self {
        Self {
            tags: [0; SEEN],
            oldest: 0,
        }
    }
}

impl Seen {
    /// Whether this one was.
    pub(super) fn again(&mut self, hash: u64) -> bool {
        let tag = hash as u32;
        // All of them at once, without a branch.
        if self
            .tags
            .iter()
            .fold(false, |any, other| any | (*other == tag))
        {
            return true;
        }
        if let Some(oldest) = self.tags.get_mut(self.oldest) {
            *oldest = tag;
        }
        self.oldest = (self.oldest + 1) % SEEN;
        false
    }
}
