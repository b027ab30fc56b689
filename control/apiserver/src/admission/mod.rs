//! Admission: what is added to an object, or refused, between decoding and validation.
//!
//! The order is Kubernetes': namespace lifecycle, service account, default tolerations, priority, default ingress
//! class, then mutating webhooks. Deliberately absent so far: validating webhooks and policies, quotas, limit ranges.

mod ingress_class;
mod namespace;
mod pod;
mod service_account;
pub(crate) mod webhook;

use meshgate_schema::Failure;
use serde_json::Value;

use crate::server::Call;

/// What is done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    /// As webhook rules and reviews spell it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
        }
    }
}

/// Runs the chain. At a deletion `object` is Null and `old` is what goes.
pub(crate) async fn mutate(
    call: &Call,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
    warnings: &mut Vec<String>,
) -> Result<(), Failure> {
    let main = call.path.subresource.is_empty();
    if operation == Operation::Create {
        namespace::check(call, object)?;
    }
    if main
        && call.kind.group().is_empty()
        && call.kind.plural() == "pods"
        && operation == Operation::Create
    {
        service_account::admit(call, object)?;
        pod::default_tolerations(object);
        pod::priority(call, object)?;
    }
    if main && operation == Operation::Create && is(call, "", "namespaces") {
        namespace::complete(object);
    }
    if main && operation == Operation::Create && is(call, "networking.k8s.io", "ingresses") {
        ingress_class::default(&call.server, object);
    }
    webhook::mutate(call, operation, object, old, dry_run, warnings).await
}

fn is(call: &Call, group: &str, plural: &str) -> bool {
    call.kind.group() == group && call.kind.plural() == plural
}
