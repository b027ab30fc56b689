//! Listeners of an edge: as many as the arguments name, and others with the next process.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use meshgate_tests::files::{
    Edge, Site, application, get_at, is_closed, secret, service, tls_route,
};
use meshgate_tests::{meshgate, run, text};

const HOST: &str = "web.test";

fn site() -> Site {
    let site = Site::default();
    let service = service("one", application("one"));
    let (_, secret) = secret(&site, HOST);
    site.write(
        "web.yaml",
        &[service, tls_route(HOST, "one"), secret].join("\n---\n"),
    );
    site
}

/// The arguments of a site's edges, and more.
fn with(arguments: Vec<OsString>, more: &str) -> Vec<OsString> {
    let more = more.split_whitespace().map(OsString::from);
    arguments.into_iter().chain(more).collect()
}

fn answers(scheme: &str, at: SocketAddr) {
    let said = get_at(scheme, at, HOST);
    assert_eq!(said, (200, "one".to_owned()), "{scheme}://{at}");
}

/// The one that listens at this address; port 0 got another.
fn at(edge: &Edge, listener: &str, ip: &str) -> SocketAddr {
    let addresses = edge.log.addresses(listener);
    let found = addresses.iter().find(|at| at.ip().to_string() == ip);
    *found.unwrap_or_else(|| panic!("{listener} at {ip}: {}", edge.log.text()))
}

/// A process with these arguments takes over; the former one has ended then.
fn take_over(site: &Site, former: &mut Edge, more: &str) {
    let next = Edge::start(&with(site.taking_over(), more));
    next.log.until("took over; the former process drains", 1);
    std::mem::replace(former, next).has_ended();
}

#[test]
fn they_come_and_go_with_the_arguments_of_the_next_process() {
    let site = site();
    let mut edge = Edge::start(&with(
        site.arguments(),
        "--http 127.0.9.1:0 --http 127.0.9.1:0 --https 127.0.9.2:0",
    ));
    let two: Vec<SocketAddr> = edge.log.addresses("http").split_off(1);
    let secure = at(&edge, "https", "127.0.9.2");
    assert_eq!(two.len(), 2, "each gets a port of its own");
    two.iter().for_each(|at| answers("http", *at));
    answers("https", secure);

    // The second by its name, any port for a third: that is not the second's.
    let second = format!("--http 127.0.9.1:0 --http {}", two[1]);
    take_over(&site, &mut edge, &second);
    let now = edge.log.addresses("http").split_off(1);
    assert_eq!(now, two, "the first is any port that is left");
    is_closed(secure);
    answers("http", now[0]);

    // What was HTTP may be HTTPS.
    let other = format!("--https {} --http 127.0.9.3:0", two[1]);
    take_over(&site, &mut edge, &other);
    answers("https", two[1]);
    answers("http", at(&edge, "http", "127.0.9.3"));
    is_closed(two[0]);

    take_over(&site, &mut edge, "");
    is_closed(two[1]);
    answers("http", edge.http);
    answers("https", edge.https);
    edge.end();
}

#[test]
fn one_that_cannot_be_opened_leaves_everything_as_it_was() {
    let site = site();
    let mut edge = site.serve_with(&["--http", "127.0.9.4:0"]);
    let extra = at(&edge, "http", "127.0.9.4");
    let taken = TcpListener::bind("127.0.9.5:0").expect("a free port");
    let busy = taken.local_addr().expect("an address");
    let more = format!("--http 127.0.9.6:0 --http {busy}");
    let output = run(Command::new(meshgate()).args(with(site.taking_over(), &more)));
    assert!(!output.status.success());
    let said = text(&output);
    assert!(
        said.contains(&format!(
            "the edge: cannot listen on {busy}: Address already in use"
        )),
        "{said}"
    );
    edge.log
        .until("the take-over failed; this process goes on", 1);
    for at in [edge.http, extra] {
        answers("http", at);
    }
    answers("https", edge.https);
    drop(taken);
    take_over(&site, &mut edge, &format!("--http {busy}"));
    answers("http", busy);
    is_closed(extra);
    edge.end();
}

/// More sockets than one message hands over: a listener has one for each worker.
#[test]
fn as_many_as_there_are_are_handed_over() {
    let site = site();
    let more = "--http 127.0.9.7:0 --https 127.0.9.8:0";
    let workers = |arguments: Vec<OsString>| {
        let mut arguments = with(arguments, more);
        let given = arguments.iter().position(|word| word == "--workers");
        arguments[given.expect("it is said") + 1] = "70".into();
        arguments
    };
    let mut edge = Edge::start(&workers(site.arguments()));
    let listening = |edge: &Edge| {
        let all = ["http", "https"].map(|name| (name, edge.log.addresses(name)));
        assert_eq!(edge.log.count("sockets=70"), 4, "{}", edge.log.text());
        all
    };
    let before = listening(&edge);
    let next = Edge::start(&workers(site.taking_over()));
    next.log.until("took over; the former process drains", 1);
    std::mem::replace(&mut edge, next).has_ended();
    let after = listening(&edge);
    assert_eq!(after, before);
    for (scheme, addresses) in after {
        addresses.iter().for_each(|at| answers(scheme, *at));
    }
    edge.end();
}
