//! The layout, checked: which crate may know which, and that no file is stray.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Every arrow there is: a crate and those of ours that it may use. Arrows point down only.
const ARROWS: &[(&str, &[&str])] = &[
    ("meshgate-api", &[]),
    ("meshgate-certs", &[]),
    ("meshgate-codec", &[]),
    ("meshgate-echo", &[]),
    ("meshgate-netfilter", &[]),
    ("meshgate-routing", &[]),
    ("meshgate-schema", &[]),
    ("meshgate-store", &[]),
    ("meshgate-proxy", &["api", "certs", "codec", "routing"]),
    ("meshgate-ingress", &["api", "certs", "proxy", "routing"]),
    (
        "meshgate-sidecar",
        &["api", "certs", "netfilter", "proxy", "routing"],
    ),
    ("meshgate-scheduler", &["api", "certs"]),
    ("meshgate-controllers", &["api", "certs"]),
    ("meshgate-agent", &["api", "certs", "netfilter"]),
    ("meshgate-push", &["api", "certs", "routing"]),
    ("meshgate-apiserver", &["api", "certs", "schema", "store"]),
];

/// What stands on top and sees everything: the binary, the benches and the tests.
const ON_TOP: &[&str] = &[
    "meshgate",
    "meshgate-benches",
    "meshgate-claims",
    "meshgate-foreign",
    "meshgate-tests",
];

/// Crates that decide only: none of these may be below them.
const PURE: &[&str] = &["meshgate-codec", "meshgate-routing", "meshgate-schema"];
const IMPURE: &[&str] = &["tokio", "hyper", "kube", "rand", "nix", "socket2"];

/// Libraries that speak HTTP in the engine's place.
const LIBRARIES: &[&str] = &["hyper", "hyper-util", "h2", "httparse"];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    metadata
        .packages
        .iter()
        .map(|package| {
            let uses = package
                .dependencies
                .iter()
                .filter(|d| d.kind != DependencyKind::Development);
            (
                package.name.to_string(),
                uses.map(|d| d.name.clone()).collect(),
            )
        })
        .collect()
}

#[test]
fn arrows_point_down_only() {
    let mut wrong = Vec::new();
    for (package, uses) in dependencies() {
        let ours: Vec<&str> = uses
            .iter()
            .filter_map(|name| name.strip_prefix("meshgate-"))
            .collect();
        match ARROWS.iter().find(|(name, _)| *name == package) {
            Some((_, allowed)) => wrong.extend(
                ours.iter()
                    .filter(|name| !allowed.contains(name))
                    .map(|name| format!("{package} -> meshgate-{name}")),
            ),
            None => assert!(
                ON_TOP.contains(&package.as_str()),
                "crate {package} has no line in ARROWS: say what it may use"
            ),
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that the design forbids: {wrong:?}"
    );
}

#[test]
fn pure_crates_stay_pure() {
    let all = dependencies();
    for package in PURE {
        let found: Vec<&&str> = IMPURE
            .iter()
            .filter(|name| all[*package].contains(**name))
            .collect();
        assert!(
            found.is_empty(),
            "{package} only decides; it must not use {found:?}"
        );
    }
}

#[test]
fn nothing_on_the_data_path_names_hyper() {
    let all = dependencies();
    for package in [
        "meshgate-ingress",
        "meshgate-sidecar",
        "meshgate-routing",
        "meshgate-codec",
        "meshgate-certs",
    ] {
        let found: Vec<&&str> = LIBRARIES
            .iter()
            .filter(|name| all[package].contains(**name))
            .collect();
        assert!(found.is_empty(), "{package} must not use {found:?}");
    }
    // The engine's clients of the control plane and of a collector of spans are like any other.
    let source = |file: &&str| {
        file.starts_with("proxy/src/")
            && file.ends_with(".rs")
            && !file.starts_with("proxy/src/push")
            && *file != "proxy/src/trace/collector.rs"
    };
    for file in files().lines().filter(source) {
        let path = meshgate_tests::repository().join(file);
        let text = std::fs::read_to_string(path).expect("a source file");
        let named = LIBRARIES
            .iter()
            .find(|name| text.contains(&format!("{}::", name.replace('-', "_"))));
        assert_eq!(named, None, "{file} speaks HTTP by a library");
    }
}

/// Which files there are, one a line.
fn files() -> String {
    let listed = std::process::Command::new("git")
        .args(["ls-files"])
        .current_dir(meshgate_tests::repository())
        .output()
        .expect("git ls-files");
    String::from_utf8(listed.stdout).expect("file names are text")
}

#[test]
fn every_file_is_part_of_something() {
    let files = files();
    let known: BTreeSet<&str> = files.lines().collect();
    let mut stray = Vec::new();
    for file in known
        .iter()
        .filter(|f| f.ends_with(".rs") && f.contains("/src/"))
    {
        let path = meshgate_tests::repository().join(file);
        let size = std::fs::metadata(&path).map(|m| m.len()).unwrap_or(0);
        if size > 100_000 {
            stray.push(format!(
                "{file}: {size} bytes: is there a noun in it that wants a room of its own?"
            ));
        }
        if !is_declared(file, &known) {
            stray.push(format!("{file}: no `mod` names it"));
        }
    }
    assert!(stray.is_empty(), "{stray:#?}");
}

/// Whether the module above declares this one.
fn is_declared(file: &str, known: &BTreeSet<&str>) -> bool {
    let (folder, name) = file.rsplit_once('/').expect("below src/");
    if ["lib.rs", "main.rs"].contains(&name) || folder.ends_with("/bin") {
        return true;
    }
    let (module, above) = if name == "mod.rs" {
        folder
            .rsplit_once('/')
            .map(|(above, module)| (module, above))
            .expect("a folder")
    } else {
        (name.trim_end_matches(".rs"), folder)
    };
    let parents = [
        format!("{above}/mod.rs"),
        format!("{above}/lib.rs"),
        format!("{above}/main.rs"),
        format!("{above}.rs"),
    ];
    parents
        .iter()
        .filter(|p| known.contains(p.as_str()))
        .any(|parent| {
            let text = std::fs::read_to_string(meshgate_tests::repository().join(parent))
                .unwrap_or_default();
            text.contains(&format!("mod {module};"))
        })
}
