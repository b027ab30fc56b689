//! Another process takes over.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use meshgate_tests::files::{Edge, Site, application, route, secret, service, tls_route};
use meshgate_tests::load::{Answer, Load, Plan, Protocol, failures};
use meshgate_tests::{run, text, until};

#[test]
fn take_overs_fail_no_request() {
    let site = Site::default();
    let (_, secret) = secret(&site, "web.test");
    let service = service("one", application("one"));
    site.write(
        "web.yaml",
        &[service, tls_route("web.test", "one"), secret].join("\n---\n"),
    );
    let mut edge = site.serve();
    edge.answers("web.test", 200, "one");
    let (http, ready) = (edge.http, edge.ready);
    let load = |address: SocketAddr, path: &str, protocols: &[Protocol]| {
        let plan = Plan {
            address: address.to_string(),
            host: "web.test".to_owned(),
            path: path.to_owned(),
            rate: 200,
            connections: 8,
        };
        Load::of_both_lives(&plan, protocols)
    };
    let clear = load(http, "/", &[Protocol::Http1]);
    let secure = load(edge.https, "/", &[Protocol::Https1, Protocol::Https2]);
    let probes = load(ready, "/readyz", &[Protocol::Http1]);
    // More workers than sockets that are handed over, and fewer: none of the sockets may be left alone.
    for workers in ["3", "1", "2"] {
        let before = [clear.asked(), secure.asked()];
        let mut taking_over = site.taking_over();
        let given = taking_over.iter().position(|word| word == "--workers");
        taking_over[given.expect("it is said") + 1] = workers.into();
        let next = Edge::start(&taking_over);
        next.log.until("took over", 1);
        assert_eq!((next.http, next.ready), (http, ready));
        let mut former = std::mem::replace(&mut edge, next);
        former.has_ended();
        // Enough that all connections have asked the new process.
        until("more requests", || {
            let more = [clear.asked() - before[0], secure.asked() - before[1]];
            (more.into_iter().min() > Some(100)).then_some(())
        });
    }
    let answers = [clear.stop(), secure.stop(), probes.stop()].concat();
    assert_eq!(failures(&answers), Vec::<&Answer>::new());
    edge.end();
    assert!(
        !site.control().exists(),
        "the last one takes its socket with it"
    );
}

#[test]
fn a_process_replaces_itself_by_the_program_that_is_there_now() {
    let site = Site::default();
    let one = application("one");
    site.write(
        "web.yaml",
        &(service("one", one) + &route("web", "web.test", "one")),
    );
    let program = site.scratch().join("meshgate");
    let install = |from: &Path| {
        let beside = site.scratch().join("new");
        meshgate_tests::copy_program(from, &beside);
        std::fs::rename(beside, &program).expect("a program in its place");
    };
    install(&meshgate_tests::meshgate());
    let mut edge = Edge::of(&program, &site.arguments());
    edge.answers("web.test", 200, "one");

    // What cannot be run, what ends at once, files with an error: it goes on.
    let script = site.scratch().join("script");
    std::fs::write(&script, "#!/bin/sh\nexit 7\n").expect("a script");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&script, executable).expect("a script that runs");
    install(&script);
    let failed = "the take-over failed; this process goes on";
    edge.signal("USR2");
    edge.log.until(failed, 1);
    edge.log.until("the new process ended: exit status: 7", 1);
    install(&meshgate_tests::meshgate());
    site.write("broken.yaml", "kind: [");
    edge.log.until("configuration refused", 1);
    edge.signal("USR2");
    edge.log.until(failed, 2);
    edge.log.until("the configuration has 1 error", 1);
    edge.answers("web.test", 200, "one");
    std::fs::remove_file(site.folder().join("broken.yaml")).expect("a file");

    edge.signal("USR2");
    edge.log.until("took over; the former process drains", 1);
    edge.has_ended();
    edge.answers("web.test", 200, "one");
    // The new process is nobody's child here: another take-over makes it end.
    let next = Edge::start(&site.taking_over());
    next.log.until("took over", 1);
    next.answers("web.test", 200, "one");
    edge.log.until("another process serves now", 2);
    next.end();
}

#[test]
fn a_take_over_that_cannot_be_is_refused() {
    let site = Site::default();
    let taking_over = site.taking_over();
    let start = |arguments: &[OsString]| {
        let output = run(Command::new(meshgate_tests::meshgate()).args(arguments));
        assert!(!output.status.success());
        text(&output)
    };
    let said = start(&taking_over);
    assert!(said.contains("no running edge answers at "), "{said}");
    let edge = site.serve();
    let said = start(&site.arguments());
    assert!(said.contains("another edge is served with "), "{said}");
    // Who says nonsense, or nothing more, changes nothing.
    let mut stranger = UnixStream::connect(site.control()).expect("the control socket");
    stranger.write_all(b"hello\n").expect("it listens");
    let mut answer = String::new();
    stranger.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("error: \"hello\" was said"), "{answer}");
    let mut quitter = UnixStream::connect(site.control()).expect("the control socket");
    quitter.write_all(b"take-over 2\n").expect("it listens");
    drop(quitter);
    edge.log.until("this process goes on", 2);
    assert_eq!(edge.get("web.test", "/").0, 404);
    edge.end();
}
