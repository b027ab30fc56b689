//! What makes a schema structural: every level says its type, and alternatives only narrow what is described outside
//! of them. Source: "Structural schemas" of the Kubernetes documentation.

use regex::Regex;
use serde_json::Value;

use crate::FieldError;
use crate::path::Path;

use super::schema::Additional;
use super::{Schema, default, prune, validate};

/// Deeper schemas are refused: every level costs a step of recursion with every write.
const DEPTH_MAX: usize = 50;
const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const UNSUPPORTED: [&str; 6] = [
    "id",
    "additionalItems",
    "patternProperties",
    "definitions",
    "dependencies",
    "$ref",
];

/// Where in its parent a level is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
}

/// Everything that is wrong with the schema of a version.
pub(super) fn check(schema: Schema<'_>, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if schema.nullable() {
        errors.push(FieldError::forbidden(
            path.child("nullable"),
            "nullable cannot be true at the root",
        ));
    }
    level(schema, Place::Root, path, 0, &mut errors);
    errors
}

fn level(
    schema: Schema<'_>,
    place: Place,
    path: &Path,
    depth: usize,
    errors: &mut Vec<FieldError>,
) {
    if depth > DEPTH_MAX {
        let detail = format!("schemas may not be nested deeper than {DEPTH_MAX} levels");
        errors.push(FieldError::forbidden(path, detail));
        return;
    }
    check_words(schema, path, errors);
    check_type(schema, place, path, errors);
    check_list(schema, path, errors);
    check_pattern(schema, path, errors);
    check_default(schema, path, errors);
    if place == Place::Root {
        check_root(schema, path, errors);
    }
    for (name, property) in schema.properties() {
        let path = path.child("properties").key(name);
        let is_type_meta =
            place == Place::Root && matches!(name, "metadata" | "kind" | "apiVersion");
        if !is_type_meta {
            level(property, Place::Field, &path, depth + 1, errors);
        }
    }
    if let Additional::Of(inner) = schema.additional() {
        level(
            inner,
            Place::Field,
            &path.child("additionalProperties"),
            depth + 1,
            errors,
        );
    }
    if let Some(items) = schema.items() {
        level(items, Place::Item, &path.child("items"), depth + 1, errors);
    }
    check_alternatives(schema, path, errors);
}

/// Words that no structural schema may use.
fn check_words(schema: Schema<'_>, path: &Path, errors: &mut Vec<FieldError>) {
    for word in UNSUPPORTED {
        if schema.raw(word).is_some() {
            errors.push(FieldError::forbidden(
                path.child(word),
                format!("{word} is not supported"),
            ));
        }
    }
    if schema.flag("uniqueItems") {
        let detail =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(path.child("uniqueItems"), detail));
    }
    if schema.properties().next().is_some() && !matches!(schema.additional(), Additional::Unsaid) {
        let detail = "additionalProperties and properties are mutual exclusive";
        errors.push(FieldError::forbidden(
            path.child("additionalProperties"),
            detail,
        ));
    }
    if schema.raw("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let path = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(
            path,
            false,
            "must be true or undefined",
        ));
    }
    if schema.raw("items").is_some_and(Value::is_array) {
        let detail = "items must be a schema object and not an array";
        errors.push(FieldError::forbidden(path.child("items"), detail));
    }
    for (index, rule) in schema.list("x-kubernetes-validations").iter().enumerate() {
        if rule
            .get("rule")
            .and_then(Value::as_str)
            .unwrap_or("")
            .trim()
            .is_empty()
        {
            let path = path
                .child("x-kubernetes-validations")
                .index(index)
                .child("rule");
            errors.push(FieldError::required(path, "rule is not specified"));
        }
    }
}

fn check_type(schema: Schema<'_>, place: Place, path: &Path, errors: &mut Vec<FieldError>) {
    let kind = schema.type_name();
    let path_of_type = path.child("type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&path_of_type, kind, TYPES));
    }
    if kind == "array" && schema.items().is_none() {
        errors.push(FieldError::required(
            path.child("items"),
            "must be specified",
        ));
    }
    if place == Place::Root && kind != "object" && !kind.is_empty() {
        errors.push(FieldError::invalid(
            &path_of_type,
            kind,
            "must be object at the root",
        ));
    }
    let may_be_any = schema.is_int_or_string() || schema.preserves_unknown();
    if kind.is_empty() && (place == Place::Root || !may_be_any) {
        let detail = match place {
            Place::Root => "must not be empty at the root",
            Place::Item => "must not be empty for specified array items",
            Place::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(&path_of_type, detail));
    }
    if schema.is_embedded() {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        match kind {
            "object" => {}
            "" => errors.push(FieldError::required(&path_of_type, detail)),
            other => errors.push(FieldError::invalid(&path_of_type, other, detail)),
        }
        if schema.properties().next().is_none() && !schema.preserves_unknown() {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            errors.push(FieldError::required(path.child("properties"), detail));
        }
    }
    if schema.is_int_or_string() && !kind.is_empty() {
        let detail = "must be empty if x-kubernetes-int-or-string is true";
        errors.push(FieldError::invalid(&path_of_type, kind, detail));
    }
}

