//! Paths and operations: enough for clients that look up how a kind is written, and for code generators.

use serde_json::{Map, Value, json};

use crate::registry::{Kind, api_version};

use super::schema_name;

const PATCH_MEDIA_TYPES: [&str; 3] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
];
const STRATEGIC_MEDIA_TYPE: &str = "application/strategic-merge-patch+json";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

/// Version 2 and 3 say the same things with other words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    pub(super) fn definitions_path(self) -> &'static str {
        match self {
            Dialect::V2 => "/definitions",
            Dialect::V3 => "/components/schemas",
        }
    }

    pub(super) fn reference(self, name: &str) -> Value {
        json!({"$ref": format!("#{}/{name}", self.definitions_path())})
    }

    /// A reference with a description, which version 3 does not allow beside `$ref`.
    pub(super) fn described(self, name: &str, description: &str) -> Value {
        match self {
            Dialect::V2 => {
                let mut schema = self.reference(name);
                schema["description"] = description.into();
                schema
            }
            Dialect::V3 => json!({"allOf": [self.reference(name)], "description": description}),
        }
    }

    pub(super) fn wrap_reference(self, schema: &mut Map<String, Value>) {
        if self == Dialect::V3
            && schema.len() > 1
            && let Some(reference) = schema.shift_remove("$ref")
        {
            schema.insert("allOf".into(), json!([{ "$ref": reference }]));
        }
    }

    pub(super) fn int_or_string(self, schema: &Value) -> Value {
        let description = schema.get("description").cloned().unwrap_or_default();
        match self {
            Dialect::V2 => {
                json!({"description": description, "type": "string", "format": "int-or-string"})
            }
            Dialect::V3 => json!({
                "description": description,
                "format": "int-or-string",
                "oneOf": [{"type": "integer"}, {"type": "string"}],
            }),
        }
    }

    pub(super) fn quantity(self, schema: &Value) -> Value {
        let description = schema.get("description").cloned().unwrap_or_default();
        match self {
            Dialect::V2 => json!({"description": description, "type": "string"}),
            Dialect::V3 => json!({
                "description": description,
                "oneOf": [{"type": "string"}, {"type": "number"}],
            }),
        }
    }

    fn parameter(self, name: &str, place: &str, kind: &str) -> Value {
        let mut parameter = json!({"name": name, "in": place});
        match self {
            Dialect::V2 => {
                parameter["type"] = kind.into();
                parameter["uniqueItems"] = true.into();
            }
            Dialect::V3 => parameter["schema"] = json!({"type": kind, "uniqueItems": true}),
        }
        if place == "path" {
            parameter["required"] = true.into();
        }
        parameter
    }
}

/// Adds the paths of these kinds.
pub(super) fn add_paths(paths: &mut Map<String, Value>, kinds: &[&Kind], dialect: Dialect) {
    for kind in kinds {
        let root = if kind.group().is_empty() {
            "/api"
        } else {
            "/apis"
        };
        let base = format!("{root}/{}", api_version(kind.group(), kind.version()));
        let scope = if kind.namespaced() {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let collection = format!("{base}{scope}/{}", kind.plural());
        let writer = Writer {
            kind,
            dialect,
            schema: schema_name(kind),
        };
        paths.insert(collection.clone(), writer.collection());
        if kind.is_virtual() {
            continue;
        }
        let item = format!("{collection}/{{name}}");
        paths.insert(item.clone(), writer.item());
        for subresource in kind.subresources() {
            let path = format!("{item}/{}", subresource.name);
            paths.insert(
                path,
                writer.subresource(&subresource.name, subresource.verbs),
            );
        }
        if kind.namespaced() {
            paths.insert(format!("{base}/{}", kind.plural()), writer.everywhere());
        }
    }
}

struct Writer<'k> {
    kind: &'k Kind,
    dialect: Dialect,
    schema: String,
}

