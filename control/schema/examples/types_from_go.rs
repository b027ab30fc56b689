//! Writes `src/types/types.txt`: the facts about Kubernetes types (field names, protobuf numbers, merge keys, list
//! types, what is left out when empty), read from the struct tags and markers of the Go modules that define them.
//!
//!     go mod download -json k8s.io/api@v0.36.3 k8s.io/apimachinery@v0.36.3 k8s.io/apiextensions-apiserver@v0.36.3
//!     cargo run -p meshgate-schema --example types_from_go -- $(go env GOMODCACHE)/k8s.io 0.36.3

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Packages to read: folder below the module cache (with `@VERSION` after the module's name) and the OpenAPI prefix.
const PACKAGES: &[(&str, &str)] = &[
    ("api@V/core/v1", "io.k8s.api.core.v1"),
    ("api@V/apps/v1", "io.k8s.api.apps.v1"),
    ("api@V/events/v1", "io.k8s.api.events.v1"),
    ("api@V/rbac/v1", "io.k8s.api.rbac.v1"),
    ("api@V/networking/v1", "io.k8s.api.networking.v1"),
    ("api@V/discovery/v1", "io.k8s.api.discovery.v1"),
    ("api@V/coordination/v1", "io.k8s.api.coordination.v1"),
    ("api@V/policy/v1", "io.k8s.api.policy.v1"),
    ("api@V/autoscaling/v1", "io.k8s.api.autoscaling.v1"),
    ("api@V/authentication/v1", "io.k8s.api.authentication.v1"),
    ("api@V/authorization/v1", "io.k8s.api.authorization.v1"),
    (
        "api@V/admissionregistration/v1",
        "io.k8s.api.admissionregistration.v1",
    ),
    (
        "apimachinery@V/pkg/apis/meta/v1",
        "io.k8s.apimachinery.pkg.apis.meta.v1",
    ),
    (
        "apiextensions-apiserver@V/pkg/apis/apiextensions/v1",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
    ),
];

/// Kinds from which everything else is reached.
const ROOTS: &[&str] = &[
    "io.k8s.api.core.v1.Binding",
    "io.k8s.api.core.v1.ConfigMap",
    "io.k8s.api.core.v1.Endpoints",
    "io.k8s.api.core.v1.Event",
    "io.k8s.api.core.v1.Namespace",
    "io.k8s.api.core.v1.Node",
    "io.k8s.api.core.v1.Pod",
    "io.k8s.api.core.v1.Secret",
    "io.k8s.api.core.v1.Service",
    "io.k8s.api.core.v1.ServiceAccount",
    "io.k8s.api.apps.v1.Deployment",
    "io.k8s.api.apps.v1.ReplicaSet",
    "io.k8s.api.events.v1.Event",
    "io.k8s.api.rbac.v1.Role",
    "io.k8s.api.rbac.v1.RoleBinding",
    "io.k8s.api.rbac.v1.ClusterRole",
    "io.k8s.api.rbac.v1.ClusterRoleBinding",
    "io.k8s.api.networking.v1.Ingress",
    "io.k8s.api.networking.v1.IngressClass",
    "io.k8s.api.discovery.v1.EndpointSlice",
    "io.k8s.api.coordination.v1.Lease",
    "io.k8s.api.policy.v1.Eviction",
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.authentication.v1.SelfSubjectReview",
    "io.k8s.api.authentication.v1.TokenRequest",
    "io.k8s.api.authentication.v1.TokenReview",
    "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
    "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    "io.k8s.api.authorization.v1.SubjectAccessReview",
    "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
    "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
    "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
];

/// Types with a JSON form of their own.
const SPECIAL: &[(&str, &str)] = &[
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", "Time"),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
        "MicroTime",
    ),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Duration", "Duration"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "FieldsV1"),
    ("resource.Quantity", "Quantity"),
    ("intstr.IntOrString", "IntOrString"),
    ("runtime.RawExtension", "RawExtension"),
    ("types.UID", "string"),
    ("types.NodeName", "string"),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
        "JSON",
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
        "SchemaOrBool",
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
        "SchemaOrArray",
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
        "SchemaOrStrings",
    ),
];

