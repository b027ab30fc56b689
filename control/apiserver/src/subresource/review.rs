//! Questions about tokens and rights: created, answered, never stored.

use jiff::Timestamp;
use meshgate_schema::{Failure, Media};

use crate::auth::Review;
use crate::http::options::WriteOptions;
use crate::server::{Call, Reply};

/// POST.
pub(crate) fn create(
    call: &Call,
    review: Review,
    body: &[u8],
    media: Media,
) -> Result<Reply, Failure> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let decoded = call
        .kind
        .decode(&call.registry, body, media, options.validation)?;
    let auth = &call.server.live.auth;
    let object = auth.create_review(
        review,
        &call.user,
        &call.path.namespace,
        decoded.object,
        Timestamp::now(),
    )?;
    Ok(Reply::Object {
        code: 201,
        object,
        warnings: decoded.warnings,
    })
}
