//! Waiting for one's own writes: a cache lags behind the API server, and who decides from it before it shows the
//! last write creates things twice.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::core::ObjectMeta;
use meshgate_api::client::{Cache, Key, resource_version};
use tokio::time::Instant;

/// A write that does not show up for this long is no longer waited for: it was undone before we saw it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The newest own write per key of a controller, in one watched kind.
#[derive(Debug, Default)]
pub(crate) struct Freshness {
    written: Mutex<HashMap<Key, (u64, Instant)>>,
}

impl Freshness {
    /// `key`'s controller has written an object, which came back with `meta`.
    pub(crate) fn wrote(&self, key: &Key, meta: &ObjectMeta) {
        let version = resource_version(meta);
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = written.entry(key.clone()).or_insert((0, Instant::now()));
        *entry = (entry.0.max(version), Instant::now());
    }

    /// How long at most to wait until `cache` shows all that `key`'s controller wrote; nothing if it does.
    pub(crate) fn wait<K>(&self, key: &Key, cache: &Cache<K>) -> Option<Duration> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let (version, at) = *written.get(key)?;
        let left = PATIENCE.checked_sub(at.elapsed());
        if cache.observed() < version && left.is_some() {
            return left;
        }
        written.remove(key);
        None
    }
}