enum Declaration {
    Struct(Vec<GoField>),
    /// `type A B`: B resolved as an expression; whether it was marked `+enum`.
    Named {
        expression: String,
        is_enum: bool,
    },
}

struct GoField {
    json: String,
    expression: String,
    number: u32,
    inline: bool,
    omitempty: bool,
    omitzero: bool,
    patch_strategy: Option<String>,
    patch_merge_key: Option<String>,
    list_type: Option<String>,
    list_map_keys: Vec<String>,
}

#[derive(Default)]
struct World {
    declarations: HashMap<String, Declaration>,
    enum_values: HashMap<String, BTreeSet<String>>,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(cache), Some(version)) = (arguments.next(), arguments.next()) else {
        bail!("usage: types_from_go MODULE_CACHE/k8s.io VERSION");
    };
    let mut world = World::default();
    for (folder, prefix) in PACKAGES {
        let folder = Path::new(&cache).join(folder.replace("@V", &format!("@v{version}")));
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .with_context(|| format!("read {}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("types")
                    && name.ends_with(".go")
                    && !name.contains("swagger")
                    && !name.contains("_test")
            })
            .collect();
        files.sort();
        for file in files {
            read_file(&mut world, prefix, &std::fs::read_to_string(&file)?);
        }
    }
    let text = write_table(&world, &version)?;
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/types/types.txt");
    std::fs::write(&target, text).with_context(|| format!("write {}", target.display()))
}

fn read_file(world: &mut World, prefix: &str, source: &str) {
    let imports = imports_of(source);
    let mut comment: Vec<String> = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if let Some(text) = trimmed.strip_prefix("//") {
            comment.push(text.trim().to_owned());
            continue;
        }
        if let Some(declaration) = trimmed
            .strip_prefix("type ")
            .filter(|_| line.starts_with("type"))
        {
            let (name, rest) = declaration.split_once(' ').unwrap_or((declaration, ""));
            let full = format!("{prefix}.{name}");
            if rest.starts_with("struct {") && !rest.ends_with('}') {
                let fields = read_struct(&mut lines, prefix, &imports);
                world.declarations.insert(full, Declaration::Struct(fields));
            } else if rest.starts_with("struct") {
                world
                    .declarations
                    .insert(full, Declaration::Struct(Vec::new()));
            } else {
                let rest = rest.trim_start_matches("= ");
                let expression = resolve(rest.trim(), prefix, &imports);
                let is_enum = comment.iter().any(|text| text == "+enum");
                world.declarations.insert(
                    full,
                    Declaration::Named {
                        expression,
                        is_enum,
                    },
                );
            }
        } else if let Some((name, value)) = constant(trimmed) {
            world
                .enum_values
                .entry(format!("{prefix}.{name}"))
                .or_default()
                .insert(value);
        }
        if !trimmed.is_empty() || !comment.iter().any(|text| text == "+enum") {
            comment.clear();
        }
    }
}

/// `PodPending PodPhase = "Pending"` names the type and the value.
fn constant(line: &str) -> Option<(String, String)> {
    let line = line.strip_prefix("const ").unwrap_or(line);
    let (left, right) = line.split_once('=')?;
    let mut words = left.split_whitespace();
    let (_name, type_name, None) = (words.next()?, words.next()?, words.next()) else {
        return None;
    };
    let value = right.trim().strip_prefix('"')?;
    Some((type_name.to_owned(), value.split('"').next()?.to_owned()))
}

fn imports_of(source: &str) -> HashMap<String, String> {
    let mut imports = HashMap::new();
    for line in source.lines() {
        let line = line.trim();
        let Some(start) = line.find("\"k8s.io/") else {
            continue;
        };
        let path = line[start + 1..].split('"').next().unwrap_or_default();
        let alias = line[..start].trim().trim_start_matches("import").trim();
        let last = path.rsplit('/').next().unwrap_or_default();
        let alias = if alias.is_empty() { last } else { alias };
        imports.insert(alias.to_owned(), path.to_owned());
    }
    imports
}

