//! `serviceaccounts/NAME/token`: a token for a service account.

use jiff::Timestamp;
use meshgate_schema::{Failure, Media};

use crate::http::options::WriteOptions;
use crate::server::{Call, Reply};

/// POST.
pub(crate) fn create(call: &Call, body: &[u8], media: Media) -> Result<Reply, Failure> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    if call.server.store.find(&call.key(&call.path.name)).is_none() {
        return Err(call.not_found());
    }
    let request = call
        .registry
        .decode_any(
            "authentication.k8s.io",
            "v1",
            "TokenRequest",
            body,
            media,
            options.validation,
        )?
        .object;
    let answer = call.server.live.auth.create_token(
        &call.user,
        &call.path.namespace,
        &call.path.name,
        request,
        Timestamp::now(),
    )?;
    Ok(Reply::created(answer))
}
