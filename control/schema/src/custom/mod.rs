//! Custom resources: the kinds that CustomResourceDefinitions add.
//!
//! Schemas are interpreted as the JSON that they are: parsed into nothing larger, shared by all versions that use them.
//! `x-kubernetes-validations` (CEL) are accepted, stored and published but not evaluated: `CustomVersion::validate` calls
//! `rules::check` after everything else, which is where an evaluator belongs.

mod default;
mod definition;
mod definition_rules;
mod formats;
mod names;
mod prune;
mod rules;
mod schema;
mod structural;
mod validate;

use std::sync::Arc;

use serde_json::Value;

use crate::FieldError;
use crate::decode::{Converted, convert};
use crate::registry::{Kind, ScalePaths};
use crate::types::by_name;
use crate::value::{at, bool_at, list_at, text_at};

pub(crate) use default::default;
pub(crate) use definition::{default_definition, prepare_definition};
pub(crate) use definition_rules::{validate_definition, validate_definition_update};
pub use names::names_status;
pub(crate) use schema::Schema;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// One served version of a CustomResourceDefinition.
#[derive(Debug)]
pub(crate) struct CustomVersion {
    /// `openAPIV3Schema`.
    pub(crate) schema: Value,
    /// apiVersion of what is stored.
    pub(crate) storage_api_version: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) selectable_fields: Vec<String>,
    scale: Option<ScalePaths>,
    /// `preserveUnknownFields` of the definition: nothing is pruned.
    preserve: bool,
}

/// An additional printer column.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) json_path: String,
}

impl CustomVersion {
    pub(crate) fn scale(&self) -> Option<&ScalePaths> {
        self.scale.as_ref()
    }

    pub(crate) fn schema(&self) -> Schema<'_> {
        Schema::new(&self.schema)
    }

    /// Prunes what the schema does not know and brings metadata into its stored form.
    pub(crate) fn convert(&self, mut object: Value) -> Result<Converted, String> {
        let mut unknown = Vec::new();
        if let Some(map) = object.as_object_mut() {
            let metadata = map.shift_remove("metadata").unwrap_or(Value::Null);
            let metadata = metadata_of(metadata, &mut unknown)?;
            let at = map.len().min(2);
            map.shift_insert(at, "metadata".into(), metadata);
        }
        if !self.preserve {
            prune::prune(&mut object, self.schema(), &mut unknown);
        }
        unknown.sort();
        Ok(Converted { object, unknown })
    }

    pub(crate) fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = validate::validate(object, self.schema());
        if let Some(scale) = &self.scale {
            errors.extend(scale_error(object, &scale.spec_replicas));
            errors.extend(scale_error(object, &scale.status_replicas));
        }
        if errors.iter().any(rules::is_blocking) && self.schema().has_rules() {
            errors.push(rules::not_checked());
        } else if errors.is_empty() {
            errors.extend(rules::check(object, self.schema()));
        }
        errors
    }
}

/// Metadata in stored form; its unknown fields are noted under `metadata.`.
fn metadata_of(metadata: Value, unknown: &mut Vec<String>) -> Result<Value, String> {
    let Some(type_id) = by_name(OBJECT_META) else {
        return Ok(metadata);
    };
    let converted = convert(type_id, metadata)?;
    unknown.extend(
        converted
            .unknown
            .into_iter()
            .map(|path| format!("metadata.{path}")),
    );
    Ok(converted.object)
}

/// What the scale subresource could not read.
fn scale_error(object: &Value, path: &str) -> Option<FieldError> {
    let field = format!(".{path}");
    let found = at(object, path)?;
    match found.as_i64() {
        Some(replicas) if replicas < 0 => Some(FieldError::invalid(
            field,
            replicas,
            "should be a non-negative integer",
        )),
        Some(_) => None,
        None => {
            let (shown, go_type) = match found {
                Value::String(text) => (text.clone(), "string"),
                Value::Bool(flag) => (flag.to_string(), "bool"),
                Value::Number(number) => (number.to_string(), "float64"),
                _ => (found.to_string(), "object"),
            };
            let detail =
                format!("{field} accessor error: {shown} is of the type {go_type}, expected int64");
            Some(FieldError::invalid(field, 0, detail))
        }
    }
}

/// The kinds that a stored definition serves: none until its names are accepted.
pub(crate) fn served_kinds(crd: &Value) -> Vec<Kind> {
    let established = list_at(crd, "status.conditions")
        .iter()
        .any(|one| text_at(one, "type") == "Established" && text_at(one, "status") == "True");
    if !established {
        return Vec::new();
    }
    let group = text_at(crd, "spec.group");
    let versions = list_at(crd, "spec.versions");
    let storage = versions.iter().find(|version| bool_at(version, "storage"));
    let storage_version = storage.map_or("", |version| text_at(version, "name"));
    let mut served: Vec<&Value> = versions
        .iter()
        .filter(|version| bool_at(version, "served"))
        .collect();
    served.sort_by(|a, b| {
        version_priority(text_at(b, "name")).cmp(&version_priority(text_at(a, "name")))
    });
    let preserve = bool_at(crd, "spec.preserveUnknownFields");
    served
        .into_iter()
        .map(|version| {
            let rules = Arc::new(CustomVersion {
                schema: at(version, "schema.openAPIV3Schema")
                    .cloned()
                    .unwrap_or_default(),
                storage_api_version: format!("{group}/{storage_version}"),
                columns: columns_of(version),
                selectable_fields: list_at(version, "selectableFields")
                    .iter()
                    .map(|field| {
                        text_at(field, "jsonPath")
                            .trim_start_matches('.')
                            .to_owned()
                    })
                    .collect(),
                scale: scale_of(version),
                preserve,
            });
            let has_status = at(version, "subresources.status").is_some();
            Kind::custom(crd, text_at(version, "name"), has_status, rules)
        })
        .collect()
}

fn scale_of(version: &Value) -> Option<ScalePaths> {
    let scale = at(version, "subresources.scale")?;
    let path = |key: &str| text_at(scale, key).trim_start_matches('.').to_owned();
    let selector = path("labelSelectorPath");
    Some(ScalePaths {
        spec_replicas: path("specReplicasPath"),
        status_replicas: path("statusReplicasPath"),
        selector: (!selector.is_empty()).then_some(selector),
    })
}

fn columns_of(version: &Value) -> Vec<Column> {
    let columns = list_at(version, "additionalPrinterColumns");
    columns
        .iter()
        .map(|column| Column {
            name: text_at(column, "name").to_owned(),
            kind: text_at(column, "type").to_owned(),
            format: text_at(column, "format").to_owned(),
            description: text_at(column, "description").to_owned(),
            priority: column.get("priority").and_then(Value::as_i64).unwrap_or(0),
            json_path: text_at(column, "jsonPath").to_owned(),
        })
        .collect()
}

/// How preferred a version is: v2 before v1 before v1beta2 before v1alpha1 before any other name.
pub(crate) fn version_priority(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let other = (0, 0, 0, std::cmp::Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else {
        return other;
    };
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse() else {
        return other;
    };
    let (stage, minor) = match &rest[digits..] {
        "" => (3, Some(0)),
        stage => match stage.strip_prefix("beta") {
            Some(minor) => (2, minor.parse().ok()),
            None => (
                1,
                stage
                    .strip_prefix("alpha")
                    .and_then(|minor| minor.parse().ok()),
            ),
        },
    };
    match minor {
        Some(minor) => (stage, major, minor, std::cmp::Reverse(String::new())),
        None => other,
    }
}

#[cfg(test)]
mod tests;
