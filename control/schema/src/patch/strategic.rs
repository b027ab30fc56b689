//! Strategic merge patch: lists of objects merge by the key that the type names, and directives say the rest.
//!
//! Source: the "strategic merge patch" document of sig-api-machinery. Unknown fields merge like JSON; the decoding
//! that follows judges them.

use serde_json::{Map, Value};

use crate::types::{Field, Merge, Shape, Type, TypeId};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// The object with the patch applied.
pub(super) fn apply(
    object: Value,
    patch: &Value,
    type_id: Option<TypeId>,
) -> Result<Value, String> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err("a strategic merge patch is an object".to_owned());
    };
    merge_map(object, patch, type_id.map(TypeId::get)).map(Value::Object)
}

fn merge_map(
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
    kind: Option<&'static Type>,
) -> Result<Map<String, Value>, String> {
    match patch
        .get(PATCH)
        .map(|directive| directive.as_str().unwrap_or("?"))
    {
        None | Some("merge") => {}
        Some("replace") => {
            let mut replaced = patch.clone();
            replaced.shift_remove(PATCH);
            return Ok(without_directives(replaced));
        }
        Some("delete") => return Ok(Map::new()),
        Some(other) => return Err(format!("unknown patch type found: {other}")),
    }
    retain_keys(&mut original, patch)?;
    for (key, patch_value) in patch.iter().filter(|(key, _)| !is_directive(key)) {
        let deletes = patch_value.get(PATCH).and_then(Value::as_str) == Some("delete");
        if patch_value.is_null() || (deletes && !original.contains_key(key)) {
            original.shift_remove(key);
            continue;
        }
        let field = kind.and_then(|kind| kind.field(key));
        let order = patch.get(&format!("{SET_ORDER}{key}"));
        let place = original
            .keys()
            .position(|one| one == key)
            .unwrap_or(original.len());
        let merged = merge_value(original.shift_remove(key), patch_value, field, order)?;
        original.shift_insert(place, key.clone(), merged);
    }
    for (key, gone) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            delete_scalars(&mut original, list, gone)?;
        }
    }
    order_untouched_lists(&mut original, patch, kind)?;
    Ok(original)
}

