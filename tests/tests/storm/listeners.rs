//! Listeners that come with one process and go with the next.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};

use meshgate_tests::files::{Edge, Held, Site, get_at, is_closed};
use meshgate_tests::load::{Answer, Load, Plan, Protocol, failures};
use meshgate_tests::until;

use crate::{HELD, SECURE};

/// Of one process, besides those that stay; HTTP and HTTPS by turns.
pub(crate) const EACH: usize = 4;
/// Generations are parts of addresses; 127.0.0 is everybody's.
pub(crate) const FIRST: usize = 1;
/// Requests a second at one of them.
const RATE: u32 = 20;

/// The listeners of the moment, each under a load of its own.
pub(crate) struct Listeners {
    held: Held,
    generation: usize,
    open: Vec<Passing>,
    /// So many were closed.
    pub(crate) gone: usize,
}

/// One of them.
struct Passing {
    scheme: &'static str,
    at: SocketAddr,
    load: Load,
}

/// Arguments that name those of a generation, each at an address that no other has.
pub(crate) fn arguments(generation: usize) -> Vec<OsString> {
    let each = (1..=EACH).zip(["--http", "--https"].into_iter().cycle());
    let words =
        each.flat_map(|(one, flag)| [flag.to_owned(), format!("127.0.{generation}.{one}:0")]);
    words.map(OsString::from).collect()
}

impl Listeners {
    /// Those that an edge was started with.
    pub(crate) fn of(edge: &Edge, held: Held) -> Self {
        Self {
            held,
            generation: FIRST,
            open: opened(edge, FIRST),
            gone: 0,
        }
    }

    /// A process with others takes over. The former ones close, and what was asked there is answered by the former process
    /// to its end.
    pub(crate) fn change(&mut self, site: &Site, edge: &mut Edge) {
        let going: Vec<(&str, SocketAddr)> = self.open.drain(..).map(Passing::served).collect();
        std::thread::scope(|scope| {
            let ask = |(scheme, at)| scope.spawn(move || get_at(scheme, at, HELD));
            let asking: Vec<_> = going.iter().copied().map(ask).collect();
            self.held.was_asked(self.gone + going.len());
            self.generation += 1;
            let taking_over = [site.taking_over(), arguments(self.generation)].concat();
            let next = Edge::start(&taking_over);
            next.log.until("took over; the former process drains", 1);
            self.open = opened(&next, self.generation);
            assert_eq!((next.http, next.https), (edge.http, edge.https));
            let mut former = std::mem::replace(edge, next);
            for (_, at) in &going {
                is_closed(*at);
            }
            self.held.release();
            for answered in asking {
                let answered = answered.join().expect("it asks");
                assert_eq!(answered, (200, Held::BODY.to_owned()));
            }
            former.has_ended();
            former.log.ends();
        });
        self.gone += going.len();
    }

    /// The last ones have served, too.
    pub(crate) fn end(self) {
        for passing in self.open {
            passing.served();
        }
    }
}

impl Passing {
    /// It has served, and failed no request.
    fn served(self) -> (&'static str, SocketAddr) {
        until("requests at a listener that goes", || {
            (self.load.asked() >= RATE as usize).then_some(())
        });
        let answers = self.load.stop();
        assert_eq!(failures(&answers), Vec::<&Answer>::new(), "{}", self.at);
        (self.scheme, self.at)
    }
}

/// Those that an edge has of a generation.
fn opened(edge: &Edge, generation: usize) -> Vec<Passing> {
    let both = [
        ("http", &[Protocol::Http1][..]),
        ("https", &[Protocol::Https1, Protocol::Https2]),
    ];
    let open: Vec<Passing> = both
        .into_iter()
        .flat_map(|(scheme, protocols)| {
            let addresses = edge.log.addresses(scheme).into_iter();
            addresses
                .filter(move |at| is_of(at.ip(), generation))
                .map(move |at| Passing {
                    scheme,
                    at,
                    load: load(at, protocols),
                })
        })
        .collect();
    assert_eq!(open.len(), EACH, "{}", edge.log.text());
    open
}

fn is_of(address: IpAddr, generation: usize) -> bool {
    let wanted = |octets: [u8; 4]| usize::from(octets[2]) == generation && octets[..2] == [127, 0];
    matches!(address, IpAddr::V4(address) if wanted(address.octets()))
}

fn load(at: SocketAddr, protocols: &[Protocol]) -> Load {
    let plan = Plan {
        address: at.to_string(),
        host: SECURE.to_owned(),
        path: "/".to_owned(),
        rate: RATE,
        connections: 4,
    };
    Load::of_both_lives(&plan, protocols)
}
