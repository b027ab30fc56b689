//! A replica's side of a global limit: it spends tokens that the owner leased to it.
//!
//! No request pays for a round trip while leases keep up with the traffic: what a bucket will need in the next moment
//! is asked for ahead. Every use is reported with its age, so the owner knows when it happened without trusting
//! anybody's clock; see [`super::owner`] for the proof.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::buckets::{BUCKETS_MAX, Buckets};
use super::limit::{OnFailure, Permit, Refusal};
use super::window::{Rate, Window};
use crate::time::Time;

/// What a replica tells the owner of one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// `Limit::id`.
    pub limit: Arc<str>,
    /// The bucket.
    pub key: Arc<str>,
    /// Requests since the last message, admitted or not.
    pub seen: u64,
    /// Tokens wanted now; replaces what was wanted before.
    pub want: u64,
    /// Unused tokens given back.
    pub returned: u64,
    /// Tokens used since the last message, with the age of the use.
    pub used: Vec<Use>,
    /// `used` is everything within the window: the first message of a bucket on a new stream.
    pub whole: bool,
}

/// Some tokens were used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// How long before the message was sent, rounded down.
    pub age: Duration,
    /// How many.
    pub count: u64,
}

/// What the owner answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// `Limit::id`.
    pub limit: Arc<str>,
    /// The bucket.
    pub key: Arc<str>,
    /// May be none.
    pub tokens: u64,
    /// Tokens not used within this time after receipt are void.
    pub valid: Duration,
    /// With no tokens: when to expect some.
    pub retry_after: Duration,
}

/// The answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Let through.
    Admitted(Permit),
    /// Refused.
    Refused(Refusal),
    /// Nothing is known of this bucket yet: ask again after the next grant.
    Wait,
}

/// The leases of one limit.
#[derive(Debug)]
pub struct LeaseHolder {
    id: Arc<str>,
    rate: Rate,
    replicas: u32,
    on_failure: OnFailure,
    connected: bool,
    buckets: Buckets<Bucket>,
    /// Keys of buckets with something to say.
    talkative: Vec<Arc<str>>,
    due: Option<Time>,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Expiry and number of unused tokens.
    tokens: VecDeque<(Time, u64)>,
    /// Own uses within the window: for the failure mode, and for an owner that must learn them anew.
    window: Window,
    unreported: Vec<(Time, u64)>,
    seen: u64,
    returned: u64,
    /// Requests that wait for the first grant.
    waiting: u64,
    /// When the owner was last asked, until it answers.
    asked: Option<Time>,
    /// The owner has nothing until then.
    none_until: Option<Time>,
    pace: Pace,
    talkative: bool,
    introduced: bool,
}

/// How many requests came lately.
#[derive(Debug, Default)]
struct Pace {
    start: Time,
    current: u64,
    previous: u64,
}

/// Requests of this long are leased ahead.
const AHEAD: Duration = Duration::from_millis(50);
/// An owner that did not answer for this long is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Uses are reported at the latest after this part of a window, and after [`REPORT_MAX`].
const REPORTS_PER_WINDOW: u32 = 8;
const REPORT_MAX: Duration = Duration::from_secs(1);

impl LeaseHolder {
    /// No leases yet; call [`retune`](Self::retune) next.
    pub fn new(id: Arc<str>, connected: bool) -> Self {
        Self {
            id,
            rate: Rate::new(1, Duration::from_secs(1), 0),
            replicas: 1,
            on_failure: OnFailure::LocalShare,
            connected,
            buckets: Buckets::new(BUCKETS_MAX),
            talkative: Vec::new(),
            due: None,
        }
    }

    /// Changes the terms and keeps what was used.
    pub fn retune(&mut self, rate: Rate, replicas: u32, on_failure: OnFailure) {
        if rate.per != self.rate.per {
            // Old uses are counted in other units: the new window starts empty.
            self.buckets = Buckets::new(BUCKETS_MAX);
            self.talkative.clear();
            self.due = None;
        }
        self.rate = rate;
        self.replicas = replicas.max(1);
        self.on_failure = on_failure;
    }

