//! The rules that refuse a CustomResourceDefinition.

use serde_json::Value;

use crate::path::Path;
use crate::table::JsonPath;
use crate::validate::validate_client_config;
use crate::value::{at, bool_at, list_at, text_at};
use crate::{FieldError, names};

use super::{Schema, structural};

const COLUMN_TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const APPROVAL: &str = "api-approved.kubernetes.io";

/// Everything that is wrong with a definition.
pub(crate) fn validate_definition(crd: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (plural, group) = (
        text_at(crd, "spec.names.plural"),
        text_at(crd, "spec.group"),
    );
    let name = text_at(crd, "metadata.name");
    if name != format!("{plural}.{group}") {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", name, detail));
    }
    check_approval(crd, group, &mut errors);
    check_group(group, &mut errors);
    let scope = text_at(crd, "spec.scope");
    if !matches!(scope, "Cluster" | "Namespaced") {
        let error = match scope {
            "" => FieldError::required("spec.scope", ""),
            other => FieldError::not_supported("spec.scope", other, &["Cluster", "Namespaced"]),
        };
        errors.push(error);
    }
    check_versions(crd, &mut errors);
    check_names(crd, "spec.names", &mut errors);
    check_conversion(crd, &mut errors);
    check_stored_versions(crd, &mut errors);
    errors
}

/// Everything that is wrong with an update beyond that: what objects that are there depend on stays.
pub(crate) fn validate_definition_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let conditions = list_at(old, "status.conditions");
    let established = conditions
        .iter()
        .any(|one| text_at(one, "type") == "Established" && text_at(one, "status") == "True");
    let fixed: &[&str] = if established {
        &[
            "spec.scope",
            "spec.names.kind",
            "spec.group",
            "spec.names.plural",
        ]
    } else {
        &["spec.group", "spec.names.plural"]
    };
    for path in fixed {
        if at(new, path) != at(old, path) {
            let shown = at(new, path).cloned().unwrap_or_default();
            errors.push(FieldError::invalid(path, shown, "field is immutable"));
        }
    }
    errors
}

/// Groups of the Kubernetes project are not for everyone.
fn check_approval(crd: &Value, group: &str, errors: &mut Vec<FieldError>) {
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|suffix| group == *suffix || group.ends_with(&format!(".{suffix}")));
    if !protected {
        return;
    }
    let annotations = crd
        .get("metadata")
        .and_then(|metadata| metadata.get("annotations"));
    let approval = annotations
        .and_then(|map| map.get(APPROVAL))
        .and_then(Value::as_str);
    let field = Path::new("metadata.annotations").key(APPROVAL);
    match approval.unwrap_or("") {
        "" => {
            let detail = format!(
                "protected groups must have approval annotation {APPROVAL:?}, see https://github.com/kubernetes/enhancements/pull/1111"
            );
            errors.push(FieldError::required(field, detail));
        }
        text if text.starts_with("unapproved") || text.starts_with("https://") => {}
        text => {
            let detail = format!(
                "protected groups must have approval annotation {APPROVAL:?} with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"
            );
            errors.push(FieldError::invalid(field, text, detail));
        }
    }
}

fn check_group(group: &str, errors: &mut Vec<FieldError>) {
    let problems = names::dns1123_subdomain(group);
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if !problems.is_empty() {
        errors.push(FieldError::invalid("spec.group", group, problems.join(",")));
    } else if !group.contains('.') {
        let detail = "should be a domain with at least one dot";
        errors.push(FieldError::invalid("spec.group", group, detail));
    }
}

