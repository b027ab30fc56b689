//! The owner's side of global limits: leases tokens to replicas so that the limit holds exactly over all of them.
//!
//! Why it holds: a token counts from the grant until one window after the moment it was used. That moment is taken
//! as the receipt of the report minus the reported age, which is never earlier than the use itself (the message took
//! time to arrive); a token that nobody reports counts as used when its lease is surely void. So at every moment
//! the tokens used within the last window, plus all that may still be used, are at most the limit. The only assumption
//! is that a grant arrives within `DELIVERY_MAX`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::buckets::Buckets;
use super::lease::{Demand, Grant};
use super::window::{Rate, Window};
use crate::time::{Time, nanos};

/// A proxy that shares limits; stable over reconnects (its pod's name or UID).
pub type ReplicaId = Arc<str>;

/// All limits that this owner splits.
#[derive(Debug)]
pub struct QuotaOwner {
    limits: HashMap<Arc<str>, Owned>,
    started: Time,
    /// When a bucket that somebody waits for may have tokens again.
    schedule: BTreeSet<(Time, Arc<str>, Arc<str>)>,
}

/// A limit as its owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaTerms {
    /// The limit.
    pub rate: Rate,
    /// How many replicas share it.
    pub replicas: u32,
}

#[derive(Debug)]
struct Owned {
    terms: QuotaTerms,
    /// Until then, replicas may have used tokens that a former owner leased and this one does not know of.
    strangers_until: Time,
    buckets: Buckets<Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    claims: Vec<Claim>,
    /// With a burst: when all piled-up tokens would be paid back, in ns.
    debt_until: u64,
    scheduled: Option<Time>,
}

/// One replica's part of a bucket.
#[derive(Debug)]
struct Claim {
    replica: ReplicaId,
    used: Window,
    /// Leased and not reported: when it is surely void, and how many. It may have been used until then, so it counts
    /// for a window longer.
    leased: VecDeque<(Time, u64)>,
    /// Tokens of leases that count no more, and that the replica may still report.
    forgotten: u64,
    want: u64,
    /// Requests of the last messages, halved with each.
    weight: u64,
    /// It told its whole history.
    introduced: bool,
}

/// Most buckets of one limit. Forgetting one forgets its uses, so this is far above what replicas keep.
const BUCKETS_MAX: usize = 64 * 1024;
/// Longest time from sending a grant to its receipt.
const DELIVERY_MAX: Duration = Duration::from_secs(1);
/// Waiting replicas are served at most this often.
const SERVE_EVERY: Duration = Duration::from_millis(1);
/// Limits that come this soon after the start are not new: replicas may have used them before.
const START: Duration = Duration::from_secs(10);

impl QuotaOwner {
    /// An owner without limits.
    pub fn new(now: Time) -> Self {
        Self {
            limits: HashMap::new(),
            started: now,
            schedule: BTreeSet::new(),
        }
    }

    /// Adds or changes a limit; what was used stays.
    pub fn set_limit(&mut self, id: &str, terms: QuotaTerms, now: Time) {
        if let Some(owned) = self.limits.get_mut(id)
            && owned.terms.rate.per == terms.rate.per
        {
            owned.terms = terms;
            return;
        }
        let strangers_until = if now.since(self.started) < START {
            now + terms.rate.per
        } else {
            now
        };
        self.remove_limit(id);
        let owned = Owned {
            terms,
            strangers_until,
            buckets: Buckets::new(BUCKETS_MAX),
        };
        self.limits.insert(id.into(), owned);
    }

    /// Forgets a limit.
    pub fn remove_limit(&mut self, id: &str) {
        self.limits.remove(id);
        self.schedule.retain(|(_, limit, _)| **limit != *id);
    }

