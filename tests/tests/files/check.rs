//! What `--check` says, and what ends a start.

use std::process::Command;

use meshgate_tests::files::{Site, route, service};
use meshgate_tests::{run, text};

/// `files` in, what `--check` says out.
#[track_caller]
fn check(files: &[(&str, &str)], success: bool, expected: &str) {
    let site = Site::default();
    for (name, content) in files {
        site.write(name, content);
    }
    assert_eq!(site.checked(), (success, expected.to_owned()));
}

#[test]
fn check_says_everything_and_fails_for_errors_only() {
    let shop = service("web", "127.0.0.1:1".parse().expect("an address"));
    let web = route("web", "web.test", "web");
    check(
        &[("a.yaml", &shop), ("b.yml", &web), ("notes.txt", "{")],
        true,
        "2 files: 1 EndpointSlice, 1 Ingress, 1 Service\n",
    );
    check(
        &[
            ("a.yaml", &web),
            (
                "b.yaml",
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n",
            ),
        ],
        true,
        "2 files: 1 Ingress; left aside: 1 Deployment; 1 warning\n\
         warning: a.yaml:3: document 1: Ingress default/web: ServiceNotFound: service default/web does not exist\n",
    );
    check(
        &[
            (
                "a.yaml",
                &(shop.clone() + &web.replace("path: /,", "path: x,")),
            ),
            ("b.yaml", "kind: ["),
            (
                "c.json",
                "{\"kind\": \"Secret\", \"apiVersion\": \"v1\", \"metadata\": {\"name\": \"s\"}, \"dta\": {}}",
            ),
        ],
        false,
        "error: a.yaml:16: document 3: Ingress default/web: spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path\n\
         error: b.yaml:1: document 1: did not find expected node content at line 2 column 1, while parsing a flow node\n\
         error: c.json:1: document 1: Secret default/s: unknown field \"dta\"\n\
         meshgate: 3 errors\n",
    );
    check(&[], true, "0 files: nothing\n");
}

#[test]
fn listeners_are_checked_too() {
    let site = Site::default();
    let mut command = Command::new(meshgate_tests::meshgate());
    command
        .args(["ingress", "--check", "--from"])
        .arg(site.folder())
        .args(["--http", "127.0.0.1:81", "--https", "127.0.0.1:81"]);
    let output = run(&mut command);
    assert!(!output.status.success());
    assert_eq!(
        text(&output),
        "meshgate: --http 127.0.0.1:81 and --https 127.0.0.1:81 are the same place: each listener needs one of its own\n"
    );
}

#[test]
fn errors_at_the_start_end_it() {
    let site = Site::default();
    site.write("a.yaml", "kind: [");
    let mut command = Command::new(meshgate_tests::meshgate());
    command
        .args(["ingress", "--http", "127.0.0.1:0", "--from"])
        .arg(site.folder());
    let output = run(&mut command);
    assert!(!output.status.success());
    let said = text(&output);
    assert!(
        said.contains("a.yaml:1: document 1: did not find"),
        "{said}"
    );
    assert!(
        said.ends_with("meshgate: the configuration has 1 error\n"),
        "{said}"
    );
}
