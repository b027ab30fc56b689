//! Requests and limits of a container.

use serde_json::Value;

use crate::path::Path;
use crate::quantity::Quantity;
use crate::value::map_at;
use crate::{FieldError, names};

use super::super::checks;

const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

pub(super) fn validate(container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for list in ["limits", "requests"] {
        let path = path.child(list);
        for (name, quantity) in map_at(container, &format!("resources.{list}")) {
            let text = quantity.as_str().unwrap_or("");
            validate_name(name, &path, errors);
            validate_amount(name, text, &path.key(name), errors);
        }
    }
    for (name, request) in map_at(container, "resources.requests") {
        let request = request.as_str().unwrap_or("");
        let limit = container
            .get("resources")
            .and_then(|one| one.get("limits"))
            .and_then(|one| one.get(name));
        let limit = limit.and_then(Value::as_str);
        let parsed = (Quantity::parse(request), limit.map(Quantity::parse));
        let path = path.child("requests");
        match (parsed, limit) {
            ((Ok(wanted), Some(Ok(most))), Some(limit)) if wanted > most => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(path, request, detail));
            }
            ((Ok(wanted), Some(Ok(most))), Some(limit)) if wanted != most && !overcommits(name) => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(path, request, detail));
            }
            ((Ok(_), None), _) if !overcommits(name) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(
                    Path::new(text_of_limits(&path)),
                    detail,
                ));
            }
            _ => {}
        }
    }
}

fn text_of_limits(requests: &Path) -> String {
    requests.to_string().replace("requests", "limits")
}

/// Whether a node may promise more than it has.
fn overcommits(name: &str) -> bool {
    STANDARD.contains(&name)
}

fn validate_name(name: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let problems = names::qualified_name(name);
    if !problems.is_empty() {
        checks::problems(path, name, problems, errors);
    } else if !name.contains('/') && !STANDARD.contains(&name) && !name.starts_with("hugepages-") {
        errors.push(FieldError::invalid(
            path.key(name),
            name,
            "must be a standard resource type or fully qualified",
        ));
        errors.push(FieldError::invalid(
            path.key(name),
            name,
            "must be a standard resource for containers",
        ));
    }
}

fn validate_amount(name: &str, text: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let Ok(quantity) = Quantity::parse(text) else {
        return;
    };
    if quantity.is_negative() {
        errors.push(FieldError::invalid(
            path,
            text,
            "must be greater than or equal to 0",
        ));
    } else if name != "cpu" && name.contains('/') && !quantity.is_whole() {
        errors.push(FieldError::invalid(path, text, "must be an integer"));
    }
}