    /// A replica's message about one bucket. The answers may go to others as well. Unknown limits get none: the
    /// replica is ahead of this owner and will ask again.
    pub fn demand(
        &mut self,
        now: Time,
        replica: &ReplicaId,
        demand: &Demand,
    ) -> Vec<(ReplicaId, Grant)> {
        let Some(owned) = self.limits.get_mut(&demand.limit) else {
            return Vec::new();
        };
        let schedule = &mut self.schedule;
        let evict = |key: &Arc<str>, old: &mut Bucket| {
            if let Some(at) = old.scheduled {
                schedule.remove(&(at, demand.limit.clone(), key.clone()));
            }
        };
        let bucket = owned.buckets.touch(&demand.key, Bucket::default, evict);
        bucket.hear(&owned.terms.rate, now, replica, demand);
        let mut grants = bucket.serve(
            &owned.terms,
            owned.strangers_until,
            now,
            &demand.key,
            &demand.limit,
        );
        let answered = grants.iter().any(|(to, _)| to == replica);
        if demand.want > 0 && !answered {
            let wait = bucket.next_free(&owned.terms.rate, now).since(now);
            grants.push((
                replica.clone(),
                Grant {
                    limit: demand.limit.clone(),
                    key: demand.key.clone(),
                    tokens: 0,
                    valid: Duration::ZERO,
                    retry_after: wait.max(SERVE_EVERY),
                },
            ));
        }
        Self::reschedule(&mut self.schedule, bucket, &owned.terms, now, demand);
        grants
    }

    /// Serves replicas that wait, as far as tokens came back. Call at [`next_due`](Self::next_due).
    pub fn serve_due(&mut self, now: Time) -> Vec<(ReplicaId, Grant)> {
        let mut grants = Vec::new();
        while let Some((at, limit, key)) = self.schedule.first().cloned() {
            if at > now {
                break;
            }
            self.schedule.pop_first();
            let Some(owned) = self.limits.get_mut(&limit) else {
                continue;
            };
            let Some(bucket) = owned.buckets.find(&key) else {
                continue;
            };
            bucket.scheduled = None;
            bucket.settle(&owned.terms.rate, now);
            grants.extend(bucket.serve(&owned.terms, owned.strangers_until, now, &key, &limit));
            if bucket.claims.iter().any(|claim| claim.want > 0) {
                let next = bucket
                    .next_free(&owned.terms.rate, now)
                    .max(now + SERVE_EVERY);
                bucket.scheduled = Some(next);
                self.schedule.insert((next, limit, key));
            }
        }
        grants
    }

    /// When [`serve_due`](Self::serve_due) has something to do; `None`: nobody waits.
    pub fn next_due(&self) -> Option<Time> {
        self.schedule.first().map(|(at, ..)| *at)
    }

    /// A replica's stream is gone; its leases count until they are surely void.
    pub fn disconnected(&mut self, replica: &ReplicaId) {
        for owned in self.limits.values_mut() {
            for (_, bucket) in owned.buckets.iter_mut() {
                for claim in &mut bucket.claims {
                    if claim.replica == *replica {
                        claim.want = 0;
                        claim.weight = 0;
                    }
                }
            }
        }
    }

    fn reschedule(
        schedule: &mut BTreeSet<(Time, Arc<str>, Arc<str>)>,
        bucket: &mut Bucket,
        terms: &QuotaTerms,
        now: Time,
        demand: &Demand,
    ) {
        let entry = |at| (at, demand.limit.clone(), demand.key.clone());
        if let Some(at) = bucket.scheduled.take() {
            schedule.remove(&entry(at));
        }
        if bucket.claims.iter().any(|claim| claim.want > 0) {
            let next = bucket.next_free(&terms.rate, now).max(now + SERVE_EVERY);
            bucket.scheduled = Some(next);
            schedule.insert(entry(next));
        }
    }
}

impl Bucket {
    /// Takes in a replica's message.
    fn hear(&mut self, rate: &Rate, now: Time, replica: &ReplicaId, demand: &Demand) {
        self.settle(rate, now);
        let plain = without_burst(rate);
        let index = match self
            .claims
            .iter()
            .position(|claim| claim.replica == *replica)
        {
            Some(index) => index,
            None => {
                self.claims.push(Claim {
                    replica: replica.clone(),
                    used: Window::default(),
                    leased: VecDeque::new(),
                    forgotten: 0,
                    want: 0,
                    weight: 0,
                    introduced: false,
                });
                self.claims.len() - 1
            }
        };
        let claim = &mut self.claims[index];
        if demand.whole {
            // Leases of a former stream were forgotten by the replica, except for those it used and tells now.
            claim.used = Window::default();
            claim.leased.clear();
            claim.forgotten = 0;
            claim.introduced = true;
        }
        for used in &demand.used {
            let at = now.before(used.age.min(rate.per));
            claim.used.charge(&plain, now, at, used.count);
            claim.repay(used.count);
        }
        claim.repay(demand.returned);
        claim.want = demand.want;
        claim.weight = claim.weight / 2 + demand.seen;
        if rate.burst > 0 {
            let back = cost(rate, demand.returned);
            self.debt_until = self.debt_until.saturating_sub(back);
        }
    }

