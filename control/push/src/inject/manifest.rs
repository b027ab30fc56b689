//! `meshgate inject -f`: whole manifests, as the webhook would change the pods in them.

use std::collections::HashMap;

use json_patch::{Patch, PatchErrorKind};
use meshgate_api::names;
use serde::Deserialize;
use serde_json::Value;

use super::{InjectOptions, Outcome, Reason, Refusal, inject_pod};

/// Lists in lists in lists are nobody's manifest.
const DEPTH_MAX: usize = 4;

/// What became of one object with a pod in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// "Kind/name".
    pub object: String,
    /// Why it has no new sidecar; `None`: it has.
    pub left: Option<Reason>,
}

/// Why a manifest cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not YAML.
    #[error("document {index} is not valid YAML")]
    Yaml {
        /// Counted from 1.
        index: usize,
        /// What the parser says.
        #[source]
        source: serde_norway::Error,
    },
    /// A pod that cannot get a sidecar.
    #[error("document {index}, {object}")]
    Refused {
        /// Counted from 1.
        index: usize,
        /// "Kind/name".
        object: String,
        /// Why.
        #[source]
        refusal: Refusal,
    },
    /// Lists in lists.
    #[error("document {index} has lists nested deeper than {DEPTH_MAX}")]
    TooDeep {
        /// Counted from 1.
        index: usize,
    },
    /// The patch does not fit, which is a mistake of ours.
    #[error("document {index}: the patch does not apply")]
    Patch {
        /// Counted from 1.
        index: usize,
        /// Where.
        #[source]
        source: PatchErrorKind,
    },
}

/// The manifest with sidecars in it, and what became of each object.
///
/// Asking for it is opting in: pods get a sidecar unless their own label, or a Namespace in the same manifest that is
/// labelled otherwise, says no. Documents that do not change are kept as they are written, comments included.
pub fn inject_manifest(
    text: &str,
    options: &InjectOptions,
) -> Result<(String, Vec<Note>), ManifestError> {
    let documents = split(text);
    let mut parsed = Vec::with_capacity(documents.len());
    for (index, document) in documents.iter().enumerate() {
        let value = Value::deserialize(serde_norway::Deserializer::from_str(document));
        parsed.push(value.map_err(|source| ManifestError::Yaml {
            index: index + 1,
            source,
        })?);
    }
    let namespaces = namespaces(&parsed);
    let mut notes = Vec::new();
    let mut output = String::with_capacity(text.len());
    for (index, (document, mut value)) in documents.iter().zip(parsed).enumerate() {
        if index > 0 {
            output.push_str("---\n");
        }
        let place = Place {
            index: index + 1,
            namespaces: &namespaces,
            options,
        };
        let before = notes.len();
        place.inject(&mut value, 0, &mut notes)?;
        match notes[before..].iter().any(|note| note.left.is_none()) {
            false => output.push_str(document),
            true => output.push_str(&serde_norway::to_string(&value).map_err(|source| {
                ManifestError::Yaml {
                    index: index + 1,
                    source,
                }
            })?),
        }
        if !output.is_empty() && !output.ends_with('\n') {
            output.push('\n');
        }
    }
    Ok((output, notes))
}

/// Splits at lines that start a document.
fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.split_inclusive('\n') {
        let marker = line.trim_end();
        match marker == "---" || marker.starts_with("--- #") {
            true => documents.push(String::new()),
            false => documents
                .last_mut()
                .expect("starts with one and never shrinks")
                .push_str(line),
        }
    }
    if documents
        .first()
        .is_some_and(|first| first.trim().is_empty())
        && documents.len() > 1
    {
        documents.remove(0);
    }
    documents
}

/// Namespaces in the manifest, and whether they ask for sidecars.
fn namespaces(documents: &[Value]) -> HashMap<String, bool> {
    let named = documents
        .iter()
        .filter(|document| document["kind"] == "Namespace")
        .filter_map(|document| {
            let name = document["metadata"]["name"].as_str()?.to_owned();
            Some((
                name,
                document["metadata"]["labels"][names::INJECT] == "true",
            ))
        });
    named.collect()
}

struct Place<'a> {
    index: usize,
    namespaces: &'a HashMap<String, bool>,
    options: &'a InjectOptions,
}

impl Place<'_> {
    fn inject(
        &self,
        object: &mut Value,
        depth: usize,
        notes: &mut Vec<Note>,
    ) -> Result<(), ManifestError> {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if kind == "List" || object["items"].is_array() {
            if depth >= DEPTH_MAX {
                return Err(ManifestError::TooDeep { index: self.index });
            }
            let items = object["items"].as_array_mut();
            return items
                .into_iter()
                .flatten()
                .try_for_each(|item| self.inject(item, depth + 1, notes));
        }
        let Some(path) = pod_path(&kind) else {
            return Ok(());
        };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let name = format!("{kind}/{name}");
        let namespace = object["metadata"]["namespace"]
            .as_str()
            .unwrap_or("default");
        let opted_in = self.namespaces.get(namespace).copied().unwrap_or(true);
        let Some(pod) = object.pointer_mut(path) else {
            return Ok(());
        };
        let outcome =
            inject_pod(pod, opted_in, self.options).map_err(|refusal| ManifestError::Refused {
                index: self.index,
                object: name.clone(),
                refusal,
            })?;
        let left = match outcome {
            Outcome::Leave(reason) => Some(reason),
            Outcome::Inject(Patch(operations)) => {
                json_patch::patch(pod, &operations).map_err(|error| ManifestError::Patch {
                    index: self.index,
                    source: error.kind,
                })?;
                None
            }
        };
        notes.push(Note { object: name, left });
        Ok(())
    }
}

/// Where a kind has its pod.
fn pod_path(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "PodTemplate" => Some("/template"),
        "Deployment"
        | "ReplicaSet"
        | "StatefulSet"
        | "DaemonSet"
        | "Job"
        | "ReplicationController" => Some("/spec/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}
