//! Lists, whole and in pages.
//!
//! A page's continue token holds the revision of the first page and the last key shown: later pages show the state
//! of that revision for as long as the store remembers it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use meshgate_schema::Failure;
use meshgate_store::{Entry, Revision};
use serde_json::{Value, json};

use super::selection::Selection;
use crate::http::options::{ListOptions, Version, VersionMatch};
use crate::server::{Call, List};

/// LIST.
pub(crate) fn list(call: &Call) -> Result<List, Failure> {
    let options = ListOptions::parse(&call.query, false)?;
    let selection = Selection::parse(&call.kind, call.namespace(), &call.query)?;
    select(call, &options, &selection)
}

/// The asked-for page of a selection.
pub(crate) fn select(
    call: &Call,
    options: &ListOptions,
    selection: &Selection,
) -> Result<List, Failure> {
    let store = &call.server.store;
    let expired = |at: Revision| {
        Failure::expired(format!(
            "The resourceVersion for the provided list is too old: {at} is compacted"
        ))
    };
    let (revision, mut entries, after) = match (&options.continue_token, exact(options)) {
        (Some(token), _) => {
            let token = Token::parse(token)?;
            let entries = store
                .range_at(&selection.prefix, token.revision)
                .ok_or_else(token_expired)?;
            (token.revision, entries, Some(token.after))
        }
        (None, Some(at)) => {
            not_ahead(at, store.revision())?;
            let entries = store
                .range_at(&selection.prefix, at)
                .ok_or_else(|| expired(at))?;
            (at, entries, None)
        }
        (None, None) => {
            let snapshot = store.range(&selection.prefix);
            if let Version::At(at) = options.version {
                not_ahead(at, snapshot.revision)?;
            }
            (snapshot.revision, snapshot.entries, None)
        }
    };
    if let Some(after) = after {
        entries.retain(|entry| entry.key[selection.prefix.len()..] > *after);
    }
    entries.retain(|entry| selection.matches(&call.kind, entry));
    // Kubernetes serves `resourceVersion=0` from its cache, which knows no pages.
    let limit = options
        .limit
        .filter(|_| options.version != Version::Any || options.continue_token.is_some());
    Ok(page(revision, entries, limit, selection))
}

fn page(
    revision: Revision,
    mut entries: Vec<Arc<Entry>>,
    limit: Option<usize>,
    selection: &Selection,
) -> List {
    let total = entries.len();
    let (mut next, mut remaining) = (String::new(), None);
    if let Some(limit) = limit.filter(|limit| *limit < total) {
        entries.truncate(limit);
        if let Some(last) = entries.last() {
            let after = last.key[selection.prefix.len()..].to_owned();
            next = Token { revision, after }.write();
        }
        // With a selector Kubernetes does not know, so clients must not rely on it.
        remaining = selection.is_everything().then_some(total - limit);
    }
    List {
        revision,
        entries,
        next,
        remaining,
    }
}

/// The revision that a list must show exactly, if any.
fn exact(options: &ListOptions) -> Option<Revision> {
    match (options.version, options.version_match) {
        (Version::At(at), VersionMatch::Exact) => Some(at),
        (Version::At(at), VersionMatch::Unset) if options.limit.is_some() => Some(at),
        _ => None,
    }
}

/// A revision from the future is answered with "later": another server may have written it.
pub(crate) fn not_ahead(at: Revision, current: Revision) -> Result<(), Failure> {
    if at <= current {
        return Ok(());
    }
    let mut failure = Failure::timeout(format!(
        "Too large resource version: {at}, current: {current}"
    ));
    failure.details = Some(json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }));
    Err(failure)
}

fn token_expired() -> Failure {
    Failure::expired(
        "The provided continue parameter is too old to display a consistent list result. \
         You must start a new list without the continue parameter.",
    )
}

/// Where a list goes on.
struct Token {
    revision: Revision,
    /// The last key shown, relative to the list's prefix.
    after: String,
}

impl Token {
    fn write(&self) -> String {
        let token = json!({"v": "meta.k8s.io/v1", "rv": self.revision, "start": self.after});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn parse(text: &str) -> Result<Token, Failure> {
        let bad = || Failure::bad_request("continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        Ok(Token {
            revision: token["rv"].as_u64().ok_or_else(bad)?,
            after: token["start"].as_str().ok_or_else(bad)?.to_owned(),
        })
    }
}
