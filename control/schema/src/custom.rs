//! Custom resources.

use jiff::Timestamp;
use serde_json::Value;

use crate::registry::{Kind, Registry, ScalePaths};

/// One served version of a CustomResourceDefinition.
#[derive(Debug)]
pub(crate) struct CustomVersion {
    scale: Option<ScalePaths>,
}

impl CustomVersion {
    pub(crate) fn scale(&self) -> Option<&ScalePaths> {
        self.scale.as_ref()
    }
}

pub(crate) fn served_kinds(_crd: &Value) -> Vec<Kind> {
    let _ = CustomVersion { scale: None };
    Vec::new()
}

/// The new `status` of a CustomResourceDefinition among `others`.
pub fn names_status(
    crd: &Value,
    _others: &[&Value],
    _registry: &Registry,
    _now: Timestamp,
) -> Value {
    crd.get("status").cloned().unwrap_or_default()
}
