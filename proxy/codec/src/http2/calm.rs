//! Floods: frames that are allowed one by one, and together make work for nothing.

use std::time::Duration;

use super::error::Broken;

/// A bucket that fills with time and with useful work.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u32,
    most: u32,
    /// A token comes back so often.
    every: Duration,
    filled: Duration,
}

impl Bucket {
    const fn new(most: u32, every: Duration) -> Self {
        Self {
            left: most,
            most,
            every,
            filled: Duration::ZERO,
        }
    }

    fn take(&mut self, now: Duration) -> bool {
        if self.left == self.most {
            // What it could not hold does not come back.
            self.filled = now;
        } else if self.left == 0 {
            let due = now.saturating_sub(self.filled).as_nanos() / self.every.as_nanos();
            self.earn(u32::try_from(due).unwrap_or(self.most));
            self.filled = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    fn earn(&mut self, tokens: u32) {
        self.left = self.left.saturating_add(tokens).min(self.most);
    }
}

/// Frames that change nothing by themselves: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, empty DATA, unknown
/// types. A thousand at once, fifty a second on top.
const IDLE_FRAMES: Bucket = Bucket::new(1000, Duration::from_millis(20));
/// What a DATA frame that is sent earns the peer: updates of two windows, in small steps if it likes.
const EARNED_BY_DATA: u32 = 10;
/// What a new stream earns: its priority, its reset.
const EARNED_BY_STREAM: u32 = 4;
/// Streams that the peer made us reset. Each costs us more than it costs the peer.
const OUR_RESETS: Bucket = Bucket::new(100, Duration::from_millis(100));
/// More than half of so many streams in a second must not be given up by the peer.
const STREAMS_JUDGED: u32 = 500;
const JUDGED_EVERY: Duration = Duration::from_secs(1);

/// The patience with one peer. Time is what has passed since anything that stays.
#[derive(Debug)]
pub(super) struct Calm {
    idle: Bucket,
    our_resets: Bucket,
    since: Duration,
    opened: u32,
    given_up: u32,
}

impl Default for Calm {
    fn default() -> Self {
        Self {
            idle: IDLE_FRAMES,
            our_resets: OUR_RESETS,
            since: Duration::ZERO,
            opened: 0,
            given_up: 0,
        }
    }
}

impl Calm {
    /// A frame that changes nothing.
    pub(super) fn idle_frame(&mut self, now: Duration) -> Result<(), Broken> {
        match self.idle.take(now) {
            true => Ok(()),
            false => Err(Broken::flood("too many frames that carry nothing")),
        }
    }

    pub(super) fn sent_data(&mut self) {
        self.idle.earn(EARNED_BY_DATA);
    }

    /// We opened a stream.
    pub(super) fn asked(&mut self) {
        self.idle.earn(EARNED_BY_STREAM);
    }

    /// The peer opened a stream.
    pub(super) fn opened(&mut self, now: Duration) {
        self.idle.earn(EARNED_BY_STREAM);
        if now.saturating_sub(self.since) >= JUDGED_EVERY {
            (self.since, self.opened, self.given_up) = (now, 0, 0);
        }
        self.opened += 1;
    }

    /// The peer gave a stream of its own up before it was answered ("rapid reset").
    pub(super) fn given_up(&mut self) -> Result<(), Broken> {
        self.given_up += 1;
        match self.opened >= STREAMS_JUDGED && self.given_up > self.opened / 2 {
            true => Err(Broken::flood("too many streams are given up")),
            false => Ok(()),
        }
    }

    /// The peer made us reset a stream.
    pub(super) fn our_reset(&mut self, now: Duration) -> Result<(), Broken> {
        match self.our_resets.take(now) {
            true => Ok(()),
            false => Err(Broken::flood("too many streams are malformed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_frames_are_paid_by_time_and_by_work() {
        let mut calm = Calm::default();
        let mut now = Duration::from_secs(7);
        let taken = (0..2000).take_while(|_| calm.idle_frame(now).is_ok());
        // Whatever was earned before does not add up.
        assert_eq!(taken.count(), 1000);
        now += Duration::from_millis(100);
        let taken = (0..2000).take_while(|_| calm.idle_frame(now).is_ok());
        assert_eq!(taken.count(), 5);
        for _ in 0..100 {
            calm.sent_data();
            for _ in 0..10 {
                calm.idle_frame(now).unwrap();
            }
        }
        assert!(calm.idle_frame(now).is_err());
    }

    #[test]
    fn half_of_the_streams_may_be_given_up() {
        let mut calm = Calm::default();
        let now = Duration::from_secs(1);
        for _ in 0..499 {
            calm.opened(now);
            calm.given_up().unwrap();
        }
        calm.opened(now);
        assert!(calm.given_up().is_err());
        let later = now + JUDGED_EVERY;
        for index in 0..2000 {
            calm.opened(later);
            if index % 2 == 1 {
                calm.given_up().unwrap();
            }
        }
    }
}
