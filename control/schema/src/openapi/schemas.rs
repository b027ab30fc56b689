//! The schemas of a document: k8s-openapi's, with what they lack.

use std::collections::BTreeMap;

use k8s_openapi::schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::registry::{Kind, Rules};
use crate::types::{Field, ListType, Merge, Shape, Type, by_name};

use super::operations::Dialect;
use super::{roots, schema_name};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const METADATA_DESCRIPTION: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const API_VERSION_DESCRIPTION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND_DESCRIPTION: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// Schemas by name: the kinds, their lists, and everything in them.
pub(super) fn of_kinds(kinds: &[&Kind], dialect: Dialect) -> BTreeMap<String, Value> {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.definitions_path = dialect.definitions_path().into();
            settings.meta_schema = None;
        })
        .into_generator();
    for name in ["ObjectMeta", "ListMeta", "DeleteOptions", "Status"] {
        roots::add(&mut generator, &format!("{META}.{name}"));
    }
    for kind in kinds {
        if let Rules::Builtin { type_name, .. } = kind.rules() {
            roots::add(&mut generator, type_name);
        }
        for subresource in kind.subresources() {
            let (group, version) = (&subresource.group, &subresource.version);
            if let Some(name) = crate::decode::type_name_of(group, version, &subresource.kind) {
                roots::add(&mut generator, &name);
            }
        }
    }
    let mut schemas: BTreeMap<String, Value> = generator
        .take_definitions(false)
        .into_iter()
        .map(|(name, schema)| {
            let schema = finish(&name, schema, dialect);
            (name, schema)
        })
        .collect();
    for kind in kinds {
        add_kind(&mut schemas, kind, dialect);
    }
    schemas
}

fn add_kind(schemas: &mut BTreeMap<String, Value>, kind: &Kind, dialect: Dialect) {
    let name = schema_name(kind);
    if let Rules::Custom(version) = kind.rules() {
        schemas.insert(name.clone(), custom(&version.schema, dialect));
    }
    let gvk = |kind_name: &str| json!([{"group": kind.group(), "version": kind.version(), "kind": kind_name}]);
    if let Some(Value::Object(schema)) = schemas.get_mut(&name) {
        // k8s-openapi asks for metadata, Kubernetes does not.
        if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|key| key != "metadata");
            if required.is_empty() {
                schema.shift_remove("required");
            }
        }
        schema.insert("x-kubernetes-group-version-kind".into(), gvk(kind.kind()));
    }
    if !kind.is_virtual() {
        let mut list = list_of(&name, kind, dialect);
        list["x-kubernetes-group-version-kind"] = gvk(kind.list_kind());
        schemas.insert(format!("{name}List"), list);
    }
}

fn list_of(item: &str, kind: &Kind, dialect: Dialect) -> Value {
    json!({
        "description": format!("{} is a list of {}", kind.list_kind(), kind.kind()),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": API_VERSION_DESCRIPTION, "type": "string"},
            "items": {
                "description": format!("List of {}", kind.plural()),
                "type": "array",
                "items": dialect.reference(item),
            },
            "kind": {"description": KIND_DESCRIPTION, "type": "string"},
            "metadata": dialect.described(&format!("{META}.ListMeta"), "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"),
        },
    })
}

/// A custom kind's schema as clients want it: with the type and metadata that every object has.
fn custom(schema: &Value, dialect: Dialect) -> Value {
    let mut schema = schema.as_object().cloned().unwrap_or_default();
    if dialect == Dialect::V2 {
        without_v3_words(&mut schema);
    }
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        let text = |description: &str| json!({"description": description, "type": "string"});
        properties.insert("apiVersion".into(), text(API_VERSION_DESCRIPTION));
        properties.insert("kind".into(), text(KIND_DESCRIPTION));
        let metadata = dialect.described(&format!("{META}.ObjectMeta"), METADATA_DESCRIPTION);
        properties.insert("metadata".into(), metadata);
    }
    Value::Object(schema)
}

/// Swagger 2 has no alternatives and no null: what has them is any value.
fn without_v3_words(schema: &mut Map<String, Value>) {
    for word in ["oneOf", "anyOf", "not", "nullable"] {
        schema.shift_remove(word);
    }
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true))
        || schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true))
    {
        for word in ["type", "properties", "items"] {
            schema.shift_remove(word);
        }
    }
    for (key, inner) in schema.iter_mut() {
        match (key.as_str(), inner) {
            ("properties", Value::Object(map)) => {
                for property in map.values_mut().filter_map(Value::as_object_mut) {
                    without_v3_words(property);
                }
            }
            ("items" | "additionalProperties", Value::Object(map)) => without_v3_words(map),
            _ => {}
        }
    }
}

/// A generated schema with merge keys, list types and enums, and with the words of the dialect.
fn finish(name: &str, schema: Value, dialect: Dialect) -> Value {
    match name.rsplit('.').next() {
        Some("IntOrString") => return dialect.int_or_string(&schema),
        Some("Quantity") => return dialect.quantity(&schema),
        _ => {}
    }
    let Value::Object(mut schema) = schema else {
        return schema;
    };
    let known = by_name(name).map(|type_id| type_id.get());
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (property, inner) in properties.iter_mut() {
            if let Value::Object(inner) = inner {
                if let Some(field) = known.and_then(|kind| field_named(kind, property)) {
                    add_facts(inner, field);
                }
                dialect.wrap_reference(inner);
            }
        }
    }
    if matches!(
        name.rsplit('.').next(),
        Some(
            "LabelSelector"
                | "ObjectReference"
                | "LocalObjectReference"
                | "TypedLocalObjectReference"
                | "SecretReference"
                | "NodeSelector"
                | "NodeSelectorTerm"
                | "TopologySelectorTerm"
                | "ResourceFieldSelector"
                | "ObjectFieldSelector"
                | "ConfigMapKeySelector"
                | "SecretKeySelector"
                | "ResourceClaimTemplateReference"
        )
    ) {
        schema.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    Value::Object(schema)
}

fn field_named(kind: &'static Type, property: &str) -> Option<&'static Field> {
    kind.field(property)
}

fn add_facts(schema: &mut Map<String, Value>, field: &Field) {
    match field.list {
        ListType::Unsaid => {}
        ListType::Atomic => drop(schema.insert("x-kubernetes-list-type".into(), "atomic".into())),
        ListType::Set => drop(schema.insert("x-kubernetes-list-type".into(), "set".into())),
        ListType::Map(keys) => {
            let keys: Vec<&str> = keys.split(',').collect();
            schema.insert("x-kubernetes-list-map-keys".into(), keys.into());
            schema.insert("x-kubernetes-list-type".into(), "map".into());
        }
    }
    let merges = field.merge != Merge::Replace;
    if let Merge::ByKey(key) = field.merge {
        schema.insert("x-kubernetes-patch-merge-key".into(), key.into());
    }
    let strategy = match (merges, field.retain_keys) {
        (true, true) => "merge,retainKeys",
        (true, false) => "merge",
        (false, true) => "retainKeys",
        (false, false) => "",
    };
    if !strategy.is_empty() {
        schema.insert("x-kubernetes-patch-strategy".into(), strategy.into());
    }
    if field.enum_values.is_empty() {
        return;
    }
    let values: Vec<&str> = field.enum_values.split('|').collect();
    let target = match (&field.shape, schema.get_mut("items")) {
        (Shape::List(_), Some(Value::Object(items))) => items,
        _ => schema,
    };
    target.insert("enum".into(), values.into());
}
