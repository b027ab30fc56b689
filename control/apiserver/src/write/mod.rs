//! Writing: create, update, patch, delete.

pub(crate) mod change;
pub(crate) mod collection;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod metadata;

use meshgate_schema::Failure;
use serde_json::Value;

use crate::auth;
use crate::server::Call;

/// The last word before a write is stored: no escalation of rights, nodes write only what is theirs.
pub(crate) fn admit(
    call: &Call,
    verb: &str,
    name: &str,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Result<(), Failure> {
    let write = auth::Write {
        verb,
        group: call.kind.group(),
        resource: call.kind.plural(),
        subresource: &call.path.subresource,
        namespace: &call.path.namespace,
        name,
        old,
        new,
    };
    let outcome = call.server.live.auth.admit(&call.user, &write);
    outcome.map_err(|denied| call.denied(&denied))
}