fn check_versions(crd: &Value, errors: &mut Vec<FieldError>) {
    let versions = list_at(crd, "spec.versions");
    let spec = Path::new("spec");
    // What all versions say alike is reported once, as the real server does.
    let same = |key: &str| {
        let first = versions.first().and_then(|version| version.get(key));
        first.is_some() && versions.iter().all(|version| version.get(key) == first)
    };
    for (index, version) in versions.iter().enumerate() {
        let path = spec.child("versions").index(index);
        check_version_name(version, index, &path, errors);
        if at(version, "schema.openAPIV3Schema").is_none() {
            errors.push(FieldError::required(
                path.child("schema.openAPIV3Schema"),
                "",
            ));
        } else if !same("schema") {
            check_schema(version, &path.child("schema.openAPIV3Schema"), errors);
        }
        if !same("subresources") {
            check_subresources(version, &path.child("subresources"), errors);
        }
        if !same("additionalPrinterColumns") {
            check_columns(version, &path.child("additionalPrinterColumns"), errors);
        }
        check_selectable_fields(version, &path.child("selectableFields"), errors);
    }
    let mut seen: Vec<&str> = versions
        .iter()
        .map(|version| text_at(version, "name"))
        .collect();
    seen.sort_unstable();
    if seen.windows(2).any(|pair| pair[0] == pair[1]) {
        let detail = "must contain unique version names";
        errors.push(FieldError::invalid(
            "spec.versions",
            versions.to_vec(),
            detail,
        ));
    }
    if versions
        .iter()
        .filter(|version| bool_at(version, "storage"))
        .count()
        != 1
    {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(
            "spec.versions",
            versions.to_vec(),
            detail,
        ));
    }
    let Some(first) = versions.first() else {
        return;
    };
    if same("schema") && at(first, "schema.openAPIV3Schema").is_some() {
        check_schema(first, &spec.child("validation.openAPIV3Schema"), errors);
    }
    if same("subresources") {
        check_subresources(first, &spec.child("subresources"), errors);
    }
    if same("additionalPrinterColumns") {
        check_columns(first, &spec.child("additionalPrinterColumns"), errors);
    }
}

fn check_version_name(version: &Value, index: usize, path: &Path, errors: &mut Vec<FieldError>) {
    let name = text_at(version, "name");
    let problems = names::dns1035_label(name);
    if problems.is_empty() {
        return;
    }
    errors.push(FieldError::invalid(
        path.child("name"),
        name,
        problems.join(","),
    ));
    if index == 0 {
        // The first version is also the old field of that name, which the real server checks again.
        errors.push(FieldError::invalid(
            "spec.version",
            name,
            problems.join(","),
        ));
    }
}

fn check_schema(version: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let Some(schema) = at(version, "schema.openAPIV3Schema") else {
        return;
    };
    errors.extend(structural::check(Schema::new(schema), path));
}

fn check_subresources(version: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let Some(scale) = at(version, "subresources.scale") else {
        return;
    };
    for (key, roots, required) in [
        ("specReplicasPath", &[".spec."][..], true),
        ("statusReplicasPath", &[".status."], true),
        ("labelSelectorPath", &[".spec.", ".status."], false),
    ] {
        let found = text_at(scale, key);
        let path = path.child("scale").child(key);
        if found.is_empty() {
            if required {
                errors.push(FieldError::required(path, ""));
            }
            continue;
        }
        check_simple_path(found, &path, errors);
        if !roots.iter().any(|root| found.starts_with(root)) {
            let places: Vec<&str> = roots
                .iter()
                .map(|root| root.trim_end_matches('.'))
                .collect();
            let detail = match places.as_slice() {
                [one] => format!("should be a json path under {one}"),
                many => format!("should be a json path under either {}", many.join(" or ")),
            };
            errors.push(FieldError::invalid(path, found, detail));
        }
    }
}

fn check_simple_path(text: &str, path: &Path, errors: &mut Vec<FieldError>) {
    let detail = if !text.starts_with('.') {
        "must be a simple json path starting with ."
    } else if text.contains('[') {
        "must be a json path in the dot notation"
    } else {
        return;
    };
    errors.push(FieldError::invalid(path, text, detail));
}

fn check_columns(version: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for (index, column) in list_at(version, "additionalPrinterColumns")
        .iter()
        .enumerate()
    {
        let path = path.index(index);
        if text_at(column, "name").is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        }
        let kind = text_at(column, "type");
        let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
        if kind.is_empty() {
            errors.push(FieldError::required(path.child("type"), detail));
        } else if !COLUMN_TYPES.contains(&kind) {
            errors.push(FieldError::invalid(path.child("type"), kind, detail));
        }
        let json_path = text_at(column, "jsonPath");
        let path = path.child("JSONPath");
        if json_path.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if let Err(problem) = JsonPath::parse(json_path) {
            errors.push(FieldError::invalid(path, json_path, problem));
        }
    }
}

