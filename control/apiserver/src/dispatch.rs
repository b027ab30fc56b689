//! From an authorized request for objects to the operation that answers it.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use meshgate_schema::Failure;

use crate::auth::Review;
use crate::http::media::{self, content_type};
use crate::http::options::DeleteOptions;
use crate::read;
use crate::read::watch;
use crate::server::{Call, Reply};
use crate::subresource::{binding, eviction, finalize, log, review, scale, token};
use crate::write::change::{self, Part};
use crate::write::{collection, create, delete};

/// The verbs of Kubernetes' authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }

    pub(crate) fn writes(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }

    fn has_body(self) -> bool {
        self.writes()
    }
}

/// Whether an answer may take as long as it likes.
pub(crate) fn is_long_running(verb: Verb, subresource: &str) -> bool {
    verb == Verb::Watch || (verb == Verb::Get && subresource == "log")
}

/// Answers the call; the body is read only by who needs it, after authorization.
pub(crate) async fn answer<B>(
    call: Arc<Call>,
    verb: Verb,
    headers: &HeaderMap,
    body: B,
) -> Result<Reply, Failure>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    check_verb(&call, verb)?;
    // A wrong media type is refused before its body is read.
    let patching = verb == Verb::Patch;
    if verb.has_body() && !patching {
        media::body_media(headers)?;
    }
    let body = if verb.has_body() {
        crate::http::body::read(body).await?
    } else {
        Bytes::new()
    };
    if call.path.subresource.is_empty() {
        main(call, verb, headers, &body).await
    } else {
        subresource(&call, verb, headers, &body).await
    }
}

fn check_verb(call: &Call, verb: Verb) -> Result<(), Failure> {
    let verbs = if call.path.subresource.is_empty() {
        call.kind.verbs()
    } else {
        let subresource = call.kind.subresource(&call.path.subresource);
        subresource.ok_or_else(Failure::no_such_resource)?.verbs
    };
    let named = !call.path.name.is_empty();
    let fits = match verb {
        Verb::Get | Verb::Update | Verb::Patch | Verb::Delete => named,
        // New objects are posted to their collection, in a namespace if they have one; subresources to their object.
        Verb::Create => {
            named != call.path.subresource.is_empty()
                && (!call.kind.namespaced() || !call.path.namespace.is_empty())
        }
        Verb::List | Verb::DeleteCollection => !named,
        Verb::Watch => true,
    };
    if fits && verbs.contains(&verb.word()) {
        Ok(())
    } else {
        Err(Failure::method_not_allowed())
    }
}

async fn main(
    call: Arc<Call>,
    verb: Verb,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Reply, Failure> {
    match verb {
        Verb::Get => read::get(&call),
        Verb::List => Ok(Reply::List(read::list::list(&call)?)),
        Verb::Watch => watch::watch(call),
        Verb::Create => {
            let media = media::body_media(headers)?;
            match Review::of(call.kind.group(), call.kind.plural()) {
                Some(kind) => review::create(&call, kind, body, media),
                None if call.kind.kind() == "Binding" => {
                    binding::create_unnamed(&call, body, media).await
                }
                None if call.kind.is_virtual() => Err(Failure::method_not_allowed()),
                None => create::create(&call, body, media).await,
            }
        }
        Verb::Update => change::update(&call, body, media::body_media(headers)?, Part::Main).await,
        Verb::Patch => change::patch(&call, body, content_type(headers), Part::Main).await,
        Verb::Delete => delete::delete(&call, &delete_options(&call, headers, body)?).await,
        Verb::DeleteCollection => {
            collection::delete(&call, &delete_options(&call, headers, body)?).await
        }
    }
}

fn delete_options(call: &Call, headers: &HeaderMap, body: &[u8]) -> Result<DeleteOptions, Failure> {
    DeleteOptions::parse(
        &call.query,
        body,
        media::body_media(headers)?,
        &call.registry,
    )
}

async fn subresource(
    call: &Call,
    verb: Verb,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Reply, Failure> {
    match (call.path.subresource.as_str(), verb) {
        ("status", Verb::Get) => read::get(call),
        ("status", Verb::Update) => {
            change::update(call, body, media::body_media(headers)?, Part::Status).await
        }
        ("status", Verb::Patch) => {
            change::patch(call, body, content_type(headers), Part::Status).await
        }
        ("scale", Verb::Get) => scale::get(call),
        ("scale", Verb::Update) => scale::update(call, body, media::body_media(headers)?).await,
        ("scale", Verb::Patch) => scale::patch(call, body, content_type(headers)).await,
        ("binding", Verb::Create) => binding::create(call, body, media::body_media(headers)?).await,
        ("eviction", Verb::Create) => {
            eviction::create(call, body, media::body_media(headers)?).await
        }
        ("token", Verb::Create) => token::create(call, body, media::body_media(headers)?),
        ("finalize", Verb::Update) => {
            finalize::update(call, body, media::body_media(headers)?).await
        }
        ("log", Verb::Get) => log::get(call).await,
        _ => Err(Failure::method_not_allowed()),
    }
}
