//! The life of a request: read its path, learn who asks, let it in, ask whether they may, answer, count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use jiff::Timestamp;
use meshgate_schema::{Failure, FieldSelector, Registry};
use rustls_pki_types::CertificateDer;
use tokio::sync::OwnedSemaphorePermit;

use crate::auth::{self, Attributes, User};
use crate::dispatch::{self, Verb, is_long_running};
use crate::documents;
use crate::http::body::Body;
use crate::http::media::{self, Format};
use crate::http::path::{ResourcePath, Target};
use crate::http::query::Query;
use crate::http::{answer, gzip};
use crate::read::{view, watch};
use crate::server::{Call, Reply, Server, attributes, refusal};
use crate::subject::Subject;

/// How long an ordinary request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// The certificates of a connection's client, leaf first; empty if it showed none.
pub(crate) type Peer = Arc<Vec<CertificateDer<'static>>>;

/// Answers one request. Never fails and never panics: what goes wrong is an answer.
pub(crate) async fn handle<B>(
    server: Arc<Server>,
    peer: Peer,
    request: Request<B>,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin + Send,
    B::Error: std::fmt::Display,
{
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let mut subject = Subject::of(&parts.method, parts.uri.path(), parts.uri.query());
    let work = answer_request(&server, &peer, &parts, body, &mut subject);
    // A bug in one request must not take its connection's other requests along.
    let outcome = std::panic::AssertUnwindSafe(work).catch_unwind().await;
    let mut response = match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(failure)) => failed(
            &server,
            &parts.headers,
            subject.query.find("pretty"),
            &failure,
        ),
        Err(_) => {
            tracing::error!(method = %parts.method, path = parts.uri.path(), "a request made the server panic");
            failed(
                &server,
                &parts.headers,
                None,
                &Failure::internal("the request could not be processed"),
            )
        }
    };
    if !subject.long_running {
        response = gzip::compressed(response, &parts.headers).await;
    }
    let headers = response.headers_mut();
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
    headers.insert(AUDIT_ID, audit_id(&parts.headers));
    let bytes = response.body().size_hint().exact();
    tracing::debug!(
        method = %parts.method,
        path = parts.uri.path(),
        code = response.status().as_u16(),
        took_us = started.elapsed().as_micros(),
        "request"
    );
    server.metrics.answered(
        subject.labels(response.status().as_u16()),
        started.elapsed(),
        bytes,
    );
    response
}

async fn answer_request<B>(
    server: &Arc<Server>,
    peer: &Peer,
    parts: &http::request::Parts,
    body: B,
    subject: &mut Subject,
) -> Result<Response<Body>, Failure>
where
    B: http_body::Body<Data = Bytes> + Unpin + Send,
    B::Error: std::fmt::Display,
{
    let target = subject.target.clone()?;
    let user = authenticate(server, peer, parts)?;
    match target {
        Target::Document(path) => {
            let verb = parts.method.as_str().to_lowercase();
            let attributes = Attributes::NonResource {
                verb: &verb,
                path: &path,
            };
            let allowed = server.live.auth.authorize(&user, &attributes);
            allowed.map_err(|denied| refusal(&denied, None))?;
            Ok(documents::answer(
                server,
                &parts.method,
                &path,
                &parts.headers,
                &subject.query,
            ))
        }
        Target::Resource(path) => {
            let verb = subject.verb.ok_or_else(Failure::method_not_allowed)?;
            let _place = place(server, verb, subject.long_running)?;
            authorize(server, &user, &path, &subject.query, verb)?;
            let registry = server.live.registry();
            if documents::is_nowhere(&registry, &path.group, &path.version) {
                return Ok(answer::no_such_page());
            }
            let call = call(
                server,
                registry,
                user,
                path,
                subject.query.clone(),
                verb,
                &parts.headers,
            )?;
            subject.known = true;
            let call = Arc::new(call);
            let work = dispatch::answer(Arc::clone(&call), verb, &parts.headers, body);
            let reply = if subject.long_running {
                work.await?
            } else {
                let late = || {
                    Failure::timeout(
                        "Timeout: request did not complete within the allotted timeout",
                    )
                };
                tokio::time::timeout(REQUEST_TIMEOUT, work)
                    .await
                    .map_err(|_| late())??
            };
            rendered(&call, reply)
        }
    }
}