fn check_selectable_fields(version: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    const FIELDS_MAX: usize = 8;
    let fields = list_at(version, "selectableFields");
    if fields.len() > FIELDS_MAX {
        errors.push(FieldError::too_many(path, fields.len(), FIELDS_MAX));
    }
    for (index, field) in fields.iter().enumerate() {
        let json_path = text_at(field, "jsonPath");
        let path = path.index(index).child("jsonPath");
        if json_path.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if json_path.starts_with(".metadata") {
            let detail = "must not point to fields in metadata";
            errors.push(FieldError::invalid(path, json_path, detail));
        } else if !selects_a_scalar(version, json_path) {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(FieldError::invalid(path, json_path, detail));
        }
    }
}

fn selects_a_scalar(version: &Value, json_path: &str) -> bool {
    let Some(root) = at(version, "schema.openAPIV3Schema") else {
        return false;
    };
    let found = json_path
        .trim_start_matches('.')
        .split('.')
        .try_fold(Schema::new(root), |schema, key| schema.property(key));
    found.is_some_and(|schema| matches!(schema.type_name(), "string" | "boolean" | "integer"))
}

fn check_names(crd: &Value, at_path: &str, errors: &mut Vec<FieldError>) {
    let path = Path::new(at_path);
    let text = |key: &str| text_at(crd, &format!("{at_path}.{key}"));
    for key in ["plural", "singular", "kind", "listKind"] {
        if text(key).is_empty() {
            errors.push(FieldError::required(path.child(key), ""));
        }
    }
    for key in ["plural", "singular"] {
        let problems = names::dns1035_label(text(key));
        if !text(key).is_empty() && !problems.is_empty() {
            errors.push(FieldError::invalid(
                path.child(key),
                text(key),
                problems.join(","),
            ));
        }
    }
    for key in ["kind", "listKind"] {
        let problems = names::dns1035_label(&text(key).to_lowercase());
        if !text(key).is_empty() && !problems.is_empty() {
            let detail = format!(
                "may have mixed case, but should otherwise match: {}",
                problems.join(",")
            );
            errors.push(FieldError::invalid(path.child(key), text(key), detail));
        }
    }
    for list in ["shortNames", "categories"] {
        let words = list_at(crd, &format!("{at_path}.{list}"));
        for (index, word) in words.iter().filter_map(Value::as_str).enumerate() {
            let problems = names::dns1035_label(word);
            if !problems.is_empty() {
                let path = path.child(list).index(index);
                errors.push(FieldError::invalid(path, word, problems.join(",")));
            }
        }
    }
    if !text("kind").is_empty() && text("kind") == text("listKind") {
        let detail = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(
            path.child("listKind"),
            text("listKind"),
            detail,
        ));
    }
}

fn check_conversion(crd: &Value, errors: &mut Vec<FieldError>) {
    let path = Path::new("spec.conversion");
    match text_at(crd, "spec.conversion.strategy") {
        "None" | "" => {
            if at(crd, "spec.conversion.webhook").is_some() {
                let detail = "should not be set when strategy is not set to Webhook";
                errors.push(FieldError::forbidden(
                    path.child("webhookClientConfig"),
                    detail,
                ));
            }
        }
        "Webhook" => match at(crd, "spec.conversion.webhook.clientConfig") {
            None => {
                let detail = "required when strategy is set to Webhook";
                errors.push(FieldError::required(
                    path.child("webhookClientConfig"),
                    detail,
                ));
            }
            Some(config) => {
                validate_client_config(config, &path.child("webhookClientConfig"), errors)
            }
        },
        other => {
            errors.push(FieldError::not_supported(
                path.child("strategy"),
                other,
                &["None", "Webhook"],
            ));
        }
    }
}

fn check_stored_versions(crd: &Value, errors: &mut Vec<FieldError>) {
    let stored = list_at(crd, "status.storedVersions");
    let versions = list_at(crd, "spec.versions");
    let field = Path::new("status.storedVersions");
    if stored.is_empty() {
        errors.push(FieldError::invalid(
            field,
            Value::Null,
            "must have at least one stored version",
        ));
        return;
    }
    for version in versions
        .iter()
        .filter(|version| bool_at(version, "storage"))
    {
        let name = text_at(version, "name");
        if !stored.iter().any(|one| one == name) {
            let detail = format!("must have the storage version {name}");
            errors.push(FieldError::invalid(&field, stored.to_vec(), detail));
        }
    }
    for (index, name) in stored.iter().filter_map(Value::as_str).enumerate() {
        if !versions
            .iter()
            .any(|version| text_at(version, "name") == name)
        {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.push(FieldError::invalid(field.index(index), name, detail));
        }
    }
}
