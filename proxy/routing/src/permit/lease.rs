//! A replica's side of a global limit: it spends tokens that the owner leased to it.
//!
//! No request pays for a round trip while leases keep up with the traffic: what a bucket will need in the next moment
//! is asked for ahead, unless the limit is so small that others would miss it. What nobody comes for goes back, and so
//! does a wish that is over. Every use is reported with its age, so the owner knows when it happened without trusting
//! anybody's clock; see [`super::owner`] for the proof.

use std::collections::{BTreeSet, VecDeque};
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

impl Demand {
    /// At most so many bytes in a message.
    pub fn bytes_max(&self) -> usize {
        // Tags, lengths and four numbers; a use is two numbers.
        64 + self.limit.len() + self.key.len() + self.used.len() * 24
    }
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

/// One request on its way through [`LeaseHolder::take`]: it may have to ask several times, and is counted once.
#[derive(Debug, Default)]
pub struct Asking {
    /// How many answers its bucket had when it began to wait.
    waits_since: Option<u64>,
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
    /// When each bucket has something to say.
    schedule: BTreeSet<(Time, Arc<str>)>,
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
    /// Requests that wait for the next answer.
    waiting: u64,
    /// Answers so far.
    answers: u64,
    /// When the owner was last asked, until it answers.
    asked: Option<Time>,
    /// What the owner believes that is wanted, and when it was told.
    unmet: u64,
    told: Time,
    /// The owner has nothing until then.
    none_until: Option<Time>,
    pace: Pace,
    scheduled: Option<Time>,
    introduced: bool,
}

/// How many requests came lately.
#[derive(Debug, Default)]
struct Pace {
    start: Time,
    last: Time,
    current: u64,
    previous: u64,
}

/// A request waits at most this long for the first lease of a bucket. Longer than a round trip within the cluster,
/// shorter than a person notices.
pub const WAIT_MAX: Duration = Duration::from_millis(250);

/// Requests of this long are leased ahead.
const AHEAD: Duration = Duration::from_millis(50);
/// But at most this part of a limit: what lies here unused, other replicas cannot give to their clients. In a window of
/// a second this is what the limit allows in that time.
const AHEAD_PART: u64 = 20;
/// An owner that did not answer for this long is asked again. One that did not give all is told what is still wanted.
const ASK_AGAIN: Duration = WAIT_MAX;
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
            schedule: BTreeSet::new(),
        }
    }

    /// Changes the terms and keeps what was used.
    pub fn retune(&mut self, rate: Rate, replicas: u32, on_failure: OnFailure) {
        if rate.per != self.rate.per {
            // Old uses are counted in other units: the new window starts empty.
            self.buckets = Buckets::new(BUCKETS_MAX);
            self.schedule.clear();
        }
        self.rate = rate;
        self.replicas = replicas.max(1);
        self.on_failure = on_failure;
    }

    /// One request for this bucket. An impatient one is never told to wait.
    pub fn take(&mut self, key: &str, now: Time, asking: &mut Asking, patient: bool) -> Take {
        let schedule = &mut self.schedule;
        let bucket = self.buckets.touch(key, Bucket::default, |key, old| {
            if let Some(at) = old.scheduled {
                schedule.remove(&(at, key.clone()));
            }
        });
        if asking.waits_since.is_none() {
            bucket.seen += 1;
            bucket.pace.count(now);
        }
        if !self.connected {
            return bucket.take_alone(&self.rate, self.replicas, self.on_failure, now);
        }
        bucket.void_expired(now);
        let take = bucket.take_leased(&self.rate, now, asking, patient);
        let due = match bucket.asks(&self.rate, now) {
            true => Some(now),
            false => bucket.due(&self.rate, now),
        };
        bucket.schedule(due, key, schedule);
        take
    }

    /// When there is something to tell the owner.
    pub fn due(&self) -> Option<Time> {
        let first = self.schedule.first().map(|(at, _)| *at);
        first.filter(|_| self.connected)
    }

    /// What to tell the owner now of one bucket; call again until there is nothing.
    pub fn next_demand(&mut self, now: Time) -> Option<Demand> {
        while self.due().is_some_and(|due| due <= now) {
            let (_, key) = self.schedule.pop_first()?;
            if let Some(bucket) = self.buckets.find(&key) {
                bucket.scheduled = None;
                let demand = bucket.demand(&self.rate, now, &self.id, &key);
                let due = bucket.due(&self.rate, now);
                bucket.schedule(due, &key, &mut self.schedule);
                return Some(demand);
            }
        }
        None
    }

    /// The owner answered.
    pub fn granted(&mut self, now: Time, grant: &Grant) {
        let Some(bucket) = self.buckets.find(&grant.key) else {
            return;
        };
        bucket.waiting = 0;
        bucket.answers += 1;
        bucket.unmet = bucket.unmet.saturating_sub(grant.tokens);
        if grant.tokens > 0 {
            bucket.asked = None;
            bucket.none_until = None;
            bucket.tokens.push_back((now + grant.valid, grant.tokens));
        } else {
            bucket.none_until = Some(now + grant.retry_after);
        }
        let due = bucket.due(&self.rate, now);
        bucket.schedule(due, &grant.key, &mut self.schedule);
    }

    /// The stream to the owner opened or closed.
    pub fn set_connected(&mut self, now: Time, connected: bool) {
        self.connected = connected;
        self.schedule.clear();
        for (key, bucket) in self.buckets.iter_mut() {
            bucket.forget_leases();
            bucket.window.expire(&self.rate, now);
            let tells = connected && bucket.window.held() > 0;
            bucket.schedule(tells.then_some(now), key, &mut self.schedule);
        }
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

    fn take_leased(&mut self, rate: &Rate, now: Time, asking: &mut Asking, patient: bool) -> Take {
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
                let waits_since = asking.waits_since.replace(self.answers);
                if waits_since != Some(self.answers) || self.waiting == 0 {
                    self.waiting += 1;
                }
                Take::Wait
            }
            _ => Take::Refused(Refusal {
                retry_after: ASK_AGAIN,
            }),
        }
    }

    /// Whether the owner must be asked for more at once.
    fn asks(&self, rate: &Rate, now: Time) -> bool {
        let refused = self.none_until.is_some_and(|until| now < until);
        let answered = self.asked.is_none_or(|asked| now.since(asked) >= ASK_AGAIN);
        answered && !refused && (self.waiting > 0 || self.held() * 2 < self.pace.ahead(rate, now))
    }

    /// When there is something to tell, if no more requests come: uses, tokens that will be void, or that what was
    /// wanted is not wanted any more.
    fn due(&self, rate: &Rate, now: Time) -> Option<Time> {
        let report = (rate.per / REPORTS_PER_WINDOW).min(REPORT_MAX);
        let used = self.unreported.first().map(|(at, _)| *at + report);
        let void = self.tokens.front().map(|(expiry, _)| *expiry);
        let returned = (self.returned > 0).then_some(now);
        let wish = (self.unmet > 0).then(|| self.told + ASK_AGAIN);
        [used, void, returned, wish].into_iter().flatten().min()
    }

    /// Speaks at the latest then.
    fn schedule(
        &mut self,
        due: Option<Time>,
        key: &str,
        schedule: &mut BTreeSet<(Time, Arc<str>)>,
    ) {
        let Some(due) = due else { return };
        if let Some(at) = self.scheduled {
            if at <= due {
                return;
            }
            schedule.remove(&(at, key.into()));
        }
        schedule.insert((due, key.into()));
        self.scheduled = Some(due);
    }

    fn demand(&mut self, rate: &Rate, now: Time, limit: &Arc<str>, key: &Arc<str>) -> Demand {
        self.void_expired(now);
        if now.since(self.pace.last) >= WAIT_MAX {
            // Those who waited gave up.
            self.waiting = 0;
        }
        let whole = !std::mem::replace(&mut self.introduced, true);
        let reported = std::mem::take(&mut self.unreported);
        let used = if whole {
            self.window.expire(rate, now);
            let uses: Vec<_> = self.window.uses(rate).collect();
            as_ages(&uses, now)
        } else {
            as_ages(&reported, now)
        };
        let want = (self.waiting + self.pace.ahead(rate, now)).saturating_sub(self.held());
        let want = want.min(rate.capacity());
        if want > 0 {
            self.asked = Some(now);
        }
        (self.unmet, self.told) = (want, now);
        Demand {
            limit: limit.clone(),
            key: key.clone(),
            seen: std::mem::take(&mut self.seen),
            want,
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
        self.unmet = 0;
        self.none_until = None;
        self.introduced = false;
        self.scheduled = None;
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
        self.last = now;
    }

    /// Tokens for the next moment; none when no requests come any more.
    fn ahead(&self, rate: &Rate, now: Time) -> u64 {
        let elapsed = now.since(self.start);
        let pace = match elapsed < AHEAD * 2 {
            true => self.previous.max(self.current),
            false => 0,
        };
        pace.min(rate.capacity() / AHEAD_PART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One client comes once, and the owner has so many tokens: used, returned, and how often the replica speaks until
    /// it is silent.
    fn check(requests: u64, mut free: u64, expected: (u64, u64, usize)) {
        let mut holder = LeaseHolder::new("limit".into(), true);
        let rate = Rate::new(requests, Duration::from_secs(60), 0);
        holder.retune(rate, 1, OnFailure::Closed);
        let mut asking = Asking::default();
        let mut now = Time::ZERO;
        let (mut used, mut returned, mut spoke, mut seen) = (0, 0, 0, 0);
        let mut take = holder.take("", now, &mut asking, true);
        while let Some(due) = holder.due() {
            now = now.max(due);
            let demand = holder.next_demand(now).expect("it is due");
            spoke += 1;
            assert!(spoke < 10, "never silent: {demand:?}");
            used += demand.used.iter().map(|used| used.count).sum::<u64>();
            returned += demand.returned;
            seen += demand.seen;
            if demand.want > 0 {
                let tokens = demand.want.min(free);
                free -= tokens;
                let grant = Grant {
                    limit: demand.limit,
                    key: demand.key,
                    tokens,
                    valid: Duration::from_secs(2),
                    retry_after: Duration::from_secs(30),
                };
                holder.granted(now, &grant);
            }
            if take == Take::Wait {
                take = holder.take("", now, &mut asking, true);
            }
        }
        assert_eq!((used, returned, spoke), expected, "{requests} a minute");
        assert_eq!(seen, 1, "a request is counted once");
    }

    #[test]
    fn who_is_idle_gives_back_and_falls_silent() {
        // The wish, the use.
        check(5, 5, (1, 0, 2));
        // One is leased ahead, and goes back when it is void.
        check(100, 100, (1, 1, 3));
        // Asked for one ahead again, in vain, and then takes the wish back.
        check(100, 1, (1, 0, 3));
        check(5, 0, (0, 0, 2));
    }
}
