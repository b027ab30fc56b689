//! JSON patch (RFC 6902) with limits: a few copies of a part into itself would otherwise fill all memory, and an
//! object nested deeper than any stack would end the process.

use json_patch::PatchOperation;
use serde_json::Value;

/// A patch with more operations is refused; the limit of Kubernetes.
const OPERATIONS_MAX: usize = 10_000;
/// Bytes of JSON that all copies of a patch may add together; the limit of a request.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Levels of the patched object; what is parsed from text is no deeper.
const DEPTH_MAX: usize = 127;

/// Why a JSON patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchProblem {
    /// Not a JSON patch at all.
    #[error("{0}")]
    Malformed(String),
    /// It asks for more than an object may hold.
    #[error("{0}")]
    TooLarge(String),
    /// One of its operations does not fit the object.
    #[error("operation {at}: {problem}")]
    Refused {
        /// Counted from 0.
        at: usize,
        /// What does not fit.
        problem: String,
    },
}

/// Applies a JSON patch; after an error the object is in pieces and must be thrown away.
pub fn apply_json_patch(object: &mut Value, patch: &Value) -> Result<(), PatchProblem> {
    if let Some(operations) = patch.as_array().filter(|list| list.len() > OPERATIONS_MAX) {
        return Err(PatchProblem::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            operations.len()
        )));
    }
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|problem| PatchProblem::Malformed(problem.to_string()))?;
    let mut copied = 0;
    for (at, operation) in operations.0.iter().enumerate() {
        copied += check(object, at, operation)?;
        if copied > COPIED_BYTES_MAX {
            return Err(PatchProblem::TooLarge(format!(
                "the copies of a JSON patch may add no more than {COPIED_BYTES_MAX} bytes"
            )));
        }
        json_patch::patch_unsafe(object, std::slice::from_ref(operation)).map_err(|problem| {
            PatchProblem::Refused {
                at,
                problem: problem.kind.to_string(),
            }
        })?;
    }
    Ok(())
}

/// Refuses what would nest too deeply; the bytes that a copy adds.
fn check(object: &Value, at: usize, operation: &PatchOperation) -> Result<usize, PatchProblem> {
    let (value, is_copy) = match operation {
        PatchOperation::Add(add) => (Some(&add.value), false),
        PatchOperation::Replace(replace) => (Some(&replace.value), false),
        PatchOperation::Copy(copy) => (object.pointer(copy.from.as_str()), true),
        PatchOperation::Move(moved) => (object.pointer(moved.from.as_str()), false),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => (None, false),
    };
    let Some(value) = value else {
        return Ok(0);
    };
    if operation.path().count() + depth(value) > DEPTH_MAX {
        return Err(PatchProblem::Refused {
            at,
            problem: format!("the object would be nested deeper than {DEPTH_MAX} levels"),
        });
    }
    Ok(if is_copy { value.to_string().len() } else { 0 })
}

/// Levels of a value; recursion is fine because no value here is deeper than the limit.
fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(patch: Value, expected: &str) {
        let mut object = json!({"a": {"b": "x"}, "l": [1, 2]});
        let got = match apply_json_patch(&mut object, &patch) {
            Ok(()) => object.to_string(),
            Err(problem) => problem.to_string(),
        };
        let got = got.chars().take(200).collect::<String>();
        assert!(got.contains(expected), "{got} for {expected}");
    }

    #[test]
    fn operations() {
        check(
            json!([{"op": "add", "path": "/a/c", "value": 1}, {"op": "remove", "path": "/l"}]),
            r#"{"a":{"b":"x","c":1}}"#,
        );
        check(
            json!([{"op": "test", "path": "/a/b", "value": "x"}, {"op": "test", "path": "/a/b", "value": "y"}]),
            "operation 1: ",
        );
        check(json!([{"op": "fly"}]), "unknown variant");
        check(json!({"op": "add"}), "expected a sequence");
    }

    #[test]
    fn bombs() {
        let copy = |at: usize| json!({"op": "copy", "from": "/a", "path": format!("/a/x{at}")});
        check((0..60).map(copy).collect(), "no more than 3145728 bytes");
        let nest = |at: usize| {
            let path = "/a".to_owned() + &"/n".repeat(at + 1);
            json!({"op": "add", "path": path, "value": {}})
        };
        check((0..500).map(nest).collect(), "deeper than 127 levels");
        let chain = |at: usize| {
            let path = "/a".to_owned() + &"/n".repeat((1 << at) + 1);
            json!({"op": "copy", "from": "/a", "path": path})
        };
        check((0..20).map(chain).collect(), "operation ");
        let tests = vec![json!({"op": "test", "path": "/a/b", "value": "x"}); 10_001];
        check(tests.into(), "maximum operations");
    }
}