fn authenticate(
    server: &Server,
    peer: &Peer,
    parts: &http::request::Parts,
) -> Result<User, Failure> {
    let request = auth::Request {
        path: parts.uri.path(),
        headers: &parts.headers,
        peer: (!peer.is_empty()).then_some(peer.as_slice()),
    };
    let user = server.live.auth.authenticate(&request, Timestamp::now());
    user.map_err(|denied| refusal(&denied, None))
}

fn place(
    server: &Server,
    verb: Verb,
    long_running: bool,
) -> Result<Option<OwnedSemaphorePermit>, Failure> {
    if long_running {
        Ok(None)
    } else {
        server.gate.enter(verb.writes()).map(Some)
    }
}

fn authorize(
    server: &Server,
    user: &User,
    path: &ResourcePath,
    query: &Query,
    verb: Verb,
) -> Result<(), Failure> {
    // Who selects one object by its name asks for no more than that object.
    let by_name = match query.find("fieldSelector") {
        Some(selector) if path.name.is_empty() => FieldSelector::parse(selector)
            .ok()
            .and_then(|selector| selector.exact("metadata.name").map(str::to_owned)),
        _ => None,
    };
    let narrowed = by_name.map(|name| ResourcePath {
        name,
        ..path.clone()
    });
    let path = narrowed.as_ref().unwrap_or(path);
    let allowed = server
        .live
        .auth
        .authorize(user, &attributes(path, verb.word()));
    allowed.map_err(|denied| refusal(&denied, Some(path)))
}

/// The call's context, if its kind is served where the path says.
fn call(
    server: &Arc<Server>,
    registry: Arc<Registry>,
    user: User,
    path: ResourcePath,
    query: Query,
    verb: Verb,
    headers: &HeaderMap,
) -> Result<Call, Failure> {
    let kind = registry
        .resource(&path.group, &path.version, &path.resource)
        .cloned();
    let kind = kind
        .filter(|_| !path.too_deep)
        .ok_or_else(Failure::no_such_resource)?;
    let names_itself =
        path.resource == "namespaces" && path.group.is_empty() && path.namespace == path.name;
    let misplaced = if kind.namespaced() {
        // Objects are found in their namespace only.
        !path.name.is_empty() && path.namespace.is_empty()
    } else {
        !path.namespace.is_empty() && !names_itself
    };
    let unknown_part =
        !path.subresource.is_empty() && kind.subresource(&path.subresource).is_none();
    if misplaced || unknown_part {
        return Err(Failure::no_such_resource());
    }
    let streams = is_long_running(verb, &path.subresource);
    let format =
        match media::negotiate(headers, query.find("pretty"), !kind.is_custom() && !streams) {
            Ok(format) if verb == Verb::Watch => watch::format(format),
            Ok(format) => format,
            // A log is plain text, whatever the client says it takes.
            Err(_) if streams && verb == Verb::Get => Format::JSON,
            Err(failure) => return Err(failure),
        };
    Ok(Call {
        server: Arc::clone(server),
        registry,
        kind,
        user,
        path,
        query,
        format,
    })
}

fn rendered(call: &Call, reply: Reply) -> Result<Response<Body>, Failure> {
    match reply {
        Reply::Stored(entry) => view::stored(call, &entry),
        Reply::Object {
            code,
            object,
            warnings,
        } => {
            let mut response = view::object(call, code, &object)?;
            answer::warn(&mut response, &warnings);
            Ok(response)
        }
        Reply::List(list) => view::list(call, &list),
        Reply::Response(response) => Ok(response),
    }
}

fn failed(
    server: &Server,
    headers: &HeaderMap,
    pretty: Option<&str>,
    failure: &Failure,
) -> Response<Body> {
    let format = media::negotiate(headers, pretty, true).unwrap_or(Format::JSON);
    answer::failure(format, &server.live.registry(), failure)
}

fn audit_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(&AUDIT_ID).filter(|id| id.len() <= 64).cloned();
    given.unwrap_or_else(|| {
        HeaderValue::try_from(uuid::Uuid::new_v4().to_string()).expect("a UUID is plain ASCII")
    })
}
