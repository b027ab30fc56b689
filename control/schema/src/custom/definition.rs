//! CustomResourceDefinition objects themselves: defaults, preparation, and the rules that refuse them.

use serde_json::{Value, json};

use crate::defaults::default_webhook_service;
use crate::value::{
    bool_at, list_at, list_at_mut, object_at_mut, object_in, set_if_unset, text_at,
};

/// Defaults of a definition.
pub(crate) fn default_definition(crd: &mut Value) {
    let Some(spec) = object_at_mut(crd, "spec") else {
        return;
    };
    let conversion = object_in(spec, "conversion");
    set_if_unset(conversion, "strategy", "None");
    if let Some(webhook) = conversion.get_mut("webhook").and_then(Value::as_object_mut) {
        default_webhook_service(webhook);
    }
    let names = object_in(spec, "names");
    let kind = names
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned();
    if !kind.is_empty() {
        set_if_unset(names, "singular", kind.to_lowercase());
        set_if_unset(names, "listKind", format!("{kind}List"));
    }
    for version in list_at_mut(crd, "spec.versions") {
        for column in list_at_mut(version, "additionalPrinterColumns") {
            if let Some(column) = column.as_object_mut() {
                // A priority of zero is the same as none.
                if column.get("priority") == Some(&json!(0)) {
                    column.shift_remove("priority");
                }
            }
        }
    }
}

/// What a write of a definition may not carry: its status is the server's, which remembers every version that was
/// ever the storage version.
pub(crate) fn prepare_definition(crd: &mut Value, old: Option<&Value>) {
    let versions = list_at(crd, "spec.versions").iter();
    let storage: Vec<String> = versions
        .filter(|version| bool_at(version, "storage"))
        .map(|version| text_at(version, "name").to_owned())
        .collect();
    let mut status = old
        .and_then(|old| old.get("status"))
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let stored = status.entry("storedVersions").or_insert_with(|| json!([]));
    if let (Some(stored), Some(name)) = (stored.as_array_mut(), storage.first())
        && !stored.contains(&json!(name))
    {
        stored.push(json!(name));
    }
    status.entry("conditions").or_insert_with(|| json!([]));
    status
        .entry("acceptedNames")
        .or_insert_with(|| json!({"plural": "", "kind": ""}));
    if let Some(fields) = crd.as_object_mut() {
        fields.insert("status".into(), Value::Object(status));
    }
}
