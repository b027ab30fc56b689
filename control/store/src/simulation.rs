//! Seeded simulation: random writers over a medium that fails at random, checked against a model after each step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::journal::{Change, Journal, JournalError, Loaded};
use crate::{Expect, Health, Revision, Store, WatchError, Write, WriteError};

const RECOVERY_INTERVAL: Duration = Duration::from_millis(1);
const STEPS: usize = 400;
/// Failures in a hundred of a medium that does not come back.
const DEAD: u32 = 100;

/// What is on the simulated medium, and how it behaves.
#[derive(Debug)]
struct Medium {
    revision: Revision,
    entries: BTreeMap<Arc<str>, (Revision, Vec<u8>)>,
    rng: StdRng,
    /// Failures in a hundred commits.
    failures: u32,
    broken: bool,
}

#[derive(Debug, Clone)]
struct FaultyJournal(Arc<Mutex<Medium>>);

impl Medium {
    fn put(&mut self, revision: Revision, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(entry) => {
                    self.entries.insert(
                        Arc::clone(&entry.key),
                        (entry.modified, entry.value.to_vec()),
                    );
                }
                Change::Delete(key) => {
                    self.entries.remove(key);
                }
            }
        }
        self.revision = revision;
    }
}

impl Journal for FaultyJournal {
    fn commit(&mut self, revision: Revision, changes: &[Change]) -> Result<(), JournalError> {
        let mut medium = self
            .0
            .lock()
            .expect("no test panics while it holds the medium");
        assert!(
            !medium.broken,
            "a broken medium was written without recovery"
        );
        assert!(
            revision > medium.revision,
            "the revision fell on the medium"
        );
        let failures = medium.failures;
        if medium.rng.random_ratio(failures, 100) {
            medium.broken = true;
            // The nastiest failure: the batch is on the medium although its commit failed.
            if failures < DEAD && medium.rng.random_bool(0.5) {
                medium.put(revision, changes);
            }
            return Err(JournalError("simulated".into()));
        }
        medium.put(revision, changes);
        Ok(())
    }

    fn recover(&mut self) -> Result<Revision, JournalError> {
        let mut medium = self
            .0
            .lock()
            .expect("no test panics while it holds the medium");
        if medium.failures == DEAD || medium.rng.random_bool(0.3) {
            return Err(JournalError("still broken".into()));
        }
        medium.broken = false;
        Ok(medium.revision)
    }
}

fn store(seed: u64, failures: u32) -> (Store, FaultyJournal) {
    let medium = Medium {
        revision: 0,
        entries: BTreeMap::new(),
        rng: StdRng::seed_from_u64(seed ^ 0x5eed),
        failures,
        broken: false,
    };
    let journal = FaultyJournal(Arc::new(Mutex::new(medium)));
    let store = Store::with_journal(journal.clone(), Loaded::default(), RECOVERY_INTERVAL);
    (store.expect("a thread can be started"), journal)
}

async fn writable(store: &Store) {
    while store.health() != Health::Writable {
        tokio::task::yield_now().await;
    }
}

/// What readers may see of a key whose last write failed with an unknown outcome.
#[derive(Debug, Clone, PartialEq)]
enum Known {
    Exactly(Option<Vec<u8>>),
    EitherOr(Option<Vec<u8>>, Option<Vec<u8>>),
}

