//! What the API server's answers to a write mean, in the words control loops ask with.

use kube::Error;
use kube::core::ObjectMeta;

/// The object does not exist (any more).
pub fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 404)
}

/// Someone else wrote first: read again and decide again.
pub fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 409 && status.reason != "AlreadyExists")
}

/// An object of that name exists.
pub fn is_already_exists(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
}

/// The namespace is being deleted: nothing can be created in it, and nothing needs to be.
pub fn is_namespace_terminating(error: &Error) -> bool {
    let Error::Api(status) = error else {
        return false;
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403
        && causes
            .into_iter()
            .any(|cause| cause.reason == "NamespaceTerminating")
}

/// The object's resource version as a number; 0 where there is none.
pub fn resource_version(meta: &ObjectMeta) -> u64 {
    meta.resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

/// What the API server said, or why it could not be asked; for people.
pub fn message(error: &Error) -> String {
    match error {
        // Its own words; the library would print the whole Status behind them.
        Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