fn check_root(schema: Schema<'_>, path: &Path, errors: &mut Vec<FieldError>) {
    if !matches!(schema.additional(), Additional::Unsaid) {
        let detail = "must not be used at the root";
        errors.push(FieldError::forbidden(
            path.child("additionalProperties"),
            detail,
        ));
    }
    for word in ["kind", "apiVersion"] {
        if let Some(property) = schema.property(word)
            && !matches!(property.type_name(), "string" | "")
        {
            let path = path.child("properties").key(word).child("type");
            errors.push(FieldError::invalid(
                path,
                property.type_name(),
                "must be string",
            ));
        }
    }
    let Some(metadata) = schema.property("metadata") else {
        return;
    };
    let path = path.child("properties").key("metadata");
    if !matches!(metadata.type_name(), "object" | "") {
        errors.push(FieldError::invalid(
            path.child("type"),
            metadata.type_name(),
            "must be object",
        ));
    }
    if metadata
        .properties()
        .any(|(name, _)| !matches!(name, "name" | "generateName"))
    {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(path, detail));
    }
}

fn check_list(schema: Schema<'_>, path: &Path, errors: &mut Vec<FieldError>) {
    let list_type = schema.text("x-kubernetes-list-type");
    let keys: Vec<&str> = schema.texts("x-kubernetes-list-map-keys").collect();
    let map_type = schema.text("x-kubernetes-map-type");
    if !map_type.is_empty() && !matches!(map_type, "atomic" | "granular") {
        let allowed = &["atomic", "granular"];
        errors.push(FieldError::not_supported(
            path.child("x-kubernetes-map-type"),
            map_type,
            allowed,
        ));
    }
    let keys_path = path.child("x-kubernetes-list-map-keys");
    let type_path = path.child("x-kubernetes-list-type");
    match list_type {
        "" if !keys.is_empty() => {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            errors.push(FieldError::required(&type_path, detail));
        }
        "" => return,
        "map" => check_list_map(schema, &keys, path, errors),
        "atomic" | "set" if !keys.is_empty() => {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            errors.push(FieldError::invalid(&type_path, list_type, detail));
        }
        "atomic" | "set" => {}
        other => errors.push(FieldError::not_supported(
            &type_path,
            other,
            &["atomic", "set", "map"],
        )),
    }
    if schema.type_name() != "array" {
        let detail = "must be array if x-kubernetes-list-type is specified";
        let error = match schema.type_name() {
            "" => FieldError::required(path.child("type"), detail),
            other => FieldError::invalid(path.child("type"), other, detail),
        };
        errors.push(error);
    }
    if list_type == "map" && keys.is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(keys_path, detail));
    }
}

/// Keys must be scalars that every item has.
fn check_list_map(schema: Schema<'_>, keys: &[&str], path: &Path, errors: &mut Vec<FieldError>) {
    let Some(items) = schema.items() else { return };
    if items.type_name() != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(
            path.child("items").child("type"),
            items.type_name(),
            detail,
        ));
        return;
    }
    for key in keys {
        let Some(property) = items.property(key) else {
            let detail = "entries must all be names of item properties";
            let shown: Vec<Value> = keys.iter().map(|key| Value::from(*key)).collect();
            errors.push(FieldError::invalid(
                path.child("x-kubernetes-list-map-keys"),
                shown,
                detail,
            ));
            continue;
        };
        let path = path.child("items").child("properties").key(key);
        if matches!(property.type_name(), "array" | "object") {
            let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.push(FieldError::invalid(
                path.child("type"),
                property.type_name(),
                detail,
            ));
        }
        let required = items.texts("required").any(|name| name == *key);
        if !required && property.default_value().is_none() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(FieldError::required(path.child("default"), detail));
        }
        if property.nullable() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(FieldError::forbidden(path.child("nullable"), detail));
        }
    }
}