fn read_struct<'a>(
    lines: &mut impl Iterator<Item = &'a str>,
    prefix: &str,
    imports: &HashMap<String, String>,
) -> Vec<GoField> {
    let mut fields = Vec::new();
    let mut markers: Vec<String> = Vec::new();
    for line in lines {
        let trimmed = line.trim();
        if line.starts_with('}') {
            break;
        }
        if let Some(text) = trimmed.strip_prefix("//") {
            markers.push(text.trim().to_owned());
            continue;
        }
        if let Some(field) = read_field(trimmed, &markers, prefix, imports) {
            fields.push(field);
        }
        markers.clear();
    }
    fields
}

fn read_field(
    line: &str,
    markers: &[String],
    prefix: &str,
    imports: &HashMap<String, String>,
) -> Option<GoField> {
    let (declaration, rest) = line.split_once('`')?;
    let tags = rest.split('`').next()?;
    let expression = declaration.split_whitespace().last()?;
    let json_tag = tag(tags, "json")?;
    let mut json_parts = json_tag.split(',');
    let json = json_parts.next()?.to_owned();
    let options: Vec<&str> = json_parts.collect();
    let protobuf = tag(tags, "protobuf").unwrap_or_default();
    let number = protobuf
        .split(',')
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let marker = |name: &str| {
        markers
            .iter()
            .find_map(|text| {
                text.strip_prefix('+')?
                    .strip_prefix(name)?
                    .strip_prefix('=')
            })
            .map(str::to_owned)
    };
    let list_map_keys = markers
        .iter()
        .filter_map(|text| text.strip_prefix("+listMapKey="))
        .map(str::to_owned)
        .collect();
    Some(GoField {
        inline: options.contains(&"inline"),
        omitempty: options.contains(&"omitempty"),
        omitzero: options.contains(&"omitzero"),
        json: if json == "-" { return None } else { json },
        expression: resolve(expression, prefix, imports),
        number,
        patch_strategy: tag(tags, "patchStrategy").map(str::to_owned),
        patch_merge_key: tag(tags, "patchMergeKey").map(str::to_owned),
        list_type: marker("listType"),
        list_map_keys,
    })
}

fn tag<'a>(tags: &'a str, name: &str) -> Option<&'a str> {
    let start = tags.find(&format!("{name}:\""))? + name.len() + 2;
    tags[start..].split('"').next()
}

/// A Go type expression with full names: `[]metav1.Time` becomes `[]io.k8s....Time`.
fn resolve(expression: &str, prefix: &str, imports: &HashMap<String, String>) -> String {
    for opening in ["*", "[]"] {
        if let Some(rest) = expression.strip_prefix(opening) {
            return format!("{opening}{}", resolve(rest, prefix, imports));
        }
    }
    if let Some(rest) = expression.strip_prefix("map[") {
        let value = rest.split_once(']').map_or("", |(_, value)| value);
        return format!("map:{}", resolve(value, prefix, imports));
    }
    match expression {
        "string" | "bool" | "int32" | "int64" | "float64" | "byte" => return expression.to_owned(),
        "int" | "uint32" => return "int64".to_owned(),
        _ => {}
    }
    let Some((alias, name)) = expression.split_once('.') else {
        return format!("{prefix}.{expression}");
    };
    let path = imports.get(alias).map_or(alias, String::as_str);
    match path.strip_prefix("k8s.io/") {
        Some(inside) if !path.contains("apimachinery/pkg/api/") && path.contains("/v1") => {
            format!("io.k8s.{}.{name}", inside.replace('/', "."))
        }
        _ => format!("{}.{name}", path.rsplit('/').next().unwrap_or(alias)),
    }
}

