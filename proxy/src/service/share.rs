//! How much of a service one client address may hold: as much as there is, but the last quarter is for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Limits, Pass};

/// What a client address has under way: on all its connections, and with all services together. To count by service as
/// well would cost every request a look-up, and say little more: it matters only where a service is nearly full.
#[derive(Debug, Default)]
pub(crate) struct ClientLoad {
    requests: AtomicU32,
}

/// A request of a client address; counts from waiting for a place until dropped.
#[derive(Debug)]
struct Asked(Arc<ClientLoad>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a service has for one more request of a client address.
#[derive(Debug)]
pub(crate) struct Share {
    asked: Option<Asked>,
    /// The service takes the request while it has fewer than so many.
    pub(crate) places: u32,
    /// The address holds more than its part: what is left is for others, and so is the line.
    pub(crate) is_spent: bool,
}

impl Share {
    /// Without a load the client has no address of its own, and all is for it.
    pub(crate) fn of(client: Option<&Arc<ClientLoad>>, limits: &Limits) -> Self {
        let Some(client) = client else {
            return Self {
                asked: None,
                places: limits.requests,
                is_spent: false,
            };
        };
        let held = client.requests.fetch_add(1, Ordering::Relaxed);
        let is_spent = held > limits.requests_per_client();
        Self {
            asked: Some(Asked(client.clone())),
            places: match is_spent {
                true => limits.requests - limits.requests_for_others(),
                false => limits.requests,
            },
            is_spent,
        }
    }
}

/// A request's place in a service, and among its client's, until the answer was passed on.
#[derive(Debug)]
pub(crate) struct Place {
    // Before the other, which wakes who waits.
    _asked: Option<Asked>,
    _pass: Pass,
}

impl Place {
    pub(crate) fn new(pass: Pass, share: Share) -> Self {
        Self {
            _asked: share.asked,
            _pass: pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Policy;

    /// An address that has so many requests under way may take a service's places up to so many, or wait as well.
    #[track_caller]
    fn check(requests: u32, held: u32, places: u32, is_spent: bool) {
        let limits = Limits {
            requests,
            ..Policy::default().limits
        };
        let client = Arc::new(ClientLoad::default());
        let holds: Vec<Share> = (0..held)
            .map(|_| Share::of(Some(&client), &limits))
            .collect();
        let share = Share::of(Some(&client), &limits);
        assert_eq!((share.places, share.is_spent), (places, is_spent));
        let anybody = Share::of(None, &limits);
        assert_eq!((anybody.places, anybody.is_spent), (requests, false));
        drop((holds, share));
        assert_eq!(client.requests.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_last_quarter_is_for_those_who_hold_no_more_than_one() {
        check(1024, 0, 1024, false);
        check(1024, 256, 1024, false);
        check(1024, 257, 768, true);
        check(16, 4, 16, false);
        check(16, 5, 12, true);
        // Too few for a quarter: one goes on while one waits.
        check(1, 1, 1, false);
        check(1, 2, 1, true);
        check(3, 2, 3, true);
        check(4, 2, 3, true);
    }
}