async fn simulate(seed: u64, failures: u32) {
    let (store, journal) = store(seed, failures);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut model: BTreeMap<String, Known> = BTreeMap::new();
    let mut watch = store
        .watch("/registry/core/pods/", 0)
        .expect("nothing is compacted yet");
    let mut replica: BTreeMap<Arc<str>, Vec<u8>> = BTreeMap::new();
    let mut seen = 0;
    let mut acknowledged = 0;
    for step in 0..STEPS {
        let context = || format!("seed {seed}, step {step}");
        let key = format!("/registry/core/pods/default/p{}", rng.random_range(0..8));
        let current = store.find(&key);
        check_model(
            &model,
            &key,
            current.as_ref().map(|entry| entry.value.to_vec()),
            &context(),
        );
        let stale = rng.random_bool(0.2);
        let expect = match &current {
            Some(entry) if !stale => Expect::Unchanged(entry.modified),
            Some(entry) => Expect::Unchanged(entry.modified + 1),
            None if !stale => Expect::Absent,
            None => Expect::Unchanged(1),
        };
        let value = (!rng.random_bool(0.25)).then(|| rng.random::<[u8; 4]>().to_vec());
        let before = current.as_ref().map(|entry| entry.value.to_vec());
        let write = Write {
            key: key.as_str().into(),
            expect,
            value: value.clone().map(Into::into),
        };
        match store.write(write).await {
            Ok(revision) => {
                assert!(!stale, "a stale write was taken: {}", context());
                assert!(revision > acknowledged, "the revision fell: {}", context());
                acknowledged = revision;
                model.insert(key, Known::Exactly(value));
            }
            Err(WriteError::Conflict { current: found }) => {
                assert!(
                    stale || (before.is_none() && value.is_none()),
                    "a fresh write was refused: {}",
                    context()
                );
                assert_eq!(
                    found.map(|entry| entry.value.to_vec()),
                    before,
                    "{}",
                    context()
                );
            }
            Err(WriteError::Unknown(_)) => {
                model.insert(key, Known::EitherOr(before, value));
                writable(&store).await;
            }
            Err(WriteError::Unavailable(_)) => writable(&store).await,
            Err(WriteError::Closed) => panic!("the store closed by itself: {}", context()),
        }
        for event in watch.ready().expect("this watch is never far behind") {
            assert!(event.revision > seen, "events out of order: {}", context());
            seen = event.revision;
            match &event.current {
                Some(entry) => replica.insert(Arc::clone(&entry.key), entry.value.to_vec()),
                None => replica.remove(event.key()),
            };
        }
        let live = store.range("/registry/").entries;
        let live: BTreeMap<_, _> = live
            .iter()
            .map(|entry| (Arc::clone(&entry.key), entry.value.to_vec()))
            .collect();
        assert_eq!(
            replica,
            live,
            "a watcher's copy differs from the store: {}",
            context()
        );
    }
    let medium = journal
        .0
        .lock()
        .expect("no test panics while it holds the medium");
    let durable: BTreeMap<_, _> = medium
        .entries
        .iter()
        .map(|(key, (_, value))| (Arc::clone(key), value.clone()))
        .collect();
    assert_eq!(durable, replica, "memory and medium differ: seed {seed}");
}

fn check_model(model: &BTreeMap<String, Known>, key: &str, found: Option<Vec<u8>>, context: &str) {
    match model.get(key) {
        None => assert_eq!(found, None, "{context}"),
        Some(Known::Exactly(value)) => {
            assert_eq!(&found, value, "an acknowledged write is lost: {context}")
        }
        Some(Known::EitherOr(one, other)) => {
            assert!(
                found == *one || found == *other,
                "{found:?} was never written: {context}"
            );
        }
    }
}

#[tokio::test]
async fn a_sound_medium() {
    for seed in 0..5 {
        simulate(seed, 0).await;
    }
}

#[tokio::test]
async fn a_medium_that_fails() {
    for seed in 0..20 {
        simulate(seed, 10).await;
    }
}

#[tokio::test]
async fn a_failing_medium_stops_acknowledging_but_not_reading() {
    let (store, journal) = store(1, 0);
    let write = |value: &str| Write {
        key: "/registry/core/pods/a/b".into(),
        expect: Expect::Absent,
        value: Some(value.to_owned().into()),
    };
    store
        .write(write("first"))
        .await
        .expect("the medium is sound");
    journal.0.lock().expect("nobody panicked").failures = DEAD;
    let other = Write {
        key: "/registry/core/pods/a/c".into(),
        ..write("lost")
    };
    let refused = store.write(other).await;
    assert!(
        matches!(refused, Err(WriteError::Unknown(_))),
        "{refused:?}"
    );
    assert_eq!(
        store
            .find("/registry/core/pods/a/b")
            .map(|entry| entry.value.clone()),
        Some("first".into())
    );
    journal.0.lock().expect("nobody panicked").failures = 0;
    writable(&store).await;
    let third = Write {
        key: "/registry/core/pods/a/d".into(),
        ..write("third")
    };
    store
        .write(third)
        .await
        .expect("it recovers without a hand");
}

#[tokio::test]
async fn a_slow_watcher_is_told_and_does_not_hold_up_writers() {
    let (store, _journal) = store(1, 0);
    let mut slow = store
        .watch("/registry/core/pods/", 0)
        .expect("nothing is compacted yet");
    let mut other = store
        .watch("/registry/core/secrets/", 0)
        .expect("nothing is compacted yet");
    for number in 0..3000_u32 {
        let write = Write {
            key: format!("/registry/core/pods/a/{number}").into(),
            expect: Expect::Absent,
            value: Some("x".into()),
        };
        store.write(write).await.expect("the medium is sound");
    }
    let behind = slow.ready();
    assert!(
        matches!(behind, Err(WatchError::Compacted { from: 0, floor }) if floor > 0),
        "{behind:?}"
    );
    assert!(
        other
            .ready()
            .expect("another resource's past is its own")
            .is_empty()
    );
    assert_eq!(other.position(), 3000);
}
