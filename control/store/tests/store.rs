//! The store over a real file.

use std::collections::BTreeSet;
use std::sync::Arc;

use meshgate_store::{Expect, OpenError, Store, WatchError, Write, WriteError};

fn put(key: &str, expect: Expect, value: &str) -> Write {
    Write {
        key: key.into(),
        expect,
        value: Some(value.to_owned().into()),
    }
}

fn delete(key: &str, revision: u64) -> Write {
    Write {
        key: key.into(),
        expect: Expect::Unchanged(revision),
        value: None,
    }
}

const A: &str = "/registry/core/configmaps/default/a";
const B: &str = "/registry/core/configmaps/default/b";
const CONFIG_MAPS: &str = "/registry/core/configmaps/";

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(&dir.path().join("store.redb")).expect("the file is sound")
}

#[tokio::test]
async fn writes_survive_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(&dir);
    let first = store
        .write(put(A, Expect::Absent, "1"))
        .await
        .expect("written");
    let second = store
        .write(put(A, Expect::Unchanged(first), "2"))
        .await
        .expect("written");
    let third = store
        .write(put(B, Expect::Absent, "3"))
        .await
        .expect("written");
    store.write(delete(B, third)).await.expect("written");
    drop(store);
    let store = open(&dir);
    assert_eq!(
        store.revision(),
        4,
        "a deletion counts although nothing of it is stored"
    );
    let entry = store.find(A).expect("it was acknowledged");
    assert_eq!(
        (entry.value.as_ref(), entry.created, entry.modified),
        (b"2".as_ref(), first, second)
    );
    assert!(store.find(B).is_none());
    let past = store.watch(CONFIG_MAPS, second);
    assert!(
        matches!(past, Err(WatchError::Compacted { from: 2, floor: 4 })),
        "{past:?}"
    );
}

#[tokio::test]
async fn compare_and_swap() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(&dir);
    let refused = |outcome: Result<u64, WriteError>| match outcome {
        Err(WriteError::Conflict { current }) => current.map(|entry| entry.modified),
        other => panic!("{other:?} is no conflict"),
    };
    assert_eq!(
        refused(store.write(put(A, Expect::Unchanged(1), "x")).await),
        None
    );
    let first = store
        .write(put(A, Expect::Absent, "1"))
        .await
        .expect("written");
    assert_eq!(
        refused(store.write(put(A, Expect::Absent, "x")).await),
        Some(first)
    );
    assert_eq!(
        refused(store.write(put(A, Expect::Unchanged(first + 1), "x")).await),
        Some(first)
    );
    assert_eq!(refused(store.write(delete(B, 1)).await), None);
    assert_eq!(store.revision(), first, "refused writes count nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_writers_lose_no_update() {
    const WRITERS: u64 = 8;
    const ROUNDS: u64 = 25;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(&dir);
    store
        .write(put(A, Expect::Absent, "0"))
        .await
        .expect("written");
    let mut watch = store
        .watch(CONFIG_MAPS, store.revision())
        .expect("now is not compacted");
    let count = |value: &[u8]| -> u64 { String::from_utf8_lossy(value).parse().expect("a number") };
    let writers = (0..WRITERS).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                loop {
                    let entry = store.find(A).expect("it is never deleted");
                    let next = (count(&entry.value) + 1).to_string();
                    match store
                        .write(put(A, Expect::Unchanged(entry.modified), &next))
                        .await
                    {
                        Ok(_) => break,
                        Err(WriteError::Conflict { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer.expect("no writer panics");
    }
    let entry = store.find(A).expect("it is never deleted");
    assert_eq!(count(&entry.value), WRITERS * ROUNDS);
    let mut expected = 1;
    while expected <= WRITERS * ROUNDS {
        for event in watch.next().await.expect("the store is open") {
            let current = event.current.as_ref().expect("it is never deleted");
            assert_eq!(
                count(&current.value),
                expected,
                "each change once, in order"
            );
            expected += 1;
        }
    }
}

#[tokio::test]
async fn watches_see_both_sides_of_a_change() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(&dir);
    let start = store.revision();
    let first = store
        .write(put(A, Expect::Absent, "1"))
        .await
        .expect("written");
    let second = store
        .write(put(A, Expect::Unchanged(first), "2"))
        .await
        .expect("written");
    store
        .write(put("/registry/core/secrets/default/a", Expect::Absent, "s"))
        .await
        .expect("written");
    store.write(delete(A, second)).await.expect("written");
    let mut watch = store
        .watch(CONFIG_MAPS, start)
        .expect("it is all remembered");
    let side = |entry: &Option<Arc<meshgate_store::Entry>>| {
        entry
            .as_ref()
            .map(|entry| String::from_utf8_lossy(&entry.value).into_owned())
    };
    let events = watch.next().await.expect("the store is open");
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.revision, side(&event.previous), side(&event.current)))
        .collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        seen,
        [
            (1, None, text("1")),
            (2, text("1"), text("2")),
            (4, text("2"), None)
        ]
    );
    assert_eq!(watch.position(), 4);
    drop(store);
    assert_eq!(watch.next().await.err(), Some(WatchError::Closed));
}

