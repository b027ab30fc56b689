//! Column definitions.

use serde_json::{Value, json};

pub(super) const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
pub(super) const CREATION_DESCRIPTION: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.";

/// One column of a built-in kind.
#[derive(Debug)]
pub(super) struct Column {
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    /// 0 is always shown, 1 only by `-o wide`.
    priority: u8,
    description: &'static str,
}

impl Column {
    pub(super) const fn text(name: &'static str, description: &'static str) -> Column {
        Column {
            name,
            kind: "string",
            format: "",
            priority: 0,
            description,
        }
    }

    pub(super) const fn number(name: &'static str, description: &'static str) -> Column {
        Column {
            name,
            kind: "integer",
            format: "",
            priority: 0,
            description,
        }
    }

    pub(super) const fn date(name: &'static str) -> Column {
        Column {
            name,
            kind: "date",
            format: "",
            priority: 0,
            description: CREATION_DESCRIPTION,
        }
    }

    /// The object's name.
    pub(super) const fn name() -> Column {
        Column {
            name: "Name",
            kind: "string",
            format: "name",
            priority: 0,
            description: NAME_DESCRIPTION,
        }
    }

    pub(super) const fn age() -> Column {
        Column::text("Age", CREATION_DESCRIPTION)
    }

    pub(super) const fn wide(mut self) -> Column {
        self.priority = 1;
        self
    }

    pub(super) fn definition(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.kind,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }
}

pub(super) const NAME_AND_AGE: &[Column] = &[Column::name(), Column::age()];
pub(super) const NAME_AND_CREATION: &[Column] = &[Column::name(), Column::date("Created At")];
