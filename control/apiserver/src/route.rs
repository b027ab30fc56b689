//! The life of a request: read its path, learn who asks, let it in, ask whether they may, answer, count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, VARY,
};
use http::{HeaderMap, Method, Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use meshgate_schema::{Failure, FieldSelector, Registry};
use rustls_pki_types::CertificateDer;
use tokio::sync::OwnedSemaphorePermit;

use crate::auth::{self, Attributes, User};
use crate::dispatch::{self, Verb, is_long_running};
use crate::documents;
use crate::http::answer;
use crate::http::body::{Body, whole};
use crate::http::media::{self, Format};
use crate::http::path::{self, ResourcePath, Target};
use crate::http::query::Query;
use crate::metrics::RequestLabels;
use crate::read::{view, watch};
use crate::server::{Call, Reply, Server, attributes, refusal};

/// How long an ordinary request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Answers from this size on are compressed for who takes it, as in Kubernetes: below, it costs more than it saves.
const GZIP_BYTES_MIN: usize = 128 * 1024;
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
        response = compressed(response, &parts.headers).await;
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

/// What a request is about, as far as its head says; for routing and for counting.
struct Subject {
    target: Result<Target, Failure>,
    query: Query,
    verb: Option<Verb>,
    method: Method,
    long_running: bool,
    /// Whether its kind is served; requests for others are counted without names, or anyone could make series.
    known: bool,
}

impl Subject {
    fn of(method: &Method, path: &str, query: Option<&str>) -> Subject {
        let query = Query::parse(query);
        let target = path::parse(path);
        let verb = match &target {
            Ok(Target::Resource(path)) => verb(method, path, &query),
            _ => None,
        };
        let long_running = match (&target, verb) {
            (Ok(Target::Resource(path)), Some(verb)) => is_long_running(verb, &path.subresource),
            _ => false,
        };
        Subject {
            target,
            query,
            verb,
            method: method.clone(),
            long_running,
            known: false,
        }
    }

    fn labels(&self, code: u16) -> RequestLabels {
        let path = match &self.target {
            Ok(Target::Resource(path)) if self.known => path.clone(),
            _ => ResourcePath::default(),
        };
        let scope = match (&path, self.known) {
            (_, false) => "",
            (path, _) if !path.name.is_empty() => "resource",
            (path, _) if !path.namespace.is_empty() => "namespace",
            _ => "cluster",
        };
        RequestLabels {
            verb: self.verb_label(),
            dry_run: if self.query.find("dryRun").is_some() {
                "All"
            } else {
                ""
            },
            group: path.group,
            version: path.version,
            resource: path.resource,
            subresource: path.subresource,
            scope,
            component: "apiserver",
            code,
        }
    }

    fn verb_label(&self) -> &'static str {
        match self.verb {
            Some(Verb::List) => "LIST",
            Some(Verb::Watch) => "WATCH",
            Some(Verb::DeleteCollection) => "DELETECOLLECTION",
            _ => match self.method {
                Method::GET => "GET",
                Method::POST => "POST",
                Method::PUT => "PUT",
                Method::PATCH => "PATCH",
                Method::DELETE => "DELETE",
                _ => "other",
            },
        }
    }
}

fn verb(method: &Method, path: &ResourcePath, query: &Query) -> Option<Verb> {
    Some(match *method {
        Method::GET if path.watch => Verb::Watch,
        Method::GET if !path.name.is_empty() => Verb::Get,
        Method::GET if query.is_set("watch") => Verb::Watch,
        Method::GET => Verb::List,
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE if path.name.is_empty() => Verb::DeleteCollection,
        Method::DELETE => Verb::Delete,
        _ => return None,
    })
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

/// Compresses a large whole answer for a client that takes gzip.
async fn compressed(response: Response<Body>, headers: &HeaderMap) -> Response<Body> {
    let takes_gzip = headers.get_all(ACCEPT_ENCODING).iter().any(|value| {
        let codings = value.to_str().unwrap_or_default().split(',');
        codings.map(str::trim).any(|coding| {
            coding == "gzip" || (coding.starts_with("gzip;") && !coding.ends_with("q=0"))
        })
    });
    let large = response
        .body()
        .size_hint()
        .exact()
        .is_some_and(|bytes| bytes >= GZIP_BYTES_MIN as u64);
    if !takes_gzip || !large || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    match gzip(&body) {
        Ok(packed) => {
            parts
                .headers
                .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts
                .headers
                .insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            debug_assert!(parts.headers.contains_key(CONTENT_TYPE));
            Response::from_parts(parts, whole(packed))
        }
        Err(error) => {
            tracing::warn!(%error, "an answer could not be compressed");
            Response::from_parts(parts, whole(body))
        }
    }
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(
        Vec::with_capacity(body.len() / 4),
        flate2::Compression::fast(),
    );
    encoder.write_all(body)?;
    encoder.finish()
}
