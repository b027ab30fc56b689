//! Streams that are over: what frames for them mean depends on how they ended.

use std::collections::VecDeque;

use super::error::StreamId;

/// How a stream ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    /// Both ends said all they had to say.
    Complete,
    /// We gave it up: the peer's frames may still be on their way.
    ResetByUs,
    /// The peer gave it up, whoever was first: none of its frames can come any more.
    ResetByPeer,
}

/// The last streams that ended.
#[derive(Default, Debug)]
pub(super) struct Departed {
    streams: VecDeque<(StreamId, How)>,
    forgot: bool,
}

/// What is known of a stream that is not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    Ended(How),
    /// It ended long ago, or never was.
    Nothing,
    /// It was passed over: higher ones were opened.
    NeverOpened,
}

/// Of this many endings is kept how they were.
const KEPT: usize = 256;

impl Departed {
    pub(super) fn note(&mut self, stream: StreamId, how: How) {
        if self.streams.len() == KEPT {
            self.streams.pop_front();
            self.forgot = true;
        }
        self.streams.push_back((stream, how));
    }

    /// The peer gave a stream up that is over already.
    pub(super) fn note_reset(&mut self, stream: StreamId) {
        let ours = (stream, How::ResetByUs);
        if let Some((_, how)) = self.streams.iter_mut().rfind(|ended| **ended == ours) {
            *how = How::ResetByPeer;
        }
    }

    /// What is known of a stream that was once possible and is not open.
    pub(super) fn find(&self, stream: StreamId) -> Known {
        let found = self.streams.iter().rev().find(|(id, _)| *id == stream);
        match found {
            Some((_, how)) => Known::Ended(*how),
            None if self.forgot => Known::Nothing,
            None => Known::NeverOpened,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_not_judged() {
        let mut departed = Departed::default();
        departed.note(1, How::Complete);
        departed.note(5, How::ResetByUs);
        assert_eq!(departed.find(1), Known::Ended(How::Complete));
        assert_eq!(departed.find(3), Known::NeverOpened);
        // What is complete stays so.
        for stream in [1, 3] {
            let before = departed.find(stream);
            departed.note_reset(stream);
            assert_eq!(departed.find(stream), before);
        }
        for index in 0..KEPT as StreamId - 1 {
            departed.note(7 + 2 * index, How::ResetByPeer);
        }
        assert_eq!(departed.find(1), Known::Nothing);
        assert_eq!(departed.find(5), Known::Ended(How::ResetByUs));
        assert_eq!(departed.find(3), Known::Nothing);
        departed.note_reset(5);
        assert_eq!(departed.find(5), Known::Ended(How::ResetByPeer));
    }
}
