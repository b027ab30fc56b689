//! Server-side printing.

use jiff::Timestamp;
use serde_json::Value;

use crate::Kind;

/// What each row's `object` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableOptions {
    pub include: IncludeObject,
    /// Whether to send the column definitions: later events of a watch go without.
    pub headers: bool,
}

impl Kind {
    pub fn table(
        &self,
        _objects: &[&Value],
        _list_metadata: Value,
        _now: Timestamp,
        _options: TableOptions,
    ) -> Value {
        Value::Null
    }
}
