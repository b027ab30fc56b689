//! Checking an object against its schema.

use regex::Regex;
use serde_json::Value;

use crate::path::Path;
use crate::validate::metadata;
use crate::{FieldError, FieldErrorKind};

use super::formats;
use super::schema::{Additional, Schema};

/// Deeper schemas are not followed; definitions that deep are refused when they are created.
const DEPTH_MAX: usize = 100;

/// Everything that is wrong with a whole object, in the words of the real server.
pub(super) fn validate(object: &Value, schema: Schema<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut check = Check {
        errors: &mut errors,
        depth: 0,
    };
    check.value(object, schema, &Path::root(), true);
    errors
}

/// What is wrong with a default, seen as a value of its own schema.
pub(super) fn validate_value(value: &Value, schema: Schema<'_>, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut check = Check {
        errors: &mut errors,
        depth: 0,
    };
    check.value(value, schema, &Path::root(), false);
    for error in &mut errors {
        error.field = match error.field.as_str() {
            "" => path.to_string(),
            inner => format!("{path}.{inner}"),
        };
    }
    errors
}

struct Check<'e> {
    errors: &'e mut Vec<FieldError>,
    depth: usize,
}

impl Check<'_> {
    fn value(&mut self, value: &Value, schema: Schema<'_>, path: &Path, is_root: bool) {
        if self.depth > DEPTH_MAX || (value.is_null() && schema.nullable()) {
            return;
        }
        self.depth += 1;
        if self.has_type(value, schema, path) {
            self.one_of_enum(value, schema, path);
            match value {
                Value::Object(map) => {
                    self.object(value, schema, path, is_root);
                    for (key, inner) in map {
                        if is_root && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                            continue;
                        }
                        if let Some(known) = schema.of_key(key) {
                            let inner_path = self.key_path(schema, path, key);
                            self.value(inner, known, &inner_path, false);
                        }
                    }
                }
                Value::Array(items) => self.array(items, schema, path),
                Value::String(text) => self.text(text, schema, path),
                Value::Number(_) => self.number(value, schema, path),
                _ => {}
            }
            self.combinations(value, schema, path, is_root);
        }
        self.depth -= 1;
    }

    fn key_path(&self, schema: Schema<'_>, path: &Path, key: &str) -> Path {
        match (schema.property(key), schema.additional()) {
            (None, Additional::Of(_)) if key.contains(['.', '/']) => path.key(key),
            _ => path.child(key),
        }
    }

    fn has_type(&mut self, value: &Value, schema: Schema<'_>, path: &Path) -> bool {
        let found = type_of(value);
        let wanted = schema.type_name();
        let fits = if schema.is_int_or_string() {
            matches!(found, "integer" | "string")
        } else {
            wanted.is_empty() || wanted == found || (wanted == "number" && found == "integer")
        };
        if !fits {
            let wanted = if schema.is_int_or_string() {
                "integer,string"
            } else {
                wanted
            };
            let detail = format!("{path} in body must be of type {wanted}: \"{found}\"");
            self.errors
                .push(FieldError::type_invalid(path, found, detail));
        }
        fits
    }

    fn one_of_enum(&mut self, value: &Value, schema: Schema<'_>, path: &Path) {
        let allowed = schema.list("enum");
        if allowed.is_empty() || allowed.contains(value) {
            return;
        }
        let words: Vec<String> = allowed
            .iter()
            .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.errors
            .push(FieldError::not_supported(path, value.clone(), &words));
    }

    fn object(&mut self, value: &Value, schema: Schema<'_>, path: &Path, is_root: bool) {
        let Some(map) = value.as_object() else { return };
        for name in schema.texts("required") {
            if map
                .get(name)
                .is_none_or(|found| found.is_null() && !nullable(schema, name))
            {
                self.errors.push(FieldError::required(path.child(name), ""));
            }
        }
        if let Some(max) = schema.count("maxProperties").filter(|max| map.len() > *max) {
            self.errors.push(FieldError::too_many(path, map.len(), max));
        }
        if let Some(min) = schema.count("minProperties").filter(|min| map.len() < *min) {
            self.invalid(
                path,
                value,
                format!("should have at least {min} properties"),
            );
        }
        if schema.is_embedded() && !is_root {
            for key in ["apiVersion", "kind"] {
                if map
                    .get(key)
                    .and_then(Value::as_str)
                    .unwrap_or("")
                    .is_empty()
                {
                    self.errors.push(FieldError::required(path.child(key), ""));
                }
            }
            if let Some(found) = map.get("metadata") {
                self.errors
                    .extend(metadata::validate_embedded(found, &path.child("metadata")));
            }
        }
    }

    fn array(&mut self, items: &[Value], schema: Schema<'_>, path: &Path) {
        if let Some(max) = schema.count("maxItems").filter(|max| items.len() > *max) {
            self.errors
                .push(FieldError::too_many(path, items.len(), max));
        }
        if let Some(min) = schema.count("minItems").filter(|min| items.len() < *min) {
            let shown = Value::from(items.len());
            self.invalid(path, &shown, format!("should have at least {min} items"));
        }
        if let Some(item_schema) = schema.items() {
            for (index, item) in items.iter().enumerate() {
                self.value(item, item_schema, &path.index(index), false);
            }
        }
        let keys: Vec<&str> = schema.texts("x-kubernetes-list-map-keys").collect();
        let identity = |item: &Value| -> Option<Value> {
            match schema.text("x-kubernetes-list-type") {
                "set" => Some(item.clone()),
                "map" => {
                    let found = keys.iter().filter_map(|key| {
                        let default = || schema.items()?.property(key)?.default_value();
                        Some(((*key).to_owned(), item.get(key).or_else(default)?.clone()))
                    });
                    Some(Value::Object(found.collect()))
                }
                _ => None,
            }
        };
        let mut seen: Vec<Value> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let Some(identity) = identity(item) else {
                return;
            };
            if seen.contains(&identity) {
                self.errors
                    .push(FieldError::duplicate(path.index(index), identity));
            } else {
                seen.push(identity);
            }
        }
    }

    /// Stops at the first rule that a text breaks, as the real server does.
    fn text(&mut self, text: &str, schema: Schema<'_>, path: &Path) {
        let chars = text.chars().count();
        if let Some(max) = schema.count("maxLength").filter(|max| chars > *max) {
            return self.errors.push(FieldError::too_long(path, max));
        }
        if let Some(min) = schema.count("minLength").filter(|min| chars < *min) {
            let problem = format!("should be at least {min} chars long");
            return self.invalid(path, &text.into(), problem);
        }
        let pattern = schema.text("pattern");
        if !pattern.is_empty() && !pattern_matches(pattern, text) {
            return self.invalid(path, &text.into(), format!("should match '{pattern}'"));
        }
        let format = schema.text("format");
        if !format.is_empty() && !schema.is_int_or_string() && !formats::matches(format, text) {
            let detail = format!("{path} in body must be of type {format}: {text:?}");
            self.errors
                .push(FieldError::type_invalid(path, text, detail));
        }
    }

    fn number(&mut self, value: &Value, schema: Schema<'_>, path: &Path) {
        let Some(number) = value.as_f64() else { return };
        if let Some(max) = schema.number("maximum") {
            let exclusive = schema.flag("exclusiveMaximum");
            if number > max || (exclusive && number >= max) {
                let or_equal = if exclusive { "" } else { " or equal to" };
                self.invalid(path, value, format!("should be less than{or_equal} {max}"));
            }
        }
        if let Some(min) = schema.number("minimum") {
            let exclusive = schema.flag("exclusiveMinimum");
            if number < min || (exclusive && number <= min) {
                let or_equal = if exclusive { "" } else { " or equal to" };
                self.invalid(
                    path,
                    value,
                    format!("should be greater than{or_equal} {min}"),
                );
            }
        }
        if let Some(step) = schema.number("multipleOf")
            && step != 0.0
            && (number / step).fract() != 0.0
        {
            self.invalid(path, value, format!("should be a multiple of {step}"));
        }
        let in_range = match schema.text("format") {
            "int32" => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            "int64" => value.as_i64().is_some(),
            _ => true,
        };
        if !in_range {
            let format = schema.text("format");
            let detail =
                format!("Checked value must be of type integer with format {format} in {path}");
            self.errors
                .push(FieldError::invalid(path, value.clone(), detail));
        }
    }

    fn combinations(&mut self, value: &Value, schema: Schema<'_>, path: &Path, is_root: bool) {
        for part in schema.list("allOf") {
            self.value(value, Schema::new(part), path, is_root);
        }
        let any = schema.list("anyOf");
        // int-or-string is written with an anyOf that says the same again.
        if !any.is_empty()
            && !schema.is_int_or_string()
            && !any.iter().any(|part| self.is_valid(value, part, is_root))
        {
            self.invalid(
                path,
                &shown(value),
                "must validate at least one schema (anyOf)".into(),
            );
        }
        let one = schema.list("oneOf");
        if !one.is_empty() {
            let valid = one
                .iter()
                .filter(|part| self.is_valid(value, part, is_root))
                .count();
            if valid != 1 {
                let found = if valid == 0 {
                    "Found none valid".into()
                } else {
                    format!("Found {valid} valid alternatives")
                };
                let text = format!("must validate one and only one schema (oneOf). {found}");
                self.invalid(path, &shown(value), text);
            }
        }
        if let Some(not) = schema.raw("not")
            && self.is_valid(value, not, is_root)
        {
            self.invalid(
                path,
                &shown(value),
                "must not validate the schema (not)".into(),
            );
        }
    }

    fn is_valid(&self, value: &Value, part: &Value, is_root: bool) -> bool {
        let mut errors = Vec::new();
        let mut check = Check {
            errors: &mut errors,
            depth: self.depth,
        };
        check.value(value, Schema::new(part), &Path::root(), is_root);
        errors.is_empty()
    }

    fn invalid(&mut self, path: &Path, value: &Value, problem: String) {
        let verb_first = problem.starts_with("should") || problem.starts_with("must");
        debug_assert!(verb_first, "{problem}");
        let detail = if problem.starts_with("must") {
            format!("\"{path}\" {problem}")
        } else {
            format!("{path} in body {problem}")
        };
        self.errors.push(FieldError {
            kind: FieldErrorKind::Invalid,
            field: path.to_string(),
            detail,
            value: value.clone(),
        });
    }
}

fn nullable(schema: Schema<'_>, name: &str) -> bool {
    schema
        .property(name)
        .is_some_and(|property| property.nullable())
}

/// Whole values are named by type only where a combination failed.
fn shown(value: &Value) -> Value {
    match value {
        Value::Object(_) | Value::Array(_) => type_of(value).into(),
        scalar => scalar.clone(),
    }
}

/// Go's patterns are RE2, as are ours; one that does not compile was refused with its definition.
fn pattern_matches(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).map_or(true, |compiled| compiled.is_match(text))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
