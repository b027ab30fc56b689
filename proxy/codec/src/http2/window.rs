//! Flow control (RFC 9113 §5.2): how many bytes of DATA may be on their way.

/// What a window is before anybody says otherwise.
pub(super) const DEFAULT: u32 = 65_535;
/// What no window may exceed.
pub(super) const MAX: u32 = 0x7fff_ffff;

/// What the peer lets us send. Below zero after it made its windows smaller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SendWindow(i64);

/// It would exceed [`MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Overflow;

impl SendWindow {
    pub(super) fn new(bytes: u32) -> Self {
        Self(i64::from(bytes))
    }

    pub(super) fn room(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        self.0 -= bytes as i64;
    }

    pub(super) fn widen(&mut self, bytes: i64) -> Result<(), Overflow> {
        let wider = self.0 + bytes;
        if wider > i64::from(MAX) {
            return Err(Overflow);
        }
        self.0 = wider;
        Ok(())
    }
}

/// What we let the peer send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ReceiveWindow {
    /// What the peer may still send.
    left: u32,
    /// What was taken by the reader, and the peer was not told.
    taken: u32,
    full: u32,
}

impl ReceiveWindow {
    pub(super) fn new(full: u32) -> Self {
        Self {
            left: full,
            taken: 0,
            full,
        }
    }

    /// Bytes came; false when they are more than was allowed.
    #[must_use]
    pub(super) fn spend(&mut self, bytes: u32) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Bytes that came were taken by their reader. Gives what the peer should be told now: half a window at a time, so
    /// that it neither waits nor gets an update for each piece.
    pub(super) fn release(&mut self, bytes: u32) -> Option<u32> {
        self.taken += bytes;
        if self.taken < self.full / 2 {
            return None;
        }
        let told = std::mem::take(&mut self.taken);
        self.left += told;
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sending_stops_at_zero_and_never_overflows() {
        let mut window = SendWindow::new(10);
        window.spend(10);
        assert_eq!(window.room(), 0);
        assert_eq!(window.widen(-5), Ok(()));
        assert_eq!(window.room(), 0);
        assert_eq!(window.widen(8), Ok(()));
        assert_eq!(window.room(), 3);
        assert_eq!(window.widen(i64::from(MAX) - 2), Err(Overflow));
        assert_eq!(window.widen(i64::from(MAX) - 3), Ok(()));
    }

    #[test]
    fn receiving_is_told_by_halves() {
        let mut window = ReceiveWindow::new(100);
        assert!(window.spend(60));
        assert_eq!(window.release(49), None);
        assert_eq!(window.release(1), Some(50));
        assert!(!window.spend(91));
        assert!(window.spend(90));
        assert!(!window.spend(1));
    }
}
