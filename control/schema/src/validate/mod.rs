//! Validation.

pub(crate) mod metadata;

use serde_json::Value;

use crate::registry::{Kind, Rules};
use crate::{FieldError, Registry};

impl Kind {
    /// Everything that is wrong with a new object.
    pub fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        match self.rules() {
            Rules::Custom(version) => version.validate(object),
            Rules::Builtin { .. } => Vec::new(),
        }
    }

    /// Everything that is wrong with an update.
    pub fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
    }

    /// Everything that is wrong with an update of the status.
    pub fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        match self.rules() {
            Rules::Custom(version) => version.validate(new),
            Rules::Builtin { .. } => Vec::new(),
        }
    }
}

#[expect(dead_code, reason = "wired with the rules")]
fn unused(_: &Registry) {}