    /// One request for this bucket. An impatient one is never told to wait.
    pub fn take(&mut self, key: &str, now: Time, patient: bool) -> Take {
        let bucket = self.buckets.touch(key, Bucket::default, |_, _| {});
        bucket.seen += 1;
        bucket.pace.count(now);
        if !self.connected {
            return bucket.take_alone(&self.rate, self.replicas, self.on_failure, now);
        }
        bucket.void_expired(now);
        let take = bucket.take_leased(&self.rate, now, patient);
        let urgent = bucket.asks(now);
        let report = bucket
            .unreported
            .first()
            .map(|(at, _)| *at + (self.rate.per / REPORTS_PER_WINDOW).min(REPORT_MAX));
        let due = if urgent { Some(now) } else { report };
        if due.is_some() && !bucket.talkative {
            bucket.talkative = true;
            self.talkative.push(key.into());
        }
        self.due = match (self.due, due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        take
    }

    /// When there is something to tell the owner.
    pub fn due(&self) -> Option<Time> {
        self.due.filter(|_| self.connected)
    }

    /// What to tell the owner now.
    pub fn demands(&mut self, now: Time, out: &mut Vec<Demand>) {
        if !self.connected {
            return;
        }
        self.due = None;
        for key in std::mem::take(&mut self.talkative) {
            if let Some(bucket) = self.buckets.find(&key) {
                let demand = bucket.demand(&self.rate, now, &self.id, &key);
                out.push(demand);
            }
        }
    }

    /// The owner answered.
    pub fn granted(&mut self, now: Time, grant: &Grant) {
        let Some(bucket) = self.buckets.find(&grant.key) else {
            return;
        };
        bucket.waiting = 0;
        if grant.tokens > 0 {
            bucket.asked = None;
            bucket.none_until = None;
            bucket.tokens.push_back((now + grant.valid, grant.tokens));
        } else {
            bucket.none_until = Some(now + grant.retry_after);
        }
    }

    /// The stream to the owner opened or closed.
    pub fn set_connected(&mut self, now: Time, connected: bool) {
        self.connected = connected;
        self.talkative.clear();
        for (key, bucket) in self.buckets.iter_mut() {
            bucket.forget_leases();
            bucket.window.expire(&self.rate, now);
            bucket.talkative = connected && bucket.window.held() > 0;
            if bucket.talkative {
                self.talkative.push(key.clone());
            }
        }
        self.due = (!self.talkative.is_empty()).then_some(now);
    }

    /// Buckets that were forgotten to stay within memory.
    pub fn evicted(&self) -> u64 {
        self.buckets.evicted()
    }
}

impl Bucket {
    fn take_alone(&mut self, rate: &Rate, replicas: u32, on_failure: OnFailure, now: Time) -> Take {
        let rate = match on_failure {
            OnFailure::LocalShare => rate.share(replicas),
            OnFailure::Open => Rate::new(u64::MAX / 2, rate.per, 0),
            OnFailure::Closed => {
                return Take::Refused(Refusal {
                    retry_after: Duration::from_secs(1),
                });
            }
        };
        if self.window.take(&rate, now, 1) {
            return Take::Admitted(Permit {
                remaining: self.window.free(&rate, now),
                reset: self.window.reset(&rate, now),
            });
        }
        Take::Refused(Refusal {
            retry_after: self.window.wait(&rate, now),
        })
    }

    fn take_leased(&mut self, rate: &Rate, now: Time, patient: bool) -> Take {
        if let Some((_, tokens)) = self.tokens.front_mut() {
            *tokens -= 1;
            if *tokens == 0 {
                self.tokens.pop_front();
            }
            self.window.expire(rate, now);
            self.window.charge(rate, now, now, 1);
            match self.unreported.last_mut() {
                Some((at, count)) if now.since(*at) < Duration::from_millis(1) => *count += 1,
                _ => self.unreported.push((now, 1)),
            }
            return Take::Admitted(Permit {
                remaining: self.held(),
                reset: self.window.reset(rate, now),
            });
        }
        match self.none_until {
            Some(until) if now < until => {
                // What this replica used comes back in time, whatever the owner still has to hear about.
                let own = self.window.uses(rate).next();
                let back = own.map_or(until, |(used, _)| until.min(used + rate.per));
                Take::Refused(Refusal {
                    retry_after: back.since(now).max(Duration::from_millis(1)),
                })
            }
            _ if patient => {
                self.none_until = None;
                self.waiting += 1;
                Take::Wait
            }
            _ => Take::Refused(Refusal {
                retry_after: ASK_AGAIN,
            }),
        }
    }

    /// Whether the owner must be asked for more at once.
    fn asks(&self, now: Time) -> bool {
        let refused = self.none_until.is_some_and(|until| now < until);
        let answered = self.asked.is_none_or(|asked| now.since(asked) >= ASK_AGAIN);
        answered && !refused && (self.waiting > 0 || self.held() * 2 < self.pace.ahead())
    }

    fn demand(&mut self, rate: &Rate, now: Time, limit: &Arc<str>, key: &Arc<str>) -> Demand {
        self.void_expired(now);
        self.talkative = false;
        let whole = !std::mem::replace(&mut self.introduced, true);
        let reported = std::mem::take(&mut self.unreported);
        let used = if whole {
            self.window.expire(rate, now);
            let uses: Vec<_> = self.window.uses(rate).collect();
            as_ages(&uses, now)
        } else {
            as_ages(&reported, now)
        };
        let want = (self.waiting + self.pace.ahead()).saturating_sub(self.held());
        if want > 0 {
            self.asked = Some(now);
        }
        Demand {
            limit: limit.clone(),
            key: key.clone(),
            seen: std::mem::take(&mut self.seen),
            want: want.min(rate.capacity()),
            returned: std::mem::take(&mut self.returned),
            used,
            whole,
        }
    }

    fn held(&self) -> u64 {
        self.tokens.iter().map(|(_, tokens)| tokens).sum()
    }

    fn void_expired(&mut self, now: Time) {
        while let Some((_, tokens)) = self.tokens.pop_front_if(|(expiry, _)| *expiry <= now) {
            self.returned += tokens;
        }
    }

    /// What was leased on a stream that is gone. The owner waits until such leases are void.
    fn forget_leases(&mut self) {
        self.tokens.clear();
        self.unreported.clear();
        self.returned = 0;
        self.waiting = 0;
        self.asked = None;
        self.none_until = None;
        self.introduced = false;
    }
}

fn as_ages(uses: &[(Time, u64)], now: Time) -> Vec<Use> {
    uses.iter()
        .map(|(at, count)| Use {
            age: now.since(*at),
            count: *count,
        })
        .collect()
}

impl Pace {
    fn count(&mut self, now: Time) {
        let elapsed = now.since(self.start);
        if elapsed >= AHEAD {
            self.previous = if elapsed < AHEAD * 2 { self.current } else { 0 };
            self.current = 0;
            self.start = now;
        }
        self.current += 1;
    }

    /// Tokens for the next moment.
    fn ahead(&self) -> u64 {
        self.previous.max(self.current)
    }
}
