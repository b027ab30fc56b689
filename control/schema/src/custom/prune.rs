//! Removing what a structural schema does not describe.

use serde_json::Value;

use super::Schema;
use super::schema::Additional;

/// Keys that every object and every embedded object has.
const TYPE_KEYS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Prunes a whole object; the paths of what went are added to `unknown`.
pub(crate) fn prune(object: &mut Value, schema: Schema<'_>, unknown: &mut Vec<String>) {
    level(object, schema, true, &mut String::new(), unknown);
}

fn level(
    value: &mut Value,
    schema: Schema<'_>,
    is_resource: bool,
    path: &mut String,
    unknown: &mut Vec<String>,
) {
    match value {
        Value::Object(map) => {
            let is_resource = is_resource || schema.is_embedded();
            let mut gone = Vec::new();
            for (key, inner) in map.iter_mut() {
                if is_resource && TYPE_KEYS.contains(&key.as_str()) {
                    continue;
                }
                let len_before = path.len();
                if len_before > 0 {
                    path.push('.');
                }
                path.push_str(key);
                match (schema.property(key), schema.additional()) {
                    (Some(known), _) | (None, Additional::Of(known)) => {
                        level(inner, known, false, path, unknown);
                    }
                    (None, Additional::Allowed(true)) => {}
                    _ if schema.preserves_unknown() => {}
                    _ => {
                        unknown.push(path.clone());
                        gone.push(key.clone());
                    }
                }
                path.truncate(len_before);
            }
            for key in gone {
                map.shift_remove(&key);
            }
        }
        Value::Array(items) => {
            let Some(item_schema) = schema.items() else {
                return;
            };
            for (index, item) in items.iter_mut().enumerate() {
                let len_before = path.len();
                path.push_str(&format!("[{index}]"));
                level(item, item_schema, false, path, unknown);
                path.truncate(len_before);
            }
        }
        _ => {}
    }
}

/// Prunes a value that is no object of its own (a default).
pub(super) fn prune_value(value: &mut Value, schema: Schema<'_>) {
    level(value, schema, false, &mut String::new(), &mut Vec::new());
}