    /// Leases that are void count as used at that moment, and then leave the window; claims without any trace go.
    fn settle(&mut self, rate: &Rate, now: Time) {
        let plain = without_burst(rate);
        for claim in &mut self.claims {
            let gone = |(void, _): &mut (Time, u64)| *void + rate.per <= now;
            while let Some((_, tokens)) = claim.leased.pop_front_if(gone) {
                claim.forgotten += tokens;
            }
            claim.used.expire(&plain, now);
        }
        self.claims.retain(|claim| {
            claim.introduced || claim.want > 0 || claim.used.held() > 0 || !claim.leased.is_empty()
        });
    }

    /// Leases what is free to those who want, by their share of the traffic.
    fn serve(
        &mut self,
        terms: &QuotaTerms,
        strangers_until: Time,
        now: Time,
        key: &Arc<str>,
        limit: &Arc<str>,
    ) -> Vec<(ReplicaId, Grant)> {
        let rate = &terms.rate;
        let mut free = self.free(rate, now);
        let known = self.claims.iter().filter(|claim| claim.introduced).count() as u64;
        let strangers = now < strangers_until && known < u64::from(terms.replicas);
        let share = rate.capacity() / u64::from(terms.replicas.max(1));
        let mut wants: Vec<u64> = self
            .claims
            .iter()
            .map(|claim| match strangers {
                true => claim.want.min(share.saturating_sub(claim.counted())),
                false => claim.want,
            })
            .collect();
        let mut given = vec![0; wants.len()];
        while free > 0 && wants.iter().any(|want| *want > 0) {
            let weights: u64 = self.claims.iter().zip(&wants).map(weight).sum();
            let pot = free;
            for (index, claim) in self.claims.iter().enumerate() {
                let part = pot * weight((claim, &wants[index])) / weights.max(1);
                // Everybody's part may round to nothing: then the first in line gets one.
                let part = part
                    .max(u64::from(pot < weights))
                    .min(wants[index])
                    .min(free);
                given[index] += part;
                wants[index] -= part;
                free -= part;
            }
        }
        // Who is first in line changes, so that single tokens go around.
        let valid = (rate.per / 4).clamp(Duration::from_millis(100), Duration::from_secs(2));
        let mut grants = Vec::new();
        for (claim, tokens) in self.claims.iter_mut().zip(given) {
            if tokens > 0 {
                claim.want -= tokens;
                claim.leased.push_back((now + valid + DELIVERY_MAX, tokens));
                grants.push((
                    claim.replica.clone(),
                    Grant {
                        limit: limit.clone(),
                        key: key.clone(),
                        tokens,
                        valid,
                        retry_after: Duration::ZERO,
                    },
                ));
                if rate.burst > 0 {
                    self.debt_until = self.debt_until.max(now.as_nanos()) + cost(rate, tokens);
                }
            }
        }
        if self.claims.len() > 1 && !grants.is_empty() {
            self.claims.rotate_left(1);
        }
        grants
    }

    fn free(&self, rate: &Rate, now: Time) -> u64 {
        let counted: u64 = self.claims.iter().map(Claim::counted).sum();
        let in_window = rate.capacity().saturating_sub(counted);
        if rate.burst == 0 {
            return in_window;
        }
        let debt = self.debt_until.saturating_sub(now.as_nanos());
        let credit = cost(rate, rate.capacity()).saturating_sub(debt);
        in_window.min(credit / cost(rate, 1))
    }

    /// When the next token may come back: the oldest use leaves the window, and the burst's debt allows one more.
    /// Leases that nobody reported yet were probably used.
    fn next_free(&self, rate: &Rate, now: Time) -> Time {
        let plain = without_burst(rate);
        let used = |claim: &Claim| claim.used.uses(&plain).next().map(|(at, _)| at);
        let leased = |claim: &Claim| claim.leased.front().map(|(void, _)| *void);
        let mut next = self
            .claims
            .iter()
            .flat_map(|claim| [used(claim), leased(claim)])
            .flatten()
            .map(|at| at + rate.per)
            .fold(now + rate.per, Time::min);
        if rate.burst > 0 {
            let allowed = cost(rate, rate.capacity()).saturating_sub(cost(rate, 1));
            next = next.max(Time::from_nanos(self.debt_until.saturating_sub(allowed)));
        }
        next.max(now)
    }
}

