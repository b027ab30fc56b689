//! From a request body to an object: the text is parsed, its kind checked, its fields brought into stored form.

mod text;
mod typed;

use serde_json::{Map, Value};

use crate::protobuf;
use crate::registry::{Kind, Registry, Rules};
use crate::types::{TypeId, by_name};
use crate::value::{go_kind, text_at};
use crate::{Failure, FieldError};

pub(crate) use text::{Parsed, parse_json, parse_yaml};
pub(crate) use typed::{Converted, convert, zero};

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
    Protobuf,
}

/// What happens to unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// An object and the warnings that its writing earned (texts, without the `299 - ` frame).
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub object: Value,
    pub warnings: Vec<String>,
}

/// Why a value is no object of its kind.
#[derive(Debug, PartialEq)]
pub(crate) enum Refusal {
    /// A field has another type; Go's words.
    Type(String),
    /// Unknown or duplicate fields, where they are forbidden.
    Strict(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Type(text) => out.write_str(text),
            Refusal::Strict(list) => write!(out, "strict decoding error: {list}"),
        }
    }
}

impl FieldValidation {
    /// The query parameter `fieldValidation`; Warn when it is missing.
    pub fn parse(parameter: Option<&str>) -> Result<FieldValidation, Failure> {
        match parameter {
            None | Some("" | "Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => {
                let words = ["", "Ignore", "Strict", "Warn"];
                let error = FieldError::not_supported("fieldValidation", other, &words);
                Err(Failure::invalid(
                    "meta.k8s.io",
                    "CreateOptions",
                    "",
                    &[error],
                ))
            }
        }
    }
}

impl Kind {
    /// Reads a body as an object of this kind. Unknown fields are pruned, and reported as `validation` says; values
    /// come out canonical; apiVersion and kind are filled in.
    pub fn decode(
        &self,
        registry: &Registry,
        body: &[u8],
        media: Media,
        validation: FieldValidation,
    ) -> Result<Decoded, Failure> {
        let parsed = match media {
            Media::Protobuf => self.parse_protobuf(registry, body)?,
            _ => parse_text(body, media, &self.kind)?,
        };
        let named = self.check_kind(registry, &parsed.value)?;
        self.accept(parsed, validation)
            .map_err(|refusal| self.cannot_handle(&named, refusal))
    }

    /// Reads a value (a webhook's answer, say) as an object of this kind.
    pub fn decode_value(
        &self,
        object: Value,
        validation: FieldValidation,
    ) -> Result<Decoded, Failure> {
        let named = (self.version.clone(), self.kind.clone());
        let parsed = Parsed {
            value: object,
            duplicates: Vec::new(),
        };
        self.accept(parsed, validation)
            .map_err(|refusal| self.cannot_handle(&named, refusal))
    }

    /// Brings a value into this kind's stored form.
    pub(crate) fn accept(
        &self,
        parsed: Parsed,
        validation: FieldValidation,
    ) -> Result<Decoded, Refusal> {
        let Parsed { value, duplicates } = parsed;
        let converted = match self.rules() {
            Rules::Builtin { type_name, .. } => match by_name(type_name) {
                Some(type_id) => convert(type_id, value),
                None => Err(format!("no type {type_name}")),
            },
            Rules::Custom(version) => version.convert(value),
        };
        let mut converted = converted.map_err(Refusal::Type)?;
        if let Value::Object(map) = &mut converted.object {
            write_type(map, &self.kind, &self.api_version());
        }
        let problems = list_problems(&duplicates, &converted.unknown);
        let warnings = judge(problems, validation)?;
        Ok(Decoded {
            object: converted.object,
            warnings,
        })
    }

    fn parse_protobuf(&self, registry: &Registry, body: &[u8]) -> Result<Parsed, Failure> {
        let envelope = open_envelope(body, &self.kind)?;
        if envelope.is_json {
            return parse_text(&envelope.raw, Media::Json, &self.kind);
        }
        let (group, version) = split_api_version(&envelope.api_version);
        let found = registry.by_kind(group, version, &envelope.kind);
        let type_name = match found.map_or(&self.rules, |kind| &kind.rules) {
            Rules::Builtin { type_name, .. } => type_name,
            Rules::Custom(_) => {
                return Err(Failure::unsupported_media_type(
                    "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml",
                ));
            }
        };
        protobuf_object(type_name, &envelope, &self.kind)
    }

