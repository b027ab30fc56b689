//! Each example's README is run exactly as written: its `sh` blocks in order, in one shell, and what the `text` block
//! after one shows is what it prints, where `...` stands for anything.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use meshgate_tests::{Cluster, meshgate, repository, run, text};

/// Printed after each block, to tell their outputs apart.
const MARK: &str = "--- end of a block ---";

struct Block {
    commands: String,
    shows: Option<String>,
}

/// The fenced blocks of a README; a `text` block belongs to the `sh` block before it.
fn blocks(readme: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = readme.lines();
    while let Some(fence) = lines.find(|line| line.starts_with("```")) {
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let body = body.join("\n");
        match (fence, blocks.last_mut()) {
            ("```sh", _) => blocks.push(Block {
                commands: body,
                shows: None,
            }),
            ("```text", Some(block)) => block.shows = Some(body),
            _ => panic!("{fence} is neither sh nor the text of one"),
        }
    }
    blocks
}

/// Whether `printed` is what `shows` says.
fn agrees(printed: &str, shows: &str) -> bool {
    let parts: Vec<&str> = shows.trim().split("...").collect();
    let (first, rest) = parts.split_first().expect("split gives at least one part");
    let Some(mut left) = printed.trim().strip_prefix(first) else {
        return false;
    };
    let Some((last, between)) = rest.split_last() else {
        return left.is_empty();
    };
    for part in between {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

fn follow(example: &str, cluster: &Cluster) {
    let folder = repository().join("examples").join(example);
    let readme = fs::read_to_string(folder.join("README.md")).expect("a README");
    let blocks = blocks(&readme);
    let mut script = "set -euo pipefail\n".to_owned();
    for block in &blocks {
        script += &format!("{}\necho '{MARK}'\n", block.commands);
    }
    let output = run(Command::new("bash")
        .args(["-c", &script])
        .current_dir(&folder)
        .env("PATH", path_with_meshgate(cluster))
        .env("KUBECONFIG", cluster.data_dir().join("kubeconfig"))
        .env("HTTP", cluster.http())
        .env("HTTPS", cluster.https())
        .env("TMPDIR", cluster.scratch()));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    for (block, printed) in blocks.iter().zip(printed.split(&format!("{MARK}\n"))) {
        if let Some(shows) = &block.shows {
            assert!(
                agrees(printed, shows),
                "{example}: this\n{}\nshould show\n{shows}\nbut printed\n{printed}\n{}",
                block.commands,
                cluster.logs()
            );
        }
    }
    assert!(output.status.success(), "{example}: {}", text(&output));
}

/// `meshgate` in the READMEs means the cluster of this test.
fn path_with_meshgate(cluster: &Cluster) -> String {
    let folder = cluster.scratch().join("bin");
    fs::create_dir_all(&folder).expect("a folder");
    let script = format!(
        "#!/bin/sh\nexec '{}' \"$@\" --name '{}' --data-dir '{}'\n",
        meshgate().display(),
        cluster.name(),
        cluster.data_dir().display()
    );
    let file = folder.join("meshgate");
    fs::write(&file, script).expect("a script");
    fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("its mode");
    let path = std::env::var("PATH").expect("PATH is set");
    format!("{}:{path}", folder.display())
}

#[test]
fn shop() {
    follow("shop", &Cluster::start(&["--demo"]));
}

#[test]
fn edge_only() {
    follow("edge-only", &Cluster::start(&[]));
}

#[test]
fn cert_rotation() {
    // Workload certificates renew several times on the way.
    follow("cert-rotation", &Cluster::start(&["--cert-ttl", "30s"]));
}

#[test]
fn what_a_block_shows() {
    let check = |printed, shows, expected| {
        assert_eq!(agrees(printed, shows), expected, "{printed:?} {shows:?}")
    };
    check("a\nb\n", "a\nb", true);
    check("a\nb\n", "a", false);
    check("a 1\nb 2\n", "a ...\nb ...", true);
    check("x\nb", "...\nb", true);
    check("b", "a...", false);
    check("ab", "...a", false);
}
