//! Eviction: a deletion that asks politely. Without disruption budgets (not served yet) nothing objects.

use meshgate_schema::{Failure, Media};

use super::success;
use crate::http::options::{DeleteOptions, WriteOptions};
use crate::http::query::Query;
use crate::objects::meta;
use crate::server::{Call, Reply};
use crate::write::delete::delete;

/// POST of `pods/NAME/eviction`.
pub(crate) async fn create(call: &Call, body: &[u8], media: Media) -> Result<Reply, Failure> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let eviction = call
        .registry
        .decode_any("policy", "v1", "Eviction", body, media, options.validation)?
        .object;
    let name = meta(&eviction, "name");
    if !name.is_empty() && name != call.path.name {
        return Err(Failure::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let body = eviction
        .get("deleteOptions")
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut deletion = DeleteOptions::parse(
        &Query::default(),
        body.as_bytes(),
        Media::Json,
        &call.registry,
    )?;
    deletion.dry_run |= options.dry_run;
    delete(call, &deletion).await?;
    Ok(Reply::created(success()))
}
