//! The injector: puts a sidecar into pods that ask for one. Pure; the webhook and `meshgate inject` call it.

mod manifest;
mod sidecar;
#[cfg(test)]
mod tests;

use std::fmt;

use json_patch::{
    AddOperation, Patch, PatchOperation,
    jsonptr::{PointerBuf, Token},
};
use meshgate_api::names;
use serde_json::{Value, json};

pub use manifest::{ManifestError, Note, inject_manifest};

use crate::objects::PortSet;

/// What goes into every pod alike.
#[derive(Debug, Clone)]
pub struct InjectOptions {
    /// Image of the sidecar.
    pub image: String,
    /// Where it reaches the control plane: "HOST:PORT".
    pub control: String,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Its arguments about spans; none: it has none.
    pub trace: Vec<String>,
}

impl Default for InjectOptions {
    fn default() -> Self {
        Self {
            image: names::SELF_IMAGE.into(),
            control: format!("{}:{}", names::CONTROL_ADDRESS, names::PORT_PUSH),
            trust_domain: names::TRUST_DOMAIN.into(),
            trace: Vec::new(),
        }
    }
}

/// What becomes of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It gets a sidecar by this JSON patch (RFC 6902).
    Inject(Patch),
    /// It stays as it is.
    Leave(Reason),
}

/// Why a pod stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Neither the pod nor its namespace asks for a sidecar.
    NotAsked,
    /// The pod's label says no.
    OptedOut,
    /// It has one.
    AlreadyInjected,
    /// It shares the node's network, where nothing may be redirected.
    HostNetwork,
}

impl Reason {
    /// Whether someone who asked for a sidecar should be told.
    pub(crate) fn is_surprising(self) -> bool {
        self == Self::HostNetwork
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAsked => {
                "neither the pod nor its namespace has the label meshgate.dev/inject: \"true\""
            }
            Self::OptedOut => "its label meshgate.dev/inject says so",
            Self::AlreadyInjected => "it has one already",
            Self::HostNetwork => "the pod uses the host's network",
        })
    }
}

/// Why a pod that asks for a sidecar cannot have one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An annotation does not say what it should.
    #[error("annotation {name}: {problem}")]
    Annotation {
        /// Which.
        name: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The label has a value that is neither.
    #[error("label {name} is \"{value}\": write \"true\" or \"false\"", name = names::INJECT)]
    Label {
        /// What it says.
        value: String,
    },
    /// A part of the pod has another type than it must have.
    #[error("{path} is no {expected}")]
    Shape {
        /// JSON pointer.
        path: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// Decides about a pod or a pod template (anything with `metadata` and `spec` of a pod).
pub fn inject_pod(
    pod: &Value,
    namespace_opted_in: bool,
    options: &InjectOptions,
) -> Result<Outcome, Refusal> {
    if let Some(reason) = leave(pod, namespace_opted_in)? {
        return Ok(Outcome::Leave(reason));
    }
    let annotations = Annotations::read(pod)?;
    let mut edits = Edits::default();
    edits.ensure(pod, &["metadata"], json!({}));
    edits.ensure(pod, &["metadata", "annotations"], json!({}));
    edits.add(
        &["metadata", "annotations", names::SIDECAR_STATUS],
        json!(env!("CARGO_PKG_VERSION")),
    );
    edits.ensure(pod, &["spec", "initContainers"], json!([]));
    // First: what other init containers send goes through the mesh too.
    edits.add(
        &["spec", "initContainers", "0"],
        sidecar::container(pod, &annotations, options),
    );
    edits.ensure(pod, &["spec", "volumes"], json!([]));
    edits.add(&["spec", "volumes", "-"], sidecar::volume());
    Ok(Outcome::Inject(Patch(edits.0)))
}

fn leave(pod: &Value, namespace_opted_in: bool) -> Result<Option<Reason>, Refusal> {
    let label = &pod["metadata"]["labels"][names::INJECT];
    match label.as_str() {
        Some("true") => {}
        Some("false") => return Ok(Some(Reason::OptedOut)),
        Some(value) => {
            return Err(Refusal::Label {
                value: value.to_owned(),
            });
        }
        None if namespace_opted_in => {}
        None => return Ok(Some(Reason::NotAsked)),
    }
    for (path, value) in [
        ("/spec/initContainers", &pod["spec"]["initContainers"]),
        ("/spec/containers", &pod["spec"]["containers"]),
    ] {
        if !value.is_null() && !value.is_array() {
            return Err(Refusal::Shape {
                path,
                expected: "list",
            });
        }
        let mut containers = value.as_array().into_iter().flatten();
        if containers.any(|container| container["name"] == names::SIDECAR_CONTAINER) {
            return Ok(Some(Reason::AlreadyInjected));
        }
    }
    if !pod["spec"].is_object() {
        return Err(Refusal::Shape {
            path: "/spec",
            expected: "object",
        });
    }
    let host_network = pod["spec"]["hostNetwork"] == Value::Bool(true);
    Ok(host_network.then_some(Reason::HostNetwork))
}

/// What a pod's annotations say about its sidecar.
#[derive(Debug, Default)]
struct Annotations {
    skip_inbound: Option<PortSet>,
    skip_outbound: Option<PortSet>,
    opaque: Option<PortSet>,
    memory: Option<String>,
    cpu: Option<String>,
    log: Option<String>,
}

impl Annotations {
    fn read(pod: &Value) -> Result<Self, Refusal> {
        let annotations = &pod["metadata"]["annotations"];
        let text = |name: &str| annotations[name].as_str().filter(|text| !text.is_empty());
        let ports = |name: &'static str| {
            let parsed = text(name).map(PortSet::parse).transpose();
            parsed.map_err(|problem| Refusal::Annotation { name, problem })
        };
        let quantity = |name: &'static str| match text(name) {
            None => Ok(None),
            Some(text) => match meshgate_api::client::Quantity::parse(text) {
                Ok(_) => Ok(Some(text.to_owned())),
                Err(problem) => Err(Refusal::Annotation {
                    name,
                    problem: problem.to_string(),
                }),
            },
        };
        Ok(Self {
            skip_inbound: ports(names::SKIP_INBOUND_PORTS)?,
            skip_outbound: ports(names::SKIP_OUTBOUND_PORTS)?,
            opaque: ports(names::OPAQUE_PORTS)?,
            memory: quantity(names::PROXY_MEMORY)?,
            cpu: quantity(names::PROXY_CPU)?,
            log: text(names::PROXY_LOG_LEVEL).map(str::to_owned),
        })
    }
}

/// A patch in the making.
#[derive(Default)]
struct Edits(Vec<PatchOperation>);

impl Edits {
    /// Adds `value` at `path` unless something is there.
    fn ensure(&mut self, pod: &Value, path: &[&str], value: Value) {
        let there = path.iter().fold(pod, |value, key| &value[*key]);
        if there.is_null() {
            self.add(path, value);
        }
    }

    fn add(&mut self, path: &[&str], value: Value) {
        let path = PointerBuf::from_tokens(path.iter().map(|token| Token::new(*token)));
        self.0
            .push(PatchOperation::Add(AddOperation { path, value }));
    }
}
