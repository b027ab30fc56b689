//! Everything that is served: an immutable snapshot of built-in and custom kinds.

mod builtin;
mod discovery;
mod kind;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::custom;

pub(crate) use builtin::Builtin;
pub use discovery::{Aggregated, AggregatedVersion, DiscoveryScope};
pub use kind::{Kind, ScalePaths, Subresource};
pub(crate) use kind::{Rules, api_version};

/// An immutable snapshot of the served kinds. Cloning shares everything.
#[derive(Debug, Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Discovery order: core first, then groups in order of appearance.
    kinds: Vec<Arc<Kind>>,
    by_resource: HashMap<(String, String, String), usize>,
    by_kind: HashMap<(String, String, String), usize>,
}

impl Registry {
    /// The built-in kinds alone.
    pub fn builtin() -> Registry {
        Registry::of(
            builtin::ROWS
                .iter()
                .map(|row| Arc::new(Kind::builtin(row)))
                .collect(),
        )
    }

    /// The same built-in kinds with exactly the custom kinds of these CustomResourceDefinition objects: their served
    /// versions, once the names are accepted in status.
    pub fn with_custom(&self, crds: &[Value]) -> Registry {
        let builtin = self
            .inner
            .kinds
            .iter()
            .filter(|kind| !kind.is_custom())
            .cloned();
        let custom = crds.iter().flat_map(custom::served_kinds).map(Arc::new);
        Registry::of(builtin.chain(custom).collect())
    }

    fn of(kinds: Vec<Arc<Kind>>) -> Registry {
        let mut by_resource = HashMap::new();
        let mut by_kind = HashMap::new();
        for (index, kind) in kinds.iter().enumerate() {
            let key = |name: &str| (kind.group.clone(), kind.version.clone(), name.to_owned());
            by_resource.entry(key(&kind.plural)).or_insert(index);
            by_kind.entry(key(&kind.kind)).or_insert(index);
        }
        Registry {
            inner: Arc::new(Inner {
                kinds,
                by_resource,
                by_kind,
            }),
        }
    }

    /// The kind behind `/apis/GROUP/VERSION/PLURAL`; the core group is "".
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        let index = self
            .inner
            .by_resource
            .get(&(group.into(), version.into(), plural.into()))?;
        self.inner.kinds.get(*index)
    }

    /// The kind that an object's apiVersion and kind name.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let index = self
            .inner
            .by_kind
            .get(&(group.into(), version.into(), kind.into()))?;
        self.inner.kinds.get(*index)
    }

    /// Every served kind, in discovery order.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.inner.kinds.iter()
    }

    pub fn has_group(&self, group: &str) -> bool {
        self.kinds().any(|kind| kind.group == group)
    }

    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.kinds()
            .any(|kind| kind.group == group && kind.version == version)
    }
}