    /// Checks that apiVersion and kind are this kind's (or missing); returns the version and kind that were named.
    fn check_kind(&self, registry: &Registry, object: &Value) -> Result<(String, String), Failure> {
        let api_version = word(object, "apiVersion", &self.kind)?;
        let kind = word(object, "kind", &self.kind)?;
        let api_version = api_version.unwrap_or_else(|| self.api_version());
        let kind = kind.unwrap_or_else(|| self.kind.clone());
        let (group, version) = split_api_version(&api_version);
        let named = (version.to_owned(), kind.clone());
        if api_version == self.api_version() && kind == self.kind {
            return Ok(named);
        }
        if self.is_custom() {
            if api_version != self.api_version() {
                return Err(Failure::bad_request(format!(
                    "the API version in the data ({api_version}) does not match the expected API version ({})",
                    self.api_version()
                )));
            }
            let error = FieldError::invalid("kind", kind.clone(), format!("must be {}", self.kind));
            return Err(Failure::invalid(
                &self.group,
                &kind,
                text_at(object, "metadata.name"),
                &[error],
            ));
        }
        let problem = if registry.by_kind(group, version, &kind).is_some() {
            format!(
                "converting ({version}.{kind}) to ({}.{}): unknown conversion",
                self.version, self.kind
            )
        } else {
            format!("no kind {kind:?} is registered for version {api_version:?}")
        };
        Err(self.cannot_handle(&named, Refusal::Type(problem)))
    }

    fn cannot_handle(&self, (version, kind): &(String, String), refusal: Refusal) -> Failure {
        Failure::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: {refusal}",
            self.kind
        ))
    }
}

impl Registry {
    /// Reads the body of a request that is no object of a resource: DeleteOptions, TokenRequest, Scale, Eviction ...
    pub fn decode_any(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        body: &[u8],
        media: Media,
        validation: FieldValidation,
    ) -> Result<Decoded, Failure> {
        if let Some(resource) = self.by_kind(group, version, kind) {
            return resource.decode(self, body, media, validation);
        }
        let type_name = type_name_of(group, version, kind);
        let Some(type_id) = type_name.as_deref().and_then(by_name) else {
            return Err(Failure::bad_request(format!(
                "no kind {kind:?} is registered for version \"{group}/{version}\""
            )));
        };
        let parsed = match media {
            Media::Protobuf => {
                let envelope = open_envelope(body, kind)?;
                match type_name {
                    Some(name) if !envelope.is_json => protobuf_object(&name, &envelope, kind)?,
                    _ => parse_text(&envelope.raw, Media::Json, kind)?,
                }
            }
            _ => parse_text(body, media, kind)?,
        };
        let found = word(&parsed.value, "kind", kind)?;
        if let Some(found) = found.filter(|found| found != kind) {
            return Err(Failure::bad_request(format!(
                "{found} in version {version:?} cannot be handled as a {kind}: no kind {found:?} is expected here"
            )));
        }
        finish_any(group, version, kind, type_id, parsed, validation)
    }
}

fn finish_any(
    group: &str,
    version: &str,
    kind: &str,
    type_id: TypeId,
    parsed: Parsed,
    validation: FieldValidation,
) -> Result<Decoded, Failure> {
    let refuse = |refusal: Refusal| {
        Failure::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {refusal}"
        ))
    };
    let mut converted =
        convert(type_id, parsed.value).map_err(|text| refuse(Refusal::Type(text)))?;
    if let Value::Object(map) = &mut converted.object {
        write_type(map, kind, &crate::registry::api_version(group, version));
    }
    let problems = list_problems(&parsed.duplicates, &converted.unknown);
    let warnings = judge(problems, validation).map_err(refuse)?;
    Ok(Decoded {
        object: converted.object,
        warnings,
    })
}

/// The schema name of a kind which no resource has.
pub(crate) fn type_name_of(group: &str, version: &str, kind: &str) -> Option<String> {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
    let package = match (group, kind) {
        (_, "DeleteOptions" | "Status") | ("meta.k8s.io", _) => META.to_owned(),
        ("", _) => format!("io.k8s.api.core.{version}"),
        (group, _) => {
            let first = group.split('.').next().unwrap_or(group);
            format!("io.k8s.api.{first}.{version}")
        }
    };
    Some(format!("{package}.{kind}"))
}

