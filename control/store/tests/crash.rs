//! kill -9 at any moment: what was acknowledged is there, and the revision never falls.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use meshgate_store::{Expect, Store, Write};

/// Set in the child: the file it writes to.
const CHILD: &str = "MESHGATE_STORE_CRASH_CHILD";
/// Kills in one run; `MESHGATE_STORE_KILLS` asks for more.
const KILLS: usize = 12;
const WRITERS: u64 = 4;

/// Not a test of its own: what the child runs. It writes until it is killed, and says what was acknowledged.
#[test]
fn writer_child() {
    let Ok(path) = std::env::var(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(path.as_ref()).expect("the file is sound after every kill");
        let writers = (0..WRITERS).map(|writer| write_on(store.clone(), writer));
        futures::future::join_all(writers).await;
    });
}

async fn write_on(store: Store, writer: u64) {
    let key = format!("/registry/core/configmaps/default/w{writer}");
    loop {
        let expect = store
            .find(&key)
            .map_or(Expect::Absent, |entry| Expect::Unchanged(entry.modified));
        let value = format!("{writer} {}", "x".repeat(500));
        let write = Write {
            key: key.as_str().into(),
            expect,
            value: Some(value.into()),
        };
        let revision = store
            .write(write)
            .await
            .expect("nobody else writes this key");
        // A line in one call: the parent must not read half of it.
        let line = format!("acknowledged {key} {revision}\n");
        std::io::stdout()
            .lock()
            .write_all(line.as_bytes())
            .expect("the parent reads");
        std::io::stdout().flush().expect("the parent reads");
    }
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("store.redb");
    let kills = std::env::var("MESHGATE_STORE_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(KILLS);
    let mut highest = 0;
    for round in 0..kills {
        let acknowledged = run_and_kill(&path, 20 + round * 7);
        let store = Store::open(&path).expect("the file is sound after a kill");
        assert!(
            store.revision() >= highest,
            "round {round}: the revision fell"
        );
        for (key, revision) in &acknowledged {
            let entry = store.find(key);
            let entry =
                entry.unwrap_or_else(|| panic!("round {round}: acknowledged {key} is gone"));
            assert!(
                entry.modified >= *revision,
                "round {round}: {key} fell from {revision} to {}",
                entry.modified
            );
        }
        highest = store.revision();
        assert!(
            acknowledged.values().all(|revision| *revision <= highest),
            "round {round}"
        );
    }
}

/// Runs a writer until it has acknowledged so many writes, kills it, and returns what it acknowledged last per key.
fn run_and_kill(path: &std::path::Path, writes: usize) -> HashMap<String, u64> {
    let mut child = Command::new(std::env::current_exe().expect("this test has a file"))
        .args(["--exact", "writer_child", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test can be started again");
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut acknowledged = HashMap::new();
    let mut count = 0;
    for line in output.lines() {
        let Ok(line) = line else { break };
        // The harness of the child prints before the first line is complete.
        let Some(at) = line.find("acknowledged ") else {
            continue;
        };
        let mut words = line[at..].split(' ').skip(1);
        if let (Some(key), Some(Ok(revision))) = (words.next(), words.next().map(str::parse)) {
            acknowledged.insert(key.to_owned(), revision);
            count += 1;
        }
        if count == writes {
            // Lines already in the pipe are acknowledged too: read on until it ends.
            child.kill().expect("the child is ours");
        }
    }
    child.wait().expect("the child is ours");
    assert!(count >= writes, "the child ended after {count} writes");
    acknowledged
}
