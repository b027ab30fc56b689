//! Every input that was kept, through the claim it was kept for.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use meshgate_claims::CLAIMS;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{} cannot be read: {error}", folder.display()));
    entries
        .map(|entry| {
            let name = entry.expect("an entry of a folder").file_name();
            name.into_string().expect("names here are text")
        })
        .collect()
}

#[test]
fn what_was_found_stays_found() {
    let mut broken = Vec::new();
    for (name, claim) in CLAIMS {
        let folder = corpus().join(name);
        let inputs = names(&folder);
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for input in inputs {
            let bytes = std::fs::read(folder.join(&input)).expect("a file of the corpus");
            if catch_unwind(|| claim(&bytes)).is_err() {
                broken.push(format!("{name}: {input}: {}", bytes.escape_ascii()));
            }
        }
    }
    assert!(broken.is_empty(), "claims that do not hold: {broken:#?}");
}

#[test]
fn each_claim_has_a_target_and_a_corpus() {
    let claims: BTreeSet<String> = CLAIMS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&corpus()), claims);
    let targets = names(&corpus().join("../targets"));
    let files: BTreeSet<String> = claims.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(targets, files);
}