impl Writer<'_> {
    fn collection(&self) -> Value {
        let mut operations = Map::new();
        let serves = |verb: &str| self.kind.verbs().contains(&verb);
        if serves("list") {
            operations.insert(
                "get".into(),
                self.operation("list", "list", &list_parameters()),
            );
        }
        if serves("create") {
            operations.insert("post".into(), self.operation("create", "post", WRITE));
        }
        if serves("deletecollection") {
            operations.insert(
                "delete".into(),
                self.operation("delete", "deletecollection", &list_parameters()),
            );
        }
        self.with_path_parameters(operations, false)
    }

    fn item(&self) -> Value {
        let mut operations = Map::new();
        for (verb, method, word, action, parameters) in [
            ("get", "get", "read", "get", &[][..]),
            ("update", "put", "replace", "put", WRITE),
            ("patch", "patch", "patch", "patch", PATCH),
            ("delete", "delete", "delete", "delete", DELETE),
        ] {
            if self.kind.verbs().contains(&verb) {
                operations.insert(method.into(), self.operation(word, action, parameters));
            }
        }
        self.with_path_parameters(operations, true)
    }

    fn subresource(&self, name: &str, verbs: &[&str]) -> Value {
        let mut operations = Map::new();
        for (verb, method, word, action, parameters) in [
            ("get", "get", "read", "get", &[][..]),
            ("create", "post", "create", "post", WRITE),
            ("update", "put", "replace", "put", WRITE),
            ("patch", "patch", "patch", "patch", PATCH),
        ] {
            if verbs.contains(&verb) {
                let mut operation = self.operation(word, action, parameters);
                let id = format!("{}{}", self.operation_id(word, action), pascal(name));
                operation["operationId"] = id.into();
                operations.insert(method.into(), operation);
            }
        }
        self.with_path_parameters(operations, true)
    }

    fn everywhere(&self) -> Value {
        let mut operation = self.operation("list", "list", &list_parameters());
        let group = group_word(self.kind);
        let (version, kind) = (pascal(self.kind.version()), self.kind.kind());
        operation["operationId"] = format!("list{group}{version}{kind}ForAllNamespaces").into();
        json!({"get": operation})
    }

    fn operation_id(&self, word: &str, action: &str) -> String {
        let group = group_word(self.kind);
        let version = pascal(self.kind.version());
        let collection = if action == "deletecollection" {
            "Collection"
        } else {
            ""
        };
        let scope = if self.kind.namespaced() {
            "Namespaced"
        } else {
            ""
        };
        format!(
            "{word}{group}{version}{collection}{scope}{}",
            self.kind.kind()
        )
    }

    fn operation(&self, word: &str, action: &str, parameters: &[(&str, &str)]) -> Value {
        let kind = self.kind;
        let query = parameters
            .iter()
            .map(|(name, kind)| self.dialect.parameter(name, "query", kind));
        let mut parameters: Vec<Value> = query.collect();
        let answer = match action {
            "list" => format!("{}List", self.schema),
            "deletecollection" | "delete" => STATUS.to_owned(),
            _ => self.schema.clone(),
        };
        let answer = self.dialect.reference(&answer);
        let mut operation = json!({
            "description": format!("{word} {} of kind {}", if action == "list" { "objects" } else { "object" }, kind.kind()),
            "operationId": self.operation_id(word, action),
            "tags": [format!("{}_{}", group_word(kind).to_lowercase(), kind.version())],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": kind.group(), "kind": kind.kind(), "version": kind.version()},
        });
        let consumed: Vec<&str> = match action {
            "patch" if kind.is_custom() => PATCH_MEDIA_TYPES.to_vec(),
            "patch" => PATCH_MEDIA_TYPES
                .iter()
                .copied()
                .chain([STRATEGIC_MEDIA_TYPE])
                .collect(),
            _ => vec!["*/*"],
        };
        let has_body = matches!(action, "post" | "put" | "patch");
        let body = self.dialect.reference(&self.schema);
        match self.dialect {
            Dialect::V2 => {
                operation["consumes"] = consumed.into();
                operation["produces"] = json!([
                    "application/json",
                    "application/yaml",
                    "application/vnd.kubernetes.protobuf"
                ]);
                operation["responses"] = json!({"200": {"description": "OK", "schema": answer}});
                if has_body {
                    parameters.insert(
                        0,
                        json!({"name": "body", "in": "body", "required": true, "schema": body}),
                    );
                }
            }
            Dialect::V3 => {
                operation["responses"] = json!({"200": {"description": "OK", "content": {"application/json": {"schema": answer}}}});
                if has_body {
                    let content: Map<String, Value> = consumed
                        .iter()
                        .map(|media| ((*media).to_owned(), json!({"schema": body})))
                        .collect();
                    operation["requestBody"] = json!({"required": true, "content": content});
                }
            }
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        operation
    }

    fn with_path_parameters(&self, mut operations: Map<String, Value>, named: bool) -> Value {
        let mut parameters = Vec::new();
        if named {
            parameters.push(self.dialect.parameter("name", "path", "string"));
        }
        if self.kind.namespaced() {
            parameters.push(self.dialect.parameter("namespace", "path", "string"));
        }
        parameters.push(self.dialect.parameter("pretty", "query", "string"));
        operations.insert("parameters".into(), parameters.into());
        Value::Object(operations)
    }
}

const WRITE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
];
const PATCH: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

fn list_parameters() -> [(&'static str, &'static str); 8] {
    [
        ("allowWatchBookmarks", "boolean"),
        ("continue", "string"),
        ("fieldSelector", "string"),
        ("labelSelector", "string"),
        ("limit", "integer"),
        ("resourceVersion", "string"),
        ("timeoutSeconds", "integer"),
        ("watch", "boolean"),
    ]
}

/// `Core`, `Apps`, `RbacAuthorization`.
fn group_word(kind: &Kind) -> String {
    match kind.group() {
        "" => "Core".to_owned(),
        group => group
            .trim_end_matches(".k8s.io")
            .split('.')
            .map(pascal)
            .collect(),
    }
}

fn pascal(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(chars).collect()
    })
}
