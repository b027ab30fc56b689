//! One stream, as those see it who read from it, write to it, or wait for its end.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use meshgate_codec::ResponseHead;
use meshgate_codec::http2::Code;

use crate::body::Frame;
use crate::parked::Parked;

/// Pieces that wait are joined up to this size.
const JOINED_BYTES_MAX: usize = 4 * 1024;

/// What came on a stream and was not taken, and who waits.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The answer's head, until it is taken.
    pub(super) head: Option<ResponseHead>,
    /// That head has come.
    pub(super) answered: bool,
    /// Answers before the answer, until they are taken.
    pub(super) interim: VecDeque<ResponseHead>,
    /// How many of them came.
    pub(super) interims: u32,
    /// The peer waits for a word before it sends its body (RFC 9110 §10.1.1).
    pub(super) awaits_continue: bool,
    pub(super) frames: VecDeque<Frame>,
    /// Of the frames that wait.
    pub(super) bytes: u64,
    /// What of the body is still to be taken, if that was said.
    pub(super) left: Option<u64>,
    /// Nothing comes behind the frames that wait.
    pub(super) ended: bool,
    pub(super) end: Option<End>,
    /// Who waits for a head or a piece of the body.
    pub(super) reader: Parked,
    /// Who waits for room to send.
    pub(super) sender: Parked,
    /// Who must know when the stream is over.
    pub(super) owner: Parked,
}

/// How a stream ended before its time.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// The peer gave it up, for this reason.
    Reset(Code),
    /// The peer broke the protocol, and we gave it up.
    Malformed(Code),
    /// The peer says that it has not looked at it.
    Unseen,
    /// The connection ended.
    Lost(Cow<'static, str>),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reset(code) => write!(f, "the stream was reset: {code}"),
            Self::Malformed(code) => write!(f, "malformed: {code}"),
            Self::Unseen => f.write_str("the connection was going away"),
            Self::Lost(why) => write!(f, "the connection ended: {why}"),
        }
    }
}

impl Slot {
    /// Something came: whoever reads may go on.
    pub(super) fn came(&mut self, frame: Option<Frame>, ends: bool) {
        match frame {
            Some(Frame::Data(data)) => {
                self.bytes += data.len() as u64;
                self.put(data);
            }
            frame => self.frames.extend(frame),
        }
        self.ended |= ends;
        self.reader.wake();
    }

    /// Small pieces become one: kept by themselves, a window of single bytes would cost a hundred times as much.
    fn put(&mut self, data: Bytes) {
        let data = match self.frames.pop_back() {
            Some(Frame::Data(before)) if before.len() + data.len() <= JOINED_BYTES_MAX => {
                let mut joined = before
                    .try_into_mut()
                    .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
                joined.extend_from_slice(&data);
                joined.freeze()
            }
            before => {
                self.frames.extend(before);
                data
            }
        };
        self.frames.push_back(Frame::Data(data));
    }

    /// The stream is over before its time: nobody needs to wait.
    pub(super) fn fail(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.reader.wake();
        self.sender.wake();
        self.owner.wake();
    }

    /// Bytes still to be taken, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.left
    }

    /// Whether nothing is to be taken, now or later.
    pub(super) fn is_drained(&self) -> bool {
        self.ended && self.frames.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_single_bytes_is_kept_in_few_pieces() {
        let mut slot = Slot::default();
        let sent: Vec<u8> = (0..64 * 1024_u32).map(|index| index as u8).collect();
        for byte in &sent {
            slot.came(Some(Frame::Data(Bytes::copy_from_slice(&[*byte]))), false);
        }
        slot.came(Some(Frame::Data(Bytes::from_static(&[7; 9000]))), false);
        slot.came(Some(Frame::Trailers(Default::default())), true);
        assert_eq!(slot.bytes, 64 * 1024 + 9000);
        assert_eq!(slot.frames.len(), 16 + 2);
        let mut taken = Vec::new();
        for frame in &slot.frames {
            if let Frame::Data(data) = frame {
                taken.extend_from_slice(data);
            }
        }
        assert_eq!(taken, [sent, vec![7; 9000]].concat());
    }
}