impl Claim {
    /// Tokens that count: used within the window, or still usable.
    fn counted(&self) -> u64 {
        self.used.held() + self.leased.iter().map(|(_, tokens)| tokens).sum::<u64>()
    }

    /// Tokens are no longer usable. The oldest leases first: that is how replicas spend them.
    fn repay(&mut self, mut tokens: u64) {
        let late = tokens.min(self.forgotten);
        self.forgotten -= late;
        tokens -= late;
        while tokens > 0
            && let Some((_, lease)) = self.leased.front_mut()
        {
            let part = tokens.min(*lease);
            *lease -= part;
            tokens -= part;
            if *lease == 0 {
                self.leased.pop_front();
            }
        }
    }
}

/// A claim's part when tokens are short; one that wants nothing has none.
fn weight((claim, want): (&Claim, &u64)) -> u64 {
    if *want == 0 { 0 } else { claim.weight.max(1) }
}

fn without_burst(rate: &Rate) -> Rate {
    Rate { burst: 0, ..*rate }
}

/// Time in which `count` tokens come back, in ns.
fn cost(rate: &Rate, count: u64) -> u64 {
    let product = u128::from(nanos(rate.per)) * u128::from(count);
    u64::try_from(product.div_ceil(u128::from(rate.requests))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn terms(per: Duration) -> QuotaTerms {
        QuotaTerms {
            rate: Rate::new(1, per, 0),
            replicas: 1,
        }
    }

    fn demand(limit: &str, key: &str, want: u64) -> Demand {
        Demand {
            limit: limit.into(),
            key: key.into(),
            seen: want,
            want,
            returned: 0,
            used: vec![],
            whole: false,
        }
    }

    /// Somebody wants more than there is.
    fn want(owner: &mut QuotaOwner, limit: &str, key: &str) {
        owner.demand(Time::ZERO, &"replica".into(), &demand(limit, key, 2));
    }

    /// A limit of 10 in 8 seconds, and what replicas say to it: who, after how long, how many they want, how many they
    /// give back, and how many tokens are leased then.
    fn check(story: &[(&str, u64, u64, u64, u64)]) {
        let mut owner = QuotaOwner::new(Time::ZERO);
        let start = START * 2;
        let terms = QuotaTerms {
            rate: Rate::new(10, Duration::from_secs(8), 0),
            replicas: 2,
        };
        owner.set_limit("limit", terms, Time::since_origin(start));
        for &(who, after_s, want, returned, expected) in story {
            let now = Time::since_origin(start + Duration::from_secs(after_s));
            let mut demand = demand("limit", "", want);
            demand.returned = returned;
            let grants = owner.demand(now, &who.into(), &demand);
            let tokens: u64 = grants.iter().map(|(_, grant)| grant.tokens).sum();
            assert_eq!(tokens, expected, "{who} after {after_s} s");
        }
    }

    #[test]
    fn what_comes_back_late_is_free_again_once() {
        // Void at the replica after 2 s and for the owner after 3.
        check(&[("a", 0, 10, 0, 10), ("a", 2, 0, 9, 0), ("b", 2, 10, 0, 9)]);
        check(&[("a", 0, 10, 0, 10), ("a", 5, 0, 9, 0), ("b", 5, 10, 0, 9)]);
        // After 11 s it has left the window: what a returns then must not free what it just got.
        check(&[
            ("a", 0, 15, 0, 10),
            ("b", 10, 0, 0, 0),
            ("b", 11, 0, 0, 5),
            ("a", 12, 0, 10, 0),
            ("b", 12, 10, 0, 5),
        ]);
    }

    #[test]
    fn nobody_is_scheduled_whose_bucket_is_gone() {
        let mut owner = QuotaOwner::new(Time::ZERO);
        owner.set_limit("many", terms(HOUR), Time::ZERO);
        owner.set_limit("other", terms(HOUR), Time::ZERO);
        want(&mut owner, "other", "");
        for client in 0..BUCKETS_MAX + 1000 {
            want(&mut owner, "many", &client.to_string());
        }
        assert_eq!(owner.schedule.len(), BUCKETS_MAX + 1);
        owner.set_limit("many", terms(HOUR * 2), Time::ZERO);
        assert_eq!(owner.schedule.len(), 1, "a new window starts empty");
        owner.remove_limit("other");
        assert_eq!(owner.next_due(), None);
    }
}
