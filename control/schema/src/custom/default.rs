//! Defaults of structural schemas.

use serde_json::Value;

use super::Schema;
use super::schema::Additional;

/// Fills in defaults where their parent is there. A null that the schema does not allow counts as unset, and goes
/// where there is no default.
pub(crate) fn default(value: &mut Value, schema: Schema<'_>) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema.properties() {
                let unset = match map.get(name) {
                    None => true,
                    Some(found) => found.is_null() && !property.nullable(),
                };
                if !unset {
                    continue;
                }
                match property.default_value() {
                    Some(default) => {
                        map.insert(name.to_owned(), default.clone());
                    }
                    None => {
                        map.shift_remove(name);
                    }
                }
            }
            let additional = schema.additional();
            for (key, inner) in map.iter_mut() {
                match (schema.property(key), additional) {
                    (Some(known), _) | (None, Additional::Of(known)) => {
                        if inner.is_null()
                            && !known.nullable()
                            && let Some(default) = known.default_value()
                        {
                            *inner = default.clone();
                        }
                        default(inner, known);
                    }
                    _ => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(item_schema) = schema.items() {
                for item in items {
                    default(item, item_schema);
                }
            }
        }
        _ => {}
    }
}
