//! Documents into objects, checked as the API server checks them. Pure.

use anyhow::Context;
use meshgate_api::names::POLICY_GROUP;
use meshgate_api::policies::crds;
use meshgate_push::offline::{KINDS, Manifest, key_pair_problem};
use meshgate_schema::{FieldError, FieldValidation, Kind, Registry};
use serde_json::{Value, json};

/// The namespace of objects that name none.
const NAMESPACE: &str = "default";
/// An EndpointSlice says by it whose endpoints it has.
const SLICE_SERVICE: &str = "kubernetes.io/service-name";

/// The field of "some rules were not checked", which comes with errors that say more.
const NO_FIELD: &str = "<nil>";

/// Every kind there is, with the rules of our own.
#[derive(Debug)]
pub(super) struct Schemas {
    registry: Registry,
}

/// What an object in a document came to.
#[derive(Debug)]
pub(super) enum Read {
    /// With what its author should know.
    Object(Box<Manifest>, Vec<String>),
    /// Of a kind that an edge does not care for.
    Other(String),
    Wrong(Wrong),
}

/// An object that cannot be taken.
#[derive(Debug)]
pub(super) struct Wrong {
    /// `Ingress shop/web`, as far as it says.
    pub(super) subject: Option<String>,
    /// Each with its field.
    pub(super) problems: Vec<String>,
}

impl Schemas {
    pub(super) fn new() -> anyhow::Result<Self> {
        let definitions: Vec<Value> = crds::ALL
            .into_iter()
            .map(definition)
            .collect::<Result<_, _>>()
            .context("a definition of our own policies")?;
        Ok(Self {
            registry: Registry::builtin().with_custom(&definitions),
        })
    }

    /// Reads one object.
    pub(super) fn read(&self, value: Value) -> Read {
        let subject = subject(&value);
        let wrong = |problem: String| {
            Read::Wrong(Wrong {
                subject: subject.clone(),
                problems: vec![problem],
            })
        };
        let word = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("");
        let (api_version, kind) = (word("apiVersion"), word("kind"));
        if !value.is_object() {
            return wrong("neither an object nor a List".to_owned());
        }
        if kind.is_empty() || api_version.is_empty() {
            let missing = if kind.is_empty() {
                "kind"
            } else {
                "apiVersion"
            };
            return wrong(format!("{missing}: Required value"));
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let Some((wanted, _)) = KINDS.into_iter().find(|(_, known)| *known == kind) else {
            return match group == POLICY_GROUP {
                true => wrong(format!("kind: there is no {kind} in {api_version}")),
                false => Read::Other(kind.to_owned()),
            };
        };
        if wanted != api_version {
            return wrong(format!(
                "apiVersion: Unsupported value: {api_version:?}: supported values: {wanted:?}"
            ));
        }
        let Some(kind) = self.registry.by_kind(group, version, kind) else {
            return wrong(format!("kind: there is no {kind} in {api_version}"));
        };
        match object(kind, value) {
            Ok((manifest, warnings)) => Read::Object(Box::new(manifest), warnings),
            Err(problems) => Read::Wrong(Wrong { subject, problems }),
        }
    }
}

/// A definition as a cluster has it once its names are accepted.
fn definition(text: &str) -> Result<Value, serde_norway::Error> {
    let mut definition: Value = serde_norway::from_str(text)?;
    definition["status"] = json!({
        "acceptedNames": definition["spec"]["names"],
        "conditions": [{"type": "Established", "status": "True"}],
    });
    Ok(definition)
}

/// The life of a creation: decode strictly, place, default, validate.
fn object(kind: &Kind, mut value: Value) -> Result<(Manifest, Vec<String>), Vec<String>> {
    if kind.namespaced()
        && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata
            .entry("namespace")
            .or_insert_with(|| NAMESPACE.into());
    }
    let decoded = kind
        .decode_value(value, FieldValidation::Strict)
        .map_err(|failure| vec![decoding_problem(&failure.message)])?;
    let mut object = decoded.object;
    kind.default(&mut object);
    let mut problems: Vec<String> = kind
        .validate_create(&object)
        .iter()
        .filter(|error| !is_loopback(error) && error.field != NO_FIELD)
        .map(ToString::to_string)
        .collect();
    problems.extend(secret_problem(&object));
    if !problems.is_empty() {
        return Err(problems);
    }
    let warnings = slice_problem(&object).into_iter().collect();
    let manifest = Manifest::read(object).map_err(|error| vec![error.to_string()])?;
    match manifest.problem() {
        Some(problem) => Err(vec![problem]),
        None => Ok((manifest, warnings)),
    }
}

