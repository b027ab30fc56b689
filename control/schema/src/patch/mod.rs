//! PATCH bodies: JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch.

mod go_format;
mod operations;
mod strategic;

use serde_json::Value;

use crate::decode::{Decoded, FieldValidation, Parsed, Refusal, parse_json, parse_yaml};
use crate::registry::{Kind, Registry, Rules};
use crate::types::by_name;
use crate::{Failure, FieldError};

pub use operations::{PatchProblem, apply_json_patch};

/// A patched object that grows beyond this is refused before it is decoded. In bytes of JSON; the limit of a request.
const PATCHED_BYTES_MAX: usize = 3 * 1024 * 1024;

const CUSTOM_MEDIA_TYPES: &str = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// How a PATCH body is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
}

impl Kind {
    /// Applies a patch to the current object (in this version's form) and reads the result as `decode` does.
    pub fn patch(
        &self,
        _registry: &Registry,
        patch_type: PatchType,
        current: &Value,
        patch: &[u8],
        validation: FieldValidation,
    ) -> Result<Decoded, Failure> {
        let type_name = match self.rules() {
            Rules::Custom(_) if patch_type == PatchType::Strategic => {
                return Err(Failure::unsupported_media_type(CUSTOM_MEDIA_TYPES));
            }
            Rules::Custom(_) => "",
            Rules::Builtin { type_name, .. } => type_name.as_str(),
        };
        let Parsed {
            value: patch,
            duplicates,
        } = parse_patch(patch)?;
        let mut patched = current.clone();
        match patch_type {
            PatchType::Json => apply_operations(&mut patched, &patch)?,
            PatchType::Merge => {
                require_object(&patch)?;
                json_patch::merge(&mut patched, &patch);
            }
            PatchType::Strategic => {
                require_object(&patch)?;
                patched = strategic::apply(patched, &patch, by_name(type_name))
                    .map_err(Failure::bad_request)?;
            }
        }
        self.same_kind(&patched)?;
        let shown = || match patch_type {
            PatchType::Strategic => go_format::map(&patch),
            _ => patched.to_string(),
        };
        if patch_type == PatchType::Json && patched.to_string().len() > PATCHED_BYTES_MAX {
            return Err(Failure::too_large(format!(
                "The patched object is larger than the limit of {PATCHED_BYTES_MAX} bytes"
            )));
        }
        let parsed = Parsed {
            value: patched.clone(),
            duplicates,
        };
        self.accept(parsed, validation)
            .map_err(|refusal| match (&refusal, patch_type) {
                (Refusal::Type(_), PatchType::Strategic) => {
                    Failure::bad_request(refusal.to_string())
                }
                _ => {
                    let error = FieldError::invalid("patch", shown(), refusal.to_string());
                    // The real server's words: an invalid object without a kind and a name.
                    Failure::invalid("", "", "", &[error])
                }
            })
    }

    /// A patch may not turn the object into another kind.
    fn same_kind(&self, patched: &Value) -> Result<(), Failure> {
        let same = |key: &str, own: &str| {
            patched
                .get(key)
                .and_then(Value::as_str)
                .is_none_or(|word| word.is_empty() || word == own)
        };
        if same("kind", self.kind()) && same("apiVersion", &self.api_version()) {
            return Ok(());
        }
        let word = |key: &str| patched.get(key).and_then(Value::as_str).unwrap_or("");
        Err(Failure::bad_request(format!(
            "the kind of the patched object ({}, Kind={}) does not match the expected kind ({}, Kind={})",
            word("apiVersion"),
            word("kind"),
            self.api_version(),
            self.kind()
        )))
    }
}

fn parse_patch(patch: &[u8]) -> Result<Parsed, Failure> {
    // YAML is accepted where JSON is, as long as it is not JSON: patches are almost always JSON.
    match parse_json(patch) {
        Ok(parsed) => Ok(parsed),
        Err(problem) => match parse_yaml(patch) {
            Ok(parsed) if parsed.value.is_object() || parsed.value.is_array() => Ok(parsed),
            _ => Err(Failure::bad_request(format!(
                "error decoding patch: {problem}"
            ))),
        },
    }
}

fn require_object(patch: &Value) -> Result<(), Failure> {
    if patch.is_object() {
        return Ok(());
    }
    Err(Failure::bad_request(format!(
        "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
        crate::value::go_kind(patch)
    )))
}

fn apply_operations(object: &mut Value, patch: &Value) -> Result<(), Failure> {
    apply_json_patch(object, patch).map_err(|problem| match problem {
        PatchProblem::Malformed(problem) => {
            Failure::bad_request(format!("error decoding patch: {problem}"))
        }
        PatchProblem::TooLarge(problem) => Failure::too_large(problem),
        PatchProblem::Refused { .. } => {
            let mut failure = Failure::new(
                422,
                "Invalid",
                format!(
                    "the server rejected our request due to an error in our request: {problem}"
                ),
            );
            failure.details = Some(serde_json::json!({}));
            failure
        }
    })
}

#[cfg(test)]
mod tests;
