//! Label and field selectors.

use serde_json::{Map, Value};

use crate::{Failure, Kind};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {}

impl LabelSelector {
    pub fn parse(_text: &str) -> Result<LabelSelector, Failure> {
        Ok(LabelSelector {})
    }

    pub fn from_json(_selector: &Value) -> Result<LabelSelector, Failure> {
        Ok(LabelSelector {})
    }

    pub fn is_empty(&self) -> bool {
        true
    }

    pub fn matches(&self, _object: &Value) -> bool {
        true
    }

    pub fn matches_labels(&self, _labels: Option<&Map<String, Value>>) -> bool {
        true
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {}

impl FieldSelector {
    pub fn parse(_text: &str) -> Result<FieldSelector, Failure> {
        Ok(FieldSelector {})
    }

    pub fn is_empty(&self) -> bool {
        true
    }

    pub fn check(&self, _kind: &Kind) -> Result<(), Failure> {
        Ok(())
    }

    pub fn matches(&self, _kind: &Kind, _object: &Value) -> bool {
        true
    }

    pub fn exact(&self, _path: &str) -> Option<&str> {
        None
    }
}
