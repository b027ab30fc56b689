//! Clients with open connections, told apart by their addresses.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Open connections by client, and what those of a client share. It is forgotten with the last of them.
#[derive(Debug)]
pub(crate) struct Clients<T = ()>(Arc<Mutex<HashMap<IpAddr, Known<T>>>>);

#[derive(Debug, Default)]
struct Known<T> {
    connections: u32,
    shared: T,
}

impl<T> Default for Clients<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Default> Clients<T> {
    /// One more connection of the client at an address, unless it has as many as it may.
    pub(super) fn enter(&self, address: IpAddr, most: u32) -> Option<Visit<T>> {
        let address = client_at(address);
        let mut clients = lock(&self.0);
        let known = clients.entry(address).or_default();
        if known.connections >= most {
            return None;
        }
        known.connections += 1;
        Some(Visit {
            clients: Self(self.0.clone()),
            address,
            shared: known.shared.clone(),
        })
    }
}

/// What stands for the client at an address: of IPv6 its /64, for a single host has all the addresses of one (RFC 7934).
fn client_at(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// One of a client's connections; counts until dropped.
#[derive(Debug)]
pub(super) struct Visit<T = ()> {
    clients: Clients<T>,
    address: IpAddr,
    pub(super) shared: T,
}

impl<T> Drop for Visit<T> {
    fn drop(&mut self) {
        let mut clients = lock(&self.clients.0);
        if let Entry::Occupied(mut entry) = clients.entry(self.address) {
            entry.get_mut().connections -= 1;
            if entry.get().connections == 0 {
                entry.remove();
            }
        }
    }
}

/// Held for a few instructions that cannot panic; a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::Clients;

    /// Whether two addresses are one client.
    fn check(one: &str, other: &str, same: bool) {
        let clients = Clients::<()>::default();
        let _first = clients.enter(one.parse().unwrap(), 1).expect("the first");
        let second = clients.enter(other.parse().unwrap(), 1);
        assert_eq!(second.is_none(), same, "{one} {other}");
    }

    #[test]
    fn who_is_one_client() {
        check("203.0.113.1", "203.0.113.1", true);
        check("203.0.113.1", "203.0.113.2", false);
        check("203.0.113.1", "::ffff:203.0.113.1", true);
        check("::ffff:203.0.113.1", "::ffff:203.0.113.2", false);
        check("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true);
        check("2001:db8:0:1::1", "2001:db8:0:2::1", false);
    }
}
