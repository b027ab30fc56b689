//! Client addresses with open connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Open connections by client address, and what those of an address share. It is forgotten with the last of them.
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
    /// One more connection of an address, unless it has as many as it may.
    pub(super) fn enter(&self, address: IpAddr, most: u32) -> Option<Visit<T>> {
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