/// Group and version of an apiVersion.
pub(crate) fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

fn write_type(map: &mut Map<String, Value>, kind: &str, api_version: &str) {
    // kind and apiVersion come first, as Go's TypeMeta is the first field of every object.
    map.shift_remove("kind");
    map.shift_remove("apiVersion");
    map.shift_insert(0, "kind".into(), kind.into());
    map.shift_insert(1, "apiVersion".into(), api_version.into());
}

fn list_problems(duplicates: &[String], unknown: &[String]) -> Vec<String> {
    let duplicates = duplicates
        .iter()
        .map(|path| format!("duplicate field {path:?}"));
    duplicates
        .chain(unknown.iter().map(|path| format!("unknown field {path:?}")))
        .collect()
}

fn judge(problems: Vec<String>, validation: FieldValidation) -> Result<Vec<String>, Refusal> {
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(problems),
        FieldValidation::Strict if problems.is_empty() => Ok(problems),
        FieldValidation::Strict => Err(Refusal::Strict(problems.join(", "))),
    }
}

pub(crate) fn parse_text(body: &[u8], media: Media, kind: &str) -> Result<Parsed, Failure> {
    let parsed = match media {
        Media::Yaml => parse_yaml(body),
        _ => parse_json(body),
    };
    let parsed = match parsed {
        Ok(parsed) if parsed.value.is_object() => return Ok(parsed),
        Ok(parsed) if parsed.value.is_null() && media == Media::Yaml => {
            Err("unexpected end of JSON input".to_owned())
        }
        Ok(parsed) => Err(format!(
            "json: cannot unmarshal {} into an object with apiVersion and kind",
            go_kind(&parsed.value)
        )),
        Err(problem) => Err(problem),
    };
    parsed.map_err(|problem| {
        unrecognized(
            kind,
            body,
            &format!("couldn't get version/kind; json parse error: {problem}"),
        )
    })
}

struct Envelope {
    api_version: String,
    kind: String,
    raw: Vec<u8>,
    is_json: bool,
}

fn open_envelope(body: &[u8], kind: &str) -> Result<Envelope, Failure> {
    let unknown = protobuf::open(body).map_err(|problem| unrecognized(kind, body, &problem))?;
    Ok(Envelope {
        is_json: unknown.content_type == "application/json",
        api_version: unknown.api_version,
        kind: unknown.kind,
        raw: unknown.raw,
    })
}

fn protobuf_object(type_name: &str, envelope: &Envelope, kind: &str) -> Result<Parsed, Failure> {
    let type_id =
        by_name(type_name).ok_or_else(|| Failure::internal(format!("no type {type_name}")))?;
    let mut value = protobuf::decode(type_id, &envelope.raw).map_err(|problem| {
        Failure::bad_request(format!(
            "{} in version {:?} cannot be handled as a {kind}: {problem}",
            envelope.kind, envelope.api_version
        ))
    })?;
    if let Value::Object(map) = &mut value {
        for (key, word) in [
            ("apiVersion", &envelope.api_version),
            ("kind", &envelope.kind),
        ] {
            if !word.is_empty() {
                map.insert(key.to_owned(), word.clone().into());
            }
        }
    }
    Ok(Parsed {
        value,
        duplicates: Vec::new(),
    })
}

fn unrecognized(kind: &str, body: &[u8], problem: &str) -> Failure {
    Failure::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {problem} ({})",
        snippet(body)
    ))
}

/// The first bytes of a body, for the error message: as text where it looks like JSON, else in hexadecimal.
fn snippet(body: &[u8]) -> String {
    const BYTES_MAX: usize = 30;
    let start = &body[..body.len().min(BYTES_MAX)];
    let text = match std::str::from_utf8(start) {
        _ if body.is_empty() => return "<empty>".to_owned(),
        Ok(text) if text.starts_with('{') => text.to_owned(),
        _ => start.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if body.len() > BYTES_MAX {
        format!("{text} ...")
    } else {
        text
    }
}

/// apiVersion or kind: missing, or a text.
fn word(object: &Value, key: &str, kind: &str) -> Result<Option<String>, Failure> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(Failure::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: json: cannot unmarshal {} into field {key} of type string",
            go_kind(other)
        ))),
    }
}

#[cfg(test)]
mod tests;
