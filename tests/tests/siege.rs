//! Slow clients, floods and idle connections at once: who behaves is answered, who attacks is let go of or bounded, memory
//! stays below its budget, and afterwards everything is as before. How long others wait meanwhile is `benches/siege.sh`'s to
//! measure.

use meshgate_tests::files::{Edge, Site, secret, service, tls_route};
use meshgate_tests::load::{Answer, Load, Plan, Protocol, failures};
use meshgate_tests::origin::{self, Answers};
use meshgate_tests::siege::{Attack, Siege, Target};
use meshgate_tests::{process, until};

const HOST: &str = "siege.test";
/// What the edge may use, in MiB.
const BUDGET_MIB: u64 = 128;
/// Larger than what fits into the buffers between an origin and a client.
const LARGE_BYTES: usize = 16 << 20;
/// What an edge allows one client address.
const PER_CLIENT: usize = 256;

/// How many at once.
const FORCE: [(Attack, usize); 12] = [
    (Attack::Idle, 2_000),
    (Attack::SlowHead, 200),
    (Attack::SlowHandshake, 100),
    (Attack::SlowBody, 100),
    (Attack::SlowReader, 40),
    (Attack::RapidReset, 4),
    (Attack::Ping, 4),
    (Attack::Settings, 4),
    (Attack::Continuation, 4),
    (Attack::EmptyData, 4),
    (Attack::Handshake, 10),
    (Attack::OneAddress, PER_CLIENT + 44),
];

#[test]
fn others_are_served_and_all_recovers() {
    process::claim_descriptors();
    let site = Site::default();
    let origin = origin::start(Answers::new(&[("/", 2), ("/large", LARGE_BYTES)]));
    let (_, secret) = secret(&site, HOST);
    site.write("secret.yaml", &secret);
    site.write("route.yaml", &tls_route(HOST, "origin"));
    let edge = site.serve_with(&["--memory", &format!("{BUDGET_MIB}Mi")]);
    let origin = service("origin", origin);
    let before = at_rest(&site, &edge, &origin);
    site.write("origin.yaml", &origin);
    served(&edge);
    let others = Others::start(&edge);
    let siege = Siege::lay(
        &Target {
            http: edge.http,
            https: edge.https,
            host: HOST.to_owned(),
            large: "/large".to_owned(),
        },
        &FORCE.into(),
    );
    stands(&siege);
    is_beaten_back(&siege, &edge);
    others.more(400);
    let peak = process::memory_peak(edge.pid()) >> 20;
    let tallies = siege.lift();
    others.more(200);
    let answers = others.stop();
    assert_eq!(failures(&answers), Vec::<&Answer>::new(), "{tallies:#?}");
    assert!(peak < BUDGET_MIB, "{peak} MiB of {BUDGET_MIB}");

    site.remove("origin.yaml");
    until("everything is as before", || {
        let open = edge.counted("meshgate_connections_open", "");
        let has = process::descriptors(edge.pid());
        (open == 0.0 && has == before).then_some(())
    });
    edge.end();
}

/// Descriptors of an edge that has served, and whose connections are gone: those to an endpoint go with it.
fn at_rest(site: &Site, edge: &Edge, origin: &str) -> usize {
    site.write("origin.yaml", origin);
    served(edge);
    site.remove("origin.yaml");
    until("nothing is open", || {
        let gone = edge.get(HOST, "/").0 == 503;
        (gone && edge.counted("meshgate_connections_open", "") == 0.0).then_some(())
    });
    process::descriptors(edge.pid())
}

fn served(edge: &Edge) {
    until("the origin", || {
        (edge.get(HOST, "/").0 == 200).then_some(())
    });
}

/// Clients that want nothing but answers.
struct Others([Load; 2]);

impl Others {
    fn start(edge: &Edge) -> Self {
        let load = |at: std::net::SocketAddr, protocols: &[Protocol]| {
            let plan = Plan {
                address: at.to_string(),
                host: HOST.to_owned(),
                path: "/".to_owned(),
                rate: 100,
                connections: 8,
            };
            Load::of_both_lives(&plan, protocols)
        };
        Self([
            load(edge.http, &[Protocol::Http1]),
            load(edge.https, &[Protocol::Https1, Protocol::Https2]),
        ])
    }

    /// Waits until each has asked so often again.
    fn more(&self, requests: usize) {
        let before = self.0.each_ref().map(Load::asked);
        until("requests of others", || {
            let now = self.0.each_ref().map(Load::asked);
            let mut both = now.into_iter().zip(before);
            both.all(|(now, before)| now > before + requests)
                .then_some(())
        });
    }

    fn stop(self) -> Vec<Answer> {
        self.0.into_iter().flat_map(Load::stop).collect()
    }
}

/// Everybody is there who is to stay for a while.
fn stands(siege: &Siege) {
    for (kind, count) in FORCE {
        let stays = match kind {
            Attack::Idle | Attack::SlowHead | Attack::SlowBody | Attack::SlowReader => count,
            Attack::SlowHandshake => count / 2,
            Attack::OneAddress => PER_CLIENT,
            _ => continue,
        };
        until(&format!("{kind}: {stays} of them"), || {
            (siege.tally(kind).standing >= stays).then_some(())
        });
    }
}

/// Who can be told from somebody who behaves was shown the door, as often as there are of the kind.
fn is_beaten_back(siege: &Siege, edge: &Edge) {
    let slow = [Attack::SlowHead, Attack::SlowHandshake];
    for kind in slow.into_iter().chain(Attack::FLOODS) {
        let (_, count) = FORCE
            .into_iter()
            .find(|(one, _)| *one == kind)
            .expect("it is listed");
        until(&format!("{kind}: {count} are closed"), || {
            (siege.tally(kind).closed >= count).then_some(())
        });
    }
    let refused = edge.counted("meshgate_connections_refused", "connections-per-client");
    assert!(refused > 0.0, "one address had all it wanted");
    let one = siege.tally(Attack::OneAddress).standing;
    assert!(one <= PER_CLIENT, "one address has {one} connections");
    let idle = siege.tally(Attack::Idle);
    assert_eq!(idle.opened, idle.standing, "who is idle is left alone");
}
