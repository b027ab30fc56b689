//! One stream's state (RFC 9113 §5.1).

use super::super::window::{ReceiveWindow, SendWindow};

/// An open stream: at least one of the two has something to say.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    /// We may still send.
    pub(super) sending: bool,
    /// The peer may still send.
    pub(super) receiving: bool,
    /// The peer's head has come; an interim answer is none.
    pub(super) headed: bool,
    /// Our head was sent; an interim answer is none.
    pub(super) answered: bool,
    /// What of the peer's body is to come, if its head said.
    pub(super) left: Option<u64>,
    /// The answer has no body, whatever its head says.
    pub(super) bodyless: bool,
    /// Success opens another protocol, which has no length (RFC 9110 §9.3.6).
    pub(super) opens: bool,
}

/// The body is not as long as was said.
#[derive(Debug)]
pub(super) struct WrongLength;

impl Stream {
    pub(super) fn take_data(&mut self, bytes: usize) -> Result<(), WrongLength> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(bytes as u64).ok_or(WrongLength)?;
        }
        Ok(())
    }

    pub(super) fn end_receiving(&mut self) -> Result<(), WrongLength> {
        self.receiving = false;
        match self.left {
            None | Some(0) => Ok(()),
            Some(_) => Err(WrongLength),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        !self.sending && !self.receiving
    }
}
