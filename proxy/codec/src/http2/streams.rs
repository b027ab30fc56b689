//! What is known by a stream's number.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::error::StreamId;

/// Something of each open stream of a connection.
pub type Streams<T> = HashMap<StreamId, T, BuildHasherDefault<IdHasher>>;

/// Numbers of streams are spread by one multiplication: whoever chooses them can open only so many at once.
#[derive(Default, Debug)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