#[tokio::test]
async fn the_past_is_readable_until_it_is_compacted() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(&dir);
    let first = store
        .write(put(A, Expect::Absent, "1"))
        .await
        .expect("written");
    let second = store
        .write(put(B, Expect::Absent, "1"))
        .await
        .expect("written");
    store
        .write(put(A, Expect::Unchanged(first), "2"))
        .await
        .expect("written");
    store.write(delete(B, second)).await.expect("written");
    let state = |revision| {
        store.range_at(CONFIG_MAPS, revision).map(|entries| {
            let shown = entries.iter().map(|entry| {
                format!(
                    "{}={}",
                    &entry.key[entry.key.len() - 1..],
                    String::from_utf8_lossy(&entry.value)
                )
            });
            shown.collect::<Vec<_>>().join(" ")
        })
    };
    let past: Vec<_> = (0..=4).map(state).collect();
    let expected = ["", "a=1", "a=1 b=1", "a=2 b=1", "a=2"].map(|state| Some(state.to_owned()));
    assert_eq!(past, expected);
    store.compact(3);
    assert_eq!([state(2), state(3)], [None, Some("a=2 b=1".to_owned())]);
    assert!(store.watch(CONFIG_MAPS, 2).is_err());
    assert!(store.watch(CONFIG_MAPS, 3).is_ok());
    assert!(
        store.watch("/registry/core/secrets/", 2).is_err(),
        "compaction is of the whole store"
    );
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(&dir);
    let again = Store::open(&dir.path().join("store.redb"));
    assert!(matches!(again, Err(OpenError::InUse { .. })), "{again:?}");
    drop(store);
    open(&dir);
}

#[tokio::test]
async fn a_damaged_file_is_named_with_its_remedy() {
    let check = |name: &str, damage: fn(&mut Vec<u8>)| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("store.redb");
        let runtime_free = std::fs::read(sound()).expect("the sound file is readable");
        let mut bytes = runtime_free;
        damage(&mut bytes);
        std::fs::write(&path, &bytes).expect("the temporary directory is writable");
        match Store::open(&path) {
            Err(error @ OpenError::Damaged { .. }) => {
                let text = error.to_string();
                assert!(
                    text.contains("store.redb") && text.contains("--fresh"),
                    "{name}: {text}"
                );
            }
            other => panic!("{name}: {other:?}"),
        }
    };
    check("no database at all", |bytes| {
        *bytes = b"something else entirely".repeat(1000)
    });
    check("cut short", |bytes| bytes.truncate(bytes.len() / 2));
    check("flipped bits in an object", |bytes| {
        let marker = b"a value that is easy to find";
        let found = bytes.windows(marker.len()).positions(marker);
        assert!(!found.is_empty(), "the object is in the file");
        for at in found {
            bytes[at] ^= 1;
        }
    });
}

trait Positions {
    fn positions(self, marker: &[u8]) -> BTreeSet<usize>;
}

impl<'a, I: Iterator<Item = &'a [u8]>> Positions for I {
    fn positions(self, marker: &[u8]) -> BTreeSet<usize> {
        self.enumerate()
            .filter(|(_, window)| *window == marker)
            .map(|(at, _)| at)
            .collect()
    }
}

/// Path of a closed, sound file with one object.
fn sound() -> std::path::PathBuf {
    static FILE: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let dir = FILE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = open(&dir);
        let value = "a value that is easy to find";
        let write = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime");
            runtime
                .block_on(store.write(put(A, Expect::Absent, value)))
                .expect("written");
        });
        write.join().expect("the write succeeds");
        dir
    });
    dir.path().join("store.redb")
}

#[tokio::test]
async fn who_loses_a_race_reads_what_won() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(&dir);
    let first = store
        .write(put(A, Expect::Absent, "0"))
        .await
        .expect("written");
    let racers = (1..=8).map(|n| {
        let store = store.clone();
        async move {
            let outcome = store
                .write(put(A, Expect::Unchanged(first), &n.to_string()))
                .await;
            (outcome.is_ok(), store.revision())
        }
    });
    let outcomes = futures::future::join_all(racers).await;
    assert_eq!(outcomes.iter().filter(|(won, _)| *won).count(), 1);
    assert!(
        outcomes.iter().all(|(_, revision)| *revision > first),
        "{outcomes:?}"
    );
}