fn merge_value(
    original: Option<Value>,
    patch: &Value,
    field: Option<&'static Field>,
    order: Option<&Value>,
) -> Result<Value, String> {
    match (original, patch) {
        (Some(Value::Object(original)), Value::Object(patch)) => {
            merge_map(original, patch, field.and_then(object_type)).map(Value::Object)
        }
        (None, Value::Object(patch)) => {
            merge_map(Map::new(), patch, field.and_then(object_type)).map(Value::Object)
        }
        (original, Value::Array(patch)) => {
            let original = match original {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            merge_list(original, patch, field, order).map(Value::Array)
        }
        (_, other) => Ok(other.clone()),
    }
}

fn merge_list(
    original: Vec<Value>,
    patch: &[Value],
    field: Option<&'static Field>,
    order: Option<&Value>,
) -> Result<Vec<Value>, String> {
    let order = order.and_then(Value::as_array);
    match field.map_or(Merge::Replace, |field| field.merge) {
        Merge::Replace => Ok(patch.iter().map(strip).collect()),
        Merge::Scalars if original.is_empty() => Ok(patch.to_vec()),
        Merge::Scalars => {
            let mut merged: Vec<Value> = Vec::new();
            for item in original.iter().chain(patch) {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            let identity = |item: &Value| Some(item.clone());
            Ok(ordered(
                merged,
                order.map_or(patch, Vec::as_slice),
                &original,
                &identity,
            ))
        }
        Merge::ByKey(key) => merge_objects(original, patch, key, field.and_then(item_type), order),
    }
}

fn merge_objects(
    original: Vec<Value>,
    patch: &[Value],
    key: &'static str,
    kind: Option<&'static Type>,
    order: Option<&Vec<Value>>,
) -> Result<Vec<Value>, String> {
    let directive = |item: &Value| item.get(PATCH).and_then(Value::as_str).map(str::to_owned);
    if patch
        .iter()
        .any(|item| directive(item).as_deref() == Some("replace"))
    {
        let rest = patch
            .iter()
            .filter(|item| directive(item).as_deref() != Some("replace"));
        return Ok(rest.map(strip).collect());
    }
    let mut merged = original.clone();
    let mut plain: Vec<Value> = Vec::new();
    for item in patch {
        let Some(fields) = item.as_object() else {
            return Err(format!(
                "expected objects with the key {key} in a list, found {item}"
            ));
        };
        let Some(wanted) = fields.get(key) else {
            return Err(format!(
                "map: {} does not contain declared merge key: {key}",
                super::go_format::map(item)
            ));
        };
        match directive(item).as_deref() {
            Some("delete") => merged.retain(|one| one.get(key) != Some(wanted)),
            None | Some("merge") => {
                plain.push(item.clone());
                match merged.iter_mut().find(|one| one.get(key) == Some(wanted)) {
                    Some(Value::Object(found)) => {
                        *found = merge_map(std::mem::take(found), fields, kind)?;
                    }
                    _ => merged.push(Value::Object(merge_map(Map::new(), fields, kind)?)),
                }
            }
            Some(other) => return Err(format!("unknown patch type found: {other}")),
        }
    }
    let identity = |item: &Value| item.get(key).cloned();
    Ok(ordered(
        merged,
        order.map_or(plain.as_slice(), Vec::as_slice),
        &original,
        &identity,
    ))
}

/// Puts the items that the patch orders into its order; the others, which only the server has, stay in front of the
/// ordered items that they stood in front of.
fn ordered(
    merged: Vec<Value>,
    order: &[Value],
    original: &[Value],
    identity: &dyn Fn(&Value) -> Option<Value>,
) -> Vec<Value> {
    let order: Vec<_> = order.iter().map(identity).collect();
    let original: Vec<_> = original.iter().map(identity).collect();
    let rank = |ranks: &[Option<Value>], item: &Value| {
        let identity = identity(item);
        ranks.iter().position(|one| *one == identity)
    };
    let (mut named, rest): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| rank(&order, item).is_some());
    named.sort_by_key(|item| rank(&order, item));
    let mut out = Vec::with_capacity(named.len() + rest.len());
    let mut named = named.into_iter().peekable();
    for item in rest {
        let place = rank(&original, &item);
        while let Some(next) = named.peek() {
            let next_place = rank(&original, next);
            let item_first = matches!((place, next_place), (Some(a), Some(b)) if a < b);
            if item_first {
                break;
            }
            out.extend(named.next());
        }
        out.push(item);
    }
    out.extend(named);
    out
}

/// `$setElementOrder` without a patch of the list itself reorders what is there.
fn order_untouched_lists(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    kind: Option<&'static Type>,
) -> Result<(), String> {
    for (key, order) in patch {
        let Some(list) = key.strip_prefix(SET_ORDER) else {
            continue;
        };
        let order = order
            .as_array()
            .ok_or_else(|| format!("{key} must be a list"))?;
        if patch.contains_key(list) {
            continue;
        }
        let field = kind.and_then(|kind| kind.field(list));
        let Some(Value::Array(items)) = original.get_mut(list) else {
            continue;
        };
        let before = items.clone();
        let key = match field.map_or(Merge::Replace, |field| field.merge) {
            Merge::Replace => continue,
            Merge::Scalars => None,
            Merge::ByKey(key) => Some(key),
        };
        let identity = |item: &Value| match key {
            Some(key) => item.get(key).cloned(),
            None => Some(item.clone()),
        };
        *items = ordered(std::mem::take(items), order, &before, &identity);
    }
    Ok(())
}

fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), String> {
    let Some(keys) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let keys = keys
        .as_array()
        .ok_or("$retainKeys must be a list of keys")?;
    let stray = patch
        .keys()
        .find(|key| !key.starts_with('$') && !keys.iter().any(|one| one == key.as_str()));
    if let Some(stray) = stray {
        return Err(format!(
            "{stray} is in the patch but not in its $retainKeys list"
        ));
    }
    original.retain(|key, _| keys.iter().any(|one| one == key.as_str()));
    Ok(())
}

fn delete_scalars(
    original: &mut Map<String, Value>,
    list: &str,
    gone: &Value,
) -> Result<(), String> {
    let gone = gone
        .as_array()
        .ok_or_else(|| format!("{DELETE_FROM}{list} must be a list"))?;
    if let Some(Value::Array(items)) = original.get_mut(list) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// A patch value that meets nothing: its directives have done their work.
fn strip(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(without_directives(fields.clone())),
        Value::Array(items) => Value::Array(items.iter().map(strip).collect()),
        scalar => scalar.clone(),
    }
}

fn without_directives(fields: Map<String, Value>) -> Map<String, Value> {
    fields
        .into_iter()
        .filter(|(key, value)| !is_directive(key) && !value.is_null())
        .map(|(key, value)| (key, strip(&value)))
        .collect()
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM)
}

fn object_type(field: &'static Field) -> Option<&'static Type> {
    match &field.shape {
        Shape::Object(inner) => Some(inner.get()),
        // The keys of a map are no fields, whatever its values are.
        _ => None,
    }
}

fn item_type(field: &'static Field) -> Option<&'static Type> {
    match &field.shape {
        Shape::List(item) => match &**item {
            Shape::Object(inner) => Some(inner.get()),
            _ => None,
        },
        _ => None,
    }
}