fn check_pattern(schema: Schema<'_>, path: &Path, errors: &mut Vec<FieldError>) {
    let pattern = schema.text("pattern");
    if let Err(problem) = Regex::new(pattern) {
        let problem = problem.to_string();
        let reason = problem
            .lines()
            .last()
            .unwrap_or("")
            .trim_start_matches("error: ");
        let detail = format!(
            "must be a valid regular expression, but isn't: error parsing regexp: {reason}: `{pattern}`"
        );
        errors.push(FieldError::invalid(path.child("pattern"), pattern, detail));
    }
}

/// A default is valid, and whole: nothing of it would be pruned.
fn check_default(schema: Schema<'_>, path: &Path, errors: &mut Vec<FieldError>) {
    let Some(found) = schema.default_value() else {
        return;
    };
    let path = path.child("default");
    let mut filled = found.clone();
    default(&mut filled, schema);
    errors.extend(validate::validate_value(&filled, schema, &path));
    let mut pruned = found.clone();
    prune::prune_value(&mut pruned, schema);
    if pruned != *found {
        let detail = "must not have unknown fields";
        errors.push(FieldError::invalid(path, found.clone(), detail));
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not` narrow; they describe nothing new.
fn check_alternatives(schema: Schema<'_>, path: &Path, errors: &mut Vec<FieldError>) {
    for word in ["allOf", "anyOf", "oneOf"] {
        for (index, part) in schema.list(word).iter().enumerate() {
            let path = path.child(word).index(index);
            nested(
                Schema::new(part),
                schema,
                schema.is_int_or_string(),
                &path,
                errors,
            );
        }
    }
    if let Some(not) = schema.raw("not") {
        nested(Schema::new(not), schema, false, &path.child("not"), errors);
    }
}

fn nested(
    part: Schema<'_>,
    outside: Schema<'_>,
    may_say_type: bool,
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    if !part.type_name().is_empty() && !may_say_type {
        errors.push(FieldError::forbidden(
            path.child("type"),
            "must be empty to be structural",
        ));
    }
    for (word, state) in [
        ("default", "undefined"),
        ("title", "empty"),
        ("description", "empty"),
        ("nullable", "false"),
        ("x-kubernetes-preserve-unknown-fields", "false"),
        ("x-kubernetes-embedded-resource", "false"),
        ("x-kubernetes-int-or-string", "false"),
        ("x-kubernetes-list-type", "undefined"),
        ("x-kubernetes-map-type", "undefined"),
    ] {
        let is_set = part
            .raw(word)
            .is_some_and(|value| *value != Value::Bool(false) && value != "");
        if is_set {
            let detail = format!("must be {state} to be structural");
            errors.push(FieldError::forbidden(path.child(word), detail));
        }
    }
    check_pattern(part, path, errors);
    for (name, inner) in part.properties() {
        let path = path.child("properties").key(name);
        match outside.of_key(name) {
            Some(described) => nested(
                inner,
                described,
                described.is_int_or_string(),
                &path,
                errors,
            ),
            None if outside.preserves_unknown() || outside.is_missing() => {}
            None => {
                let detail = format!("because it is defined in {path}");
                let missing = path.to_string();
                errors.push(FieldError::required(outside_path(&missing), detail));
            }
        }
    }
    if let (Some(inner), Some(described)) = (part.items(), outside.items()) {
        nested(
            inner,
            described,
            described.is_int_or_string(),
            &path.child("items"),
            errors,
        );
    }
    check_alternatives_inside(part, outside, path, errors);
}

fn check_alternatives_inside(
    part: Schema<'_>,
    outside: Schema<'_>,
    path: &Path,
    errors: &mut Vec<FieldError>,
) {
    for word in ["allOf", "anyOf", "oneOf"] {
        for (index, inner) in part.list(word).iter().enumerate() {
            let path = path.child(word).index(index);
            nested(
                Schema::new(inner),
                outside,
                outside.is_int_or_string(),
                &path,
                errors,
            );
        }
    }
    if let Some(not) = part.raw("not") {
        nested(Schema::new(not), outside, false, &path.child("not"), errors);
    }
}

/// The path of what an alternative describes, outside of the alternatives.
fn outside_path(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('.').collect();
    parts.retain(|part| {
        let word = part.split('[').next().unwrap_or(part);
        !matches!(word, "allOf" | "anyOf" | "oneOf" | "not")
    });
    parts.join(".")
}
