//! Consistent hashing: the same key meets the same endpoint, and a change of endpoints moves few keys.

use std::fmt;
use std::net::SocketAddr;

use pingora_ketama::{Bucket, Continuum};

use super::pick::{Algorithm, Candidate, Class, Pick, pick};
use crate::Configured;

/// A service's endpoints on a ring, each at many points (ketama's: nginx and memcached place them alike).
pub struct Ring {
    continuum: Continuum,
    indices: Configured<SocketAddr, usize>,
}

/// So many points are looked at for an endpoint that takes requests.
const POINTS_MAX: usize = 4096;

impl Ring {
    /// Of endpoints in the order of the service.
    pub fn new(endpoints: impl IntoIterator<Item = SocketAddr>) -> Self {
        let endpoints: Vec<SocketAddr> = endpoints.into_iter().collect();
        let buckets: Vec<Bucket> = endpoints
            .iter()
            .map(|address| Bucket::new(*address, 1))
            .collect();
        let indices = endpoints.into_iter().enumerate();
        Self {
            continuum: Continuum::new(&buckets),
            indices: indices.map(|(index, address)| (address, index)).collect(),
        }
    }

    /// Whether it has these endpoints in this order.
    pub fn is_of(&self, mut endpoints: impl ExactSizeIterator<Item = SocketAddr>) -> bool {
        let mut place = 0..;
        endpoints.len() == self.indices.len()
            && endpoints.all(|address| self.indices.get(&address).copied() == place.next())
    }

    /// The first endpoint from the key's point on that takes requests. Where none does, `chance` decides, as without a
    /// ring.
    pub fn pick(&self, key: &[u8], candidate: impl Fn(usize) -> Candidate, chance: u64) -> Pick {
        let count = self.indices.len();
        let points = self.continuum.node_iter(key).take(POINTS_MAX);
        points
            .filter_map(|address| self.indices.get(address).copied())
            .find(|index| candidate(*index).class <= Class::Ready)
            .map_or_else(
                || pick(Algorithm::Random, count, candidate, 0, chance),
                Pick::Endpoint,
            )
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({} endpoints)", self.indices.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn addresses(count: u16) -> impl ExactSizeIterator<Item = SocketAddr> + DoubleEndedIterator {
        (0..count).map(|number| SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 80)))
    }

    fn of_class(class: Class) -> impl Fn(usize) -> Candidate {
        move |_| Candidate { cost: 0, class }
    }

    fn owner(ring: &Ring, key: u32) -> usize {
        match ring.pick(&key.to_be_bytes(), of_class(Class::Ready), 0) {
            Pick::Endpoint(index) => index,
            none => panic!("{none:?}"),
        }
    }

    #[test]
    fn nobody_there_and_nobody_ready() {
        let none = Ring::new([]);
        assert_eq!(none.pick(b"a", of_class(Class::Ready), 0), Pick::Empty);
        let three = Ring::new(addresses(3));
        let ejected = of_class(Class::Ejected);
        assert_eq!(three.pick(b"a", ejected, 0), Pick::AllEjected);
        let leaving = three.pick(b"a", of_class(Class::Terminating), 0);
        assert!(matches!(leaving, Pick::Endpoint(_)));
    }

    #[test]
    fn it_knows_whose_it_is() {
        let ring = Ring::new(addresses(3));
        assert!(ring.is_of(addresses(3)));
        assert!(!ring.is_of(addresses(2)));
        assert!(!ring.is_of(addresses(4)));
        assert!(!ring.is_of(addresses(3).rev()));
    }

    /// With 160 points each, no endpoint has much more than its share.
    #[test]
    fn keys_are_spread() {
        let ring = Ring::new(addresses(10));
        let mut counts = [0_u32; 10];
        (0..20_000).for_each(|key| counts[owner(&ring, key)] += 1);
        let (most, least) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
        assert!(*most < 2_800 && *least > 1_200, "{counts:?}");
    }

    proptest! {
        /// Only keys of the endpoint that left move, each to the same place as when it had merely failed.
        #[test]
        fn few_keys_move(count in 2_u16..40, gone in any::<prop::sample::Index>(), keys in prop::collection::vec(any::<u32>(), 1..40)) {
            let gone = gone.index(count.into());
            let before = Ring::new(addresses(count));
            let after = Ring::new(addresses(count).enumerate().filter(|(index, _)| *index != gone).map(|(_, address)| address));
            let without = |index: usize| Candidate { cost: 0, class: if index == gone { Class::Ejected } else { Class::Ready } };
            for key in keys {
                let old = owner(&before, key);
                let new = owner(&after, key);
                let new = new + usize::from(new >= gone);
                prop_assert_eq!(before.pick(&key.to_be_bytes(), without, 0), Pick::Endpoint(new));
                if old != gone {
                    prop_assert_eq!(old, new);
                }
            }
        }

        /// Each attempt of a request meets another endpoint, in an order of the key's own.
        #[test]
        fn retries_go_on_along_the_ring(count in 1_u16..30, key: u32) {
            let ring = Ring::new(addresses(count));
            let mut tried = HashSet::new();
            for _ in 0..count {
                let class = |index| if tried.contains(&index) { Class::Tried } else { Class::Ready };
                let picked = ring.pick(&key.to_be_bytes(), |index| Candidate { cost: 0, class: class(index) }, 0);
                let Pick::Endpoint(index) = picked else { panic!("{picked:?}") };
                prop_assert!(tried.insert(index));
            }
        }
    }
}
