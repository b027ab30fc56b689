//! Addresses of a node's pods: taken in turn, so that a freed one rests before it is used again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Which pod has which address. Pure.
#[derive(Debug)]
pub(super) struct Addresses {
    network: u32,
    last: u32,
    by_pod: BTreeMap<String, Ipv4Addr>,
    used: BTreeSet<Ipv4Addr>,
}

impl Addresses {
    /// All of a /24 but network, bridge and broadcast.
    pub(super) const CAPACITY: usize = 253;

    pub(super) fn new(network: Ipv4Addr, prefix: u8) -> Addresses {
        debug_assert_eq!(prefix, 24);
        Addresses {
            network: network.to_bits(),
            last: 1,
            by_pod: BTreeMap::new(),
            used: BTreeSet::new(),
        }
    }

    /// The pod's address: the one it has, or the next free one; `None` when all are in use.
    pub(super) fn take(&mut self, pod_uid: &str) -> Option<Ipv4Addr> {
        if let Some(address) = self.by_pod.get(pod_uid) {
            return Some(*address);
        }
        let span = 253;
        let address = (1..=span)
            .map(|step| 2 + (self.last - 1 + step - 1) % span)
            .map(|host| Ipv4Addr::from_bits(self.network + host))
            .find(|address| !self.used.contains(address))?;
        self.adopt(pod_uid, address);
        Some(address)
    }

    pub(super) fn adopt(&mut self, pod_uid: &str, address: Ipv4Addr) {
        self.last = address.to_bits().wrapping_sub(self.network).clamp(1, 254);
        self.used.insert(address);
        self.by_pod.insert(pod_uid.to_owned(), address);
    }

    /// The address that is free now; `None` when the pod had none.
    pub(super) fn give_back(&mut self, pod_uid: &str) -> Option<Ipv4Addr> {
        let address = self.by_pod.remove(pod_uid)?;
        self.used.remove(&address);
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_in_turn_and_never_twice() {
        let mut addresses = Addresses::new(Ipv4Addr::new(10, 244, 3, 0), 24);
        let mut seen = BTreeSet::new();
        for pod in 0..Addresses::CAPACITY {
            assert!(seen.insert(addresses.take(&pod.to_string()).unwrap()));
        }
        assert_eq!(seen.first(), Some(&Ipv4Addr::new(10, 244, 3, 2)));
        assert_eq!(seen.last(), Some(&Ipv4Addr::new(10, 244, 3, 254)));
        assert_eq!(addresses.take("one more"), None);
        assert_eq!(
            addresses.take("7"),
            Some(Ipv4Addr::new(10, 244, 3, 9)),
            "the one it has"
        );
        addresses.give_back("7");
        assert_eq!(
            addresses.take("one more"),
            Some(Ipv4Addr::new(10, 244, 3, 9))
        );
    }

    #[test]
    fn a_freed_address_rests() {
        let mut addresses = Addresses::new(Ipv4Addr::new(10, 244, 0, 0), 24);
        let first = addresses.take("a").unwrap();
        addresses.give_back("a");
        assert_ne!(addresses.take("b"), Some(first));
        addresses.adopt("c", Ipv4Addr::new(10, 244, 0, 40));
        assert_eq!(addresses.take("d"), Some(Ipv4Addr::new(10, 244, 0, 41)));
    }
}
