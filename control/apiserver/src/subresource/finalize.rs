//! `namespaces/NAME/finalize`: the only place where a namespace's own finalizers may go.

use meshgate_schema::{Failure, Media};
use serde_json::Value;

use crate::http::options::WriteOptions;
use crate::objects::meta;
use crate::server::{Call, Reply};
use crate::write::change::{Part, change, edited};
use crate::write::metadata::claimed_revision;

/// PUT.
pub(crate) async fn update(call: &Call, body: &[u8], media: Media) -> Result<Reply, Failure> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let wanted = call
        .kind
        .decode(&call.registry, body, media, options.validation)?
        .object;
    let name = meta(&wanted, "name");
    if !name.is_empty() && name != call.path.name {
        return Err(Failure::bad_request(
            "name in URL does not match the object's name",
        ));
    }
    let claimed = claimed_revision(&wanted)?;
    let edit = |old: &Value| {
        edited(old, |namespace| {
            namespace["spec"]["finalizers"] = wanted["spec"]
                .get("finalizers")
                .cloned()
                .unwrap_or_else(|| Vec::<Value>::new().into());
            if let Some(claimed) = claimed {
                crate::objects::set_resource_version(namespace, claimed);
            }
            Ok(())
        })
    };
    change(call, Part::Special, options.dry_run, &edit).await
}
