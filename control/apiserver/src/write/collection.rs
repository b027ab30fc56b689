//! Deletion of everything that a selection holds.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use meshgate_schema::Failure;
use serde_json::{Value, json};

use super::delete::delete_entry;
use crate::http::options::{DeleteOptions, ListOptions};
use crate::objects::read;
use crate::read::{list, selection::Selection};
use crate::server::{Call, Reply};

/// Deletions under way at a time.
const PARALLEL_MAX: usize = 16;

/// DELETE of a collection: answers the list of what it found.
pub(crate) async fn delete(call: &Call, options: &DeleteOptions) -> Result<Reply, Failure> {
    let reading = ListOptions::parse(&call.query, false)?;
    let selection = Selection::parse(&call.kind, call.namespace(), &call.query)?;
    let found = list::select(call, &reading, &selection)?;
    let items: Vec<Value> = found
        .entries
        .iter()
        .map(|entry| read(&call.kind, entry))
        .collect::<Result<_, _>>()?;
    stream::iter(&found.entries)
        .map(Ok)
        .try_for_each_concurrent(PARALLEL_MAX, |entry| async move {
            let mut entry = entry.clone();
            loop {
                match delete_entry(call, &entry, options).await {
                    Ok(Some(_)) => return Ok(()),
                    Err(failure) => return Err(failure),
                    Ok(None) => match call.server.store.find(&entry.key) {
                        // Changed meanwhile: as it is now.
                        Some(current) => entry = current,
                        None => return Ok(()),
                    },
                }
            }
        })
        .await?;
    Ok(Reply::ok(json!({
        "kind": call.kind.list_kind(),
        "apiVersion": call.kind.api_version(),
        "metadata": {"resourceVersion": call.server.store.revision().to_string()},
        "items": items,
    })))
}