/// Without the frame that an API server puts around it.
fn decoding_problem(message: &str) -> String {
    let inner = message
        .split_once(" cannot be handled as a ")
        .and_then(|(_, rest)| rest.split_once(": "))
        .map_or(message, |(_, inner)| inner);
    inner
        .trim_start_matches("strict decoding error: ")
        .to_owned()
}

/// Here endpoints are processes of any machine, this one included.
fn is_loopback(error: &FieldError) -> bool {
    error.field.starts_with("endpoints[") && error.detail.contains("loopback")
}

fn secret_problem(object: &Value) -> Option<String> {
    if object["kind"] != "Secret" || object["type"] != "kubernetes.io/tls" {
        return None;
    }
    let manifest_text = |key: &str| -> Option<Vec<u8>> {
        use base64::Engine as _;
        let text = object["data"][key].as_str()?;
        base64::engine::general_purpose::STANDARD.decode(text).ok()
    };
    let (certificate, key) = (manifest_text("tls.crt")?, manifest_text("tls.key")?);
    key_pair_problem(&certificate, &key).map(|problem| format!("data: {problem}"))
}

fn slice_problem(object: &Value) -> Option<String> {
    if object["kind"] != "EndpointSlice" {
        return None;
    }
    if object["addressType"] == "FQDN" {
        return Some("addressType: FQDN has no effect: endpoints need addresses".to_owned());
    }
    let labelled = !object["metadata"]["labels"][SLICE_SERVICE].is_null();
    (!labelled).then(|| {
        format!(
            "metadata.labels: without {SLICE_SERVICE} it belongs to no service and has no effect"
        )
    })
}

/// What a person would call an object that may be half there.
fn subject(value: &Value) -> Option<String> {
    let word = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    let kind = Some(word("/kind")).filter(|kind| !kind.is_empty())?;
    Some(
        match (word("/metadata/namespace"), word("/metadata/name")) {
            (_, "") => kind.to_owned(),
            ("", name) if kind == "IngressClass" => format!("{kind} {name}"),
            ("", name) => format!("{kind} {NAMESPACE}/{name}"),
            (namespace, name) => format!("{kind} {namespace}/{name}"),
        },
    )
}

/// The objects of a document: itself, or the items of a List, with their numbers from 1.
pub(super) fn items(mut document: Value) -> Vec<(Option<usize>, Value)> {
    let word = |key: &str| {
        document
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let (kind, api_version) = (word("kind"), word("apiVersion"));
    let element = kind.strip_suffix("List").unwrap_or("");
    let Some(Value::Array(items)) = document
        .get_mut("items")
        .filter(|_| kind.ends_with("List"))
        .map(Value::take)
    else {
        return vec![(None, document)];
    };
    items
        .into_iter()
        .enumerate()
        .map(|(index, mut item)| {
            // A typed list need not say the type again for each.
            if let (false, Some(fields)) = (element.is_empty(), item.as_object_mut()) {
                fields.entry("kind").or_insert_with(|| element.into());
                fields
                    .entry("apiVersion")
                    .or_insert_with(|| api_version.as_str().into());
            }
            (Some(index + 1), item)
        })
        .collect()
}
