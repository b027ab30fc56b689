//! Reading: one object, a list, a watch.

pub(crate) mod list;
pub(crate) mod selection;
pub(crate) mod view;
pub(crate) mod watch;

use meshgate_schema::Failure;

use crate::server::{Call, Reply};

/// GET of one object.
pub(crate) fn get(call: &Call) -> Result<Reply, Failure> {
    let entry = call
        .server
        .store
        .find(&call.key(&call.path.name))
        .ok_or_else(|| call.not_found())?;
    Ok(Reply::Stored(entry))
}
