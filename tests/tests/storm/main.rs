//! Everything that changes while an edge serves, at once: files, certificates, listeners, the process itself. Under a steady
//! load no request fails, and each change is seen in an answer.

mod listeners;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshgate_tests::ask::{Said, ask};
use meshgate_tests::files::{Edge, Held, Site, application, route, secret, service, tls_route};
use meshgate_tests::load::{Answer, Life, Load, Plan, Protocol, Way, failures};
use meshgate_tests::{tls, until};

use listeners::Listeners;

/// Of each of the four kinds.
const CHANGES: usize = 250;
const CERTIFICATES: usize = 50;
/// Each opens and closes [`listeners::EACH`].
const TAKE_OVERS: usize = 5;
/// Further ones, by the edge itself: with the listeners that it has.
const REPLACEMENTS: usize = 2;
/// Requests a second, of all loads.
const RATE: u32 = 2_000;

/// What is changed, and what load it has meanwhile.
const HOSTS: [&str; 3] = ["routes.test", "endpoints.test", "policies.test"];
/// The host whose certificate is replaced.
const SECURE: &str = HOSTS[0];
/// The host whose application holds its answers.
const HELD: &str = "held.test";

#[test]
fn a_thousand_changes_fail_no_request() {
    let site = Site::default();
    let applications = ["one", "two"].map(application);
    let held = Held::start();
    let first = prepare(&site, applications, held.address);
    let edge = Edge::start(&[site.arguments(), listeners::arguments(listeners::FIRST)].concat());
    let mut listeners = Listeners::of(&edge, held);
    let storm = Storm {
        site: &site,
        http: edge.http,
        https: edge.https,
        applications,
        changes: AtomicUsize::new(0),
    };
    storm.sees(HOSTS[2], "", |said| said.status == 200);
    let loads = Loads::start(&edge);
    let (last, mut served) = std::thread::scope(|scope| {
        let kinds = [
            scope.spawn(|| storm.routes()),
            scope.spawn(|| storm.endpoints()),
            scope.spawn(|| storm.policies()),
            scope.spawn(|| storm.hosts()),
        ];
        let certificates = scope.spawn(|| storm.certificates(&loads.fresh));
        let last = storm.take_overs(edge, &mut listeners);
        for kind in kinds {
            kind.join().expect("its changes are seen");
        }
        (last, certificates.join().expect("they are shown"))
    });
    assert_eq!(storm.changes.load(Ordering::Relaxed), 4 * CHANGES);
    assert_eq!(listeners.gone, TAKE_OVERS * listeners::EACH);
    listeners.end();
    served.insert(0, (first, Duration::ZERO));
    loads.judge(&served);
    last.end();
}

/// The files of before; the serial of the certificate in them.
fn prepare(site: &Site, [one, two]: [SocketAddr; 2], held: SocketAddr) -> String {
    let secrets = HOSTS.map(|host| secret(site, host));
    site.write(
        "services.yaml",
        &(service("one", one) + &service("two", two)),
    );
    site.write("endpoints.yaml", &service("moving", one));
    for ((host, service), (_, secret)) in HOSTS
        .into_iter()
        .zip(["one", "moving", "two"])
        .zip(&secrets)
    {
        site.write(&format!("{host}.yaml"), &tls_route(host, service));
        site.write(&format!("{host}-tls.yaml"), secret);
    }
    let held = service("held", held) + &tls_route(HELD, "held");
    site.write("held.yaml", &held);
    site.write("held-tls.yaml", &secret(site, HELD).1);
    let [(serial, _), ..] = secrets;
    serial
}

/// One kind of change after the other is written and looked for, each by a thread of its own.
struct Storm<'a> {
    site: &'a Site,
    http: SocketAddr,
    https: SocketAddr,
    applications: [SocketAddr; 2],
    /// Seen so far.
    changes: AtomicUsize,
}