fn write_table(world: &World, version: &str) -> Result<String> {
    let mut done: BTreeMap<String, String> = BTreeMap::new();
    let mut todo: Vec<String> = ROOTS.iter().map(|root| (*root).to_owned()).collect();
    while let Some(name) = todo.pop() {
        if done.contains_key(&name) {
            continue;
        }
        let Some(Declaration::Struct(fields)) = world.declarations.get(&name) else {
            bail!("{name} is no struct that was read");
        };
        let mut text = String::new();
        for field in fields {
            text.push_str(
                &line_of(world, field, &mut todo)
                    .with_context(|| format!("{name}.{}", field.json))?,
            );
        }
        done.insert(name, text);
    }
    let mut out = format!(
        "# Facts about the types of Kubernetes {version}; written by examples/types_from_go.rs, do not edit.\n\
         # TYPE, then a line per field: NAME NUMBER SHAPE FLAGS. `*`: pointer, its zero value is kept. `!`: written even\n\
         # when empty. `inline`: nested in protobuf, flat in JSON.\n"
    );
    for (name, fields) in done {
        writeln!(out, "{name}\n{}", fields.trim_end())?;
    }
    Ok(out)
}

fn line_of(world: &World, field: &GoField, todo: &mut Vec<String>) -> Result<String> {
    if field.inline && field.expression.ends_with(".TypeMeta") {
        return Ok(" kind 0 string\n apiVersion 0 string\n".to_owned());
    }
    let pointer = field.expression.starts_with('*');
    let mut values = BTreeSet::new();
    let shape = shape_of(
        world,
        field.expression.trim_start_matches('*'),
        todo,
        &mut values,
    )?;
    let is_struct = shape.starts_with("io.")
        || ["Time", "MicroTime", "Quantity", "IntOrString"].contains(&shape.as_str());
    let name = if field.inline && field.json.is_empty() {
        "-"
    } else {
        &field.json
    };
    let mut line = format!(" {name} {} {shape}", field.number);
    if pointer {
        line.push_str(if field.omitempty { " *" } else { " *!" });
    } else if !field.inline && !field.omitzero && (is_struct || !field.omitempty) {
        line.push_str(" !");
    }
    if field.inline {
        line.push_str(" inline");
    }
    for strategy in field.patch_strategy.iter().flat_map(|text| text.split(',')) {
        match (strategy, &field.patch_merge_key) {
            ("merge", Some(key)) => write!(line, " merge:{key}")?,
            ("merge", None) => line.push_str(" merge"),
            (other, _) => write!(line, " {other}")?,
        }
    }
    match field.list_type.as_deref() {
        Some("map") => write!(line, " map:{}", field.list_map_keys.join(","))?,
        Some("set") => line.push_str(" set"),
        Some("atomic") => line.push_str(" atomic"),
        _ => {}
    }
    if !values.is_empty() {
        write!(
            line,
            " enum:{}",
            values.into_iter().collect::<Vec<_>>().join("|")
        )?;
    }
    line.push('\n');
    Ok(line)
}

/// The shape's word, and the closed set of values where the type is an enum.
fn shape_of(
    world: &World,
    expression: &str,
    todo: &mut Vec<String>,
    values: &mut BTreeSet<String>,
) -> Result<String> {
    if expression == "[]byte" {
        return Ok("bytes".to_owned());
    }
    if let Some(item) = expression.strip_prefix("[]") {
        return Ok(format!(
            "[]{}",
            shape_of(world, item.trim_start_matches('*'), todo, values)?
        ));
    }
    if let Some(value) = expression.strip_prefix("map:") {
        return Ok(format!("map:{}", shape_of(world, value, todo, values)?));
    }
    if let Some((_, special)) = SPECIAL.iter().find(|(name, _)| *name == expression) {
        return Ok((*special).to_owned());
    }
    match world.declarations.get(expression) {
        Some(Declaration::Struct(_)) => {
            todo.push(expression.to_owned());
            Ok(expression.to_owned())
        }
        Some(Declaration::Named {
            expression: target,
            is_enum,
        }) => {
            if *is_enum {
                let found = world
                    .enum_values
                    .get(expression)
                    .cloned()
                    .unwrap_or_default();
                values.extend(found.into_iter().filter(|value| !value.is_empty()));
            }
            shape_of(world, target, todo, values)
        }
        None if expression.contains('.') => bail!("unknown type {expression}"),
        None => Ok(expression.to_owned()),
    }
}
