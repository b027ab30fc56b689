//! Room that a worker uses again: a head's fields, a buffer to read a head into, one to write an answer into.
//!
//! Of many connections only some do anything at a time, and each of them for a moment: they share, and who waits holds
//! nothing. What was used last is used first, as long as the processor's caches have it.

use std::cell::RefCell;

use bytes::BytesMut;
use meshgate_codec::Fields;

/// Room for a read while heads are expected: most heads with a small body fit.
pub(crate) const BUFFER_BYTES: usize = 8 * 1024;
/// What is kept of each at most, by one worker: half a megabyte of buffers and as much of texts, usually a quarter of
/// that; and with usual heads 100 KiB of fields.
const KEPT_MAX: usize = 64;
/// Fields that took more are not kept.
const FIELDS_BYTES_MAX: usize = 8 * 1024;

thread_local! {
    static FIELDS: RefCell<Vec<Fields>> = const { RefCell::new(Vec::new()) };
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static TEXTS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// None yet, with room for some.
pub(crate) fn fields() -> Fields {
    FIELDS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Nobody needs these fields any more.
pub(crate) fn give_fields(mut fields: Fields) {
    if !(1..=FIELDS_BYTES_MAX).contains(&fields.room()) {
        return;
    }
    fields.clear();
    FIELDS.with_borrow_mut(|kept| keep(kept, fields));
}

/// Empty, with [`BUFFER_BYTES`] of room.
pub(crate) fn buffer() -> BytesMut {
    let kept = BUFFERS.with_borrow_mut(Vec::pop);
    kept.unwrap_or_else(|| BytesMut::with_capacity(BUFFER_BYTES))
}

/// Nobody needs what is in this buffer any more.
pub(crate) fn give_buffer(mut buffer: BytesMut) {
    buffer.clear();
    // Another may hold a part of it, or it was made for a body.
    if buffer.try_reclaim(BUFFER_BYTES) && buffer.capacity() < 2 * BUFFER_BYTES {
        BUFFERS.with_borrow_mut(|kept| keep(kept, buffer));
    }
}

/// Empty, for a head and a small body to be written into.
pub(crate) fn text() -> Vec<u8> {
    TEXTS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Nobody needs what is in this text any more.
pub(crate) fn give_text(mut text: Vec<u8>) {
    if (1..=BUFFER_BYTES).contains(&text.capacity()) {
        text.clear();
        TEXTS.with_borrow_mut(|kept| keep(kept, text));
    }
}

fn keep<T>(kept: &mut Vec<T>, spare: T) {
    if kept.len() < KEPT_MAX {
        kept.push(spare);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_used_again_empty_and_whole() {
        let mut one = buffer();
        one.extend_from_slice(&[b'x'; BUFFER_BYTES]);
        bytes::Buf::advance(&mut one, BUFFER_BYTES - 1);
        give_buffer(one);
        let mut again = buffer();
        assert!(again.is_empty() && again.capacity() == BUFFER_BYTES);
        // A part is still held.
        again.extend_from_slice(b"held");
        let held = again.split_to(4).freeze();
        give_buffer(again);
        assert!(buffer().is_empty() && held == "held"[..]);
        give_buffer(BytesMut::with_capacity(64 * 1024));
        assert_eq!(BUFFERS.with_borrow(Vec::len), 0);

        let mut some = Fields::default();
        some.append("a", b"1").unwrap();
        let room = some.room();
        give_fields(some);
        let again = fields();
        assert!(again.is_empty() && again.room() == room);
        give_fields(Fields::default());
        let one = b"said".to_vec();
        let room = one.capacity();
        give_text(one);
        let again = text();
        assert!(again.is_empty() && again.capacity() == room);
        give_text(Vec::new());
        give_text(Vec::with_capacity(BUFFER_BYTES + 1));
        assert_eq!(TEXTS.with_borrow(Vec::len), 0);
        assert_eq!(FIELDS.with_borrow(Vec::len), 0);
    }
}