impl Storm<'_> {
    /// Asks until the answer is as wanted. An answer that does not come is a failed request.
    fn sees(&self, host: &str, fields: &str, wanted: impl Fn(&Said) -> bool) {
        until(host, || {
            let said = ask(self.http, host, "/", fields).expect("no request fails");
            wanted(&said).then_some(())
        });
    }

    fn seen(&self, host: &str, fields: &str, wanted: impl Fn(&Said) -> bool) {
        self.sees(host, fields, wanted);
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// A route moves to another Service.
    fn routes(&self) {
        for change in 1..=CHANGES {
            let to = ["one", "two"][change % 2];
            self.site
                .write("routes.test.yaml", &tls_route(HOSTS[0], to));
            self.seen(HOSTS[0], "", |said| said.body == to);
        }
    }

    /// The endpoint of a Service becomes another.
    fn endpoints(&self) {
        for change in 1..=CHANGES {
            let to = change % 2;
            let moved = service("moving", self.applications[to]);
            self.site.write("endpoints.yaml", &moved);
            self.seen(HOSTS[1], "", |said| said.body == ["one", "two"][to]);
        }
    }

    /// A limit that refuses nobody but those who ask for it, each time under another name.
    fn policies(&self) {
        for change in 1..=CHANGES {
            let policy = format!(
                "
apiVersion: meshgate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: limited}}
spec:
  targetRefs: [{{group: networking.k8s.io, kind: Ingress, name: policies.test}}]
  limits:
  - name: change-{change}
    match: {{headers: [{{name: X-Limited, value: \"yes\"}}]}}
    requests: 1
    per: 1h
"
            );
            self.site.write("policies.yaml", &policy);
            let reason = format!("rate-limited; change-{change}");
            self.seen(HOSTS[2], "X-Limited: yes\r\n", |said| {
                said.status == 429 && said.field("meshgate-reason") == reason
            });
        }
    }

    /// A host comes, and goes again.
    fn hosts(&self) {
        for _ in 0..CHANGES / 2 {
            let all = route("passing", "passing.test", "one");
            self.site.write("passing.yaml", &all);
            self.seen("passing.test", "", |said| said.body == "one");
            self.site.remove("passing.yaml");
            self.seen("passing.test", "", |said| said.status == 404);
        }
    }

    /// Serial numbers of one certificate after the other, and since when, in the time of a load, the edge shows it.
    fn certificates(&self, load: &Load) -> Vec<(String, Duration)> {
        let swaps = (0..CERTIFICATES).map(|_| {
            let (serial, manifest) = secret(self.site, SECURE);
            self.site.write("routes.test-tls.yaml", &manifest);
            until("the new certificate", || {
                let shown = tls::served_serial(&self.https.to_string(), SECURE);
                let shown = shown.expect("no handshake fails");
                (shown == serial).then_some(())
            });
            (serial, load.elapsed())
        });
        swaps.collect()
    }

    /// Spread over all changes: two by processes of ours, with other listeners, then one that the edge starts itself.
    fn take_overs(&self, mut edge: Edge, listeners: &mut Listeners) -> Edge {
        let all = TAKE_OVERS + REPLACEMENTS;
        for number in 1..=all {
            until("changes between two take-overs", || {
                let changes = self.changes.load(Ordering::Relaxed);
                (changes >= 4 * CHANGES * number / (all + 1)).then_some(())
            });
            if number % 3 > 0 {
                listeners.change(self.site, &mut edge);
                continue;
            }
            edge.signal("USR2");
            // Its own, and that of the process that it started.
            edge.log.until("took over; the former process drains", 2);
            edge.has_ended();
        }
        edge
    }
}

/// The steady load: all hosts over all protocols, on connections that are kept and on fresh ones.
struct Loads {
    kept: Vec<Load>,
    fresh: Load,
    clear: Load,
}

impl Loads {
    fn start(edge: &Edge) -> Self {
        let start = |at: SocketAddr, host: &str, rate, connections, ways: &[Way]| {
            let plan = Plan {
                address: at.to_string(),
                host: host.to_owned(),
                path: "/".to_owned(),
                rate,
                connections,
            };
            Load::mixed(&plan, ways)
        };
        let kept = |protocol| Way(protocol, Life::Kept);
        let fresh = |protocol| Way(protocol, Life::Fresh);
        let both = |host: &&str| {
            let secure = [kept(Protocol::Https1), kept(Protocol::Https2)];
            [
                start(edge.http, host, RATE / 10, 8, &[kept(Protocol::Http1)]),
                start(edge.https, host, RATE / 5, 16, &secure),
            ]
        };
        let secure = [fresh(Protocol::Https1), fresh(Protocol::Https2)];
        Self {
            kept: HOSTS.iter().flat_map(both).collect(),
            fresh: start(edge.https, SECURE, RATE / 20, 8, &secure),
            clear: start(edge.http, SECURE, RATE / 20, 8, &[fresh(Protocol::Http1)]),
        }
    }

    /// All were answered, as many as were to be asked; `served` are the certificates, each shown since then.
    fn judge(self, served: &[(String, Duration)]) {
        let took = self.fresh.elapsed();
        let fresh = self.fresh.stop();
        let others = self.kept.into_iter().chain([self.clear]);
        let others: Vec<Answer> = others.flat_map(Load::stop).collect();
        for answers in [&fresh, &others] {
            assert_eq!(failures(answers), Vec::<&Answer>::new());
        }
        let answered = (fresh.len() + others.len()) as f64;
        let wanted = f64::from(RATE) * took.as_secs_f64();
        assert!(
            answered >= wanted * 0.8,
            "{answered} answers in {took:?}: this machine has no room for {RATE} a second"
        );
        shown_in_order(&fresh, served);
    }
}

/// Two processes follow the files while one takes over from the other, each at its pace: a connection may still be shown the
/// certificate before the newest that somebody saw, and none before that.
fn shown_in_order(fresh: &[Answer], served: &[(String, Duration)]) {
    for answer in fresh {
        let opened = answer.opened.as_ref().expect("it was answered");
        let shown = opened.serial.as_deref().expect("it is secure");
        let index = served.iter().position(|(serial, _)| serial == shown);
        let index = index.unwrap_or_else(|| panic!("{shown} is none of ours"));
        let seen = served.iter().filter(|(_, at)| *at < opened.at).count();
        assert!(
            index + 2 >= seen,
            "certificate {index} was shown after {seen} had been seen"
        );
    }
}
